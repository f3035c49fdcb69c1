"""Calling: which parameter of a forward the photos go to."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unitscope.errors import InputError, ModelError
from unitscope.inputs.further import Further
from unitscope.tracing.calling import Calling, photo_name

X = torch.ones(2, 3, 4, 4)


def network(signature: Callable[..., Any]) -> nn.Module:
    """A module that returns its arguments by name, under the signature of a function."""
    described = inspect.signature(signature)

    def forward(_self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return described.bind(*args, **kwargs).arguments

    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [me, *described.parameters.values()]
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters
    )
    made: nn.Module = type("Made", (nn.Module,), {"forward": forward})()
    return made


@pytest.mark.parametrize(
    ("signature", "given", "name"),
    [
        (lambda x: x, (), None),
        (lambda x=None, mask=None: x, (), None),
        (lambda *inputs: inputs, (), None),
        (lambda x, /: x, (), None),
        (lambda x, /, meta: x, ("meta",), None),
        (lambda x, meta: x, ("meta",), None),
        (lambda meta, x: x, ("meta",), "x"),
        (lambda *, pixel_values: pixel_values, (), "pixel_values"),
        (lambda mask=None, *, image: image, (), "image"),
        (lambda ids=None, pixels=None: ids, ("ids",), "pixels"),
        (lambda x, **rest: x, ("anything",), None),
    ],
)
def test_the_photos_go_to_the_one_parameter_that_is_left(
    signature: Callable[..., Any], given: tuple[str, ...], name: str | None
) -> None:
    module = network(signature)
    assert photo_name(module, given) == name
    fixed = Further.fixed({each: torch.zeros(1, 5) for each in given})
    calling = Calling.of(module, fixed, Further())
    with calling.installed(module):
        arguments = module(X)
    for each in given:
        holder = arguments.get("rest", arguments)
        assert holder[each].shape == (2, 5)
    rest = [value for key, value in arguments.items() if key not in given]
    photos = rest[0][0] if isinstance(rest[0], tuple) else rest[0]
    assert photos is X
    assert not module._forward_pre_hooks


@pytest.mark.parametrize(
    ("signature", "given", "error", "message"),
    [
        (
            lambda x, meta, *, age: x,
            (),
            ModelError,
            "the network's forward also needs 'meta' and 'age': give what is the same "
            "for all photos to wrap(module, also={'meta': …, 'age': …})",
        ),
        (
            lambda x, meta: x,
            ("mta",),
            InputError,
            "the network's forward takes no 'mta' (did you mean 'meta'?): it takes "
            "x, meta",
        ),
        (
            lambda x, meta: x,
            ("x", "meta"),
            InputError,
            "also names every parameter of the network's forward (x, meta)",
        ),
    ],
)
def test_calls_that_cannot_be_made_are_refused(
    signature: Callable[..., Any],
    given: tuple[str, ...],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error) as refusal:
        photo_name(network(signature), given)
    assert message in str(refusal.value)


def test_another_thread_calls_the_module_as_it_is() -> None:
    module = network(lambda x, scale=1.0: x)
    calling = Calling.of(module, Further.fixed({"scale": 2.0}), Further())
    seen: list[Any] = []
    with calling.installed(module):
        thread = threading.Thread(target=lambda: seen.append(module(X)))
        thread.start()
        thread.join()
        assert module(X)["scale"] == 2.0
        assert module(X, 3.0)["scale"] == 3.0  # a whole call stays as it is
    assert "scale" not in seen[0]


def test_pixels_are_given_as_uint8_and_nothing_else_is() -> None:
    module = network(lambda x: x)
    with Calling(pixels=True).installed(module):
        given: Tensor = module(X * 200)["x"]
        assert given.dtype is torch.uint8 and bool((given == 200).all())
        with pytest.raises(InputError, match="takes uint8 pixels"):
            module(X / 2)
