"""Further: what a network is given beside the photos, as metadata or a second picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Further:
    """Further inputs of a forward pass, by the names of the forward's parameters.

    A tensor whose first axis is `photos` long has one row for every photo. So have
    tensors in lists, tuples and dicts. Everything else is the same for all photos.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    photos: int = 1

    def __bool__(self) -> bool:
        return bool(self.values)

    @classmethod
    def fixed(cls, also: Mapping[str, Any]) -> Further:
        """Inputs that are the same for all photos.

        A tensor whose first axis is 1 is repeated for every photo of a batch.
        """
        return cls(_as_tensors(_checked(also)))

    @classmethod
    def of_photos(cls, also: Mapping[str, Any], photos: int) -> Further:
        """Inputs for so many photos: tensors with one row a photo, or one for all.

        They are linked to the tensors' gradients where gradients are recorded.
        Raises InputError for a tensor of another length.
        """
        values = _as_tensors(_checked(also), linked=torch.is_grad_enabled())
        for name, value in values.items():
            values[name] = mapped(
                lambda tensor, name=name: _one_row_a_photo(
                    tensor, name, photos
                ),
                value,
            )
        return cls(values, photos)

    def rows(self, photos: Sequence[int]) -> Further:
        """The inputs of some of the photos, in this order."""

        def chosen(tensor: Tensor) -> Tensor:
            if not self._has_rows(tensor):
                return tensor
            return tensor[list(photos)]

        return Further(mapped(chosen, dict(self.values)), len(photos))

    @classmethod
    def of_each(cls, photos: Sequence[Further]) -> Further:
        """The inputs of several photos, or groups of them, in this order."""
        first, *rest = photos
        return first.joined(rest)

    def joined(self, rest: Sequence[Further]) -> Further:
        """The inputs of these photos and, behind them, those of others."""

        def together(tensor: Tensor, *others: Tensor) -> Tensor:
            if not self._has_rows(tensor):
                return tensor
            return torch.cat([tensor, *others])

        values = [dict(each.values) for each in rest]
        photos = self.photos + sum(each.photos for each in rest)
        return Further(mapped(together, dict(self.values), *values), photos)

    def like(self, example: Tensor) -> Further:
        """The same on the device of `example`; floating-point numbers in its dtype."""

        def moved(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                return tensor.to(example.device, example.dtype)
            return tensor.to(example.device)

        return Further(mapped(moved, dict(self.values)), self.photos)

    def detach(self) -> Further:
        """The same without gradients."""
        return replace(self, values=mapped(Tensor.detach, dict(self.values)))

    def for_batch(self, size: int) -> dict[str, Any]:
        """The inputs for a batch.

        A batch of another size, as of probes, gets the rows of these photos in turn.
        """

        def fitted(tensor: Tensor) -> Tensor:
            if not self._has_rows(tensor):
                return tensor
            # Without a look at the size, which is a symbol in an exported graph.
            if self.photos == 1:
                return tensor.expand(size, *tensor.shape[1:])
            if size == self.photos:
                return tensor
            return tensor[[row % self.photos for row in range(size)]]

        values: dict[str, Any] = mapped(fitted, dict(self.values))
        return values

    @property
    def kind(self) -> tuple[tuple[str, str], ...]:
        """Names, shapes and types, and the values of what is no tensor: hashable."""

        def described(tensor: Tensor) -> Tensor:
            rows = self._has_rows(tensor)
            shape = tensor.shape[1:] if rows else tensor.shape
            return torch.empty(shape, dtype=tensor.dtype, device="meta")

        values = mapped(described, dict(self.values))
        return tuple((name, repr(value)) for name, value in values.items())

    def _has_rows(self, tensor: Tensor) -> bool:
        return tensor.ndim > 0 and len(tensor) == self.photos


def mapped(function: Callable[..., Tensor], value: Any, *others: Any) -> Any:
    """Apply a function to the tensors in a value, and in its lists, tuples and dicts.

    `others` are built like the value; the function is given their tensors too.
    """
    if isinstance(value, Tensor):
        return function(value, *others)
    if type(value) in (list, tuple):
        items = zip(value, *others, strict=True)
        return type(value)(mapped(function, *item) for item in items)
    if type(value) is dict:
        return {
            key: mapped(function, item, *(other[key] for other in others))
            for key, item in value.items()
        }
    return value


def _checked(also: Any) -> dict[str, Any]:
    is_named = isinstance(also, Mapping) and all(
        isinstance(name, str) for name in also
    )
    if not is_named:
        what = type(also).__name__
        if isinstance(also, Mapping):
            what += " whose keys are not all names"
        raise InputError(
            "also holds further inputs by the names of the forward's parameters, as "
            f"in also={{'meta': …}}; it is a {what}"
        )
    return dict(also)


def _as_tensors(value: Any, linked: bool = False) -> Any:
    """The same with copies of tensors, and tensors for NumPy's arrays of numbers.

    What is `linked` carries its gradients.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.tensor(value)
    if isinstance(value, Tensor):
        # The user may write over it.
        return value.clone() if linked else value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(_as_tensors(item, linked) for item in value)
    if type(value) is dict:
        return {key: _as_tensors(item, linked) for key, item in value.items()}
    return value


def _one_row_a_photo(tensor: Tensor, name: str, photos: int) -> Tensor:
    if tensor.ndim == 0 or len(tensor) == photos:
        return tensor
    if len(tensor) == 1:
        return tensor.expand(photos, *tensor.shape[1:])
    shape = tuple(tensor.shape)
    raise InputError(
        f"also['{name}'] has the shape {shape}, with {len(tensor)} rows for {photos} "
        f"photo{'s' * (photos != 1)}: give one row a photo; give what is the same for "
        f"all photos to wrap(module, also={{'{name}': …}})"
    )
