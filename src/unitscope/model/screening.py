"""Screening: one forward and one backward pass → an estimate for every unit of a network."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import class_index
from unitscope.attribution.map_change import OFF
from unitscope.attribution.rounding import relative_difference
from unitscope.attribution.screening import Screening, UnitEstimate, Verified
from unitscope.attribution.suffix import same_enough
from unitscope.counts import is_count
from unitscope.errors import (
    OUT_OF_MEMORY,
    HeadError,
    InputError,
    LayerError,
    ModelError,
    one_line,
    warn_user,
)
from unitscope.model.ablating import ablations
from unitscope.model.explaining import Asked
from unitscope.model.intervention import Intervention
from unitscope.model.layer_ablations import rerun
from unitscope.model.wrapping import gradient_obstacle
from unitscope.tracing.factors import Factors
from unitscope.tracing.layers import (
    Layer,
    find_map_layer,
    on_outputs,
)
from unitscope.tracing.trace import unwatchable

# Modules that only pass a map on.
_PASSING_ON = ("Identity", "Dropout", "Dropout2d", "AlphaDropout")

_REMEDY = "measure units by real passes, model.ablate(x, layer=…, units=…)"
_WRITTEN_OVER = "modified by an inplace operation"


def screening(
    batches: Iterable[Asked],
    which: int | str | None,
    layers: str | Sequence[str] | None,
    verify: int,
) -> Screening:
    """The screening of all photos; see `Classifier.screen`."""
    _check_count(verify)
    parts = []
    for asked in batches:
        part = _of_batch(asked, which, layers)
        parts.append(_verified(part, asked, verify) if verify else part)
    return _joined(parts)


def _of_batch(
    asked: Asked,
    which: int | str | None,
    layers: str | Sequence[str] | None,
) -> Screening:
    explainer, batch, subjects = asked
    network = explainer.network
    obstacle = unwatchable(network.module) or gradient_obstacle(network.module)
    if obstacle:
        raise HeadError(f"units cannot be screened: {obstacle}")
    shape = tuple(batch.shape[1:])
    structure = explainer.structures.at(shape)
    chosen = _chosen(structure.layers, layers)
    labels = explainer.scoring.labels_for(structure.classes)
    index = None if which is None else class_index(labels, which)

    passed = _differentiated(asked, chosen, index)
    network.check_finite(passed.logits, batch, "the logits")
    estimates, left_out = _estimates(asked, passed, chosen)
    for name, estimate in estimates.items():
        what = f"the estimates for units of layer '{name}'"
        network.check_finite(estimate, batch, what)
    _check_named(layers, estimates, left_out)
    return Screening(
        estimates=estimates,
        classes=passed.classes,
        logits=passed.logits,
        labels=labels,
        subjects=subjects,
        scores=explainer.structures.scores_at(shape).scores,
        left_out=left_out,
    )


def _chosen(
    known: Sequence[Layer], layers: str | Sequence[str] | None
) -> list[Layer]:
    """The layers that are named, or all with a map."""
    if layers is None:
        maps = [layer for layer in known if layer.is_map]
        chosen = [layer for layer in maps if layer.kind not in _PASSING_ON]
        if not chosen:
            raise LayerError(
                "no layer gives a feature map (unit, row, col) with several cells: there "
                "are no units to screen"
            )
        return chosen
    names = list(layers) if isinstance(layers, Iterable) else [layers]
    if isinstance(layers, str):
        names = [layers]
    if not names:
        raise InputError(
            "layers is empty: name at least one layer, or leave it out for all"
        )
    return [find_map_layer(known, name) for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class _Passed:
    """A pass with gradients: `products` (batch, unit) are Σ gradient · activation.

    None where no gradient came back to a layer.
    """

    logits: Float[Tensor, "batch class"]
    classes: tuple[int, ...]
    products: Mapping[str, Tensor | None]
    left_out: Mapping[str, str]


def _differentiated(
    asked: Asked, layers: Sequence[Layer], index: int | None
) -> _Passed:
    """The pass; its maps are copied only where the network later writes into them."""
    explainer, batch, _ = asked
    network, ending = explainer.network, explainer.ending_at(batch)
    for copies in (False, True):
        factors = Factors(layers, len(batch), copies=copies)
        names = [layer.name for layer in layers]
        with (
            network.running(differentiable=True),
            on_outputs(network.module, names, factors),
        ):
            logits = network.logits(batch.clone(), ending)
            classes = _classes(logits, index)
            if not copies and factors.written_later():
                _check_same(asked, logits, factors.written_later())
                continue
            try:
                gradients = _gradients(logits, classes, factors)
            except _WrittenOverError:
                continue
        products = dict(zip(factors.ones, gradients, strict=True))
        return _Passed(
            logits.detach(), classes, products, dict(factors.left_out)
        )
    raise HeadError(
        "the network writes into tensors that its gradients need (in-place operations): "
        f"name layers behind these operations, or {_REMEDY}"
    )


def _check_same(
    asked: Asked, logits: Float[Tensor, "batch class"], layers: Sequence[str]
) -> None:
    """Raise HeadError where multiplying maps by one has changed the logits.

    It does where the network writes into an output by another name than the layer's.
    """
    explainer, batch, _ = asked
    network = explainer.network
    with torch.no_grad():
        plain = network.logits(batch.clone(), explainer.ending_at(batch))
    difference = float(relative_difference(logits.detach(), plain).max())
    if not difference <= same_enough(batch.dtype):
        raise HeadError(
            f"the network later writes into the output of layer '{layers[0]}' in place, "
            f"by another name, so that units cannot be screened: {_REMEDY}"
        )


class _WrittenOverError(Exception):
    """A tensor that a gradient needs was written over."""


def _classes(
    logits: Float[Tensor, "batch class"], index: int | None
) -> tuple[int, ...]:
    if index is not None:
        return (index,) * len(logits)
    return tuple(logits.argmax(dim=1).tolist())


def _gradients(
    logits: Float[Tensor, "batch class"],
    classes: Sequence[int],
    factors: Factors,
) -> list[Tensor | None]:
    """The gradients of the photos' logits with respect to the ones of every layer."""
    if not logits.requires_grad:
        raise HeadError(
            "the network computes its logits outside autograd (no_grad, detach or numpy "
            f"in its forward), so that no gradient says what units give: {_REMEDY}"
        )
    if not factors.ones:
        return []
    own = logits[range(len(logits)), list(classes)]
    try:
        return list(
            torch.autograd.grad(
                own.sum(), list(factors.ones.values()), allow_unused=True
            )
        )
    except torch.cuda.OutOfMemoryError:
        raise ModelError(OUT_OF_MEMORY) from None
    except RuntimeError as error:
        if _WRITTEN_OVER in str(error):
            raise _WrittenOverError from None
        raise HeadError(
            f"the gradients of the network cannot be computed ({one_line(error)}): name "
            f"layers after what stops them, or {_REMEDY}"
        ) from error


def _estimates(
    asked: Asked, passed: _Passed, layers: Sequence[Layer]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The estimates by layer, and why other layers have none."""
    by_name = {layer.name: layer for layer in layers}
    estimates: dict[str, Tensor] = {}
    left_out = dict(passed.left_out)
    for name, product in passed.products.items():
        layer = by_name[name]
        if product is not None:
            estimates[name] = -product.detach().to(torch.float32)
        elif _counts(asked, layer, passed.logits):
            left_out[name] = (
                "its gradient is cut on the way to the logits (detach, no_grad or a "
                f"function without gradient): {_REMEDY}"
            )
        else:
            shape = (len(passed.logits), layer.shape[0])
            estimates[name] = passed.logits.new_zeros(shape)
    return estimates, left_out


def _counts(asked: Asked, layer: Layer, logits: Tensor) -> bool:
    """Whether the logits change when the whole layer is off, by a real forward pass.

    Without a gradient that may be a branch that the logits do not use, or a cut.
    """
    explainer, batch, _ = asked
    every = list(range(layer.shape[0]))
    without = rerun(explainer, batch, layer, every, OFF)
    return not torch.equal(without, logits)


def _check_named(
    layers: str | Sequence[str] | None,
    estimates: Mapping[str, Tensor],
    left_out: Mapping[str, str],
) -> None:
    """Refuse where a layer that was named has no estimate; warn of others."""
    if layers is None:
        if not estimates:
            reasons = "; ".join(dict.fromkeys(left_out.values()))
            raise HeadError(
                f"no layer can be screened: {reasons or 'none ran'}"
            )
        for name, reason in left_out.items():
            warn_user(f"layer '{name}' is not screened: {reason}")
        return
    for name in [layers] if isinstance(layers, str) else layers:
        if name in left_out:
            raise HeadError(
                f"layer '{name}' cannot be screened: {left_out[name]}"
            )
        if name not in estimates and not any(
            name.startswith(f"{outer}.") for outer in estimates
        ):
            raise LayerError(
                f"layer '{name}' did not run on this input, though it did on the "
                "first: choose a layer that always runs"
            )


# ---- verification


def _verified(part: Screening, asked: Asked, count: int) -> Screening:
    """The same with units of every photo switched off by real forward passes."""
    verified = [
        _of_photo(part, alone(asked, image), image, count)
        for image in range(len(part.classes))
    ]
    return dataclasses.replace(part, verified=tuple(verified))


def _of_photo(
    part: Screening, photo: Asked, image: int, count: int
) -> Verified:
    units = sum(each.shape[1] for each in part.estimates.values())
    top = part.top(min(count, units), image)
    sample = _sample(part, image, min(count, units))
    places = dict.fromkeys((each.layer, each.unit) for each in (*top, *sample))
    by_layer: dict[str, list[int]] = defaultdict(list)
    for layer, unit in places:
        by_layer[layer].append(unit)

    effects: dict[tuple[str, int], float] = {}
    for layer, chosen in by_layer.items():
        logits = _measured(photo, layer, chosen)[0, :, part.classes[image]]
        for unit, logit in zip(chosen, logits.tolist(), strict=True):
            effects[layer, unit] = logit - part.logit(image)

    def with_effects(
        several: Sequence[UnitEstimate],
    ) -> tuple[UnitEstimate, ...]:
        return tuple(
            each._replace(measured=effects[each.layer, each.unit])
            for each in several
        )

    return Verified(with_effects(top), with_effects(sample))


def _measured(
    photo: Asked, layer: str, units: Sequence[int]
) -> Float[Tensor, "1 unit class"]:
    """The logits with each unit off in turn, by real forward passes."""
    return ablations(iter([photo]), Intervention(layer, list(units))).after


def alone(asked: Asked, image: int) -> Asked:
    """One photo of a batch, with its own further inputs."""
    explainer, batch, subjects = asked
    photo = slice(image, image + 1)
    network = explainer.network.for_photo(image)
    if network is not explainer.network:
        structures = explainer.structures.of(network)
        explainer = dataclasses.replace(
            explainer,
            network=network,
            structures=structures,
            forward=explainer.forward.of(network, structures),
        )
    return Asked(explainer, batch[photo], subjects[photo])


def _sample(part: Screening, image: int, count: int) -> list[UnitEstimate]:
    """Units drawn at random, always the same: the layers take turns, in random order."""
    generator = torch.Generator().manual_seed(0)

    def shuffled(number: int) -> list[int]:
        order: list[int] = torch.randperm(number, generator=generator).tolist()
        return order

    names = [part.layers[place] for place in shuffled(len(part.layers))]
    waiting = {name: shuffled(part.estimates[name].shape[1]) for name in names}
    drawn = list(_in_turn(waiting, count))
    return [
        UnitEstimate(name, unit, float(part.estimates[name][image, unit]))
        for name, unit in drawn
    ]


def _in_turn(
    waiting: dict[str, list[int]], count: int
) -> Iterator[tuple[str, int]]:
    while count and any(waiting.values()):
        for name, units in waiting.items():
            if units and count:
                count -= 1
                yield name, units.pop()


def _check_count(verify: int) -> None:
    if not is_count(verify):
        raise InputError(
            "verify is the number of units to switch off by real passes, 0 or more, not "
            f"{verify!r}"
        )


def _joined(parts: Sequence[Screening]) -> Screening:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        for name in first.layers:
            if name not in part.estimates:
                raise LayerError(
                    f"layer '{name}' was screened on some photos only: screen photos one "
                    "at a time, or name layers that always run"
                )
    return dataclasses.replace(
        first,
        estimates={
            name: torch.cat([part.estimates[name] for part in parts])
            for name in first.layers
        },
        classes=tuple(index for part in parts for index in part.classes),
        logits=torch.cat([part.logits for part in parts]),
        subjects=tuple(each for part in parts for each in part.subjects),
        left_out={k: v for part in parts for k, v in part.left_out.items()},
        verified=tuple(each for part in parts for each in part.verified),
    )
