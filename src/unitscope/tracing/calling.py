"""Calling: how a network's forward is called with a batch of photos."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from unitscope.errors import InputError, ModelError, near_matches
from unitscope.inputs.further import Further
from unitscope.interrupts import undone
from unitscope.tracing.taps import uncounted

_NAMED = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


@dataclass(frozen=True, eq=False)
class Calling:
    """Which argument of a forward the photos are, and what is given with them.

    `photo` is the name by which the photos are given; None where they are the first
    argument. `fixed` are inputs that are the same for all photos, `further` those of the
    photos of a batch. With `pixels` the network is given uint8 numbers instead of
    floating-point ones of the same value.
    """

    photo: str | None = None
    fixed: Further = field(default_factory=Further)
    further: Further = field(default_factory=Further)
    pixels: bool = False

    @classmethod
    def of(
        cls,
        module: nn.Module,
        fixed: Further,
        further: Further,
        pixels: bool = False,
    ) -> Calling:
        """How a module is called with these inputs, by the signature of its forward.

        The photos go to the one required parameter that nothing else is given for; to the
        first parameter where none is required. Raises ModelError where several are
        required, InputError for an input that the forward does not take.
        """
        given = {**fixed.values, **further.values}
        return cls(photo_name(module, given), fixed, further, pixels)

    @property
    def is_plain(self) -> bool:
        """Whether the network is called with the photos alone, as they are."""
        return not (self.photo or self.fixed or self.further or self.pixels)

    def rows(self, photos: Sequence[int]) -> Calling:
        """The calling for some of the photos."""
        return replace(self, further=self.further.rows(photos))

    def joined(self, rest: Sequence[Calling]) -> Calling:
        """The calling for these photos and, behind them, those of others."""
        others = [each.further for each in rest]
        return replace(self, further=self.further.joined(others))

    def detach(self) -> Calling:
        """The same without gradients."""
        return replace(self, further=self.further.detach())

    @contextlib.contextmanager
    def installed(self, module: nn.Module) -> Iterator[None]:
        """Inside, a call of the module with the photos alone gets everything else."""
        if self.is_plain:
            yield
            return
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                "TorchScript can be called with the photos alone: wrap the Python module "
                "that it was made from"
            )
        with undone(lambda: self._install(module)):
            yield

    def _install(self, module: nn.Module) -> Callable[[], object]:
        handle = module.register_forward_pre_hook(
            Completion(self), prepend=True, with_kwargs=True
        )
        return handle.remove


class Completion:
    """A hook that completes the calls of one thread; other threads have their own."""

    def __init__(self, calling: Calling) -> None:
        self._calling = calling
        self._thread = threading.get_ident()

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments of the whole call; None for a call that is complete."""
        is_alone = len(args) == 1 and not kwargs
        if not is_alone or threading.get_ident() != self._thread:
            return None

        calling, (x,) = self._calling, args
        size = x.shape[0]
        with uncounted():
            others = {
                **calling.fixed.for_batch(size),
                **calling.further.for_batch(size),
            }
        if calling.pixels and x.dtype is not torch.uint8:
            x = _as_pixels(x)
        if calling.photo is None:
            return (x,), others
        return (), {calling.photo: x, **others}


def _as_pixels(x: Tensor) -> Tensor:
    """Whole numbers from 0 to 255 as uint8; raises InputError for others."""
    if not x.is_meta:
        with uncounted():
            are_pixels = holds_pixels(x)
        if not are_pixels:
            raise InputError(
                "the network takes uint8 pixels, and the input is not whole numbers from 0 "
                "to 255: give a uint8 tensor, or a preprocessing that does not scale, such "
                "as 'scale=255,mean=0/0/0,std=1/1/1'"
            )
    return x.to(torch.uint8)


def holds_pixels(x: Tensor) -> bool:
    """Whether all numbers are whole, from 0 to 255."""
    return bool(((x >= 0) & (x <= 255) & (x == x.round())).all())


def parameters_of(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """The parameters of a module's forward by name; none where Python cannot tell."""
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}


def photo_name(module: nn.Module, given: Collection[str]) -> str | None:
    """The name by which a forward takes the photos; None where they come first.

    `given` are the names of the other inputs. Raises as `Calling.of` does.
    """
    parameters = parameters_of(module)
    _check_taken(parameters, given)

    named = [each for each in parameters.values() if each.kind in _NAMED]
    open_ = [each for each in named if each.name not in given]
    required = [each for each in open_ if each.default is each.empty]
    first = next(iter(parameters.values()), None)
    if first is None or (first.kind not in _NAMED and not required):
        return None  # (*inputs), (x, /), or nothing that Python knows

    if first.kind not in _NAMED or len(required) > 1:
        raise ModelError(_missing(required, first))
    chosen = next(iter(required or open_), None)
    if chosen is None:
        raise InputError(
            "also names every parameter of the network's forward "
            f"({', '.join(parameters)}): leave out the one that the photos go to"
        )
    is_first = chosen is first and first.kind is not first.KEYWORD_ONLY
    return None if is_first else chosen.name


def _check_taken(
    parameters: Mapping[str, inspect.Parameter], given: Collection[str]
) -> None:
    kinds = {each.kind for each in parameters.values()}
    if not parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        return
    names = [each.name for each in parameters.values() if each.kind in _NAMED]
    for name in given:
        if name not in names:
            raise InputError(
                f"the network's forward takes no '{name}'"
                f"{near_matches(name, names)}: it takes {', '.join(names)}"
            )


def _missing(
    required: Sequence[inspect.Parameter], first: inspect.Parameter
) -> str:
    """The error for a forward that needs more than the photos."""
    names = [each.name for each in required]
    others = [name for name in names if name != first.name]
    if len(others) == len(names) and first.kind in _NAMED:
        others = names[1:]
    listed = " and ".join(map(repr, others))
    written = ", ".join(f"'{name}': …" for name in others)
    return (
        f"the network's forward also needs {listed}: give what is the same for all "
        f"photos to wrap(module, also={{{written}}}), or what differs to "
        f"explain(x, also={{{written}}}); the photos go to the parameter that is left"
    )
