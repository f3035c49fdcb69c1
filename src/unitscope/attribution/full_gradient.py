"""FullGradient: logits as sums of input · gradient and of biases · gradient, with maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.rounding import rounding_allowance
from unitscope.attribution.scores import Scores
from unitscope.drawable import Drawable
from unitscope.errors import LayerError, near_matches
from unitscope.geometry import PIXELS, Grid, lay_on_photo, spread_weights
from unitscope.inputs.subjects import Subject

INPUT = "input"
LEFT_OUT = "left out"


@dataclass(frozen=True, eq=False, repr=False)
class FullGradient(Drawable):
    """The logits of chosen classes as sums over pixels and biases (FullGrad).

    logit = Σ input · ∂logit/∂input + Σ bias · ∂logit/∂(what it is added to): an identity
    for networks that are piecewise linear (Srinivas & Fleuret 2019). The input is what the
    network is given, behind the preprocessing: with a mean subtracted, 0 is the mean colour.

    `classes` are the indices of the classes of every photo. All maps are signed, in
    logits, and add up cell by cell: `input_map` (batch, class, row, col) is the sum over
    the channels, `bias_maps` by layer (batch, class, row, col) lie on the layer's own
    `grids`. `biases` (batch, class) are the sums by layer, of those without a place on the
    photo too. A bias is whatever a layer adds: of a batch normalisation the shift, less the
    scaled running mean; of a ReLU6 its 6 where it is reached. `curved` says by function
    what those add that are not piecewise linear: that is left out.
    """

    classes: tuple[tuple[int, ...], ...]
    logits: Float[Tensor, "batch label"]
    input_map: Float[Tensor, "batch class row col"]
    biases: Mapping[str, Float[Tensor, "batch class"]]
    bias_maps: Mapping[str, Float[Tensor, "batch class _ _"]]
    grids: Mapping[str, Grid]
    curved: Mapping[str, Float[Tensor, "batch class"]]
    labels: tuple[str, ...]
    subjects: tuple[Subject, ...]
    scores: Scores
    dtype: torch.dtype = torch.float32

    def __repr__(self) -> str:
        photos, classes = self.explained.shape
        end = "adds up" if self.exact else "something is left out"
        return (
            f"<FullGradient of {classes} classes on {photos} photos: input and "
            f"{len(self.biases)} layers with biases, {end}>"
        )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def input_size(self) -> tuple[int, int]:
        """(rows, cols) of the network's input."""
        return int(self.input_map.shape[2]), int(self.input_map.shape[3])

    @cached_property
    def explained(self) -> Float[Tensor, "batch class"]:
        """The logits of the chosen classes."""
        chosen = torch.tensor(self.classes, device=self.logits.device)
        return self.logits.gather(1, chosen).cpu().to(torch.float64)

    @cached_property
    def left_out(self) -> Float[Tensor, "batch class"]:
        """The measured gap: the logit less all that the maps and biases say."""
        found = self.input_map.sum(dim=(2, 3))
        for bias in self.biases.values():
            found = found + bias
        return self.explained - found

    @property
    def parts(self) -> dict[str, Float[Tensor, "batch class"]]:
        """What the input, the biases of every layer and what is left out give of the logits."""
        return {
            INPUT: self.input_map.sum(dim=(2, 3)),
            **self.biases,
            LEFT_OUT: self.left_out,
        }

    @cached_property
    def exact(self) -> bool:
        """Whether nothing but rounding is left out, on every photo.

        That is 1e-5 of the largest logit, or four units in the last place of the terms.
        """
        terms = self.input_map.abs().sum(dim=(2, 3))
        for bias in self.biases.values():
            terms = terms + bias.abs()
        allowed = rounding_allowance(
            terms.amax(dim=1), self.logits.cpu(), self.dtype
        )
        largest = self.logits.cpu().abs().amax(dim=1)
        gap = self.left_out.abs().amax(dim=1)
        return bool((gap <= allowed * largest).all())

    @cached_property
    def beside(self) -> Float[Tensor, "batch class"]:
        """Biases without a place on the photo, as of linear layers and class tokens.

        Σ combined + beside + left_out = logit.
        """
        beside = torch.zeros_like(self.explained)
        for name, bias in self.biases.items():
            beside = beside + bias
            if name in self.bias_maps:
                beside = beside - self.bias_maps[name].sum(dim=(2, 3))
        return beside

    @cached_property
    def combined(self) -> Float[Tensor, "batch class row col"]:
        """All maps on the pixels of the input; nothing is scaled, so that sums are kept.

        The bias of a cell is spread evenly over the pixels that the cell stands for.
        """
        combined = self.input_map.clone()
        for name in self.bias_maps:
            combined += self.spread(name)
        return combined

    @property
    def cams(self) -> Float[Tensor, "batch class row col"]:
        """The combined map times its pixels, so that the mean says what other maps' does."""
        return self.combined * self.combined[0, 0].numel()

    def spread(self, layer: str) -> Float[Tensor, "batch class row col"]:
        """The bias map of one layer on the pixels of the input; its sum is kept.

        Raises LayerError for a layer without a bias map.
        """
        if layer not in self.bias_maps:
            raise LayerError(
                f"layer '{layer}' has no bias map"
                f"{near_matches(layer, list(self.bias_maps))}: bias_maps lists those "
                "that have one"
            )
        maps, grid = self.bias_maps[layer], self.grids[layer]
        rows, cols = maps.shape[2:]
        height, width = self.input_size
        down = spread_weights(grid.rows, rows, PIXELS, height)
        across = spread_weights(grid.cols, cols, PIXELS, width)
        return (
            torch.from_numpy(down * rows / height)
            @ maps
            @ torch.from_numpy(across * cols / width).T
        )

    def blocks(self, cells: int) -> Float[Tensor, "batch class _ _"]:
        """The combined map summed over squares, about `cells` along the longer side."""
        side = self.side(cells)
        return torch.nn.functional.avg_pool2d(
            self.combined, side, ceil_mode=True, divisor_override=1
        )

    def side(self, cells: int) -> int:
        """How many pixels wide squares are of which about so many cover the longer side."""
        return max(1, round(max(self.input_size) / cells))

    def grouped(
        self, image: int = 0, place: int = 0, most: int = 12
    ) -> dict[str, float]:
        """The parts of one class's logit, the biases of layers inside others together.

        At most so many groups of biases, as deep into the names as that allows.
        """
        deepest = max((name.count(".") for name in self.biases), default=0) + 1
        depth = 1
        for deeper in range(2, deepest + 1):
            if len({_outer(name, deeper) for name in self.biases}) <= most:
                depth = deeper
        groups: dict[str, float] = {}
        for name, values in self.biases.items():
            outer = _outer(name, depth)
            value = float(values[image, place])
            groups[outer] = groups.get(outer, 0.0) + value
        if len(groups) > most:
            groups = {"all biases": sum(groups.values())}
        return {
            INPUT: float(self.parts[INPUT][image, place]),
            **{f"biases: {name}": value for name, value in groups.items()},
            LEFT_OUT: float(self.left_out[image, place]),
        }

    def as_json(self, cells: int = 28) -> list[dict[str, Any]]:
        """All photos as plain data; maps are sums over squares, `cells` along a side."""
        maps = self.blocks(cells)

        def of_class(image: int, place: int) -> dict[str, Any]:
            def told(values: Mapping[str, Tensor]) -> dict[str, float]:
                return {k: float(v[image, place]) for k, v in values.items()}

            return {
                "label": self.label(image, place),
                "index": self.classes[image][place],
                "logit": float(self.explained[image, place]),
                "parts": told(self.parts),
                "beside": float(self.beside[image, place]),
                "left_out": float(self.left_out[image, place]),
                "left_out_by": told(self.curved),
                "square": self.side(cells),
                "map": maps[image, place].tolist(),
            }

        return [
            {
                "photo": self.subjects[image].name,
                "exact": self.exact,
                "scores": str(self.scores),
                "classes": [
                    of_class(image, place) for place in range(len(chosen))
                ],
            }
            for image, chosen in enumerate(self.classes)
        ]

    def label(self, image: int = 0, place: int = 0) -> str:
        """The label of a photo's class by its place among the chosen ones."""
        return self.labels[self.classes[image][place]]

    def on_photo(
        self,
        image: int = 0,
        size: tuple[int, int] | None = None,
        interpolation: str = "nearest",
        cells: int | None = None,
    ) -> Float[np.ndarray, "class height width"]:
        """The combined maps of one photo laid where they belong on it; NaN outside the crop.

        `size` is (width, height). With `cells` pixels are summed in squares, so many along
        the longer side, as `blocks` does.
        """
        maps, grid = self.combined, Grid(PIXELS, PIXELS)
        if cells is not None:
            maps = self.blocks(cells)
            side = self.side(cells)
            axis = PIXELS.windowed(side, side, 0)
            grid = Grid(axis, axis)
        placement = self.subjects[image].placement(self.input_size)
        return lay_on_photo(
            maps[image].numpy(), grid, placement, size, interpolation
        )

    def joined(self, others: list[FullGradient]) -> FullGradient:
        """One result of these photos and, behind them, of those of others.

        Raises LayerError where their biases are of other layers.
        """
        every = [self, *others]
        if any(list(each.biases) != list(self.biases) for each in others):
            raise LayerError(
                "the network ran other layers on some photos than on others: ask for one "
                "photo at a time"
            )
        curved = dict.fromkeys(name for each in every for name in each.curved)

        def together(of: str, name: str) -> Tensor:
            parts = [
                getattr(each, of).get(name, torch.zeros_like(each.explained))
                for each in every
            ]
            return torch.cat(parts)

        return dataclasses.replace(
            self,
            classes=tuple(c for each in every for c in each.classes),
            logits=torch.cat([each.logits for each in every]),
            input_map=torch.cat([each.input_map for each in every]),
            biases={name: together("biases", name) for name in self.biases},
            bias_maps={
                name: together("bias_maps", name) for name in self.bias_maps
            },
            curved={name: together("curved", name) for name in curved},
            subjects=tuple(s for each in every for s in each.subjects),
        )


def _outer(name: str, depth: int) -> str:
    """The first names of a layer; what is behind a layer belongs to it."""
    if "'" in name:
        name = name.split("'")[1]
    return ".".join(name.partition(":")[0].split(".")[:depth])
