"""Each unit: what `ablate --each` measures and prints, unit by unit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitscope.attribution.unit_ablations import UnitAblations
    from unitscope.inputs.photos import Photo
    from unitscope.model import Classifier

# Units that are printed; JSON has all.
_MOST_PRINTED = 10


def ablations_of(
    model: Classifier,
    photo: Photo,
    layer: str | None,
    units: list[int] | None,
    **options: Any,
) -> tuple[UnitAblations, bool]:
    """Every unit off in turn, and whether Ctrl-C ended that; what was done then is kept."""
    from unitscope.attribution.unit_ablations import AblationsInterrupted

    with _bar(_count(model, layer, units)) as progress:
        try:
            done = model.ablations(
                photo, layer, units, progress=progress, **options
            )
        except AblationsInterrupted as interrupt:
            return interrupt.partial, True
    return done, False


def text_of(name: str, ablations: UnitAblations, class_name: str | None) -> str:
    """The units whose ablation changes a class's logit most."""
    effects = ablations.effects(class_name)
    label = ablations.labels[ablations.class_of(class_name)]
    first = ablations.labels[ablations.first_class()]
    noun, scores = ablations.noun, ablations.scores

    done = f"each {noun} of '{ablations.layer}' in turn"
    done += f" set to {ablations.replaced}" if ablations.replaced else " off"
    done += f" in {ablations.where}" if ablations.where else ""
    lines = [f"{name}: {done}; {_how(ablations)}"]
    if not ablations.complete:
        count = len(ablations.units)
        lines.append(f"  interrupted after {len(effects)} of {count} {noun}s")
    if not effects:
        return "\n".join(lines)

    lines.append(f"  {noun:<8} {scores.number} of {label}")
    for effect in effects[:_MOST_PRINTED]:
        line = (
            f"  {effect.name:<8} {effect.before:>7.3f} → {effect.after:>7.3f}"
        )
        line += f"  ({effect.change:+.3f})"
        if effect.first != first:
            line += f"  first is then {effect.first}"
        lines.append(line)
    turning = len(ablations.turning())
    one = f"1 {noun} changes" if turning == 1 else f"{turning} {noun}s change"
    lines.append(
        f"  {one} the top prediction alone, of {len(effects)} measured"
    )
    return "\n".join(lines)


def _how(ablations: UnitAblations) -> str:
    if ablations.effect is not None:
        return f"{ablations.effect} effects"
    if ablations.exact:
        return "exact, from one forward pass"
    return "measured, by real passes of what follows it"


def _count(
    model: Classifier, layer: str | None, units: list[int] | None
) -> int:
    """How many units will be switched off."""
    from unitscope.residual.head import HEADS
    from unitscope.tracing.layers import find_map_layer

    if units is not None:
        return len(units)
    if layer in (None, HEADS):
        return model.head.map_shape[0]
    return find_map_layer(model.layers(), layer).shape[0]


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], Any]]:
    """A progress bar on standard error, in a terminal."""
    from tqdm import tqdm

    is_hidden = not sys.stderr.isatty()
    with tqdm(total=total, unit="unit", disable=is_hidden, leave=False) as bar:
        yield bar.update
