"""Stages: consecutive layers whose feature maps have the same rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from unitscope.tracing.layers import Layer


@dataclass(frozen=True)
class Stage:
    """A run of consecutive layers whose feature maps have the same rows and columns."""

    first: str
    last: str
    shape: tuple[int, ...]
    convolutions: int
    kinds: tuple[str, ...]


def stages_of(layers: Sequence[Layer]) -> list[Stage]:
    """Group leaf layers, in order of execution, into stages.

    A stage begins where maps come to have fewer cells.
    """
    groups: list[list[Layer]] = []
    for position, layer in enumerate(layers):
        if _is_container(layer) or _only_passes_on(layer):
            continue
        # Gates (squeeze-and-excitation) work on pooled maps beside the main path, and
        # so does attention within windows.
        later = layers[position + 1 :]
        if not layer.is_map and _have_map(later):
            continue

        if groups and _continues(groups[-1], layer):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return [_stage(group, layers) for group in groups]


def _only_passes_on(layer: Layer) -> bool:
    if layer.kind.startswith("Dropout"):
        return True
    return layer.kind in ("Identity", "Flatten")


def _continues(group: Sequence[Layer], layer: Layer) -> bool:
    """Whether a layer belongs to the stage of a group.

    A layer with larger maps does: a block may run its shortcut first, or have branches.
    """
    first = group[0]
    if len(layer.cells) != len(first.cells):
        return False
    return layer.cells >= first.cells


def _stage(group: Sequence[Layer], layers: Sequence[Layer]) -> Stage:
    first = group[0]
    last = _with_cells_of(first, group)[-1]
    outermost = _outermost(first, last, layers)
    kinds = [layer.kind for layer in group]
    return Stage(
        first=first.name,
        last=last.name,
        shape=outermost.shape,
        convolutions=sum("Conv" in kind for kind in kinds),
        kinds=tuple(dict.fromkeys(kinds)),
    )


def _with_cells_of(first: Layer, layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if layer.cells == first.cells]


def _outermost(first: Layer, last: Layer, layers: Sequence[Layer]) -> Layer:
    """The layer whose map the stage from `first` to `last` hands on.

    Of the layers that ran in the stage, containers included, and have its cells, it is
    the last of the least depth. A residual stage ends inside the first block of the
    next one, whose narrow convolution does not have the stage's width.
    """
    begin = layers.index(first)
    end = layers.index(last) + 1
    later = layers[end:]
    # A container is listed after what it contains.
    containers = list(takewhile(_is_container, later))
    end += len(containers)

    candidates = _with_cells_of(first, layers[begin:end])
    if not _have_map(layers[end:]):
        # The last stage ends where the head begins.
        return candidates[-1]
    # `min` returns the first of several, so the last layer comes first.
    candidates.reverse()
    return min(candidates, key=_depth)


def _is_container(layer: Layer) -> bool:
    return not layer.leaf


def _have_map(layers: Sequence[Layer]) -> bool:
    return any(layer.is_map for layer in layers)


def _depth(layer: Layer) -> int:
    return layer.name.count(".")
