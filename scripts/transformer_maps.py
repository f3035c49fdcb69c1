"""Compare maps of the bundled vision transformer: deletion, insertion, pointing at objects,
and whether they follow the weights.

    python scripts/transformer_maps.py --data ANNOTATED --photos 300 --out docs/transformer-maps.md

Results are kept in --json as they come, so that the command can be stopped and goes on;
with more --photos it measures only the new ones. See docs/transformer-maps.md.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import unitscope
from maps import measures
from maps.methods import BASELINES, METHODS
from maps.objects import Scene, scenes
from maps.page import page
from miniplaces.photos import open_square
from miniplaces.weights import read_weights
from unitscope.datasets import open_masks
from unitscope.errors import UnitscopeError
from unitscope.model import Classifier
from unitscope.scenes import TRANSFORMER_WEIGHTS
from unitscope.scenes.transformer import SceneTransformer

_SEED = 0
_AT_ONCE = 10


def measure(
    model: Classifier,
    resets: dict[str, Classifier],
    x: Tensor,
    photos: list[Scene],
) -> list[dict[str, dict[str, float]]]:
    """What every method is worth on each of some photos (photo, channel, row, column)."""
    with torch.no_grad():
        predicted = model.module(x).argmax(dim=1).tolist()
    # The scene's objects speak for the scene, whatever was predicted.
    true = [photo.label for photo in photos]
    own, of_scene = {}, {}
    for name, method in METHODS.items():
        own[name] = method(model, x, predicted)
        of_scene[name] = method(model, x, true)
    others = {
        (name, reset): method(changed, x, predicted)
        for name, method in METHODS.items()
        for reset, changed in resets.items()
        if name not in BASELINES
    }

    found = []
    for row, photo in enumerate(photos):
        maps = torch.stack([each[row] for each in own.values()])
        deletion, insertion = measures.deletion_and_insertion(
            model.module, x[row], predicted[row], maps
        )
        record = {}
        for place, name in enumerate(METHODS):
            pointed = of_scene[name][row].numpy()
            record[name] = {
                "deletion": float(deletion[place]),
                "insertion": float(insertion[place]),
                "points": float(measures.points_at(pointed, photo.mask)),
            }
        for (name, reset), maps in others.items():
            record[name][reset] = measures.rank_correlation(
                own[name][row].numpy(), maps[row].numpy()
            )
        found.append(record)
    return found


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        run(arguments)
    except (UnitscopeError, ValueError, OSError) as error:
        print(f"transformer_maps: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    weights = read_weights(arguments.weights)
    network = weights.network
    if not isinstance(network, SceneTransformer):
        raise ValueError(f"{arguments.weights} holds no transformer")
    preprocessing = weights.preprocessing
    size: int = preprocessing["crop"]
    model = unitscope.wrap(network, labels=weights.labels)
    resets = {
        name: unitscope.wrap(
            measures.reset(network, name, _SEED), labels=weights.labels
        )
        for name in measures.RESETS
    }
    masked = open_masks(arguments.data)
    chosen = scenes(masked, weights.labels, _SEED)[: arguments.photos]
    digest = hashlib.sha256(arguments.weights.read_bytes()).hexdigest()
    records = _earlier(arguments.json, digest)

    new = [photo for photo in chosen if photo.id not in records]
    for start in tqdm(range(0, len(new), _AT_ONCE), disable=None):
        photos = new[start : start + _AT_ONCE]
        inputs = [
            _input(masked.dataset.read(photo.index), size, preprocessing)
            for photo in photos
        ]
        found = measure(model, resets, torch.stack(inputs), photos)
        for photo, record in zip(photos, found, strict=True):
            records[photo.id] = record
        _write(arguments.json, {"weights": digest, "photos": records})

    accuracy = weights.card.get("accuracy")
    about = {
        "network": f"`{arguments.weights.name}`",
        "seed": _SEED,
        "weights": _state(accuracy, digest),
        "layer": model.explain(_grey(size), method="hirescam").head.layer,
    }
    kept = [records[photo.id] for photo in chosen]
    arguments.out.write_text(page(kept, about), encoding="utf-8")
    print(f"{len(kept)} photos; wrote {arguments.out}")


def _grey(size: int) -> Tensor:
    """An input of a size, all alike."""
    return torch.zeros((1, 3, size, size))


def _state(accuracy: dict[str, Any] | None, digest: str) -> str:
    """Which weights these are, and how good the network is with them."""
    short = f"SHA-256 {digest[:16]}…"
    if not accuracy:
        return f"The weights ({short}) have not been scored."
    top1 = accuracy["top1"]
    low, high = (100 * bound for bound in top1["interval"])
    return (
        f"With these weights ({short}) the network is right about "
        f"{100 * top1['accuracy']:.1f} % ({low:.1f}–{high:.1f}) of {top1['photos']} photos."
    )


def _input(encoded: bytes, size: int, preprocessing: dict[str, Any]) -> Tensor:
    """A photo as the network takes it, (channel, row, column)."""
    pixels = np.array(open_square(encoded, size))
    shares = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    mean, std = (
        torch.tensor(preprocessing[key])[:, None, None]
        for key in ("mean", "std")
    )
    return (shares - mean) / std


def _earlier(path: Path, digest: str) -> dict[str, Any]:
    """What was measured with these weights before."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    if content["weights"] != digest:
        raise ValueError(
            f"{path} was measured with other weights: remove it, or name another --json"
        )
    photos: dict[str, Any] = content["photos"]
    return photos


def _write(path: Path, content: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data", type=Path, required=True, help="unpacked annotated MiniPlaces"
    )
    add("--photos", type=int, default=300)
    add("--weights", type=Path, default=TRANSFORMER_WEIGHTS)
    add("--out", type=Path, default=Path("docs/transformer-maps.md"))
    add("--json", type=Path, default=Path("transformer-maps.json"))
    add("--threads", type=int, help="CPU threads; by default torch's choice")
    return parser


if __name__ == "__main__":
    sys.exit(main())
