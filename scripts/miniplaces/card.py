"""The model card: what a weights file says of itself, as JSON in its metadata and as a page of the docs."""

from typing import Any

from miniplaces.evaluation import Evaluation
from miniplaces.training import Recipe
from miniplaces.weights import Weights

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
INTENDED = "Showing how an image classifier can be taken apart: teaching, demonstrations, tests, baselines."
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
    recipe: Recipe,
    photos: int,
    parameters: int,
    command: str,
    of: str,
) -> dict[str, Any]:
    """Everything the card says, from one evaluation; `of` says which photos it was measured on."""
    return {
        "name": "unitscope scene classifier",
        "accuracy": evaluation.to_json(labels),
        "measured_on": of,
        "parameters": parameters,
        "trained_on": f"{photos} MiniPlaces training photos",
        "recipe": describe(recipe),
        "command": command,
        "data": DATA,
        "attribution": ATTRIBUTION,
        "intended_use": INTENDED,
        "not_for": NOT_FOR,
    }


def describe(recipe: Recipe) -> str:
    """The recipe in words."""
    phases = ", then ".join(
        f"{phase.epochs} epochs at {phase.size} pixels" for phase in recipe.phases
    )
    optimizer = (
        f"Muon (peak {recipe.lr}) for the convolutions after the first and AdamW (peak "
        f"{recipe.small_lr}) for the rest"
        if recipe.optimizer == "muon"
        else f"SGD with Nesterov momentum (peak {recipe.lr})"
    )
    how = recipe.augmentation
    kept = (
        f"their exponential moving average (decay {recipe.averaging})"
        if recipe.averaging
        else "the last ones"
    )
    teacher = (
        f", {recipe.distil:.0%} of the loss from a teacher's answers"
        if recipe.distil
        else ""
    )
    return (
        f"From scratch: {phases}; batches of {recipe.batch}; {optimizer}, warmed up "
        f"over {recipe.warmup} steps and "
        f"brought to zero in a straight line over the last {recipe.decay:.0%}; weight "
        f"decay {recipe.weight_decay}; "
        f"label smoothing {recipe.label_smoothing}{teacher}; random crops of "
        f"{how.smallest_crop:.0%}–100 % of the "
        f"area, mirrored half the time, brightness and contrast ±{how.colour:.0%}, "
        f"colour cast ±{how.cast:.0%}; the "
        f"weights kept are {kept}. Seed {recipe.seed}."
    )


def _percent(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{100 * entry['accuracy']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def render(weights: Weights, size: int) -> str:
    """The page docs/model-card.md, from a weights file of `size` bytes."""
    card, preprocessing = weights.card, weights.preprocessing
    accuracy = card["accuracy"]
    architecture = weights.network.architecture
    stages = "\n".join(
        f"| `layer{number}` | {stage.blocks} × "
        + (
            f"bottleneck ({stage.bottleneck} inside)"
            if stage.bottleneck
            else "basic block (two 3×3 convolutions)"
        )
        + f" | {stage.units} | {stage.stride} |"
        for number, stage in enumerate(architecture.stages, start=1)
    )
    classes = "\n".join(
        f"| {name} | {_percent(entry['top1'])} | {_percent(entry['top5'])} | "
        f"{entry['top1']['photos']} |"
        for name, entry in accuracy["classes"].items()
    )
    confusions = "\n".join(
        f"| {entry['class']} | {entry['taken_for']} | {entry['photos']} |"
        for entry in accuracy["confusions"]
    )
    ordered = sorted(
        accuracy["classes"].items(), key=lambda item: float(item[1]["top1"]["accuracy"])
    )
    worst = ", ".join(
        f"{name} ({100 * entry['top1']['accuracy']:.0f} %)"
        for name, entry in ordered[:5]
    )
    best = ", ".join(
        f"{name} ({100 * entry['top1']['accuracy']:.0f} %)"
        for name, entry in ordered[:-6:-1]
    )
    return f"""# Model card: the scene classifier in the box

<!-- Written by `python scripts/train_miniplaces.py card`; edit scripts/miniplaces/card.py, not this page. -->

`unitscope.load("miniplaces")` is a small ResNet that tells {len(weights.labels)} kinds of scene apart. It ships inside
the package (`src/unitscope/scenes/miniplaces.safetensors`, {size:,} bytes, half precision, no pickle) and needs no
network connection.

## How good it is

Measured on {card["measured_on"]}, with the weights as shipped, loaded into float32:

| | accuracy in %, with 95 % interval | photos |
|---|---|---|
| top-1 | {_percent(accuracy["top1"])} | {accuracy["photos"]} |
| top-5 | {_percent(accuracy["top5"])} | {accuracy["photos"]} |

Intervals are Wilson score intervals, here and below. They say how far the number may be off because the photos are a
sample, not how the classifier does on other kinds of photos.

## What it is

| layer | what | units | stride |
|---|---|---|---|
| `conv1`, `bn1`, `relu` | 7×7 convolution over RGB | {architecture.stem} | 2 |
| `maxpool` | 3×3 | {architecture.stem} | 2 |
{stages}
| `avgpool` | mean over the feature map | {architecture.stages[-1].units} | |
| `fc` | linear | {architecture.classes} classes | |

{card["parameters"]:,} parameters. Every block ends in a ReLU, so the last feature map is never negative, and a CAM is
negative only where a weight is. The strides multiply to 16: {preprocessing["crop"]} pixels leave a feature map of
{preprocessing["crop"] // 16}×{preprocessing["crop"] // 16}.

A photo's shorter side is resized to {preprocessing["resize"]} pixels ({preprocessing["interpolation"]}, antialiased),
the centre {preprocessing["crop"]}×{preprocessing["crop"]} is kept, and ImageNet's mean and standard deviation are
applied.

## How it was made

Data: {card["trained_on"]}. {card["data"]}

Attribution: {card["attribution"]}

Recipe. {card["recipe"]}

The command, from a checkout ([training.md](training.md) explains it):

```
{card["command"]}
```

## What it is for, and what not

{card["intended_use"]}

{card["not_for"]}

## Known weaknesses

- Classes it tells worst: {worst}. Best: {best}. With so few photos a class, the order within either list is not firm.
- The training photos had been shrunk to 96 pixels: detail finer than that is unknown to it.
- Photos from the web show some regions, seasons and ways of building far more often than others, and so does what the
  classifier takes for a typical kitchen or village.
- A photo often shows more than one scene and carries one label: some "mistakes" below are a matter of opinion.

Most frequent mistakes:

| class | taken for | photos |
|---|---|---|
{confusions}

## Accuracy per class

In %, with 95 % intervals.

| class | top-1 | top-5 | photos |
|---|---|---|---|
{classes}
"""
