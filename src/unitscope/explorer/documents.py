"""Documents: everything that the explorer's pages ask for, each by name, as plain data."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from unitscope.atlas.atlas import Atlas, check_same_model
from unitscope.atlas.reading.images import reading_in
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.readout import Readout
from unitscope.datasets import Dataset
from unitscope.errors import (
    ClassError,
    MissingError,
    UnitscopeError,
)
from unitscope.explorer import filter_contents, network_contents
from unitscope.explorer.atlas_documents import AtlasDocuments
from unitscope.explorer.index_contents import (
    colour_scales,
    network_of_atlas,
    network_of_model,
)
from unitscope.explorer.photo_contents import (
    Plain,
    ablated_contents,
    evidence_contents,
    head_contents,
    head_map_contents,
    packed,
    photo_contents,
    picture,
    sampled_photo_contents,
)
from unitscope.explorer.photo_sources import PhotoSources, image_number
from unitscope.explorer.recent import Recent
from unitscope.inputs.decoding import Reading
from unitscope.inputs.photos import Encoded, open_photo
from unitscope.inputs.preprocessing import reading_of
from unitscope.model import Classifier
from unitscope.render.words import shorten
from unitscope.residual.explanation import ResidualExplanation
from unitscope.residual.head import HEADS, ResidualHead
from unitscope.tracing.layers import check_units

_EXPLANATIONS = 16
_PICTURE_BYTES = 16 << 20
# Pictures are drawn from photos decoded to about this many pixels a side; formats that
# cannot be decoded smaller are decoded whole.
_DECODED_SIDE = 2048


class Documents:
    """The documents about a classifier, about an atlas, or about both.

    `photos` are files that the first page offers. `dataset` holds the atlas's images,
    None where they are gone. Tiles are drawn into `folder`: on request or, with
    `drawn`, as soon as a document names their image. Every unit has `images` images by
    its maximum and by its mean. `pictures` drawn photos stay in memory. With `freezes`,
    `freeze` freezes the model.

    All errors are UnitscopeErrors whose text can be shown: MissingError for what does
    not exist, PhotoError for files that are not photos.

    The methods that run the network (network, filters, head, photo, evidence, head_map,
    ablated)
    are for one thread at a time, and so are the others, but both may run at once. What
    they share is safe: the photo sources, and an atlas's tables and data set, which are
    opened anew for each reading or have a lock.

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
        pictures: int = 64,
    ) -> None:
        if model is None and atlas is None:
            raise MissingError(
                "there is nothing to explore: name an atlas, or a model (--model)"
            )
        if model is not None and atlas is not None:
            check_same_model(atlas, model)

        self.model = model
        self.atlas = atlas
        self.atlas_documents = (
            None
            if atlas is None
            else AtlasDocuments(atlas, dataset, folder, images, drawn=drawn)
        )
        self._freezes = freezes
        self._sources = PhotoSources(atlas, dataset, photos)
        self._pictures: Recent[str, bytes] = Recent(
            pictures, _PICTURE_BYTES, len
        )
        self._explanations: Recent[tuple[str, str | None], Explanation] = (
            Recent(_EXPLANATIONS)
        )

    # For the thread that reads and draws

    def index(self) -> Plain:
        """What every page needs: network, classes, offered photos, atlas columns."""
        return self._index

    @functools.cached_property
    def _index(self) -> Plain:
        if self.model is not None:
            network = network_of_model(self.model)
        else:
            assert self.atlas is not None
            network = network_of_atlas(self.atlas)

        atlas = self.atlas_documents
        return {
            "live": True,
            **network,
            "colours": colour_scales(),
            "photos": self._offered(),
            "atlas": None if atlas is None else atlas.index(),
        }

    def _offered(self) -> list[Plain]:
        """The photos that can be explained, by the network or by the atlas alone."""
        if self.model is None and self.atlas is not None:
            return (
                self._sources.offered() if self.atlas.head_pools_means else []
            )
        return self._sources.offered()

    def units(self, place: int, chunk: int) -> Plain:
        """The details of a chunk of units of the atlas's layer at a place."""
        return self._of_atlas().units(place, chunk)

    def neighbours(self, place: int, chunk: int) -> Plain:
        """For each unit of a chunk, the units of its layer that respond most alike."""
        return self._of_atlas().neighbours(place, chunk)

    def classes(self, chunk: int) -> Plain:
        """The details of a chunk of classes."""
        return self._of_atlas().classes(chunk)

    def tile(self, image: int) -> Path:
        """The file of an image as the network saw it, small."""
        return self._of_atlas().tile(image)

    def sprite(self, place: int, unit: int) -> Path:
        """The file of a unit's top images, side by side."""
        return self._of_atlas().sprite(place, unit)

    def add_photo(self, data: bytes, name: str) -> Plain:
        """Store an upload under an id; raises PhotoError where it is not a photo."""
        self._loaded_model()
        # Drawing it decodes all of it, which proves the file whole, and the page asks
        # for the picture next.
        return {"photo": self._sources.add(data, name, self._draw)}

    def picture(self, id: str) -> bytes:
        """A photo as an upright JPEG of moderate size."""
        drawn = self._pictures.get(id)
        return (
            self._draw(id, self._sources.find(id)) if drawn is None else drawn
        )

    def _draw(self, id: str, source: Encoded) -> bytes:
        photo = open_photo(source, _DECODED_SIDE, self._reading)
        drawn = picture(photo.image)
        self._pictures.put(id, drawn)
        return drawn

    @property
    def _reading(self) -> Reading:
        if self.model is not None:
            return reading_of(self.model.preprocessing)
        assert self.atlas is not None
        return reading_in(self.atlas)

    # For the thread that runs the network

    def head(self) -> Plain:
        """The map from pooled units to logits; raises MissingError without an exact head."""
        readout = self._readout()
        if readout is None:
            raise MissingError(
                "this network has no exact head: units are switched off by real "
                "forward passes"
            )
        return head_contents(readout)

    def network(self) -> Plain:
        """The network's stages and layers."""
        return network_contents.network(self._loaded_model())

    def filters(self, layer: str, begin: int = 0) -> Plain:
        """The filters of a convolution, of a large one a part; raises LayerError."""
        return filter_contents.filters(self._loaded_model(), layer, begin)

    def photo(self, id: str, layer: str | None = None) -> Plain:
        """The answer for a photo, at the head's layer or another.

        Raises LayerError, HeadError.
        """
        if self.model is None:
            return self._sampled_photo(id)

        contents = photo_contents(self._explanation(id, layer))
        # The same photo may have been sent again under another name since.
        name = self._sources.find(id).name
        return contents | {"name": shorten(name, 120), **_address(id)}

    def evidence(self, id: str, layer: str, index: int) -> Plain:
        """A local answer for one class: map, contributions and the remainder."""
        explanation = self._explanation(id, layer)
        _check_class(explanation, index)
        return evidence_contents(explanation, index)

    def head_map(self, id: str, layer: str, index: int, unit: int) -> Plain:
        """What patches give to a class through one head of attention; one more pass.

        Raises MissingError where the units are no heads.
        """
        explanation = self._explanation(id, layer)
        if not isinstance(explanation, ResidualExplanation):
            raise MissingError(
                f"the units of layer '{explanation.layer}' are no attention heads: ask "
                f"for the layer '{HEADS}', where the network has them"
            )
        _check_class(explanation, index)
        return head_map_contents(explanation, index, unit)

    def ablated(self, id: str, layer: str, units: list[int]) -> Plain:
        """The logits of a photo without units of a layer.

        They come from a real forward pass where the head is not exact.
        """
        explanation = self._explanation(id, layer)
        if not units:
            return {"logits": packed(explanation.logits[0])}

        in_layer = explanation.feature_map.shape[1]
        checked = check_units(units, in_layer, f"layer '{explanation.layer}'")
        return ablated_contents(explanation, checked)

    def freeze(self) -> None:
        """Freeze and compile the model, where the documents were opened with `freezes`.

        Attention is read in passes of the network as it is: that is not compiled.
        """
        if self.model is None or not self._freezes:
            return
        if not isinstance(self.model.head_or_refusal()[0], ResidualHead):
            self.model.freeze().engine()

    def _readout(self) -> Readout | None:
        if self.model is None:
            return None if self.atlas is None else self.atlas.readout
        head, _ = self.model.head_or_refusal()
        if isinstance(head, ExactHead) and head.has_table:
            return head.readout
        return None

    def _explanation(self, id: str, layer: str | None) -> Explanation:
        """A photo's explanation, from the recent ones where it is among them."""
        model = self._loaded_model()
        head, _ = model.head_or_refusal()
        if head is not None and layer == head.layer:
            layer = None

        explanation = self._explanations.get((id, layer))
        if explanation is None:
            explanation = model.explain(self._sources.find(id), layer=layer)
            self._explanations.put((id, layer), explanation)
        return explanation

    def _sampled_photo(self, id: str) -> Plain:
        """An image of the atlas, from what its sample holds: no network is needed."""
        image, sample = image_number(id), self._sources.sample
        if self.atlas is not None and not self.atlas.head_pools_means:
            raise MissingError(
                "this atlas keeps activations, and its network's head pools them in other "
                "ways than by their mean: name the model with --model to explain photos"
            )
        if image is None or sample is None or image not in sample.images:
            raise MissingError(
                f"there is no photo '{id}' in this atlas: name the model with --model "
                "to explain photos"
            )

        assert self.atlas is not None and self.atlas.readout is not None
        subject = self._sources.subject(image)
        contents = sampled_photo_contents(
            self.atlas.layer(), self.atlas.readout, sample, image, subject
        )
        return contents | _address(id)

    def _loaded_model(self) -> Classifier:
        if self.model is None:
            raise MissingError(
                "no model is loaded, only its atlas: name the model with --model"
            )
        return self.model

    def _of_atlas(self) -> AtlasDocuments:
        if self.atlas_documents is None:
            raise MissingError(
                "no atlas is open: make one with `unitscope scan PHOTOS --out ATLAS`, "
                "and open that"
            )
        return self.atlas_documents


def photos_of(atlas: Atlas) -> Dataset | None:
    """The data set that was scanned, as it is now; None where it is gone."""
    try:
        return atlas.photos()
    except (UnitscopeError, OSError):
        return None


def _check_class(explanation: Explanation, index: int) -> None:
    last = len(explanation.labels) - 1
    if not 0 <= index <= last:
        raise ClassError(
            f"there is no class {index}: they are numbered 0 to {last}"
        )


def _address(id: str) -> Plain:
    return {"id": id, "picture": f"data/photos/{id}.jpg"}
