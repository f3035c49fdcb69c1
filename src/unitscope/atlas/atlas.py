"""Atlas: what every unit responds to over a data set: which units, which classes, which concepts, and without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
import torch

from unitscope.atlas.findings import pooled_features
from unitscope.atlas.intervals import Estimate
from unitscope.atlas.neighbours import correlations
from unitscope.atlas.observing import digest_of
from unitscope.atlas.storage import StoredAtlas
from unitscope.atlas.summaries.concepts import SIGNIFICANCE
from unitscope.atlas.summaries.top_images import CRITERIA
from unitscope.atlas.unit_sets import confusion_without
from unitscope.attribution.classes import class_index
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.datasets import Dataset, open_dataset
from unitscope.errors import (
    AtlasError,
    ClassError,
    InputError,
    MissingError,
    PhotoError,
    near_matches,
)
from unitscope.geometry import Placement
from unitscope.inputs.photos import Encoded, shown_name
from unitscope.inputs.subjects import Subject
from unitscope.tracing.layers import check_units

Row = dict[str, Any]

# With fewer draws of the null nothing can be significant.
_LEAST_DRAWS = round(1 / SIGNIFICANCE) - 1

_EFFECTS = ("importance", "importance_low", "importance_high", "contribution")

SORTS: dict[str, Callable[[Row], Any]] = {
    "unit": lambda row: (row["layer"], row["unit"]),
    "maximum": lambda row: -row["maximum"],
    "selectivity": lambda row: -_number(row["selectivity"]),
    "iou": lambda row: -_number(row.get("iou")),
    "positive": lambda row: -row["share_positive"],
}


class Atlas(StoredAtlas):
    """What every unit of some layers responds to, over a data set: what `scan` leaves, and `Atlas.open` opens.

    Questions are answered as rows (dicts), for `pandas.DataFrame` and the like; whole
    tables by `table(name)`, and all that was kept of a layer's units by
    `summary(layer)`. See docs/atlas.md.
    """

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in self.facts()
        )
        return f"<table>{lines}</table>"

    def facts(self) -> list[tuple[str, str]]:
        """What it is of and what it found, in words, line by line."""
        model, data, scanned = (
            self.manifest[name] for name in ("model", "data", "scanned")
        )
        whole = (
            ""
            if self.complete
            else f"; only {len(self.shards())} of {self.manifest['parameters']['shards']} shards"
        )
        lines = [
            ("atlas", f"{self.path}{whole}"),
            (
                "model",
                f"{model['spec']} ({model['architecture']}, {len(self.labels)} "
                "classes)",
            ),
            (
                "data set",
                f"{data['source']} ({data['kind']}): {scanned['images']:,} images, "
                f"{scanned['skipped']:,} skipped",
            ),
            ("labels", f"{data['labels']}, {len(self.classes)} classes"),
            *(("note", note) for note in data["notes"]),
        ]
        dead = self.table("units", ["layer", "dead"]).to_pydict()
        for layer in self.layers:
            silent = sum(
                one
                for name, one in zip(dead["layer"], dead["dead"], strict=True)
                if name == layer.name
            )
            lines.append(
                (
                    "layer",
                    f"{layer.name}: {layer.units} units of "
                    f"{'×'.join(map(str, layer.cells))} cells, {silent} dead",
                )
            )
        ablation, concepts = self.manifest["ablation"], self.manifest["concepts"]
        if data["labels"] == "given" and all(
            target is None for target in data["targets"]
        ):
            lines.append(
                (
                    "accuracy",
                    "none: no class of the data set is one of the model's, by name",
                )
            )
        elif data["labels"] == "given" and ablation is not None:
            value, low, high = ablation["accuracy"]
            lines.append(
                (
                    "accuracy",
                    f"{value:.1%} ({low:.1%}–{high:.1%}, 95 %) on "
                    f"{ablation['images']:,} images",
                )
            )
        for name, found in (concepts or {"detectors": {}})["detectors"].items():
            chance, lowest, highest = found["units_by_chance"]
            if concepts["draws"] < _LEAST_DRAWS:
                lines.append(
                    (
                        "detectors",
                        f"{name}: {concepts['photos']} photos with masks are too few "
                        "to tell from chance",
                    )
                )
                continue
            by_chance = f"by chance {chance:.1f} ({lowest:.0f}–{highest:.0f})"
            lines.append(
                (
                    "detectors",
                    f"{name}: {found['units']} units of {found['concepts']} concepts; "
                    f"{by_chance}",
                )
            )
        return lines

    def units(
        self,
        layer: str | None = None,
        *,
        of_class: int | str | None = None,
        concept: str | None = None,
        detectors: bool = False,
        dead: bool = False,
        sort: str | None = None,
        count: int | None = None,
    ) -> list[Row]:
        """Units of a layer (the head's where none is named), as rows of the table `units`.

        With `of_class` in the order in which they matter for the class: rows with
        `class_mean`, the mean activation on its images, and `class_share`, what that is
        of the sum over all classes; and, where ablation was measured on this layer,
        `importance` (by which they are ordered then) and mean `contribution` to the
        class's logit. With `concept` the detectors of that concept, or with `detectors`
        of any, the best first. With `dead` those that are never above 0.

        Raises AtlasError, and ClassError for a class that the data set does not have.
        """
        found = self.layer(layer)
        rows: list[Row] = self.table(
            "units", where=[("layer", "=", found.name)]
        ).to_pylist()
        if (concept is not None or detectors) and "iou" not in rows[0]:
            raise AtlasError(
                "no concepts were measured for this atlas: give photos with masks, "
                "`unitscope scan … --concepts MASKS`"
            )
        if concept is not None:
            concept = self._concept(concept)
            rows = [row for row in rows if row["concept_name"] == concept]
        if concept is not None or detectors:
            rows = [row for row in rows if row["detector"]]
            sort = sort or "iou"
        if dead:
            rows = [row for row in rows if row["dead"]]
        if of_class is not None:
            rows = self._of_class(
                found.name, found.is_head, class_index(self.classes, of_class), rows
            )
        if sort is not None or of_class is None:
            rows.sort(key=SORTS[sort or "unit"])
        return rows[:count]

    def _of_class(
        self, layer: str, is_head: bool, index: int, rows: list[Row]
    ) -> list[Row]:
        """The units by what they are to a class."""
        classes = self.summary(layer).classes
        if not classes.counts[index]:
            raise ClassError(f"no image of class {self.classes[index]!r} was scanned")
        means = classes.means
        with np.errstate(invalid="ignore"):
            shares = means[index] / np.nansum(np.abs(means), axis=0)
        effects: dict[int, Row] = {}
        if is_head and self.has("class_ablation"):
            chosen = self.table(
                "class_ablation", where=[("class", "=", index)]
            ).to_pylist()
            effects = {row["unit"]: row for row in chosen}
        told = []
        for row in rows:
            effect = effects.get(row["unit"], {})
            more = {
                "class_mean": float(means[index, row["unit"]]),
                "class_share": _finite(shares[row["unit"]]),
            }
            more |= {
                name: effect.get(name)
                for name in (
                    "importance",
                    "importance_low",
                    "importance_high",
                    "contribution",
                )
            }
            told.append(row | more)
        if effects:
            told.sort(
                key=lambda row: (
                    -_number(row["importance"]),
                    -_number(row["contribution"]),
                    row["unit"],
                )
            )
        else:
            told.sort(key=lambda row: (-_number(row["class_share"]), row["unit"]))
        return told

    def classes_of(self, unit: int, layer: str | None = None) -> list[Row]:
        """The classes to which a unit answers most, as rows of the table `unit_classes`; raises UnitError."""
        found = self.layer(layer)
        check_units(unit, found.units, f"layer '{found.name}'")
        return self._rows("unit_classes", found.name, unit)

    def concepts_of(self, unit: int, layer: str | None = None) -> list[Row]:
        """The concepts that a unit agrees with best, as rows of the table `unit_concepts`; raises UnitError."""
        found = self.layer(layer)
        check_units(unit, found.units, f"layer '{found.name}'")
        return (
            self._rows("unit_concepts", found.name, unit)
            if self.has("unit_concepts")
            else []
        )

    def neighbours(
        self, unit: int, layer: str | None = None, *, count: int = 8
    ) -> list[Row]:
        """The units of a layer that respond most like one of them over the data set, the most alike first.

        Rows have `unit` and `correlation` (Pearson's, of the units' mean activations,
        −1 to 1), and say `of` what it is: of all "images" for the layer that an exact
        head reads, else of the means of "classes" or of a random "sample" of images,
        and of how many, `compared`. None where the unit is always the same. Raises
        UnitError.
        """
        found = self.layer(layer)
        (asked,) = check_units(unit, found.units, f"layer '{found.name}'")
        alike = correlations(self, found, [asked])
        return [
            {
                "unit": other,
                "correlation": value,
                "of": alike.of,
                "compared": alike.count,
            }
            for other, value in alike.nearest(0, count)
        ]

    def photos(self) -> Dataset:
        """The data set that was scanned, opened again from where it lay; raises DatasetError where it is gone."""
        data = self.manifest["data"]
        paths = data.get("paths") or [data["source"]]
        return open_dataset(
            paths[0] if len(paths) == 1 else paths, split=data.get("split")
        )

    def unit_maps(
        self,
        unit: int,
        layer: str | None = None,
        *,
        by: str = "maximum",
        count: int = 9,
        dataset: Dataset | None = None,
    ) -> UnitMaps:
        """A unit's maps on its top images, by "maximum" or "mean", or on the random "sample" by rising maximum.

        The photos are read from the data set when they are drawn; `dataset` is where it
        lies now, if elsewhere. Raises UnitError, and InputError for another way to
        choose images.
        """
        found = self.layer(layer)
        check_units(unit, found.units, f"layer '{found.name}'")
        if by == "sample":
            sample = self.summary(found.name).sample
            order = np.argsort(sample.maxima[:, unit], kind="stable")
            order = order[
                np.linspace(0, len(order) - 1, min(count, len(order)))
                .round()
                .astype(int)
            ]
            images, maps = sample.images[order], sample.maps()[order, unit]
        elif by in CRITERIA:
            top = self.summary(found.name).top[by]
            images, maps = top.images[unit], top.maps()[unit]
            images, maps = images[images >= 0][:count], maps[images >= 0][:count]
        else:
            raise InputError(
                f"images are chosen by {', '.join(map(repr, (*CRITERIA, 'sample')))}, "
                f"not by {by!r}"
            )
        opened = self.photos() if dataset is None else dataset
        subjects = self.subjects(images.tolist(), opened)
        return UnitMaps(
            found.name,
            (unit,),
            torch.from_numpy(maps[:, None]),
            found.grid,
            self._input_size,
            subjects,
        )

    def subjects(self, images: Sequence[int], dataset: Dataset) -> tuple[Subject, ...]:
        """Images of the data set by their numbers, each with where the network's input lay on it.

        They are read when they are drawn, and must have the bytes that were scanned.
        Raises MissingError for a number that no image of this atlas has, PhotoError for
        an image that is not in `dataset` any more.
        """
        rows = {
            row["image"]: row
            for row in self.table(
                "images", where=[("image", "in", list(images))]
            ).to_pylist()
        }
        for image in images:
            if image not in rows:
                raise MissingError(
                    f"there is no image {image} among the {self.images:,} of the atlas "
                    f"in '{self.path}'"
                )
        return tuple(
            _subject(rows[image], dataset, self._input_size) for image in images
        )

    @property
    def _input_size(self) -> tuple[int, int]:
        rows, cols = self.manifest["model"]["input_shape"][1:]
        return int(rows), int(cols)

    def removals(self, which: int | str) -> list[Row]:
        """What is left of a class without its most and its least important units: rows of the table `set_ablation`.

        Raises ClassError for a class that was not measured.
        """
        index = class_index(self.classes, which)
        found: list[Row] = self.table(
            "set_ablation", where=[("class", "=", index)]
        ).to_pylist()
        if not found:
            raise ClassError(
                f"class {self.classes[index]!r} has too few images in one of the "
                "halves: on one units are ranked, on "
                "the other results are reported"
            )
        return found

    def without(self, units: Sequence[int]) -> tuple[Estimate, Estimate, list[Row]]:
        """The accuracy over the data set with all units on, and with any units off, exactly and without the photos.

        And for every class how many of its images are found, before and after, those
        that lose most first. Where the data set has no labels, the model's own
        predictions stand for them. Raises UnitError, and AtlasError where the head is
        not exact.
        """
        readout = self.readout
        if readout is None:
            raise AtlasError(
                "units can only be switched off where the head is exact: this atlas "
                "has no pooled features"
            )
        off = check_units(units, readout.weight.shape[1], "the head's feature map")
        source = pooled_features(self)
        if source is None:
            raise AtlasError(
                "no image of this atlas has a class of the model: there is nothing to "
                "be right or wrong about"
            )
        counts = confusion_without(readout, source, [[], off], on="all")
        accuracy = counts.accuracy
        rows: list[Row] = [
            {
                "class": self.labels[index],
                "images": int(positives),
                "found_before": int(counts.tp[0, index]),
                "found_after": int(counts.tp[1, index]),
            }
            for index, positives in enumerate(counts.positives)
            if positives
        ]
        rows.sort(
            key=lambda row: (row["found_after"] - row["found_before"]) / row["images"]
        )
        before, after = (
            Estimate(*(float(end[place]) for end in accuracy)) for place in (0, 1)
        )
        return before, after, rows

    def _rows(self, table: str, layer: str, unit: int) -> list[Row]:
        rows: list[Row] = self.table(
            table, where=[("layer", "=", layer), ("unit", "=", unit)]
        ).to_pylist()
        return rows

    def _concept(self, name: str) -> str:
        names = self.table("concepts", ["name"]).column("name").to_pylist()
        if name not in names:
            raise AtlasError(
                f"there is no concept '{name}' among the "
                f"{len(names)}{near_matches(name, names)}"
            )
        return name


def _subject(row: Row, dataset: Dataset, input_size: tuple[int, int]) -> Subject:
    """An image of the data set, read when it is drawn, with where the network's input lay on it."""
    size = row["width"], row["height"]
    placed = Placement(
        size, input_size, row["left"], row["top"], row["right"], row["bottom"]
    )

    place = dataset.places.get(row["id"])
    if place is None:
        raise PhotoError(
            f"image '{row['id']}' is not in '{dataset.source}' any more: say where it "
            "lies now"
        )

    def read() -> bytes:
        data = dataset.read(place)
        if digest_of(data) != row["digest"]:
            raise PhotoError(
                f"image '{row['id']}' has changed since it was scanned: scan the data "
                "set again"
            )
        return data

    source = Encoded(row["id"], read, dataset.entries[place].size)
    return Subject(shown_name(row["id"]), size, None, source=source, placed=placed)


def _number(value: float | None) -> float:
    """A value to sort by, with missing ones last."""
    return -np.inf if value is None or np.isnan(value) else float(value)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
