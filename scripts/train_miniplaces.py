"""Train a scene classifier for unitscope, score it, and write its model card. See docs/training.md."""

import argparse
import itertools
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from miniplaces import card as cards
from miniplaces.augmentation import Augmentation
from miniplaces.evaluation import Evaluation, evaluate
from miniplaces.photos import Photos, PhotosError, class_names, read_photos, split_off
from miniplaces.training import Phase, Recipe, RecipeError, Schedule, train
from miniplaces.weights import read_weights, write_weights
from unitscope.scenes.network import BUNDLED, Architecture, SceneNetwork, Stage

ARCHITECTURES = {
    "bundled": BUNDLED,
    # A teacher: four times the bundled network's parameters.
    "wide": Architecture(
        stem=64,
        stages=(
            Stage(2, 96, 1),
            Stage(2, 192, 2),
            Stage(2, 448, 2),
            Stage(2, 1024, 1, bottleneck=256),
        ),
    ),
    # For trying a set-up out.
    "tiny": Architecture(
        stem=8, stages=(Stage(1, 8, 1), Stage(1, 16, 2), Stage(1, 32, 2))
    ),
}
DEFAULTS = Recipe()


def parse_schedule(text: str) -> tuple[Phase, ...]:
    """`64:12,96:4` → twelve epochs at 64 pixels, then four at 96."""
    phases = []
    for part in text.split(","):
        size, _, epochs = part.partition(":")
        if not (
            size.isdecimal()
            and epochs.isdecimal()
            and int(size) >= 32
            and int(epochs) > 0
        ):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no schedule: expected SIZE:EPOCHS[,SIZE:EPOCHS…], sizes "
                "of 32 or more, as in 64:12,96:4"
            )
        phases.append(Phase(int(size), int(epochs)))
    return tuple(phases)


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    verbs = main.add_subparsers(dest="verb", required=True)

    add = verbs.add_parser(
        "train", help="train, score and export", formatter_class=main.formatter_class
    )
    source = add.add_argument_group("photos")
    source.add_argument(
        "--data",
        type=Path,
        required=True,
        help="MiniPlaces folder or tar, or parquet file or folder",
    )
    source.add_argument(
        "--val",
        type=Path,
        help="MiniPlaces folder or tar to score on; by default the photos held out",
    )
    source.add_argument(
        "--photo-size",
        type=int,
        help="side to decode training photos to; by default as stored",
    )
    source.add_argument(
        "--cache",
        type=Path,
        help="folder that keeps the decoded photos for the next start",
    )
    source.add_argument(
        "--hold-out",
        default="0",
        help="number of training photos to hold out, or a folder or tar of such photos",
    )
    run = add.add_argument_group("where and how")
    run.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the checkpoint, the scores and the weights",
    )
    run.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    run.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    run.add_argument(
        "--threads", type=int, help="CPU threads; by default torch's choice"
    )
    run.add_argument("--checkpoint-seconds", type=float, default=120)
    run.add_argument(
        "--stop-after",
        type=int,
        metavar="STEPS",
        help="stop as a kill would, to try resuming",
    )
    recipe = add.add_argument_group("recipe")
    recipe.add_argument(
        "--architecture", choices=sorted(ARCHITECTURES), default="bundled"
    )
    recipe.add_argument(
        "--schedule",
        type=parse_schedule,
        help="SIZE:EPOCHS[,SIZE:EPOCHS…]",
        default=DEFAULTS.phases,
    )
    recipe.add_argument(
        "--epochs",
        type=int,
        help="that many epochs in all, in the schedule's proportions",
    )
    recipe.add_argument("--batch", type=int, default=DEFAULTS.batch)
    recipe.add_argument(
        "--optimizer", choices=["muon", "sgd"], default=DEFAULTS.optimizer
    )
    recipe.add_argument(
        "--lr",
        type=float,
        default=DEFAULTS.lr,
        help="peak learning rate, of Muon or SGD",
    )
    recipe.add_argument(
        "--small-lr", type=float, default=DEFAULTS.small_lr, help="AdamW's, beside Muon"
    )
    recipe.add_argument(
        "--warmup",
        type=int,
        default=DEFAULTS.warmup,
        help="steps before the learning rate's peak",
    )
    recipe.add_argument(
        "--decay",
        type=float,
        default=DEFAULTS.decay,
        help="share of the steps in which it falls",
    )
    recipe.add_argument("--weight-decay", type=float, default=DEFAULTS.weight_decay)
    recipe.add_argument(
        "--label-smoothing", type=float, default=DEFAULTS.label_smoothing
    )
    recipe.add_argument("--averaging", type=float, default=DEFAULTS.averaging)
    recipe.add_argument(
        "--smallest-crop", type=float, default=DEFAULTS.augmentation.smallest_crop
    )
    recipe.add_argument("--colour", type=float, default=DEFAULTS.augmentation.colour)
    recipe.add_argument("--erase", type=float, default=DEFAULTS.augmentation.erase)
    recipe.add_argument(
        "--teacher", type=Path, help="weights of a trained network to learn from"
    )
    recipe.add_argument(
        "--distil",
        type=float,
        default=0.7,
        help="share of the loss that is the teacher's, with one",
    )
    recipe.add_argument("--seed", type=int, default=0)
    recipe.add_argument(
        "--eval-size",
        type=int,
        default=128,
        help="side that photos are scored and used at",
    )

    score = verbs.add_parser(
        "score", help="score a weights file", formatter_class=main.formatter_class
    )
    score.add_argument("weights", type=Path)
    score.add_argument("--val", type=Path, required=True)
    score.add_argument("--split", default="val")
    score.add_argument(
        "--size", type=int, help="side to score at; by default the file's own"
    )
    score.add_argument("--device", default="cpu")
    score.add_argument("--json", action="store_true", help="everything, per class")

    card = verbs.add_parser(
        "card",
        help="print a weights file's model card",
        formatter_class=main.formatter_class,
    )
    card.add_argument("weights", type=Path)
    return main


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    phases: tuple[Phase, ...] = arguments.schedule
    if arguments.epochs is not None:
        phases = spread(phases, arguments.epochs)
    return Recipe(
        phases=phases,
        batch=arguments.batch,
        optimizer=arguments.optimizer,
        lr=arguments.lr,
        small_lr=arguments.small_lr,
        weight_decay=arguments.weight_decay,
        warmup=arguments.warmup,
        decay=arguments.decay,
        label_smoothing=arguments.label_smoothing,
        averaging=arguments.averaging,
        distil=arguments.distil if arguments.teacher else 0.0,
        seed=arguments.seed,
        augmentation=Augmentation(
            smallest_crop=arguments.smallest_crop,
            colour=arguments.colour,
            erase=arguments.erase,
        ),
    )


def spread(phases: tuple[Phase, ...], epochs: int) -> tuple[Phase, ...]:
    """The same phases over another number of epochs in all; a phase that would get none is left out."""
    total = sum(phase.epochs for phase in phases)
    ends, passed = [0], 0
    for phase in phases:
        passed += phase.epochs
        ends.append(round(epochs * passed / total))
    counts = [end - begin for begin, end in itertools.pairwise(ends)]
    return tuple(
        Phase(phase.size, count)
        for phase, count in zip(phases, counts, strict=True)
        if count
    )


def run_training(arguments: argparse.Namespace, words: list[str]) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = recipe_of(arguments)
    device = torch.device(arguments.device)
    photos = read_photos(arguments.data, "train", arguments.photo_size, arguments.cache)
    labels = class_names(photos)
    chosen, held = split_off(photos, arguments.hold_out, arguments.seed)
    architecture = Architecture(
        ARCHITECTURES[arguments.architecture].stem,
        ARCHITECTURES[arguments.architecture].stages,
        len(labels),
    )
    torch.manual_seed(recipe.seed)
    network = SceneNetwork(architecture)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"{len(chosen)} photos, {len(labels)} classes, {parameters:,} parameters; "
        f"{cards.describe(recipe)}"
    )
    teacher = read_weights(arguments.teacher).network if arguments.teacher else None
    schedule = Schedule(
        arguments.out / "checkpoint.pt",
        arguments.checkpoint_seconds,
        arguments.stop_after,
    )
    values = train(
        network, photos, chosen, recipe, schedule, device, arguments.precision, teacher
    )
    if arguments.stop_after is not None:
        return

    weights_path = arguments.out / "weights.safetensors"
    write_weights(weights_path, values, architecture, labels, {}, arguments.eval_size)
    # Scored as it will be used: read back from half precision.
    weights = read_weights(weights_path)
    scored, of = _scored_photos(arguments, photos, held, labels)
    if scored is None:
        print(
            f"{weights_path}: no photos to score on; give --val or --hold-out",
            file=sys.stderr,
        )
        return
    evaluation = evaluate(weights.network, scored, device)
    command = "python " + shlex.join(
        ["scripts/train_miniplaces.py", *_without_machine_paths(words)]
    )
    card = cards.make_card(
        evaluation, labels, recipe, len(chosen), parameters, command, of
    )
    write_weights(weights_path, values, architecture, labels, card, arguments.eval_size)
    _write_json(arguments.out / "scores.json", card)
    _print_scores(evaluation, of)
    print(f"wrote {weights_path} ({weights_path.stat().st_size:,} bytes)")


def _scored_photos(
    arguments: argparse.Namespace,
    photos: Photos,
    held: NDArray[np.int64],
    labels: list[str],
) -> tuple[Photos | None, str]:
    size: int = arguments.eval_size
    if arguments.val is not None:
        scored = read_photos(arguments.val, "val", size)
        return (
            scored,
            f"{len(scored):,} validation photos ({arguments.val.name}) at "
            f"{size}×{size} pixels",
        )
    if not len(held):
        return None, ""
    if not arguments.hold_out.isdecimal():
        scored = read_photos(Path(arguments.hold_out), "train", size, classes=labels)
    else:
        scored = resized(photos.take(held), size)
    return scored, f"{len(scored):,} training photos held out, at {size}×{size} pixels"


def resized(photos: Photos, size: int) -> Photos:
    """The same photos at another size."""
    squares = [
        Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR)
        if photos.size != size
        else photo
        for photo in photos.pixels
    ]
    return Photos(
        np.stack([np.asarray(square) for square in squares]),
        photos.labels,
        photos.names,
    )


def run_score(arguments: argparse.Namespace) -> None:
    weights = read_weights(arguments.weights)
    size: int = arguments.size or weights.preprocessing["crop"]
    photos = read_photos(arguments.val, arguments.split, size, classes=weights.labels)
    evaluation = evaluate(weights.network, photos, torch.device(arguments.device))
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


def _without_machine_paths(arguments: list[str]) -> list[str]:
    """The command as anybody would type it: paths cut down to their last part."""
    return [
        Path(word).name if "/" in word and Path(word).is_absolute() else word
        for word in arguments
    ]


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)


def main(words: list[str] | None = None) -> int:
    arguments = parser().parse_args(words)
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
