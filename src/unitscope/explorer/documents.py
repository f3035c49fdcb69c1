"""Documents: all that the explorer's pages are told, each under a name of its own, as plain data."""

from __future__ import annotations

import functools
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.identity import fingerprint
from unitscope.atlas.summaries.sample import Sample
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.readout import Readout
from unitscope.datasets import Dataset
from unitscope.errors import (
    AtlasError,
    ClassError,
    MissingError,
    PhotoError,
    UnitscopeError,
)
from unitscope.explorer import network_contents
from unitscope.explorer.atlas_documents import AtlasContents
from unitscope.explorer.photo_contents import (
    Plain,
    evidence_contents,
    head_contents,
    kept_photo_contents,
    packed,
    photo_contents,
    picture,
)
from unitscope.explorer.shelf import Shelf
from unitscope.inputs.photos import Encoded, open_photo, shown_name
from unitscope.inputs.subjects import Subject
from unitscope.model import Classifier
from unitscope.network_facts import NetworkFacts
from unitscope.render.colours import HEAT, SIGNED, table
from unitscope.render.words import shorten
from unitscope.tracing.layers import check_units

SHOWN_AT_HAND = 24
"""How many images of an atlas are offered on the first page."""

_EXPLAINED = 16
# Pictures that are kept as they are sent, and how many bytes of them.
_PICTURES, _PICTURE_BYTES = 64, 16 << 20
# They are drawn from photos decoded to so many pixels a side, or more where a format
# knows no smaller ones.
_DECODED = 2048
_OF_ATLAS = re.compile(r"image-(\d+)")


class Documents:
    """What the pages are told of a classifier, of an atlas, or of both.

    `photos` are files that are offered on the first page. `dataset` is where the
    atlas's images lie, None where they are gone; tiles are drawn into `folder`, when
    they are asked for or, where `drawn`, as soon as an image is told of; every unit has
    `images` images by its maximum and by its mean. Every method raises UnitscopeErrors
    whose text can be shown: MissingError for what is not there, PhotoError for what is
    no photo.

    Those methods that run the network (network, filters, head, photo, evidence,
    ablated) may be called by one thread at a time, and so may the others, at the same
    time. What both use may be used by any: the shelf, the files at hand, an atlas's
    tables and its data set, all of which are opened anew for each reading or have a
    lock.

    Raises AtlasError where the atlas is of another model.
    """

    def __init__(
        self,
        model: Classifier | None,
        atlas: Atlas | None = None,
        *,
        dataset: Dataset | None = None,
        folder: Path,
        photos: Sequence[Path] = (),
        images: int = 9,
        drawn: bool = False,
        freezes: bool = False,
    ) -> None:
        if model is None and atlas is None:
            raise MissingError(
                "there is nothing to explore: name an atlas, or a model with --model"
            )
        if model is not None and atlas is not None:
            _check_same_model(model, atlas)
        self.model, self.atlas, self.dataset, self._freezes = (
            model,
            atlas,
            dataset,
            freezes,
        )
        self.shelf = Shelf()
        self._at_hand = {
            f"photo-{place}": _at_hand(path) for place, path in enumerate(photos)
        }
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._explained: OrderedDict[tuple[str, str | None], Explanation] = (
            OrderedDict()
        )
        self.of_atlas = (
            None
            if atlas is None
            else AtlasContents(atlas, dataset, folder, images, drawn=drawn)
        )

    # Of the pages' own thread

    @functools.cached_property
    def _index(self) -> Plain:
        return {
            "live": True,
            **self._network_told(),
            "model": self._model_told(),
            "head": self._head_told(),
            "colours": {
                name: _hex(colours)
                for name, colours in (("heat", HEAT), ("signed", SIGNED))
            },
            "photos": [*self._files_at_hand(), *self._images_at_hand()],
            "atlas": None if self.of_atlas is None else self.of_atlas.index(),
        }

    def index(self) -> Plain:
        """What every page needs: the network, its classes, the photos at hand, and the columns of the atlas."""
        return self._index

    def units(self, place: int, chunk: int) -> Plain:
        """The details of some units of the atlas's layer at a place."""
        return self._atlas_contents().units(place, chunk)

    def neighbours(self, place: int, chunk: int) -> Plain:
        """The units of a layer that respond most like each of some units."""
        return self._atlas_contents().neighbours(place, chunk)

    def classes(self, chunk: int) -> Plain:
        """The details of some classes."""
        return self._atlas_contents().classes(chunk)

    def tile(self, image: int) -> Path:
        """The file of an image as the network saw it, small."""
        return self._atlas_contents().tile(image)

    def sprite(self, place: int, unit: int) -> Path:
        """The file of a unit's top images, put together."""
        return self._atlas_contents().sprite(place, unit)

    def given(self, data: bytes, name: str) -> Plain:
        """Keep a photo that somebody gave, under an id of its own; raises PhotoError where it is none, or damaged."""
        self._model()
        # Decoding it whole shows whether it is; what comes of that is asked for next.
        return {"photo": self.shelf.add(data, name, self._draw)}

    def picture(self, id: str) -> bytes:
        """A photo as JPEG, upright, of a size to be looked at."""
        if id not in self._pictures:
            self._draw(id, self._source(id))
        self._pictures.move_to_end(id)
        return self._pictures[id]

    # Of the model's thread

    def head(self) -> Plain:
        """How pooled units become logits; raises MissingError where no head is exact."""
        readout = self._readout()
        if readout is None:
            raise MissingError(
                "this network has no exact head: units are switched off by real "
                "forward passes"
            )
        return head_contents(readout)

    def network(self) -> Plain:
        """The network's stages and layers."""
        return network_contents.network(self._model())

    def filters(self, layer: str, begin: int = 0) -> Plain:
        """The filters of a convolution, of a large one as many from `begin` as are told at once; raises LayerError."""
        return network_contents.filters(self._model(), layer, begin)

    def photo(self, id: str, layer: str | None = None) -> Plain:
        """What the network says of a photo, at its head's layer or another; raises LayerError, HeadError."""
        if self.model is None:
            return self._kept(id)
        told = photo_contents(self._explanation(id, layer))
        # A photo that was given again under another name has that name now.
        name = self._source(id).name
        return told | {
            "name": shorten(name, 120),
            "id": id,
            "picture": f"data/photos/{id}.jpg",
        }

    def evidence(self, id: str, layer: str, which: int) -> Plain:
        """A local answer for one class: map, contributions, and what they leave out."""
        explanation = self._explanation(id, layer)
        if not 0 <= which < len(explanation.labels):
            raise ClassError(
                f"there is no class {which}: they are numbered 0 to "
                f"{len(explanation.labels) - 1}"
            )
        return evidence_contents(explanation, which)

    def ablated(self, id: str, layer: str, units: list[int]) -> Plain:
        """The logits of a photo with units of a layer off: by a real forward pass where the head is not exact."""
        explanation = self._explanation(id, layer)
        chosen = (
            check_units(
                units, explanation.feature_map.shape[1], f"layer '{explanation.layer}'"
            )
            if units
            else []
        )
        return {
            "logits": packed(
                (explanation.ablate(chosen) if chosen else explanation).logits[0]
            )
        }

    def freeze(self) -> None:
        """Freeze and compile the model, where that was asked for."""
        if self.model is not None and self._freezes:
            self.model.freeze().engine()

    def _model(self) -> Classifier:
        if self.model is None:
            raise MissingError(
                "no model is loaded, only its atlas: name the model with --model"
            )
        return self.model

    def _atlas_contents(self) -> AtlasContents:
        if self.of_atlas is None:
            raise MissingError(
                "no atlas is open: make one with `unitscope scan PHOTOS --out ATLAS`, "
                "and open that"
            )
        return self.of_atlas

    def _readout(self) -> Readout | None:
        if self.model is None:
            return None if self.atlas is None else self.atlas.readout
        head = self.model.head_or_refusal()[0]
        return getattr(head, "readout", None)

    def _explanation(self, id: str, layer: str | None) -> Explanation:
        """A photo's explanation, computed once as long as it is not forgotten for later ones."""
        head = self._model().head_or_refusal()[0]
        if head is not None and layer == head.layer:
            layer = None
        if (id, layer) not in self._explained:
            self._explained[id, layer] = self._model().explain(
                self._source(id), layer=layer
            )
        self._explained.move_to_end((id, layer))
        while len(self._explained) > _EXPLAINED:
            self._explained.popitem(last=False)
        return self._explained[id, layer]

    def _draw(self, id: str, source: Encoded) -> None:
        """Draw a picture, and keep it in place of those not asked for longest; raises PhotoError."""
        self._pictures[id] = picture(open_photo(source, longest=_DECODED).image)
        # One is no larger than a few megabytes, so that the last always stays.
        while (
            len(self._pictures) > _PICTURES
            or sum(map(len, self._pictures.values())) > _PICTURE_BYTES
        ):
            self._pictures.popitem(last=False)

    def _source(self, id: str) -> Encoded:
        """Where a photo is read from, by its id: a file at hand, an image of the atlas, or one that was given."""
        if id in self._at_hand:
            return self._at_hand[id]
        found = _OF_ATLAS.fullmatch(id)
        source = self._subject(int(found[1])).source if found else self.shelf.find(id)
        assert isinstance(source, Encoded)
        return source

    def _subject(self, image: int) -> Subject:
        """An image of the atlas, which must be as it was when it was scanned."""
        if self.atlas is None:
            raise MissingError(f"there is no image {image}: no atlas is open")
        if self.dataset is None:
            raise MissingError(
                f"image {image} is gone from where it was scanned: say where with "
                "--source"
            )
        return self.atlas.subjects([image], self.dataset)[0]

    def _kept(self, id: str) -> Plain:
        """What the atlas alone can tell of an image."""
        found, sample = _OF_ATLAS.fullmatch(id), self._sample
        if found is None or sample is None or int(found[1]) not in sample.images:
            raise MissingError(
                f"there is no photo '{id}' in this atlas: name the model with --model "
                "to explain photos"
            )
        assert self.atlas is not None and self.atlas.readout is not None
        image = int(found[1])
        told = kept_photo_contents(
            self.atlas.layer(), self.atlas.readout, sample, image, self._subject(image)
        )
        return told | {"id": id, "picture": f"data/photos/{id}.jpg"}

    # What the index tells

    @functools.cached_property
    def _sample(self) -> Sample | None:
        """Images of the atlas that were drawn at random, with all that its exact head saw of them."""
        if self.atlas is None or self.atlas.readout is None:
            return None
        return self.atlas.summary(self.atlas.layer().name).sample

    def _images_at_hand(self) -> Iterable[Plain]:
        if self.atlas is None or self.dataset is None or self._sample is None:
            return
        chosen = self._sample.images[:SHOWN_AT_HAND].tolist()
        rows = self.atlas.table(
            "images", ["image", "id", "class"], where=[("image", "in", chosen)]
        ).to_pylist()
        given = self.atlas.manifest["data"]["labels"] == "given"
        for row in rows:
            if row["id"] in self.dataset.places:
                of = (
                    self.atlas.classes[row["class"]]
                    if given and row["class"] is not None
                    else ""
                )
                yield {
                    "id": f"image-{row['image']}",
                    "name": shorten(row["id"], 120),
                    "class": of,
                    "kept": True,
                }

    def _files_at_hand(self) -> Iterable[Plain]:
        for id, photo in self._at_hand.items():
            yield {
                "id": id,
                "name": shorten(photo.name, 120),
                "class": "",
                "kept": False,
            }

    def _network_told(self) -> Plain:
        """The network, as the model itself has it, or else as the atlas noted it."""
        if self.model is not None:
            architecture, labels = type(self.model.network).__name__, self.model.labels
            weights, shape = self.model.provenance.weights, self.model.input_shape
        else:
            assert self.atlas is not None
            noted = self.atlas.manifest["model"]
            architecture, labels = noted["architecture"], self.atlas.labels
            weights, shape = noted["weights"], noted["input_shape"]
        return {
            "architecture": shorten(architecture, 60),
            "labels": told_apart(labels),
            "input": [int(side) for side in shape[-2:]],
            "random": "random" in weights.lower(),
        }

    def _model_told(self) -> Plain | None:
        if self.model is None:
            return None
        facts = NetworkFacts.of(self.model)
        return {
            "spec": shorten(facts.provenance.spec, 200),
            "weights": shorten(facts.provenance.weights, 200),
            "preprocessing": facts.preprocessing,
            "layers": [layer.name for layer in facts.layers if layer.is_map],
            "notes": [shorten(note, 400) for note in facts.provenance.notes],
        }

    def _head_told(self) -> Plain | None:
        """The kind of answers that photos get; None where there is none."""
        if self.model is None:
            assert self.atlas is not None
            head = self.atlas.manifest["model"]["head"]
            return (
                None
                if head is None
                else {
                    "exact": True,
                    "layer": head["layer"],
                    "kind": head["kind"],
                    "reason": "",
                }
            )
        head, reason = self.model.head_or_refusal()
        if head is None:
            return {"exact": False, "layer": None, "kind": "none", "reason": reason}
        return {
            "exact": head.exact,
            "layer": head.layer,
            "kind": head.kind,
            "reason": reason,
        }


def told_apart(labels: Sequence[str]) -> list[str]:
    """Labels as they are shown: one that shows nothing is called by its number, and so are those that look the same."""
    shown = [shorten(label, 120).strip() for label in labels]
    often = Counter(shown)
    return [
        f"class {index}"
        if not label
        else f"{label} · {index}"
        if often[label] > 1
        else label
        for index, label in enumerate(shown)
    ]


def _at_hand(path: Path) -> Encoded:
    """A file of the user's own, in any format there is; what goes wrong with it is told without its folder."""
    path, name = path.absolute(), shown_name(path)

    def read() -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise PhotoError(
                f"there is no photo '{name}' (any more): check the path that it was "
                "named by"
            ) from None
        except IsADirectoryError:
            raise PhotoError(f"'{name}' is a folder: name the photos in it") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise PhotoError(
                f"'{name}' cannot be read ({reason}): check the file and its "
                "permissions"
            ) from None

    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0
    return Encoded(name, read, size)


def photos_of(atlas: Atlas) -> Dataset | None:
    """The data set that was scanned, or what is in its place by now; None where nothing is."""
    try:
        return atlas.photos()
    except (UnitscopeError, OSError):
        return None


def _check_same_model(model: Classifier, atlas: Atlas) -> None:
    then, now = atlas.manifest["identity"]["model"], fingerprint(model)
    if then != now:
        raise AtlasError(
            f"the atlas in '{atlas.path}' is of another model "
            f"({atlas.manifest['model']['spec']}, fingerprint "
            f"{then[:8]}, not {now[:8]}): open it with that one, or scan again with "
            "this one"
        )


def _hex(colours: str) -> list[str]:
    return ["".join(f"{value:02x}" for value in colour) for colour in table(colours)]
