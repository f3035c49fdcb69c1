"""Full gradients: one forward pass, and one backward pass for each class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import Classes, class_indices
from unitscope.attribution.full_gradient import FullGradient
from unitscope.attribution.offsets import Gathered, Offsets, OffsetWatch
from unitscope.errors import OUT_OF_MEMORY, HeadError, ModelError, one_line
from unitscope.model.explaining import Asked
from unitscope.model.screening import alone
from unitscope.model.wrapping import gradient_obstacle
from unitscope.tracing.ending import another_path
from unitscope.tracing.trace import trace, unwatchable

_WRITTEN_OVER = "modified by an inplace operation"

# What a function leaves out is rounding below this, relative to the largest logit.
_NOISE = 1e-7

_REMEDY = "ask for explain(x) or for real ablations, model.ablate(x)"


def full_gradient(
    batches: Iterable[Asked], classes: Classes | None
) -> FullGradient:
    """The full gradient of all photos; see `Classifier.fullgrad`."""
    parts = [part for asked in batches for part in _of_batch(asked, classes)]
    return parts[0] if len(parts) == 1 else parts[0].joined(parts[1:])


def _of_batch(asked: Asked, classes: Classes | None) -> Iterator[FullGradient]:
    """The full gradients of a batch, in as many parts as the network needs."""
    explainer, batch, _ = asked
    network = explainer.network
    obstacle = unwatchable(network.module) or gradient_obstacle(network.module)
    if not obstacle and network.pixels:
        obstacle = (
            "the network takes uint8 pixels, and no gradient passes whole numbers: wrap "
            "the network behind the conversion"
        )
    if obstacle:
        raise HeadError(f"no full gradient can be had: {obstacle}")
    explainer.ending_at(
        batch
    )  # first passes may fill caches, with calls of their own
    with alone(asked, 0).explainer.network.running():
        traced = network.guarded(
            lambda: trace(network.module, batch[:1]), tuple(batch.shape[1:])
        )
    offsets = Offsets.of(traced)
    if offsets.one_by_one and len(batch) > 1:
        for image in range(len(batch)):
            yield _full_gradient(alone(asked, image), offsets, classes)
    else:
        yield _full_gradient(asked, offsets, classes)


class _Passed(NamedTuple):
    """What the passes gave: for every class an input map, and what was gathered."""

    logits: Float[Tensor, "batch label"]
    classes: tuple[tuple[int, ...], ...]
    maps: list[Float[Tensor, "batch row col"]]
    gathered: list[Gathered]


class _WrittenOverError(Exception):
    """A tensor that a gradient needs was written over."""


def _full_gradient(
    asked: Asked, offsets: Offsets, classes: Classes | None
) -> FullGradient:
    """The full gradient of the classes, each photo's first one when None."""
    explainer, batch, subjects = asked
    try:
        passed = _passed(asked, offsets, classes)
    except _WrittenOverError:
        # Slower: what in-place operations write over is copied first.
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            passed = _passed(asked, offsets, classes)
    input_map = torch.stack(passed.maps, dim=1)
    explainer.network.check_finite(
        input_map, batch, "the gradients at the input"
    )
    shape = tuple(batch.shape[1:])
    blank = FullGradient(
        classes=passed.classes,
        logits=passed.logits,
        input_map=input_map,
        biases={},
        bias_maps={},
        grids={},
        curved={},
        labels=explainer.scoring.labels_for(passed.logits.shape[1]),
        subjects=subjects,
        scores=explainer.structures.scores_at(shape).scores,
        dtype=batch.dtype,
    )
    return _filled(blank, offsets, passed.gathered)


def _passed(asked: Asked, offsets: Offsets, classes: Classes | None) -> _Passed:
    """One forward pass, and one backward pass for each class."""
    explainer, batch, _ = asked
    network, ending = explainer.network, explainer.ending_at(batch)
    watch = OffsetWatch(offsets, len(batch))
    with network.running(differentiable=True):
        leaf = batch.detach().clone().requires_grad_()
        logits = network.logits(leaf.clone(), ending, watch)
        if watch.missing:
            raise another_path()
        network.check_finite(logits, batch, "the logits")
        labels = explainer.scoring.labels_for(logits.shape[1])
        chosen = _chosen(logits, labels, classes)
        maps, gathered = [], []
        for place in range(len(chosen[0])):
            own = [each[place] for each in chosen]
            keep = place < len(chosen[0]) - 1
            watch.gathered = Gathered()
            maps.append(_input_map(logits, own, leaf, keep))
            gathered.append(watch.gathered)
    return _Passed(logits.detach(), chosen, maps, gathered)


def _chosen(
    logits: Float[Tensor, "batch label"],
    labels: Sequence[str],
    classes: Classes | None,
) -> tuple[tuple[int, ...], ...]:
    """The classes of every photo."""
    if classes is None:
        return tuple((index,) for index in logits.argmax(dim=1).tolist())
    indices = tuple(class_indices(labels, classes))
    return (indices,) * len(logits)


def _input_map(
    logits: Float[Tensor, "batch label"],
    classes: Sequence[int],
    leaf: Float[Tensor, "batch channel row col"],
    keep: bool,
) -> Float[Tensor, "batch row col"]:
    """Σ over channels of input · gradient; what passes on the way is gathered."""
    if not logits.requires_grad:
        raise HeadError(
            "the network computes its logits outside autograd (no_grad, detach or numpy "
            f"in its forward), so that there are no gradients: {_REMEDY}"
        )
    own = logits[range(len(logits)), list(classes)]
    try:
        # Zeros where the logit does not depend on the input at all.
        (gradient,) = torch.autograd.grad(
            own.sum(),
            leaf,
            retain_graph=keep,
            allow_unused=True,
            materialize_grads=True,
        )
    except torch.cuda.OutOfMemoryError:
        raise ModelError(OUT_OF_MEMORY) from None
    except RuntimeError as error:
        if _WRITTEN_OVER in str(error):
            raise _WrittenOverError from None
        raise HeadError(
            f"the gradients of the network cannot be computed ({one_line(error)}): "
            f"{_REMEDY}"
        ) from error
    product = (gradient * leaf.detach()).cpu()
    return product.sum(dim=1, dtype=torch.float64)


def _filled(
    blank: FullGradient, offsets: Offsets, gathered: Sequence[Gathered]
) -> FullGradient:
    """The full gradient with what was gathered for each class, in order of execution."""
    zeros = torch.zeros(len(blank.logits), dtype=torch.float64)
    biases, bias_maps, grids = {}, {}, {}
    for offset in offsets.by_index.values():
        name = offset.name
        if not any(name in each.sums for each in gathered):
            continue
        biases[name] = torch.stack(
            [each.sums.get(name, zeros) for each in gathered], dim=1
        )
        maps = [each.maps[name] for each in gathered if name in each.maps]
        if not maps or offset.grid is None:
            continue
        blanks = torch.zeros_like(maps[0])
        bias_maps[name] = torch.stack(
            [each.maps.get(name, blanks) for each in gathered], dim=1
        )
        grids[name] = offset.grid
    functions = dict.fromkeys(name for each in gathered for name in each.curved)
    curved = {
        name: torch.stack(
            [each.curved.get(name, zeros) for each in gathered], dim=1
        )
        for name in functions
    }
    noise = _NOISE * float(blank.logits.abs().max())
    curved = {
        name: values
        for name, values in curved.items()
        if float(values.abs().max()) > noise
    }
    return dataclasses.replace(
        blank, biases=biases, bias_maps=bias_maps, grids=grids, curved=curved
    )
