"""Atlas: what every unit responds to over a data set, and what is lost without it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import torch

from unitscope.atlas.ablation.confusion import Confusion
from unitscope.atlas.ablation.unit_sets import confusion_without
from unitscope.atlas.disk.manifest import identity_of
from unitscope.atlas.findings.ablation_tables import pooled_features
from unitscope.atlas.identity import fingerprint
from unitscope.atlas.intervals import Estimate
from unitscope.atlas.neighbours import correlations
from unitscope.atlas.reading.description import facts_of
from unitscope.atlas.reading.images import (
    images_and_maps,
    input_size_of,
    subjects_of,
)
from unitscope.atlas.reading.unit_rows import Row, UnitFilter, unit_rows
from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.attribution.classes import class_index
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.attribution.value import UnitMeans
from unitscope.datasets import Dataset, open_dataset
from unitscope.errors import AtlasError, ClassError
from unitscope.inputs.subjects import Subject
from unitscope.model import Classifier
from unitscope.residual.replacement import HeadMeans
from unitscope.tracing.layers import check_units


class Atlas(StoredAtlas):
    """What every unit of some layers responds to, over a data set.

    `scan` makes one, and `Atlas.open` opens it. Answers are rows (dicts), for
    `pandas.DataFrame` and the like. `table(name)` gives whole tables, and
    `summary(layer)` the summaries of a layer's units. See docs/atlas.md.
    """

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in self.facts()
        )
        return f"<table>{rows}</table>"

    def facts(self) -> list[tuple[str, str]]:
        """What the atlas is of and what it found: names and texts, line by line."""
        return facts_of(self)

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
        """Units of a layer, by default the head's, as rows of the table `units`.

        With `of_class` they come in the order in which they matter for the class. Their
        rows have `class_mean`, the mean activation on its images, and `class_share`,
        its share in the sum over all classes. Where ablation was measured on this
        layer they also have `importance`, which then gives the order, and the mean
        `contribution` to the class's logit.

        `concept` selects the detectors of a concept, `detectors` those of any, best
        first; `dead` selects units that are never above 0. Raises AtlasError, and
        ClassError for a class that the data set does not have.
        """
        wanted = UnitFilter(of_class, concept, detectors, dead, sort, count)
        return unit_rows(self, self.layer(layer), wanted)

    def classes_of(self, unit: int, layer: str | None = None) -> list[Row]:
        """The classes to which a unit responds most, as rows of `unit_classes`.

        Raises UnitError.
        """
        chosen = self.layer(layer)
        _check_unit(chosen, unit)
        return self._rows("unit_classes", chosen, unit)

    def concepts_of(self, unit: int, layer: str | None = None) -> list[Row]:
        """The concepts of a unit's largest IoUs, as rows of `unit_concepts`.

        Raises UnitError.
        """
        chosen = self.layer(layer)
        _check_unit(chosen, unit)
        if not self.has("unit_concepts"):
            return []
        return self._rows("unit_concepts", chosen, unit)

    def neighbours(
        self, unit: int, layer: str | None = None, *, count: int = 8
    ) -> list[Row]:
        """The units of a layer that respond most like one of them, most alike first.

        Rows have `unit` and `correlation`, Pearson's, of the units' mean activations,
        −1 to 1. `of` and `compared` say over what and how many: all "images" for the
        layer whose means an exact head reads, else the means of "classes" or of a random
        "sample" of images. There are none where the unit is constant. Raises UnitError.
        """
        chosen = self.layer(layer)
        index = _check_unit(chosen, unit)
        alike = correlations(self, chosen, [index])
        return [
            {
                "unit": other,
                "correlation": value,
                "of": alike.of,
                "compared": alike.count,
            }
            for other, value in alike.nearest(0, count)
        ]

    def unit_means(
        self, model: Classifier, layer: str | None = None
    ) -> UnitMeans:
        """The mean activation of every unit of a layer, to replace units by.

        It is over all cells and images. It is what `value` takes in `Classifier.ablate` and
        `ablations`. `model` is the one that was scanned; `layer` None is the head's. Raises
        AtlasError for another model, for a layer that was not scanned, and for attention
        heads, whose means `head_means` has.
        """
        check_same_model(self, model)
        chosen = self.layer(layer)
        if chosen.heads:
            raise AtlasError(
                f"'{chosen.name}' has heads of attention, not units: take head_means(model)"
            )
        means = self.summary(chosen.name).classes.overall_mean
        return UnitMeans(
            chosen.name,
            torch.from_numpy(means).to(torch.float32),
            self.images,
        )

    def head_means(self, model: Classifier) -> HeadMeans:
        """What heads of attention give on average over the data set, to replace them by.

        It is what `by` takes in the `total_logits`, `direct_logits` and `ablate_each` of
        a photo's explanation. `model` is the one that was scanned. Raises AtlasError for
        another one, and where no heads were scanned.
        """
        check_same_model(self, model)
        for layer in self.layers:
            heads = self.summary(layer.name).heads if layer.heads else None
            if heads is not None:
                means = [
                    torch.from_numpy(output).to(torch.float32)[None]
                    for output in heads.outputs
                ]
                return HeadMeans(tuple(means), heads.images)
        raise AtlasError(
            f"the atlas in '{self.path}' has no attention heads: scan them into another "
            "folder with layers='attention heads' (--layer), of a network without an "
            "exact head whose logits are read from tokens that attend to others"
        )

    def photos(self) -> Dataset:
        """The data set that was scanned, opened again.

        Raises DatasetError where it is not in its place any more.
        """
        data = self.manifest["data"]
        paths = data.get("paths") or [data["source"]]
        source = paths[0] if len(paths) == 1 else paths
        return open_dataset(source, split=data.get("split"))

    def unit_maps(
        self,
        unit: int,
        layer: str | None = None,
        *,
        by: str = "maximum",
        count: int = 9,
        dataset: Dataset | None = None,
    ) -> UnitMaps:
        """A unit's maps on its top images, or across the random sample.

        `by` is "maximum", "mean", or "sample", where images come by rising maximum. The
        photos are read from the data set when they are drawn; `dataset` replaces the
        one that was scanned if it lies elsewhere now. Raises UnitError, and InputError
        for another `by`.
        """
        chosen = self.layer(layer)
        _check_unit(chosen, unit)
        images, maps = images_and_maps(self, chosen.name, unit, by, count)
        if dataset is None:
            dataset = self.photos()
        return UnitMaps(
            chosen.name,
            (unit,),
            torch.from_numpy(maps[:, None]),
            chosen.grid,
            input_size_of(self),
            self.subjects(images.tolist(), dataset),
        )

    def subjects(
        self, images: Sequence[int], dataset: Dataset
    ) -> tuple[Subject, ...]:
        """Images of the data set by number, with the place of the network's input.

        They are read when they are drawn, and must have the bytes that were scanned.
        Raises MissingError for a number that no image of this atlas has, PhotoError for
        an image that is not in `dataset` any more.
        """
        return subjects_of(self, images, dataset)

    def removals(self, which: int | str) -> list[Row]:
        """The results for a class without its most and least important units.

        Rows of the table `set_ablation`. Raises ClassError for a class that was not
        measured.
        """
        index = class_index(self.classes, which)
        where = [("class", "=", index)]
        rows: list[Row] = self.table("set_ablation", where=where).to_pylist()
        if not rows:
            raise ClassError(
                f"class {self.classes[index]!r} has too few images in one half of the "
                "data set: units are ranked on one half, and results reported on the "
                "other"
            )
        return rows

    def without(
        self, units: Sequence[int]
    ) -> tuple[Estimate, Estimate, list[Row]]:
        """The accuracy over the data set before and after switching units off.

        It is exact and needs no photos. The rows say for every class how many of its
        images are found before and after, those that lose most first. Where the data
        set has no labels, the model's own predictions replace them. Raises UnitError,
        and AtlasError where the head is not exact.
        """
        readout = self.readout
        if readout is None:
            raise AtlasError(
                "this atlas cannot switch units off: its network has no exact head, or one "
                "that is not kept in tables (a projection before a normalisation); "
                "model.ablate and `unitscope ablate` answer for single photos"
            )
        off = check_units(
            units, readout.weight.shape[1], "the head's feature map"
        )
        if self.no_accuracy:
            raise AtlasError(
                f"{self.no_accuracy}, so there is no accuracy: model.ablate and "
                "`unitscope ablate` answer for single photos"
            )
        source = pooled_features(self)
        if source is None:
            raise AtlasError(
                "no image of this atlas has a class of the model, so there is no "
                "accuracy: scan images of the model's classes"
            )

        counts = confusion_without(readout, source, [[], off], on="all")
        before, after = (
            Estimate(*(float(numbers[place]) for numbers in counts.accuracy))
            for place in (0, 1)
        )
        return before, after, self._found_rows(counts)

    def _found_rows(self, counts: Confusion) -> list[Row]:
        """How many images of every class are found before and after."""
        before, after = counts.tp
        rows: list[Row] = [
            {
                "class": self.labels[index],
                "images": int(images),
                "found_before": int(before[index]),
                "found_after": int(after[index]),
            }
            for index, images in enumerate(counts.positives)
            if images
        ]
        rows.sort(key=_gain)
        return rows

    def _rows(self, table: str, layer: AtlasLayer, unit: int) -> list[Row]:
        where = [("layer", "=", layer.name), ("unit", "=", unit)]
        rows: list[Row] = self.table(table, where=where).to_pylist()
        return rows


def _check_unit(layer: AtlasLayer, unit: int) -> int:
    """The index of a unit; raises UnitError where the layer does not have it."""
    (index,) = check_units(unit, layer.units, f"layer '{layer.name}'")
    return index


def _gain(row: Row) -> float:
    gain: float = (row["found_after"] - row["found_before"]) / row["images"]
    return gain


def check_same_model(atlas: StoredAtlas, model: Classifier) -> None:
    """Raise AtlasError where an atlas is of another model than this one."""
    scanned, loaded = atlas.manifest["identity"]["model"], fingerprint(model)
    if scanned != loaded:
        spec = atlas.manifest["model"]["spec"]
        raise AtlasError(
            f"the atlas in '{atlas.path}' is of another model ({spec}, fingerprint "
            f"{scanned[:8]}, not {loaded[:8]}): open it with that one, or scan again "
            "with this one"
        )
    output = identity_of(atlas.manifest)["output"]
    if output != model.output:
        remedy = (
            "without --output" if output is None else f"with --output {output}"
        )
        raise AtlasError(
            f"the atlas in '{atlas.path}' is of another output of the network ({output}, "
            f"not {model.output}): open it {remedy}"
        )
    if atlas.scores is not model.scores:
        raise AtlasError(
            f"the atlas in '{atlas.path}' was scanned with scores '{atlas.scores}', and "
            f"the model has '{model.scores}': load it with scores '{atlas.scores}'"
        )
