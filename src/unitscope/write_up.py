"""The write-up that unitscope began as: its published numbers, each beside the one obtained."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.errors import ModelError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.kernels import filters
from unitscope.model import Classifier, OnePhoto
from unitscope.render import make_folder, save

TITLE = "6.869 MiniPlaces Challenge, Part I (R. Sander, 7 November 2019)"
MODEL = "places365:resnet50"
PREPROCESSING = Preprocessing(
    resize=(227, 227), crop=None, note="the write-up's: squashed to 227×227, no crop"
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

# Logits were printed to three digits from a notebook's own copy of the photo; kernels
# to four.
_LOGIT_TOLERANCE = 0.05
_KERNEL_TOLERANCE = 0.0001
_CLASSES_OF_A_UNIT = 10


@dataclass(frozen=True)
class Comparison:
    """One statement of the write-up: where it stands, what was published, what was obtained, and whether they agree.

    `agrees` is None where the write-up gives no number to compare with.
    """

    where: str
    quantity: str
    published: str
    obtained: str
    agrees: bool | None


@dataclass(frozen=True)
class Reproduction:
    """All statements of the write-up beside those obtained, and the pictures drawn in its style."""

    comparisons: tuple[Comparison, ...]
    pictures: tuple[Path, ...]

    @property
    def agreeing(self) -> tuple[int, int]:
        """How many numbers agree, of how many that can be compared."""
        compared = [row.agrees for row in self.comparisons if row.agrees is not None]
        return sum(compared), len(compared)

    def plain(self) -> dict[str, Any]:
        """All of it but the pictures as plain data, for JSON."""
        agreeing, compared = self.agreeing
        rows = [dataclasses.asdict(row) for row in self.comparisons]
        return {"agreeing": agreeing, "compared": compared, "comparisons": rows}


def reproduce(
    model: Classifier, photo: OnePhoto, out: str | os.PathLike[str] | None = None
) -> Reproduction:
    """Do everything that the write-up did and put each published number beside the one obtained.

    `model` is meant to be `load("places365:resnet50",
    preprocessing=write_up.PREPROCESSING)` and `photo` the photograph of Rio; any
    network of the same layers and classes will do. With `out`, the pictures are drawn
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
    rows = [*_network(model, explanation), *_kernels(model), *_units(explanation)]
    top = explanation.top(5)[0]
    maximal = explanation.maximal_unit(top[0].index)
    ablation = Ablation.of(explanation, [maximal])
    rows += _ranking("figure 16", "before", _BEFORE, explanation)
    rows.append(
        Comparison(
            "figure 18",
            f"maximal unit of {top[0].label}",
            "not printed",
            str(maximal),
            None,
        )
    )
    rows += _ranking(
        "figure 17", f"after, unit {maximal} off", _AFTER, explanation.ablate(maximal)
    )
    rows += _maps(explanation)
    pictures = _draw(model, explanation, ablation, Path(out)) if out is not None else []
    return Reproduction(tuple(rows), tuple(pictures))


def _network(model: Classifier, explanation: Explanation) -> list[Comparison]:
    shape = tuple(explanation.feature_map.shape[1:])
    size = explanation.input_size
    rows = [
        Comparison(
            "figure 1",
            "input (row × col)",
            _times(_INPUT[1:]),
            _times(size),
            size == _INPUT[1:],
        ),
        Comparison(
            "section 2.1",
            "chopped network gives (unit × row × col)",
            _times(_MAP_SHAPE),
            _times(shape),
            shape == _MAP_SHAPE,
        ),
    ]
    for label, index in _CLASS_IDS.items():
        obtained = model.labels.index(label)
        rows.append(
            Comparison(
                "section 2.3",
                f"class id of {label}",
                str(index),
                str(obtained),
                obtained == index,
            )
        )
    return rows


def _kernels(model: Classifier) -> list[Comparison]:
    rows = []
    for (layer, number), published in _KERNELS.items():
        kernel = filters(model, layer, filters=number, channels=0)
        obtained = (float(kernel.low[0, 0]), float(kernel.high[0, 0]))
        agrees = all(
            abs(a - b) <= _KERNEL_TOLERANCE
            for a, b in zip(published, obtained, strict=True)
        )
        rows.append(
            Comparison(
                "figures 2–8",
                f"{layer} filter {number}, channel 0: range",
                _range(published),
                _range(obtained),
                agrees,
            )
        )
    return rows


def _units(explanation: Explanation) -> list[Comparison]:
    rows = []
    for unit, named in _UNITS.items():
        measured = [
            label for label, _ in explanation.classes_of_unit(unit, _CLASSES_OF_A_UNIT)
        ]
        agrees = any(name in label for name in named for label in measured)
        quantity = f"unit {unit}: by eye | {_CLASSES_OF_A_UNIT} largest weights"
        rows.append(
            Comparison(
                "figures 9–15", quantity, ", ".join(named), ", ".join(measured), agrees
            )
        )
    return rows


def _ranking(
    where: str, when: str, published: dict[str, float], explanation: Explanation
) -> list[Comparison]:
    rows = []
    obtained = explanation.top(len(published))[0]
    for rank, ((label, logit), prediction) in enumerate(
        zip(published.items(), obtained, strict=True), 1
    ):
        agrees = (
            label == prediction.label
            and abs(logit - prediction.logit) <= _LOGIT_TOLERANCE
        )
        rows.append(
            Comparison(
                where,
                f"{when}, rank {rank}",
                f"{label} {logit:.3f}",
                f"{prediction.label} {prediction.logit:.3f}",
                agrees,
            )
        )
    return rows


def _maps(explanation: Explanation) -> list[Comparison]:
    """Section 3's own way: every cell through the linear layer, bias included; and what it must add up to."""
    cells, head = explanation.feature_map[0].flatten(1).T, explanation.head
    assert isinstance(head, ExactHead)
    per_cell = torch.nn.functional.linear(cells, head.weight, head.bias)
    ours = (explanation.cams[0] + head.bias[:, None, None]).flatten(1).T
    scale = float(per_cell.abs().max())
    difference = float((per_cell - ours).abs().max()) / max(
        scale, torch.finfo(torch.float32).tiny
    )
    completeness = float(explanation.completeness_error.max())
    return [
        Comparison(
            "section 3.2",
            "every cell through the linear layer = the maps + bias",
            "0",
            f"{difference:.1e}",
            difference < 1e-5,
        ),
        Comparison(
            "section 3",
            "mean of every map + bias = logit",
            "not checked",
            f"{completeness:.1e}",
            None,
        ),
    ]


def _draw(
    model: Classifier, explanation: Explanation, ablation: Ablation, out: Path
) -> list[Path]:
    make_folder(out)
    pictures = [
        save(
            filters(model, layer, filters=range(30), channels=0),
            out / f"filters-{layer}.png",
            interpolation="bilinear",
        )
        for layer in ("conv1", "layer3.0.conv2")
    ]
    for unit in _UNITS:
        pictures.append(
            save(
                explanation.unit_maps(unit), out / f"unit-{unit}.png", style="write-up"
            )
        )
    pictures.append(save(ablation, out / "maximal-unit.png", style="write-up"))
    for prediction in explanation.top(5)[0]:
        name = prediction.label.replace("/", "-")
        pictures.append(
            save(
                explanation,
                out / f"cam-{name}.png",
                classes=[prediction.index],
                style="write-up",
                scale="map",
            )
        )
    return pictures


def _times(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4f} … {pair[1]:.4f}"
