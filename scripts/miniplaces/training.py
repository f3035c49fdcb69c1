"""The training loop: progressive sizes, a plateau of the learning rate, an averaged
network, exact resumption."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from miniplaces.augmentation import augment
from miniplaces.loss import Batch, answers_to, loss_of
from miniplaces.optimizers import make_optimizers
from miniplaces.photos import Photos
from miniplaces.recipe import Recipe, RecipeError
from miniplaces.teacher import Teacher

_STEPS_BETWEEN_NEWS = 20
_SHARE_OF_NEW_LOSS = 0.02


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
    teacher: Teacher | None = None,
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

    def prepare(step: int, indices: NDArray[np.int64]) -> Batch:
        images = _gather(pixels, indices, device)
        size = recipe.size_at(step // steps)
        return trainer.prepare(step, images, indices, size)

    with _bar(total, start) as bar:
        prepared = _ahead(prepare, _batches(chosen, recipe, start))
        for step, batch in prepared:
            epoch = step // steps
            size = recipe.size_at(epoch)
            rate = recipe.rate_at(step, total)
            trainer.learn(step, batch, rate)

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


def _ahead(
    prepare: Callable[[int, NDArray[np.int64]], Batch],
    batches: Iterator[tuple[int, NDArray[np.int64]]],
) -> Iterator[tuple[int, Batch]]:
    """The batches with their step numbers: the next is prepared while one is learnt from."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[tuple[int, Future[Batch]]] = []
        for step, indices in batches:
            waiting.append((step, pool.submit(prepare, step, indices)))
            if len(waiting) > 1:
                earlier, batch = waiting.pop(0)
                yield earlier, batch.result()
        for step, batch in waiting:
            yield step, batch.result()


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
        teacher: Teacher | None,
        photos: Photos,
        recipe: Recipe,
        device: torch.device,
        precision: str,
    ) -> None:
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if teacher is not None:
            teacher.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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

    def prepare(
        self,
        step: int,
        images: Tensor,
        indices: NDArray[np.int64],
        size: int,
    ) -> Batch:
        """The varied photos of these indices, and what the teacher says of them."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(
            recipe.seed * 1_000_003 + step
        )
        inputs = augment(images, size, recipe.augmentation, generator)
        labels = torch.from_numpy(self.labels[indices]).to(self.device)
        lesson = None
        if self.teacher is not None:
            with precision_of(self.precision, self.device):
                lesson = self.teacher.teach(inputs)
        return Batch(inputs, labels, lesson)

    def learn(self, step: int, batch: Batch, rate: float) -> None:
        """One step, at a share `rate` of the peak learning rates."""
        self._set_rates(rate)
        precision = precision_of(self.precision, self.device)
        with precision:
            answers = answers_to(self.network, batch)
        loss = loss_of(answers, batch, self.recipe)

        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for optimizer in self.optimizers:
            optimizer.step()

        # A young average must forget its first weights sooner than an old one.
        decay = min(self.recipe.averaging, (step + 1) / (step + 10))
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
