"""Request: the arguments of `load`, as every loader gets them; and shared helpers."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image

from unitscope.attribution.scores import Scores
from unitscope.errors import ModelError, WeightsError
from unitscope.inputs.adapting import as_preprocessing
from unitscope.inputs.preprocessing import (
    AnyPreprocessing,
    Preprocessing,
)
from unitscope.labels import LabelsSource, check_label_count, read_labels
from unitscope.model import Provenance
from unitscope.tracing.output_choice import OutputName

WeightsSource: TypeAlias = str | os.PathLike[str] | enum.Enum
PreprocessingSource: TypeAlias = (
    AnyPreprocessing | Callable[[Image.Image], Any] | str
)
InputSize: TypeAlias = int | tuple[int, int]
TemplatesSource: TypeAlias = str | Sequence[str]

RANDOM_NOTE = (
    "The weights are random: shapes, speed and identities are real, predictions and "
    "maps mean nothing."
)


@dataclass(frozen=True, eq=False)
class Request:
    """One call of `load`: the specification, and the options (None where not given).

    `name` is the part of `spec` after the scheme's colon. `origin` is the specification
    that the user gave where that is another: "checkpoint:FILE", whose `arch` is `spec`
    here.
    """

    spec: str
    name: str = ""
    weights: WeightsSource | None = None
    labels: LabelsSource | None = None
    arch: str | None = None
    num_classes: int | None = None
    input_size: InputSize | None = None
    preprocessing: PreprocessingSource | None = None
    output: OutputName | None = None
    progress: bool | None = None
    seed: int | None = None
    base_url: str | None = None
    origin: str | None = None
    scores: str | None = None
    templates: TemplatesSource | None = None

    def provenance(
        self, weights: str, sha256: str | None, notes: Sequence[str]
    ) -> Provenance:
        """The classifier's provenance, under the specification that the user gave."""
        if self.origin is None:
            return Provenance(self.spec, weights, sha256, tuple(notes))
        return Provenance(
            self.origin,
            weights,
            sha256,
            (f"Architecture: {self.spec}.", *notes),
        )

    def own_labels(self) -> tuple[str, ...] | None:
        """Read the user's labels; None where there are none."""
        return None if self.labels is None else read_labels(self.labels)

    def labels_for(self, classes: int) -> tuple[str, ...] | None:
        """Read the user's labels, one for each class; None where there are none."""
        labels = self.own_labels()
        if labels is not None:
            self.check_labels(labels, classes)
        return labels

    def check_labels(self, labels: Sequence[str], classes: int) -> None:
        """Raise LabelsError unless there is one label for each of `classes`."""
        remedy = f"num_classes={len(labels)} for a network of as many"
        check_label_count(labels, classes, "" if self.num_classes else remedy)

    @property
    def sides(self) -> tuple[int, int] | None:
        """The user's input size as (rows, cols); None where there is none."""
        return None if self.input_size is None else _sides(self.input_size)

    def weights_file(self) -> Path | None:
        """The user's weights file; None where there is none."""
        if isinstance(self.weights, enum.Enum):
            raise WeightsError(
                f"{self.spec} takes a weights file, not {self.weights}: that belongs "
                "to torchvision's own networks"
            )
        return None if self.weights is None else Path(self.weights)

    def chosen_preprocessing(
        self, default: AnyPreprocessing | None
    ) -> AnyPreprocessing:
        """The user's preprocessing, or else the default one at the user's input size.

        Without a `default` that is ImageNet's convention.
        """
        own = self._own_preprocessing()
        if own is not None:
            return own

        preprocessing = as_preprocessing(default)
        if self.input_size is None or not isinstance(
            preprocessing, Preprocessing
        ):
            return preprocessing
        return resized(preprocessing, self.input_size)

    def _own_preprocessing(self) -> AnyPreprocessing | None:
        own = self.preprocessing
        if isinstance(own, str) and "=" in own:
            own = Preprocessing.parse(own)
        if isinstance(own, str):
            raise ModelError(
                f"preprocessing {own!r} is unknown to {self.spec}: only places365 "
                "names its preprocessings; write 'resize=256,crop=224', or pass "
                "unitscope.Preprocessing(resize=…, crop=…, mean=…, std=…)"
            )
        if own is None:
            return None

        preprocessing = as_preprocessing(own)
        if self.sides is None or preprocessing.input_size in (None, self.sides):
            return preprocessing
        raise ModelError(
            f"input_size {self.input_size} and the preprocessing's "
            f"{preprocessing.input_size} disagree: give one of the two"
        )

    def check_numbers(self) -> None:
        """Raise ModelError for a number of classes or a size below 1, or unknown scores."""
        if self.scores is not None:
            Scores.read(self.scores)
        if self.num_classes is not None and self.num_classes < 1:
            raise ModelError(
                f"num_classes must be at least 1, not {self.num_classes}"
            )
        if self.input_size is not None and min(_sides(self.input_size)) < 1:
            raise ModelError(
                "input_size must be positive pixels (a side, or rows and cols), not "
                f"{self.input_size}"
            )


def resized(
    preprocessing: Preprocessing, input_size: InputSize, why: str = "as asked"
) -> Preprocessing:
    """A preprocessing at another input size.

    A square crop keeps its share of the photo; for an oblong input the photo is
    squashed.
    """
    rows, cols = _sides(input_size)
    if (rows, cols) == preprocessing.input_size:
        return preprocessing

    note = f"{preprocessing.note}; at input size {rows}×{cols}, {why}"
    resize = preprocessing.resize
    crop = preprocessing.crop
    new_resize: int | tuple[int, int] = (rows, cols)
    new_crop = None
    if rows == cols and isinstance(resize, int) and isinstance(crop, int):
        new_resize = round(resize * rows / crop)
        new_crop = rows
    return dataclasses.replace(
        preprocessing,
        resize=new_resize,
        crop=new_crop,
        note=note.lstrip("; "),
    )


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[int]:
    """Draw random weights the same way each time, on the CPU.

    The user's random state is put back at the end. Gives the seed.
    """
    chosen = 0 if seed is None else seed
    # Only the CPU's generator is seeded (torch.manual_seed would seed every device's),
    # so only it is put back.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(chosen)
        yield chosen


def _sides(input_size: InputSize) -> tuple[int, int]:
    if isinstance(input_size, int):
        return input_size, input_size
    return input_size[0], input_size[1]
