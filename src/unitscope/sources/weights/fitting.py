"""Fitting: load every weight of a file into a network, or say what differs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from unitscope.errors import NonFiniteError, WeightsError, one_line
from unitscope.sources.weights.file import Weights
from unitscope.sources.weights.names import match_names

_BATCH_COUNT = "num_batches_tracked"
_MOST_SHOWN = 3


def fit_weights(
    module: nn.Module, weights: Weights, spare: Sequence[str] = ()
) -> tuple[str, ...]:
    """Load all the weights into `module`, and return notes on what was repaired.

    The names are repaired only where that makes more of them fit: wrappers' segments
    (`module.`) and prefixes are taken off, DenseNet's old spelling is renewed, absent
    `num_batches_tracked` are filled in. Names that begin with one of `spare` are left
    out where the network has no such part. Raises WeightsError, with the names that
    differ, when the weights do not fit, and NonFiniteError when they hold NaN or
    infinite numbers.
    """
    own = module.state_dict()
    names, notes = match_names(own, weights.state)
    names = {
        name: old
        for name, old in names.items()
        if name in own or not name.startswith(tuple(spare))
    }
    state = {name: weights.state[old] for name, old in names.items()}

    absent_counts = [
        name
        for name in own
        if name not in state and name.endswith(_BATCH_COUNT)
    ]
    if absent_counts and len(absent_counts) < len(own):
        state.update({name: own[name] for name in absent_counts})
        notes = (
            *notes,
            f"{weights.name} has no num_batches_tracked (PyTorch before 0.4.1), which "
            "inference does not use",
        )

    misfit = _Misfit.between(own, state, filled=len(absent_counts))
    if misfit is None:
        renamed = any(name != old for name, old in names.items())
        _load(module, own, state, weights, renamed)
    elif not _fits_by_itself(module, weights):
        raise WeightsError(misfit.message(weights, type(module).__name__))
    _refuse_non_finite(module, weights.name)
    return notes


@dataclass(frozen=True)
class _Misfit:
    """The names of a network (`own`) and a file (`state`) that differ.

    `missing` are absent from the file, `unexpected` unknown to the network, `misshapen`
    of another shape; `filled` counts tensors that the file need not have.
    """

    own: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    missing: Sequence[str]
    unexpected: Sequence[str]
    misshapen: Sequence[str]
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
        if not (missing or unexpected or misshapen):
            return None
        return cls(own, state, missing, unexpected, misshapen, filled)

    def message(self, weights: Weights, network: str) -> str:
        """One line on what does not fit, and the remedy."""
        differences = ", ".join(self._differences())
        expected = len(self.own) - self.filled
        fitting = expected - len(self.missing) - len(self.misshapen)
        return (
            f"'{weights.name}' does not fit {network}: {differences}; {fitting} of "
            f"{expected} tensors fit: {self._remedy(weights.architecture)}"
        )

    def _differences(self) -> list[str]:
        differences = []
        if self.missing:
            shown = _shown(self.missing)
            differences.append(
                f"{len(self.missing)} missing from the file ({shown})"
            )
        if self.unexpected:
            shown = _shown(self.unexpected)
            differences.append(
                f"{len(self.unexpected)} unknown to the network ({shown})"
            )
        if self.misshapen:
            shown = _shown(
                [self._shapes(name) for name in self.misshapen], "; "
            )
            differences.append(
                f"{len(self.misshapen)} of another shape ({shown})"
            )
        return differences

    def _shapes(self, name: str) -> str:
        in_file, in_network = _sides(self.state[name]), _sides(self.own[name])
        return f"{name} is {in_file} in the file, {in_network} in the network"

    def _remedy(self, architecture: str | None) -> str:
        classes = self._class_count()
        if classes is not None:
            return (
                f"the file looks like one for {classes} classes, so pass that as "
                "num_classes"
            )
        remedy = "name the architecture that these weights were trained with"
        if architecture:
            remedy += f" (the file says '{architecture}')"
        return remedy

    def _class_count(self) -> int | None:
        """The length of the first axis where all shapes differ in that alone."""
        if self.missing or self.unexpected:
            return None
        lengths: set[int] = set()
        for name in self.misshapen:
            in_file, in_network = self.state[name].shape, self.own[name].shape
            if in_file[1:] != in_network[1:]:
                return None
            lengths.update(in_file[:1])
        return lengths.pop() if len(lengths) == 1 else None


def _shown(items: Sequence[str], separator: str = ", ") -> str:
    more = " …" if len(items) > _MOST_SHOWN else ""
    return separator.join(items[:_MOST_SHOWN]) + more


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
            f"tensors ({_shown(bad)}): training diverged or the file is damaged; use "
            "an earlier checkpoint"
        )
