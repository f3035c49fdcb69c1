"""The write-up that unitscope began as: its published numbers beside those obtained."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.errors import ModelError
from unitscope.files import make_folder
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.kernels import filters
from unitscope.model import Classifier, OnePhoto
from unitscope.render import save

TITLE = "6.869 MiniPlaces Challenge, Part I (R. Sander, 7 November 2019)"
MODEL = "places365:resnet50"
PREPROCESSING = Preprocessing(
    resize=(227, 227),
    crop=None,
    note="the write-up's: squashed to 227×227, no crop",
)

_INPUT = (3, 227, 227)
_MAP_SHAPE = (2048, 8, 8)
_CLASS_IDS = {
    "village": 348,
    "islet": 194,
    "beach_house": 49,
    "coast": 97,
    "harbor": 171,
}
_BEFORE = {
    "village": 8.458,
    "islet": 8.361,
    "beach_house": 7.759,
    "coast": 6.947,
    "harbor": 6.794,
}
_AFTER = {
    "islet": 8.058,
    "village": 7.816,
    "beach_house": 7.278,
    "coast": 6.650,
    "harbor": 6.539,
}
_KERNELS = {
    ("conv1", 0): (-0.3864, 0.2272),
    ("conv1", 2): (-0.4255, 0.4087),
    ("conv1", 11): (-0.1016, 0.0509),
    ("layer3.0.conv2", 14): (-0.0124, 0.0097),
    ("layer3.0.conv2", 23): (-0.0246, 0.0067),
    ("layer3.0.conv2", 25): (-0.0195, 0.0082),
}

# The student named units by eye, by the scenes whose parts seemed to activate them.
_UNITS = {
    300: ("mountain", "islet"),
    100: ("village",),
    77: ("coast",),
    175: ("harbor",),
    34: ("coast", "harbor"),
    52: ("sky", "coast"),
    128: ("coast", "harbor"),
}

# The write-up printed logits to three digits, from a notebook's own copy of the photo,
# and kernels to four.
_LOGIT_TOLERANCE = 0.05
_KERNEL_TOLERANCE = 0.0001
_CLASSES_OF_A_UNIT = 10

_MAPS_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Comparison:
    """One statement of the write-up: its place, the number published and that obtained.

    `agrees` is None where the write-up gives no number to compare with.
    """

    where: str
    quantity: str
    published: str
    obtained: str
    agrees: bool | None


@dataclass(frozen=True)
class Reproduction:
    """All statements of the write-up, compared, and the pictures drawn in its style."""

    comparisons: tuple[Comparison, ...]
    pictures: tuple[Path, ...]

    @property
    def agreeing(self) -> tuple[int, int]:
        """The count of numbers that agree, and of those that can be compared."""
        compared = [
            row.agrees for row in self.comparisons if row.agrees is not None
        ]
        return sum(compared), len(compared)

    def plain(self) -> dict[str, Any]:
        """The comparisons as plain data, for JSON."""
        agreeing, compared = self.agreeing
        rows = [dataclasses.asdict(row) for row in self.comparisons]
        return {"agreeing": agreeing, "compared": compared, "comparisons": rows}


def reproduce(
    model: Classifier,
    photo: OnePhoto,
    out: str | os.PathLike[str] | None = None,
) -> Reproduction:
    """Repeat the write-up and compare each of its published numbers.

    `model` is meant to be `load("places365:resnet50",
    preprocessing=write_up.PREPROCESSING)` and `photo` the photograph of Rio; any
    network with the same layers and classes will do. With `out`, the pictures are drawn
    there in the write-up's style.

    Raises ModelError for a network without the write-up's layers or classes.
    """
    missing = [label for label in _CLASS_IDS if label not in model.labels]
    if missing:
        raise ModelError(
            "the write-up is about the 365 classes of Places365; these labels lack "
            f"{', '.join(missing)}: use {MODEL}"
        )
    explanation = model.explain(photo)

    first = explanation.top(1)[0][0]
    maximal = explanation.maximal_unit(first.index)
    without = explanation.ablate(maximal)
    comparisons = (
        *_network(model, explanation),
        *_kernels(model),
        *_units(explanation),
        *_ranking("figure 16", "before", _BEFORE, explanation),
        Comparison(
            where="figure 18",
            quantity=f"maximal unit of {first.label}",
            published="not printed",
            obtained=str(maximal),
            agrees=None,
        ),
        *_ranking("figure 17", f"after, unit {maximal} off", _AFTER, without),
        *_maps(explanation),
    )

    if out is None:
        return Reproduction(comparisons, ())
    ablation = Ablation.of(explanation, [maximal])
    pictures = _pictures(model, explanation, ablation, Path(out))
    return Reproduction(comparisons, tuple(pictures))


def _network(
    model: Classifier, explanation: Explanation
) -> Iterator[Comparison]:
    size = explanation.input_size
    yield Comparison(
        where="figure 1",
        quantity="input (row × col)",
        published=_times(_INPUT[1:]),
        obtained=_times(size),
        agrees=size == _INPUT[1:],
    )

    shape = tuple(explanation.feature_map.shape[1:])
    yield Comparison(
        where="section 2.1",
        quantity="chopped network gives (unit × row × col)",
        published=_times(_MAP_SHAPE),
        obtained=_times(shape),
        agrees=shape == _MAP_SHAPE,
    )

    for label, index in _CLASS_IDS.items():
        obtained = model.labels.index(label)
        yield Comparison(
            where="section 2.3",
            quantity=f"class id of {label}",
            published=str(index),
            obtained=str(obtained),
            agrees=obtained == index,
        )


def _kernels(model: Classifier) -> Iterator[Comparison]:
    for (layer, number), published in _KERNELS.items():
        kernel = filters(model, layer, filters=number, channels=0)
        obtained = (float(kernel.low[0, 0]), float(kernel.high[0, 0]))
        differences = [
            abs(a - b) for a, b in zip(published, obtained, strict=True)
        ]
        yield Comparison(
            where="figures 2–8",
            quantity=f"{layer} filter {number}, channel 0: range",
            published=_range(published),
            obtained=_range(obtained),
            agrees=all(each <= _KERNEL_TOLERANCE for each in differences),
        )


def _units(explanation: Explanation) -> Iterator[Comparison]:
    for unit, named in _UNITS.items():
        strongest = explanation.classes_of_unit(unit, _CLASSES_OF_A_UNIT)
        measured = [label for label, _ in strongest]
        yield Comparison(
            where="figures 9–15",
            quantity=f"unit {unit}: by eye | {_CLASSES_OF_A_UNIT} largest weights",
            published=", ".join(named),
            obtained=", ".join(measured),
            agrees=any(name in label for name in named for label in measured),
        )


def _ranking(
    where: str, when: str, published: dict[str, float], explanation: Explanation
) -> Iterator[Comparison]:
    obtained = explanation.top(len(published))[0]
    pairs = zip(published.items(), obtained, strict=True)
    for rank, ((label, logit), prediction) in enumerate(pairs, 1):
        near = abs(logit - prediction.logit) <= _LOGIT_TOLERANCE
        yield Comparison(
            where=where,
            quantity=f"{when}, rank {rank}",
            published=f"{label} {logit:.3f}",
            obtained=f"{prediction.label} {prediction.logit:.3f}",
            agrees=label == prediction.label and near,
        )


def _maps(explanation: Explanation) -> Iterator[Comparison]:
    """The maps of section 3: every cell through the linear layer, bias included."""
    head = explanation.head
    assert isinstance(head, ExactHead)
    cells = explanation.feature_map[0].flatten(1).T
    per_cell = torch.nn.functional.linear(cells, head.weight, head.bias)
    ours = (explanation.cams[0] + head.bias[:, None, None]).flatten(1).T

    smallest = torch.finfo(torch.float32).tiny
    scale = max(float(per_cell.abs().max()), smallest)
    difference = float((per_cell - ours).abs().max()) / scale
    yield Comparison(
        where="section 3.2",
        quantity="every cell through the linear layer = the maps + bias",
        published="0",
        obtained=f"{difference:.1e}",
        agrees=difference < _MAPS_TOLERANCE,
    )

    completeness = float(explanation.completeness_error.max())
    yield Comparison(
        where="section 3",
        quantity="mean of every map + bias = logit",
        published="not checked",
        obtained=f"{completeness:.1e}",
        agrees=None,
    )


def _pictures(
    model: Classifier, explanation: Explanation, ablation: Ablation, out: Path
) -> Iterator[Path]:
    """Draw the write-up's figures into a folder, one after the other."""
    make_folder(out)
    for layer in ("conv1", "layer3.0.conv2"):
        kernels = filters(model, layer, filters=range(30), channels=0)
        path = out / f"filters-{layer}.png"
        yield save(kernels, path, interpolation="bilinear")

    for unit in _UNITS:
        maps = explanation.unit_maps(unit)
        yield save(maps, out / f"unit-{unit}.png", style="write-up")
    yield save(ablation, out / "maximal-unit.png", style="write-up")

    for prediction in explanation.top(5)[0]:
        name = prediction.label.replace("/", "-")
        yield save(
            explanation,
            out / f"cam-{name}.png",
            classes=[prediction.index],
            style="write-up",
            scale="map",
        )


def _times(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4f} … {pair[1]:.4f}"
