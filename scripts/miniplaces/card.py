"""The model card: what a weights file says of itself, as JSON in its metadata and as a
page of the docs."""

import dataclasses
from pathlib import Path
from typing import Any

from miniplaces.evaluation import Evaluation
from miniplaces.recipe import Recipe
from miniplaces.weights import Weights
from unitscope.scenes.network import Stage
from unitscope.scenes.transformer import TransformerArchitecture

_TEMPLATE = Path(__file__).with_name("model-card.txt")
_TRANSFORMER_TEMPLATE = Path(__file__).with_name("transformer-card.txt")
_STRIDE = 16
_EXTREMES = 5

_CONVOLUTIONS = "the convolutions after the first"

DATA = (
    "MiniPlaces: 100,000 training photos of 100 scene classes, a part of Places (MIT "
    "CSAIL). The Places project gives "
    "its models under CC BY; the photos belong to their owners, were collected from "
    "the web, and none is shipped here."
)
ATTRIBUTION = (
    "B. Zhou, A. Lapedriza, A. Khosla, A. Oliva, A. Torralba: Places: A 10 million "
    "Image Database for Scene "
    "Recognition. IEEE TPAMI, 2017. MiniPlaces: "
    "https://github.com/CSAILVision/miniplaces"
)
INTENDED = (
    "Showing how an image classifier can be taken apart: "
    "teaching, demonstrations, tests, baselines."
)
NOT_FOR = (
    "Not for decisions about people or places, surveillance, geolocation or safety; "
    "not for judging photos unlike "
    "those it was trained on (drawings, medical or aerial pictures, close-ups of "
    "single objects). It always answers "
    "with one of its classes, also for a photo of none of them, and its probabilities "
    "are not calibrated for such."
)


def make_card(
    evaluation: Evaluation,
    labels: list[str],
    recipe: str,
    photos: int,
    parameters: int,
    command: str,
    of: str,
) -> dict[str, Any]:
    """Everything the card says, from one evaluation; `of` says which photos it was measured on.

    `recipe` is what `describe` gave.
    """
    return {
        "name": "unitscope scene classifier",
        "accuracy": evaluation.to_json(labels),
        "measured_on": of,
        "parameters": parameters,
        "trained_on": f"{photos} MiniPlaces training photos",
        "recipe": recipe,
        "command": command,
        "data": DATA,
        "attribution": ATTRIBUTION,
        "intended_use": INTENDED,
        "not_for": NOT_FOR,
    }


def describe(recipe: Recipe, lends: bool = False) -> str:
    """The recipe in words; a teacher may lend its first layers."""
    phases = ", then ".join(
        f"{_epochs(phase.epochs)} at {phase.size} pixels"
        for phase in recipe.phases
    )

    optimizer = f"SGD with Nesterov momentum (peak {recipe.lr})"
    if recipe.optimizer == "muon":
        inner = "the patch embedding and the blocks" if lends else _CONVOLUTIONS
        optimizer = (
            f"Muon (peak {recipe.lr}) for {inner} and AdamW "
            f"(peak {recipe.small_lr}) for the rest"
        )

    teacher = ""
    if recipe.distil:
        teacher = f", {recipe.distil:.0%} of the loss from a teacher's answers"

    if recipe.dense:
        teacher += (
            f", and {recipe.dense} times as much again that asks every patch for the "
            "teacher's class maps at its place"
        )

    weights = "the last ones"
    if recipe.averaging:
        weights = f"their exponential moving average (decay {recipe.averaging})"

    augmentation = recipe.augmentation
    return (
        f"{_beginning(lends)}: {phases}; batches of {recipe.batch}; {optimizer}, "
        f"warmed up over {recipe.warmup} steps and "
        f"brought to zero in a straight line over the last {recipe.decay:.0%}; "
        f"weight decay {recipe.weight_decay}; "
        f"label smoothing {recipe.label_smoothing}{teacher}; "
        f"random crops of {augmentation.smallest_crop:.0%}–100 % of the area, "
        "mirrored half the time, "
        f"brightness and contrast ±{augmentation.colour:.0%}, "
        f"colour cast ±{augmentation.cast:.0%}; "
        f"the weights kept are {weights}. Seed {recipe.seed}."
    )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _beginning(lends: bool) -> str:
    if lends:
        return (
            "The convolutions are the teacher's and stay as they are; all else from "
            "scratch"
        )
    return "From scratch"


def _percent(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{100 * entry['accuracy']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def render(weights: Weights, size: int) -> str:
    """The page of docs/ about a network, from a weights file of `size` bytes."""
    card = weights.card
    accuracy = card["accuracy"]
    architecture = weights.network.architecture
    preprocessing = weights.preprocessing
    ordered = _from_worst_to_best(accuracy["classes"])

    template = _TEMPLATE
    own: dict[str, object] = {"units": architecture.stages[-1].units}
    inside = ""
    if isinstance(architecture, TransformerArchitecture):
        template = _TRANSFORMER_TEMPLATE
        own = dataclasses.asdict(architecture)
        inside = "stem."
    own |= {
        "stem": architecture.stem,
        "stages": _stages(architecture.stages, inside),
    }
    return template.read_text(encoding="utf-8").format(
        **card,
        **own,
        label_count=len(weights.labels),
        size=size,
        top1=_percent(accuracy["top1"]),
        top5=_percent(accuracy["top5"]),
        photos=accuracy["photos"],
        class_count=architecture.classes,
        cells=preprocessing["crop"] // _STRIDE,
        crop=preprocessing["crop"],
        resize=preprocessing["resize"],
        interpolation=preprocessing["interpolation"],
        worst=_named(ordered[:_EXTREMES]),
        best=_named(ordered[: -_EXTREMES - 1 : -1]),
        confusions=_confusions(accuracy["confusions"]),
        class_rows=_classes(accuracy["classes"]),
    )


def _stages(stages: tuple[Stage, ...], inside: str) -> str:
    """A row of the table for every stage."""
    rows = []
    for number, stage in enumerate(stages, start=1):
        kind = "basic block (two 3×3 convolutions)"
        if stage.bottleneck:
            kind = f"bottleneck ({stage.bottleneck} inside)"
        blocks = f"{stage.blocks} × {kind}"
        rows.append(
            f"| `{inside}layer{number}` | {blocks} | {stage.units} | {stage.stride} |"
        )
    return "\n".join(rows)


def _from_worst_to_best(classes: dict[str, Any]) -> list[tuple[str, float]]:
    accuracies = [
        (name, float(entry["top1"]["accuracy"]))
        for name, entry in classes.items()
    ]
    return sorted(accuracies, key=lambda item: item[1])


def _named(accuracies: list[tuple[str, float]]) -> str:
    return ", ".join(
        f"{name} ({100 * accuracy:.0f} %)" for name, accuracy in accuracies
    )


def _confusions(entries: list[dict[str, Any]]) -> str:
    rows = []
    for entry in entries:
        rows.append(
            f"| {entry['class']} | {entry['taken_for']} | {entry['photos']} |"
        )
    return "\n".join(rows)


def _classes(classes: dict[str, Any]) -> str:
    rows = []
    for name, entry in classes.items():
        top1 = _percent(entry["top1"])
        top5 = _percent(entry["top5"])
        photos = entry["top1"]["photos"]
        rows.append(f"| {name} | {top1} | {top5} | {photos} |")
    return "\n".join(rows)
