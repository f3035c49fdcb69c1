"""Request: what `load` was asked for, as every loader gets it, and what the loaders share."""

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

from unitscope.errors import ModelError, WeightsError
from unitscope.inputs.preprocessing import (
    AnyPreprocessing,
    Preprocessing,
    as_preprocessing,
)
from unitscope.labels import LabelsSource, check_label_count, read_labels
from unitscope.model import Provenance

WeightsSource: TypeAlias = str | os.PathLike[str] | enum.Enum
PreprocessingSource: TypeAlias = AnyPreprocessing | Callable[[Image.Image], Any] | str
InputSize: TypeAlias = int | tuple[int, int]

RANDOM_NOTE = "The weights are random: shapes, speed and identities are real, predictions and maps mean nothing."


@dataclass(frozen=True, eq=False)
class Request:
    """One call of `load`: the specification, what follows its scheme, and the options (None where not given).

    `origin` is the specification that the user gave where that is another:
    "checkpoint:FILE", whose `arch` is `spec` here.
    """

    spec: str
    name: str = ""
    weights: WeightsSource | None = None
    labels: LabelsSource | None = None
    arch: str | None = None
    num_classes: int | None = None
    input_size: InputSize | None = None
    preprocessing: PreprocessingSource | None = None
    progress: bool | None = None
    seed: int | None = None
    base_url: str | None = None
    origin: str | None = None

    def provenance(
        self, weights: str, sha256: str | None, notes: Sequence[str]
    ) -> Provenance:
        """Where the classifier came from, under the specification that the user gave."""
        if self.origin is None:
            return Provenance(self.spec, weights, sha256, tuple(notes))
        return Provenance(
            self.origin, weights, sha256, (f"Architecture: {self.spec}.", *notes)
        )

    def own_labels(self) -> tuple[str, ...] | None:
        """Read the labels that were given; None when none were."""
        return None if self.labels is None else read_labels(self.labels)

    def labels_for(self, classes: int) -> tuple[str, ...] | None:
        """Read the labels that were given and compare their number with that of the classes; None when none were."""
        labels = self.own_labels()
        if labels is not None:
            check_label_count(
                labels,
                classes,
                ""
                if self.num_classes
                else f"num_classes={len(labels)} for a network of as many",
            )
        return labels

    @property
    def sides(self) -> tuple[int, int] | None:
        """(rows, cols) of the input size that was asked for; None when none was."""
        return None if self.input_size is None else _sides(self.input_size)

    def weights_file(self) -> Path | None:
        """Give the weights file that was asked for; None when none was."""
        if isinstance(self.weights, enum.Enum):
            raise WeightsError(
                f"{self.spec} takes a weights file, not {self.weights}: that belongs "
                "to torchvision's own networks"
            )
        return None if self.weights is None else Path(self.weights)

    def chosen_preprocessing(
        self, default: AnyPreprocessing | None
    ) -> AnyPreprocessing:
        """Choose the preprocessing that was given, or else `default` or ImageNet's at the input size asked for."""
        chosen = self.preprocessing
        if isinstance(chosen, str) and "=" in chosen:
            chosen = Preprocessing.parse(chosen)
        if isinstance(chosen, str):
            raise ModelError(
                f"preprocessing {chosen!r} is unknown to {self.spec}: only places365 "
                "names its preprocessings; write "
                "'resize=256,crop=224', or pass unitscope.Preprocessing(resize=…, "
                "crop=…, mean=…, std=…)"
            )
        if chosen is not None:
            given = as_preprocessing(chosen)
            if self.input_size is not None and given.input_size not in (
                None,
                _sides(self.input_size),
            ):
                raise ModelError(
                    f"input_size {self.input_size} and the preprocessing's "
                    f"{given.input_size} disagree: give one of "
                    "the two"
                )
            return given
        found = as_preprocessing(default)
        if self.input_size is None or not isinstance(found, Preprocessing):
            return found
        return resized(found, self.input_size)

    def check_numbers(self) -> None:
        """Refuse numbers of classes, sizes and seeds that could not be meant."""
        if self.num_classes is not None and self.num_classes < 1:
            raise ModelError(f"num_classes must be at least 1, not {self.num_classes}")
        if self.input_size is not None and min(_sides(self.input_size)) < 1:
            raise ModelError(
                "input_size must be positive pixels (a side, or rows and cols), not "
                f"{self.input_size}"
            )


def resized(
    preprocessing: Preprocessing, input_size: InputSize, why: str = "as asked"
) -> Preprocessing:
    """Take the convention to another input size: the crop keeps its share of the photo; an oblong input squashes it."""
    rows, cols = _sides(input_size)
    if (rows, cols) == preprocessing.input_size:
        return preprocessing
    note = f"{preprocessing.note}; at input size {rows}×{cols}, {why}".lstrip("; ")
    if (
        rows != cols
        or not isinstance(preprocessing.resize, int)
        or not isinstance(preprocessing.crop, int)
    ):
        return dataclasses.replace(
            preprocessing, resize=(rows, cols), crop=None, note=note
        )
    resize = round(preprocessing.resize * rows / preprocessing.crop)
    return dataclasses.replace(preprocessing, resize=resize, crop=rows, note=note)


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[int]:
    """Draw random weights the same way each time, on the CPU, and leave the user's random state as it was."""
    chosen = 0 if seed is None else seed
    # Only the CPU's generator is seeded (torch.manual_seed would seed every device's),
    # so only it is put back.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(chosen)
        yield chosen


def _sides(input_size: InputSize) -> tuple[int, int]:
    return (
        (input_size, input_size)
        if isinstance(input_size, int)
        else (input_size[0], input_size[1])
    )
