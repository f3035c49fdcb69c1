"""The checks of annotations, on which every other test relies, do check."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float, TypeCheckError
from torch import Tensor

import runtime_types
from unitscope.geometry import Axis

check = functools.partial(
    runtime_types.jaxtyped, typechecker=runtime_types.checked
)


@check
def both(
    left: Float[Tensor, "row col"], right: Float[Tensor, "row unit"]
) -> Float[Tensor, "col unit"]:
    return left.T @ right


@check
def doubled(numbers: list[float], *more: int, by: str = "two") -> float:
    return 2.0 * numbers[0] if by == "two" else by  # type: ignore[return-value]


@check
def flags(count: int) -> Bool[np.ndarray, " {count}"]:
    return np.ones(3, bool)


@check
@dataclass
class Pair:
    left: Float[Tensor, " unit"]
    right: Float[Tensor, " unit"]


def made(offset: int) -> Callable[[int], int]:
    """A new function at each call, of one `def`."""

    @check
    def added(number: int) -> int:
        return number + offset

    return added  # type: ignore[no-any-return]


@check
def generated(until: int) -> Iterator[int]:
    yield from range(until)


def test_what_fits_is_let_through() -> None:
    assert both(torch.ones(2, 3), torch.ones(2, 4)).shape == (3, 4)
    assert doubled([1], 2, 3) == 2.0  # an int may be a float
    assert flags(3).all()
    assert Pair(torch.ones(2), torch.ones(2)).left.shape == (2,)
    assert [made(offset)(1) for offset in range(3)] == [1, 2, 3]
    assert list(generated(3)) == [0, 1, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda: both(torch.ones(2, 3), torch.ones(3, 4)),  # rows of two numbers
        lambda: both(torch.ones(2, 3).int(), torch.ones(2, 4)),
        lambda: doubled(["one"]),
        lambda: doubled([1.0], "more"),
        lambda: doubled([1.0], by=2),
        lambda: doubled([1.0], by="a result that is no number"),
        lambda: flags(4),
        lambda: Pair(torch.ones(2), torch.ones(3)),
        lambda: made(2)("3"),  # type: ignore[arg-type]
        lambda: generated("3"),
        lambda: Axis("7", 1.0),  # type: ignore[arg-type]
        lambda: Axis(0.5, 1.0).covering(3, np.zeros((2, 2))),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        call()


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_checked_where_a_test_says_so() -> None:
    assert Axis("7", 1.0).start == "7"  # type: ignore[arg-type, comparison-overlap]
