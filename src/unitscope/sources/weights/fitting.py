"""Fitting: load every weight of a file into a network, or say what differs."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitscope.errors import (
    NonFiniteError,
    WeightsError,
    one_line,
    warn_user,
)
from unitscope.sources.weights.file import Weights
from unitscope.sources.weights.names import (
    AVERAGED,
    COUNTS,
    match_names,
    other_sets,
    shown,
)
from unitscope.sources.weights.reparametrised import plain_weights

# Names of what training adds to the network: its loss, and that loss's weights.
_LOSS = re.compile(r"loss|criterion|metric|accuracy", re.IGNORECASE)

# Remedies for weights that are not plain numbers.
_MERGE = (
    "merge the adapter into its network first (PEFT's merge_and_unload), and save that "
    "one's state_dict()"
)
_REMOVE = (
    "call torch.nn.utils.parametrize.remove_parametrizations before you save the "
    "weights, or name a network that has the same parametrizations"
)
_REAL = (
    "they are complex: save their real part, if that is what the network has"
)
_FLOAT = "they are quantized: give the float weights that they were made from"


def fit_weights(
    module: nn.Module, weights: Weights, spare: Sequence[str] = ()
) -> tuple[str, ...]:
    """Load all the weights into `module`, and return notes on what was repaired.

    The names are repaired only where that makes more of them fit: wrappers' segments
    (`module.`) and prefixes are taken off, DenseNet's old spelling is renewed, absent
    `num_batches_tracked` are filled in. Pruned and normalised weights are computed from
    their parts. Names that begin with one of `spare` are left out where the network has
    no such part; so are tensors that belong to no part of it, with a warning where they
    may matter, and another whole set of weights. Raises WeightsError, with the names that
    differ, when the weights do not fit, and NonFiniteError when they hold NaN or
    infinite numbers.
    """
    own = module.state_dict()
    plain, computed = plain_weights(own, weights.state)
    names, repairs = match_names(own, plain)
    notes = [*computed, *repairs]
    names = {
        name: old
        for name, old in names.items()
        if name in own or not name.startswith(tuple(spare))
    }
    state = {name: plain[old] for name, old in names.items()}

    absent_counts = [
        name for name in own if name not in state and name.endswith(COUNTS)
    ]
    if absent_counts and len(absent_counts) < len(own):
        state.update({name: own[name] for name in absent_counts})
        notes.append(
            f"{weights.name} has no num_batches_tracked (PyTorch before 0.4.1), which "
            "inference does not use"
        )

    network = type(module).__name__
    misfit = _Misfit.between(own, state, filled=len(absent_counts))
    if misfit is not None and misfit.is_foreign_only:
        notes.append(_left_aside(misfit.unexpected, state, weights, network))
        state = {name: state[name] for name in own}
        misfit = None
    if misfit is None:
        renamed = any(name != old for name, old in names.items())
        changed = renamed or bool(computed)
        _load(module, own, state, weights, changed)
        _warn_of_other_sets(own, names, plain, weights)
    elif misfit.whole or not _fits_by_itself(module, weights):
        raise WeightsError(misfit.message(weights, network))
    _refuse_non_finite(module, weights.name)
    return tuple(notes)


def _left_aside(
    names: Sequence[str],
    state: Mapping[str, Tensor],
    weights: Weights,
    network: str,
) -> str:
    """A note on tensors that the network lacks; a warning where they may matter."""
    tensors = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    what = f"{tensors} that {network} does not have ({shown(names)})"
    unexplained = [
        name
        for name in names
        if state[name].is_floating_point() and not _LOSS.search(name)
    ]
    if unexplained:
        warn_user(
            f"'{weights.name}' holds {what}, and they were left aside: name the "
            "architecture that they were trained with, if they are a part of it"
        )
    return f"{what} left aside"


def _warn_of_other_sets(
    own: Mapping[str, Tensor],
    names: Mapping[str, str],
    state: Mapping[str, Tensor],
    weights: Weights,
) -> None:
    """Warn of another whole set of weights in the file, with other numbers."""
    if not own:
        return
    first = next(iter(own))
    used = names.get(first, first).removesuffix(first)
    for prefix in other_sets(own, names, state):
        if all(
            torch.equal(state[prefix + name], state[old])
            for name, old in names.items()
            if name in own and prefix + name in state
        ):
            continue
        warn_user(
            f"'{weights.name}' holds two sets of weights for this network: those with "
            f"{_in_words(used)} were used, not those with {_in_words(prefix)}; to use "
            "the others, save them alone"
        )


def _in_words(prefix: str) -> str:
    words = f"the prefix '{prefix}'" if prefix else "no prefix"
    return f"{words} (averages)" if AVERAGED.search(prefix) else words


@dataclass(frozen=True)
class _Misfit:
    """The names of a network (`own`) and a file (`state`) that differ.

    `missing` are absent from the file, `unexpected` unknown to the network, `misshapen`
    of another shape, `whole` of whole or complex numbers instead of fractions; `filled` counts
    tensors that the file need not have.
    """

    own: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    missing: Sequence[str]
    unexpected: Sequence[str]
    misshapen: Sequence[str]
    whole: Sequence[str]
    filled: int

    @classmethod
    def between(
        cls, own: Mapping[str, Tensor], state: Mapping[str, Tensor], filled: int
    ) -> _Misfit | None:
        """What does not fit, or None when everything does."""
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        misshapen = [
            name
            for name, tensor in state.items()
            if name in own and tensor.shape != own[name].shape
        ]
        whole = [
            name
            for name, tensor in state.items()
            if name in own
            and own[name].is_floating_point()
            and not tensor.is_floating_point()
        ]
        if not (missing or unexpected or misshapen or whole):
            return None
        return cls(own, state, missing, unexpected, misshapen, whole, filled)

    @property
    def is_foreign_only(self) -> bool:
        """Whether all differences are tensors of which the network has no part.

        What belongs to one of its parts would change what that computes.
        """
        if self.missing or self.misshapen or self.whole:
            return False
        parts = {name.partition(".")[0] for name in self.own}
        return all(
            name.partition(".")[0] not in parts
            or not self.state[name].is_floating_point()
            for name in self.unexpected
        )

    def message(self, weights: Weights, network: str) -> str:
        """One line on what does not fit, and the remedy."""
        differences = ", ".join(self._differences())
        expected = len(self.own) - self.filled
        unfit = {*self.missing, *self.misshapen, *self.whole}
        fitting = expected - len(unfit)
        return (
            f"'{weights.name}' does not fit {network}: {differences}; {fitting} of "
            f"{expected} tensors fit: {self._remedy(weights.architecture)}"
        )

    def _differences(self) -> list[str]:
        differences = []
        if self.missing:
            names = shown(self.missing)
            differences.append(
                f"{len(self.missing)} missing from the file ({names})"
            )
        if self.unexpected:
            names = shown(self.unexpected)
            differences.append(
                f"{len(self.unexpected)} unknown to the network ({names})"
            )
        if self.misshapen:
            shapes = [self._shapes(name) for name in self.misshapen]
            differences.append(
                f"{len(self.misshapen)} of another shape ({shown(shapes, '; ')})"
            )
        if self.whole:
            kinds = {str(self.state[name].dtype)[6:] for name in self.whole}
            what = "complex" if self._has_complex() else "whole"
            differences.append(
                f"{len(self.whole)} of {what} numbers ({shown(sorted(kinds))})"
            )
        return differences

    def _has_complex(self) -> bool:
        """Whether numbers in the file are complex where the network has real ones."""
        return any(self.state[name].is_complex() for name in self.whole)

    def _shapes(self, name: str) -> str:
        in_file, in_network = _sides(self.state[name]), _sides(self.own[name])
        return f"{name} is {in_file} in the file, {in_network} in the network"

    def _remedy(self, architecture: str | None) -> str:
        classes = self._class_count()
        if classes is not None:
            return (
                f"the file looks like one for {classes} classes, so pass that as "
                "num_classes (command line: --labels with as many names)"
            )
        for names, mark, remedy in (
            (self.unexpected, "lora_", _MERGE),
            (self.unexpected, "parametrizations.", _REMOVE),
            (self.whole, "", _REAL if self._has_complex() else _FLOAT),
        ):
            if any(mark in name for name in names):
                return remedy
        remedy = "name the architecture that these weights were trained with"
        if architecture:
            remedy += f" (the file says '{architecture}')"
        return remedy

    def _class_count(self) -> int | None:
        """The length of the first axis where all shapes differ in that alone."""
        if self.missing or self.unexpected or self.whole:
            return None
        lengths: set[int] = set()
        for name in self.misshapen:
            in_file, in_network = self.state[name].shape, self.own[name].shape
            if in_file[1:] != in_network[1:]:
                return None
            lengths.update(in_file[:1])
        return lengths.pop() if len(lengths) == 1 else None


def _sides(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _fits_by_itself(module: nn.Module, weights: Weights) -> bool:
    """Whether the network's own loading hooks know the file's names.

    torchvision's ViT, for one, knows its older names.
    """
    try:
        _load(module, {}, dict(weights.state), weights, renamed=False)
    except (WeightsError, ValueError):
        return False
    return True


def _load(
    module: nn.Module,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    weights: Weights,
    renamed: bool,
) -> None:
    ordered: OrderedDict[str, Tensor] = OrderedDict(state)
    # Some modules (MNASNet) refuse a state dict without versions, and the file's
    # versions go with the file's names.
    versions = weights.versions
    if renamed or not versions:
        versions = getattr(own, "_metadata", None)
    if versions:
        ordered._metadata = versions  # type: ignore[attr-defined]

    try:
        module.load_state_dict(ordered, strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"'{weights.name}' does not fit {type(module).__name__} "
            f"({one_line(error)}): name the architecture that these weights were "
            "trained with"
        ) from None


def _refuse_non_finite(module: nn.Module, file: str) -> None:
    checked = 0
    bad = []
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        checked += 1
        if not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            bad.append(f"{name}: {count} of {tensor.numel()}")
    if bad:
        raise NonFiniteError(
            f"'{file}' holds NaN or infinite numbers in {len(bad)} of {checked} "
            f"tensors ({shown(bad)}): training diverged or the file is damaged; use "
            "an earlier checkpoint"
        )
