"""Train a scene classifier for unitscope, score it, and write its model card. See
docs/training.md."""

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from miniplaces import card as cards
from miniplaces.evaluation import Evaluation, evaluate
from miniplaces.options import ARCHITECTURES, make_parser, recipe_of
from miniplaces.photos import (
    Photos,
    PhotosError,
    class_names,
    read_photos,
    split_off,
)
from miniplaces.recipe import Recipe, RecipeError
from miniplaces.teacher import Teacher, teacher_in
from miniplaces.training import Schedule, train
from miniplaces.weights import read_weights, write_weights
from unitscope.scenes.network import SceneNetwork
from unitscope.scenes.transformer import SceneTransformer, network_from


def run_training(arguments: argparse.Namespace, words: list[str]) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = recipe_of(arguments)
    device = torch.device(arguments.device)

    photos = read_photos(
        arguments.data, "train", arguments.photo_size, arguments.cache
    )
    labels = class_names(photos)
    chosen, held = split_off(photos, arguments.hold_out, arguments.seed)

    shape = ARCHITECTURES[arguments.architecture]
    architecture = dataclasses.replace(shape, classes=len(labels))
    torch.manual_seed(recipe.seed)
    network = network_from(architecture.to_json())
    teacher = None
    if arguments.teacher:
        teacher = teacher_in(arguments.teacher, network)
    description = cards.describe(recipe, teacher is not None and teacher.lends)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"{len(chosen)} photos, {len(labels)} classes, {parameters:,} parameters; "
        f"{description}"
    )

    values = _trained(arguments, recipe, network, teacher, photos, chosen)
    if arguments.stop_after is not None:
        return

    path = arguments.out / "weights.safetensors"
    size: int = arguments.eval_size
    write_weights(path, values, architecture, labels, {}, size)
    scored, of = _scored_photos(arguments, photos, held, labels)
    if scored is None:
        missing = "no photos to score on; give --val or --hold-out"
        print(f"{path}: {missing}", file=sys.stderr)
        return

    # Scored as it will be used: read back from half precision.
    evaluation = evaluate(read_weights(path).network, scored, device)
    card = cards.make_card(
        evaluation,
        labels,
        description,
        len(chosen),
        parameters,
        _command(words),
        of,
    )
    write_weights(path, values, architecture, labels, card, size)
    _write_json(arguments.out / "scores.json", card)
    _print_scores(evaluation, of)
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")


def _trained(
    arguments: argparse.Namespace,
    recipe: Recipe,
    network: SceneNetwork | SceneTransformer,
    teacher: Teacher | None,
    photos: Photos,
    chosen: NDArray[np.int64],
) -> dict[str, Tensor]:
    """The averaged weights after the training."""
    schedule = Schedule(
        arguments.out / "checkpoint.pt",
        arguments.checkpoint_seconds,
        arguments.stop_after,
    )
    device = torch.device(arguments.device)
    return train(
        network,
        photos,
        chosen,
        recipe,
        schedule,
        device,
        arguments.precision,
        teacher,
    )


def _scored_photos(
    arguments: argparse.Namespace,
    photos: Photos,
    held: NDArray[np.int64],
    labels: list[str],
) -> tuple[Photos | None, str]:
    """The photos to score on, and a description of them; no photos where none were held out."""
    size: int = arguments.eval_size
    if arguments.val is not None:
        scored = read_photos(arguments.val, "val", size)
        which = f"{len(scored):,} validation photos ({arguments.val.name})"
        return scored, f"{which} at {size}×{size} pixels"

    if not len(held):
        return None, ""

    if arguments.hold_out.isdecimal():
        scored = resized(photos.take(held), size)
    else:
        scored = read_photos(
            Path(arguments.hold_out), "train", size, classes=labels
        )
    return (
        scored,
        f"{len(scored):,} training photos held out, at {size}×{size} pixels",
    )


def resized(photos: Photos, size: int) -> Photos:
    """The same photos at another size."""
    if photos.size == size:
        return photos

    squares = []
    for pixels in photos.pixels:
        photo = Image.fromarray(pixels)
        square = photo.resize((size, size), Image.Resampling.BILINEAR)
        squares.append(np.asarray(square))
    return Photos(np.stack(squares), photos.labels, photos.names)


def run_score(arguments: argparse.Namespace) -> None:
    weights = read_weights(arguments.weights)
    size: int = arguments.size or weights.preprocessing["crop"]
    photos = read_photos(
        arguments.val, arguments.split, size, classes=weights.labels
    )
    evaluation = evaluate(
        weights.network, photos, torch.device(arguments.device)
    )
    if arguments.json:
        print(json.dumps(evaluation.to_json(weights.labels), indent=2))
    else:
        _print_scores(
            evaluation,
            f"{len(photos):,} {arguments.split} photos at {size}×{size} pixels",
        )


def _print_scores(evaluation: Evaluation, of: str) -> None:
    print(
        f"top-1 {evaluation.top(1)}, top-5 {evaluation.top(5)} on {of}; 95 % Wilson "
        "intervals"
    )


def _command(words: list[str]) -> str:
    """The command as anybody would type it: absolute paths cut down to their last part."""
    typed = [
        Path(word).name if Path(word).is_absolute() else word for word in words
    ]
    return "python " + shlex.join(["scripts/train_miniplaces.py", *typed])


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    )
    temporary.replace(path)


def main(words: list[str] | None = None) -> int:
    arguments = make_parser(__doc__).parse_args(words)
    try:
        if arguments.verb == "train":
            run_training(arguments, sys.argv[1:] if words is None else words)
        elif arguments.verb == "score":
            run_score(arguments)
        else:
            path: Path = arguments.weights
            print(cards.render(read_weights(path), path.stat().st_size), end="")
    except (PhotosError, RecipeError, ValueError, OSError) as error:
        print(f"train_miniplaces: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
