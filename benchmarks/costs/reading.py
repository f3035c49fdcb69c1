"""Reading: photos from files to inputs, against torchvision's ImageFolder, DataLoader
and transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torchvision
from torch.utils.data import DataLoader
from torchvision import transforms

from costs.pictures import jpeg, scene
from costs.timing import Timed, measure
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.preprocessing import Preprocessing

_MEAN = [0.485, 0.456, 0.406]
_DEVIATION = [0.229, 0.224, 0.225]
_BATCH = 16


@dataclass(frozen=True)
class _Photos:
    """So many photos of one size, and what networks for them expect."""

    name: str
    size: tuple[int, int]
    count: int
    resize: int
    crop: int


_KINDS = (
    _Photos("128×128", (128, 128), 400, resize=144, crop=128),
    _Photos("1280×850", (1280, 850), 32, resize=256, crop=224),
)


def reading(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Seconds a photo of every way to read it."""
    rows = []
    for kind in _KINDS:
        place = folder / kind.name
        _write_photos(kind, place / "a")
        results = measure(_readers(kind, place), rounds)
        for what, result in results.items():
            seconds = result["seconds"] / kind.count
            row = {
                "photos": kind.name,
                "what": what,
                **result,
                "seconds": seconds,
            }
            rows.append(row)
    return rows


def _write_photos(kind: _Photos, folder: Path) -> None:
    folder.mkdir(parents=True)
    for index in range(kind.count):
        picture = scene(kind.size, index)
        (folder / f"{index:04}.jpg").write_bytes(jpeg(picture))


def _readers(kind: _Photos, folder: Path) -> Timed:
    pipeline = transforms.Compose(
        [
            transforms.Resize(kind.resize),
            transforms.CenterCrop(kind.crop),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _DEVIATION),
        ]
    )
    photos = torchvision.datasets.ImageFolder(str(folder), pipeline)
    paths = [path for path, _ in photos.samples]
    preprocessing = Preprocessing(resize=kind.resize, crop=kind.crop)

    def load(workers: int) -> Callable[[], None]:
        def run() -> None:
            for _ in DataLoader(photos, batch_size=_BATCH, num_workers=workers):
                pass

        return run

    def read() -> None:
        for batch in batches(paths, preprocessing, _BATCH):
            stacked([tensor for _, tensor in batch])

    return {
        "ImageFolder + DataLoader": load(0),
        "ImageFolder + DataLoader, 2 workers": load(2),
        "unitscope": read,
    }


def decoder() -> str:
    """What unitscope decodes JPEG files with here."""
    return "Pillow" if find_spec("simplejpeg") is None else "simplejpeg"
