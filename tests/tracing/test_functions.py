"""Functions: every name is one of torch's, and no function does two things."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from unitscope.tracing import functions

HOMES = (
    torch,
    torch.Tensor,
    torch.nn.functional,
    torch._C._nn,
    torch.ops.aten,
)

SETS = {
    name: value
    for name, value in vars(functions).items()
    if isinstance(value, frozenset)
}

# Say what a function does to numbers, so that no function can be in two of them.
DISJOINT = (
    "METADATA_QUERIES",
    "CONSTRUCTORS",
    "CASTS",
    "COPIES",
    "DROPOUTS",
    "RESHAPES",
    "AXIS_REORDERINGS",
    "SELECTIONS",
    "DIVIDERS",
    "CONCATENATIONS",
    "REPETITIONS",
    "FLIPS",
    "CHOICES_ALONG_AXIS",
    "ADDITIONS",
    "SUBTRACTIONS",
    "ELEMENTWISE_PRODUCTS",
    "QUOTIENTS",
    "REVERSED_QUOTIENTS",
    "ELEMENTWISE_FUNCTIONS",
    "ELEMENTWISE_CHOICES",
    "ACTIVATIONS",
    "REDUCTIONS",
    "SOFTMAXES",
    "NORMALISATIONS",
    "RECURRENCES",
    "MATRIX_PRODUCTS",
    "LINEAR_LAYERS",
    "ATTENTIONS",
    "CELL_MIXERS",
    "WINDOWS",
    "RESAMPLERS",
    "OTHER_POOLS",
)


@pytest.mark.parametrize("name", SETS)
def test_every_name_is_a_function_of_torch(name: str) -> None:
    unknown = [
        function
        for function in sorted(SETS[name])
        if not any(hasattr(home, function) for home in HOMES)
    ]
    assert not unknown


def test_a_function_does_one_thing() -> None:
    shared = {
        (one, other): SETS[one] & SETS[other]
        for one, other in combinations(DISJOINT, 2)
        if SETS[one] & SETS[other]
    }
    assert not shared


def test_the_sign_of_every_sum_is_known() -> None:
    signs = functions.SUM_SIGNS
    assert set(signs) == functions.ADDITIONS | functions.SUBTRACTIONS
    assert {name for name in signs if signs[name] < 0} == functions.SUBTRACTIONS
