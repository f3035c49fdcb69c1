"""How good a classifier is on photos it has not seen, with intervals, overall and per class."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from miniplaces.augmentation import normalise
from miniplaces.photos import Photos
from unitscope.atlas.intervals import wilson


@dataclass(frozen=True)
class Share:
    """`hits` of `count`, with the 95 % Wilson interval of the proportion."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> tuple[float, float]:
        low, high = wilson(self.hits, self.count)
        return float(low), float(high)

    def to_json(self) -> dict[str, object]:
        low, high = self.interval
        return {
            "accuracy": round(self.value, 4),
            "interval": [round(low, 4), round(high, 4)],
            "photos": self.count,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


@dataclass(frozen=True)
class Evaluation:
    """What a classifier said about photos, beside what they are."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def top(self, count: int, of: int | None = None) -> Share:
        """How often the label is among the `count` highest scores; for photos of one
        class where `of` is given."""
        own = np.take_along_axis(self.logits, self.labels[:, None], 1)
        # Ties count against the classifier, so that a constant one is not a perfect
        # one.
        rank = (self.logits >= own).sum(1)
        hit = rank <= count
        if of is not None:
            hit = hit[self.labels == of]
        return Share(int(hit.sum()), len(hit))

    def confusions(self, count: int) -> list[tuple[int, int, int]]:
        """The most frequent mistakes: (class, what it was taken for, number of photos)."""
        classes = self.logits.shape[1]
        table = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(table, (self.labels, self.logits.argmax(1)), 1)
        np.fill_diagonal(table, 0)
        order = np.argsort(-table, axis=None, kind="stable")[:count]
        pairs = [divmod(int(position), classes) for position in order]
        return [
            (true, taken, int(table[true, taken]))
            for true, taken in pairs
            if table[true, taken] > 0
        ]

    def to_json(self, names: list[str]) -> dict[str, object]:
        present = [
            index for index in range(len(names)) if (self.labels == index).any()
        ]
        return {
            "photos": len(self.labels),
            "interval": "95 %, Wilson score",
            "top1": self.top(1).to_json(),
            "top5": self.top(5).to_json(),
            "classes": {
                names[index]: {
                    "top1": self.top(1, of=index).to_json(),
                    "top5": self.top(5, of=index).to_json(),
                }
                for index in present
            },
            "confusions": [
                {
                    "class": names[true],
                    "taken_for": names[taken],
                    "photos": count,
                }
                for true, taken, count in self.confusions(15)
            ],
        }


@torch.no_grad()
def evaluate(
    network: nn.Module, photos: Photos, device: torch.device, batch: int = 250
) -> Evaluation:
    """Score every photo, as it is stored, in float32."""
    network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    logits = []
    for start in tqdm(
        range(0, len(photos), batch),
        desc="evaluating",
        unit=" batches",
        disable=None,
    ):
        pixels = torch.from_numpy(
            np.array(photos.pixels[start : start + batch])
        ).to(device)
        inputs = normalise(pixels).contiguous(memory_format=torch.channels_last)
        logits.append(network(inputs).float().cpu().numpy())
    return Evaluation(np.concatenate(logits), photos.labels)
