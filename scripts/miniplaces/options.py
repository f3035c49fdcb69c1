"""Options: the command line of the training script, and the recipe that its options make."""

import argparse
import itertools
from pathlib import Path

import torch

from miniplaces.augmentation import Augmentation
from miniplaces.recipe import Phase, Recipe
from unitscope.scenes.network import BUNDLED, Architecture, Stage
from unitscope.scenes.transformer import (
    BUNDLED_TRANSFORMER,
    TransformerArchitecture,
)

ARCHITECTURES: dict[str, Architecture | TransformerArchitecture] = {
    "transformer": BUNDLED_TRANSFORMER,
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
    "tiny-transformer": TransformerArchitecture(
        stem=8,
        stages=(Stage(1, 8, 1), Stage(1, 16, 2)),
        width=16,
        blocks=2,
        heads=2,
        inner=16,
        side=4,
    ),
}
DEFAULTS = Recipe()
_SMALLEST_PHOTO = 32


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of all verbs."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        description=description, formatter_class=formatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)

    train = verbs.add_parser(
        "train", help="train, score and export", formatter_class=formatter
    )
    _add_photos(train)
    _add_run(train)
    _add_recipe(train)

    score = verbs.add_parser(
        "score", help="score a weights file", formatter_class=formatter
    )
    _add_score(score)

    card = verbs.add_parser(
        "card",
        help="print a weights file's model card",
        formatter_class=formatter,
    )
    card.add_argument("weights", type=Path)
    return parser


def _add_photos(train: argparse.ArgumentParser) -> None:
    group = train.add_argument_group("photos")
    group.add_argument(
        "--data",
        type=Path,
        required=True,
        help="MiniPlaces folder or tar, or parquet file or folder",
    )
    group.add_argument(
        "--val",
        type=Path,
        help="MiniPlaces folder or tar to score on; by default the photos held out",
    )
    group.add_argument(
        "--photo-size",
        type=int,
        help="side to decode training photos to; by default as stored",
    )
    group.add_argument(
        "--cache",
        type=Path,
        help="folder that keeps the decoded photos for the next start",
    )
    group.add_argument(
        "--hold-out",
        default="0",
        help="number of training photos to hold out, or a folder or tar of such photos",
    )


def _add_run(train: argparse.ArgumentParser) -> None:
    group = train.add_argument_group("where and how")
    group.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the checkpoint, the scores and the weights",
    )
    group.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu"
    )
    group.add_argument(
        "--precision", choices=["bfloat16", "float32"], default="bfloat16"
    )
    group.add_argument(
        "--threads", type=int, help="CPU threads; by default torch's choice"
    )
    group.add_argument("--checkpoint-seconds", type=float, default=120)
    group.add_argument(
        "--stop-after",
        type=int,
        metavar="STEPS",
        help="stop as a kill would, to try resuming",
    )


def _add_recipe(train: argparse.ArgumentParser) -> None:
    group = train.add_argument_group("recipe")
    group.add_argument(
        "--architecture", choices=sorted(ARCHITECTURES), default="bundled"
    )
    group.add_argument(
        "--schedule",
        type=parse_schedule,
        help="SIZE:EPOCHS[,SIZE:EPOCHS…]",
        default=DEFAULTS.phases,
    )
    group.add_argument(
        "--epochs",
        type=int,
        help="that many epochs in all, in the schedule's proportions",
    )
    _add_optimization(group)
    _add_augmentation(group)
    group.add_argument(
        "--teacher",
        type=Path,
        help="weights of a trained network to learn from",
    )
    group.add_argument(
        "--distil",
        type=float,
        default=0.7,
        help="share of the loss that is the teacher's, with one",
    )
    group.add_argument(
        "--dense",
        type=float,
        default=DEFAULTS.dense,
        help="weight of the teacher's class maps, for a transformer's patches",
    )
    group.add_argument("--seed", type=int, default=0)
    group.add_argument(
        "--eval-size",
        type=int,
        default=128,
        help="side that photos are scored and used at",
    )


def _add_optimization(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch", type=int, default=DEFAULTS.batch)
    group.add_argument(
        "--optimizer", choices=["muon", "sgd"], default=DEFAULTS.optimizer
    )
    group.add_argument(
        "--lr",
        type=float,
        default=DEFAULTS.lr,
        help="peak learning rate, of Muon or SGD",
    )
    group.add_argument(
        "--small-lr",
        type=float,
        default=DEFAULTS.small_lr,
        help="AdamW's, beside Muon",
    )
    group.add_argument(
        "--warmup",
        type=int,
        default=DEFAULTS.warmup,
        help="steps before the learning rate's peak",
    )
    group.add_argument(
        "--decay",
        type=float,
        default=DEFAULTS.decay,
        help="share of the steps in which it falls",
    )
    group.add_argument(
        "--weight-decay", type=float, default=DEFAULTS.weight_decay
    )
    group.add_argument(
        "--label-smoothing", type=float, default=DEFAULTS.label_smoothing
    )
    group.add_argument("--averaging", type=float, default=DEFAULTS.averaging)


def _add_augmentation(group: argparse._ArgumentGroup) -> None:
    augmentation = DEFAULTS.augmentation
    group.add_argument(
        "--smallest-crop", type=float, default=augmentation.smallest_crop
    )
    group.add_argument("--colour", type=float, default=augmentation.colour)
    group.add_argument("--erase", type=float, default=augmentation.erase)


def _add_score(score: argparse.ArgumentParser) -> None:
    score.add_argument("weights", type=Path)
    score.add_argument("--val", type=Path, required=True)
    score.add_argument("--split", default="val")
    score.add_argument(
        "--size", type=int, help="side to score at; by default the file's own"
    )
    score.add_argument("--device", default="cpu")
    score.add_argument(
        "--json", action="store_true", help="everything, per class"
    )


def parse_schedule(text: str) -> tuple[Phase, ...]:
    """`64:12,96:4` → twelve epochs at 64 pixels, then four at 96."""
    return tuple(_parse_phase(part, text) for part in text.split(","))


def _parse_phase(part: str, text: str) -> Phase:
    size, _, epochs = part.partition(":")
    numbers = size.isdecimal() and epochs.isdecimal()
    if not numbers or int(size) < _SMALLEST_PHOTO or int(epochs) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no schedule: expected SIZE:EPOCHS[,SIZE:EPOCHS…], sizes of "
            f"{_SMALLEST_PHOTO} or more, as in 64:12,96:4"
        )
    return Phase(int(size), int(epochs))


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the options ask for."""
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
        dense=arguments.dense if arguments.teacher else 0.0,
        seed=arguments.seed,
        augmentation=Augmentation(
            smallest_crop=arguments.smallest_crop,
            colour=arguments.colour,
            erase=arguments.erase,
        ),
    )


def spread(phases: tuple[Phase, ...], epochs: int) -> tuple[Phase, ...]:
    """The same phases over another number of epochs in all; a phase that would get
    none is left out."""
    total = sum(phase.epochs for phase in phases)
    ends = [0]
    passed = 0
    for phase in phases:
        passed += phase.epochs
        ends.append(round(epochs * passed / total))

    scaled = []
    for phase, (begin, end) in zip(
        phases, itertools.pairwise(ends), strict=True
    ):
        if end > begin:
            scaled.append(Phase(phase.size, end - begin))
    return tuple(scaled)
