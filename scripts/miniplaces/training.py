"""The training loop: progressive sizes, a plateau of the learning rate, an averaged
network, exact resumption."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from miniplaces.augmentation import Augmentation, augment
from miniplaces.optimizers import make_optimizers
from miniplaces.photos import Photos

_STEPS_BETWEEN_NEWS = 20
_SHARE_OF_NEW_LOSS = 0.02


class RecipeError(ValueError):
    """A recipe that cannot be trained as given; the message says why and what to change."""


@dataclass(frozen=True)
class Phase:
    """Some epochs at one size of crop."""

    size: int
    epochs: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training makes of the same photos."""

    phases: tuple[Phase, ...] = (Phase(64, 20), Phase(96, 6))
    batch: int = 256
    optimizer: str = "muon"
    lr: float = 0.03
    small_lr: float = 0.003
    """AdamW's, for what Muon does not train."""
    weight_decay: float = 0.05
    warmup: int = 300
    """Steps before the learning rate's peak."""
    decay: float = 0.45
    """Share of the steps, the last ones, over which the learning rate falls to nothing."""
    label_smoothing: float = 0.1
    averaging: float = 0.0
    """Decay of the moving average of the weights that is kept; 0 keeps the last."""
    distil: float = 0.0
    """Share of the loss that asks for the teacher's answer rather than for the label."""
    temperature: float = 2.0
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    def size_at(self, epoch: int) -> int:
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase.size
            epoch -= phase.epochs
        return self.phases[-1].size

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate as a share of its peak: a straight line up, a plateau, a
        straight line down to nothing.

        With a plateau (Zhai et al. 2022; Hägele et al. 2024) how long to train may be
        decided while it lasts.
        """
        return min(
            1.0,
            (step + 1) / self.warmup,
            (steps - step) / max(1.0, self.decay * steps),
        )

    def fingerprint(self, photos: NDArray[np.int64], done: int) -> str:
        """Tells whether a checkpoint after `done` steps is one that this recipe on
        these photos would have made.

        So a schedule may be made longer or shorter as long as it agrees on what is
        done.
        """
        rest = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("phases", "decay")
        }
        steps = len(photos) // self.batch
        past = [
            (
                self.size_at(step // steps),
                self.rate_at(step, steps * self.epochs),
            )
            for step in range(done)
        ]
        digest = hashlib.sha256(
            json.dumps([rest, past], sort_keys=True).encode()
        )
        digest.update(np.ascontiguousarray(photos).tobytes())
        return digest.hexdigest()


class Average:
    """An exponential moving average of a network's weights and running statistics."""

    def __init__(self, network: nn.Module) -> None:
        self.values = {
            name: value.detach().clone()
            for name, value in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        floats, news = [], []
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                floats.append(self.values[name])
                news.append(value.detach())
            else:
                self.values[name].copy_(value)
        torch._foreach_lerp_(floats, news, 1 - decay)


@dataclass(frozen=True)
class Schedule:
    """Where a training keeps its checkpoint, and how often it writes it."""

    checkpoint: Path
    every_seconds: float = 120.0
    stop_after_steps: int | None = None
    """Stop here as a kill would, for tests."""


def precision_of(
    name: str, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    if name == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def train(
    network: nn.Module,
    photos: Photos,
    chosen: NDArray[np.int64],
    recipe: Recipe,
    schedule: Schedule,
    device: torch.device,
    precision: str = "bfloat16",
    teacher: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Train on the `chosen` photos and return the averaged weights.

    Order, crops and colours of a step follow from the seed and the step's number alone,
    so a training that was killed goes on from its checkpoint as if it had not been;
    kernels that add in no fixed order (most CUDA ones) may still make the last digits
    differ, on a CPU with the same number of threads nothing does.
    """
    _check(recipe, chosen)
    trainer = _Trainer(network, teacher, photos, recipe, device, precision)
    start = _resume(schedule.checkpoint, recipe, chosen, trainer)
    pixels = _on_device(photos, device)

    steps = len(chosen) // recipe.batch
    total = steps * recipe.epochs
    saved = time.monotonic()
    network.train()
    with _bar(total, start) as bar:
        for step, indices in _batches(chosen, recipe, start):
            epoch = step // steps
            size = recipe.size_at(epoch)
            rate = recipe.rate_at(step, total)
            images = _gather(pixels, indices, device)
            trainer.step(step, images, indices, size, rate)

            bar.update()
            if step % _STEPS_BETWEEN_NEWS == 0:
                loss = f"{trainer.mean_loss():.3f}"
                bar.set_postfix(
                    epoch=epoch, size=size, lr=f"{rate:.2f}", loss=loss
                )

            done = step + 1
            if done == schedule.stop_after_steps:
                break
            is_due = time.monotonic() - saved > schedule.every_seconds
            if is_due or done == total:
                fingerprint = recipe.fingerprint(chosen, done)
                _save(schedule.checkpoint, fingerprint, done, trainer)
                saved = time.monotonic()
            if done % steps == 0:
                passed = f"epoch {done // steps}/{recipe.epochs}"
                tqdm.write(
                    f"{passed}  size {size}  loss {trainer.mean_loss():.3f}"
                )
    return trainer.average.values


def _bar(total: int, start: int) -> "tqdm[Any]":
    return tqdm(
        total=total,
        initial=start,
        desc="training",
        unit=" steps",
        disable=None,
        mininterval=1,
    )


class _Trainer:
    """A network on its device, with what changes from step to step: weights, their
    average, and optimizers."""

    def __init__(
        self,
        network: nn.Module,
        teacher: nn.Module | None,
        photos: Photos,
        recipe: Recipe,
        device: torch.device,
        precision: str,
    ) -> None:
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if teacher is not None:
            teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            teacher.eval().requires_grad_(False)
        self.network = network
        self.teacher = teacher
        self.labels = photos.labels
        self.recipe = recipe
        self.device = device
        self.precision = precision
        self.average = Average(network)
        self.optimizers = make_optimizers(
            network,
            recipe.optimizer,
            recipe.lr,
            recipe.small_lr,
            recipe.weight_decay,
        )
        self._peaks = self._peaks_of_rates()
        self._loss: Tensor | None = None

    def _peaks_of_rates(self) -> list[list[float]]:
        """The peak learning rate of every group of every optimizer."""
        recipe = self.recipe
        if recipe.optimizer == "muon":
            return [[recipe.lr], [recipe.small_lr] * 2]
        return [[recipe.lr] * len(self.optimizers[0].param_groups)]

    def step(
        self,
        step: int,
        images: Tensor,
        indices: NDArray[np.int64],
        size: int,
        rate: float,
    ) -> None:
        """One step on the photos of these indices, at a share `rate` of the peak learning rates."""
        recipe = self.recipe
        self._set_rates(rate)
        generator = torch.Generator().manual_seed(
            recipe.seed * 1_000_003 + step
        )
        inputs = augment(images, size, recipe.augmentation, generator)
        labels = torch.from_numpy(self.labels[indices]).to(self.device)
        precision = precision_of(self.precision, self.device)
        loss = _loss(
            self.network, self.teacher, inputs, labels, recipe, precision
        )

        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for optimizer in self.optimizers:
            optimizer.step()

        # A young average must forget its first weights sooner than an old one.
        decay = min(recipe.averaging, (step + 1) / (step + 10))
        self.average.update(self.network, decay)
        self._follow(loss.detach())

    def _set_rates(self, rate: float) -> None:
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate

    def _follow(self, loss: Tensor) -> None:
        """Keep a moving average of the loss, on the device."""
        if self._loss is None:
            self._loss = loss
        else:
            self._loss = self._loss + (loss - self._loss) * _SHARE_OF_NEW_LOSS

    def mean_loss(self) -> float:
        """The moving average of the loss."""
        assert self._loss is not None, "no step has run"
        return self._loss.item()


def _check(recipe: Recipe, chosen: NDArray[np.int64]) -> None:
    if recipe.epochs < 1:
        raise RecipeError(
            "the recipe has no epoch: give --schedule SIZE:EPOCHS, as in 64:12,96:4"
        )
    if len(chosen) < recipe.batch:
        raise RecipeError(
            f"a batch of {recipe.batch} is more than the {len(chosen)} training "
            "photos: lower --batch"
        )


def _batches(
    chosen: NDArray[np.int64], recipe: Recipe, start: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Step numbers from `start` on, each with its photos. The last, incomplete batch
    of an epoch is left out."""
    steps = len(chosen) // recipe.batch
    for epoch in range(start // steps, recipe.epochs):
        order = np.random.default_rng((recipe.seed, 2, epoch)).permutation(
            chosen
        )
        for position in range(steps):
            step = epoch * steps + position
            if step >= start:
                # Sorted, so that reading from a memory-mapped array goes forward.
                yield (
                    step,
                    np.sort(
                        order[
                            position * recipe.batch : (position + 1)
                            * recipe.batch
                        ]
                    ),
                )


def _on_device(
    photos: Photos, device: torch.device
) -> NDArray[np.uint8] | Tensor:
    """All photos on an accelerator (100,000 of 96 pixels take 2.8 GB); on a CPU they
    stay where they are."""
    if device.type == "cpu":
        return photos.pixels
    return torch.from_numpy(np.array(photos.pixels)).to(device)


def _gather(
    pixels: NDArray[np.uint8] | Tensor,
    indices: NDArray[np.int64],
    device: torch.device,
) -> Tensor:
    if isinstance(pixels, Tensor):
        return pixels[torch.from_numpy(indices).to(device)]
    return torch.from_numpy(pixels[indices])


def _loss(
    network: nn.Module,
    teacher: nn.Module | None,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    precision: contextlib.AbstractContextManager[object],
) -> Tensor:
    with precision:
        logits = network(inputs).float()
        if teacher is not None:
            with torch.no_grad():
                answer = teacher(inputs).float()
    loss = F.cross_entropy(
        logits, labels, label_smoothing=recipe.label_smoothing
    )
    if teacher is None or not recipe.distil:
        return loss
    heat = recipe.temperature
    # Hinton et al. 2015; the square keeps the gradient's size when the temperature
    # changes.
    imitation = F.kl_div(
        F.log_softmax(logits / heat, 1),
        F.log_softmax(answer / heat, 1),
        log_target=True,
        reduction="batchmean",
    )
    return (1 - recipe.distil) * loss + recipe.distil * heat**2 * imitation


def _save(path: Path, fingerprint: str, step: int, trainer: _Trainer) -> None:
    state = {
        "fingerprint": fingerprint,
        "step": step,
        "network": trainer.network.state_dict(),
        "average": trainer.average.values,
        "optimizers": [
            optimizer.state_dict() for optimizer in trainer.optimizers
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _resume(
    path: Path, recipe: Recipe, chosen: NDArray[np.int64], trainer: _Trainer
) -> int:
    """Load the checkpoint where there is one; the number of steps it has done."""
    if not path.exists():
        return 0

    state: dict[str, Any] = torch.load(
        path, map_location="cpu", weights_only=True
    )
    step: int = state["step"]
    if state["fingerprint"] != recipe.fingerprint(chosen, step):
        raise RecipeError(
            f"{path} belongs to another recipe or other photos: give the same options "
            "to go on, or another --out"
        )

    trainer.network.load_state_dict(state["network"])
    for name, value in state["average"].items():
        trainer.average.values[name].copy_(value)
    for optimizer, saved in zip(
        trainer.optimizers, state["optimizers"], strict=True
    ):
        optimizer.load_state_dict(saved)
    return step
