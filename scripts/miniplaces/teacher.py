"""A trained network that another one learns from."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miniplaces.weights import read_weights
from unitscope.scenes.network import SceneNetwork
from unitscope.scenes.transformer import SceneTransformer


class Lesson(NamedTuple):
    """What the teacher says of a batch."""

    logits: Tensor
    """(photo, class)"""
    maps: Tensor
    """(photo, class, row, column): its class activation maps, bias included; their means
    are the logits."""
    stem: Tensor | None
    """(photo, unit, row, column): the map of the layers that the student has from it."""


class Teacher:
    """A trained scene network, without gradients.

    A student that begins with convolutions of the teacher's shapes gets the teacher's,
    and keeps them: what they make of a photo is then computed once for both.
    """

    def __init__(self, network: SceneNetwork, student: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)
        self._caught: dict[str, Tensor] = {}
        self._last = network.stage_names[-1]
        self._shared = _lend(network, student)
        for name in {self._last, self._shared} - {None}:
            layer = network.get_submodule(str(name))
            layer.register_forward_hook(self._catch(str(name)))

    @property
    def lends(self) -> bool:
        """Whether the student's first layers are the teacher's."""
        return self._shared is not None

    def _catch(self, name: str) -> Any:
        def keep(layer: nn.Module, inputs: object, output: Tensor) -> None:
            self._caught[name] = output

        return keep

    @torch.no_grad()
    def teach(self, inputs: Tensor) -> Lesson:
        """What the teacher says of photos (photo, channel, row, column)."""
        logits = self.network(inputs).float()
        last = self.network.fc
        cells = self._caught[self._last].permute(0, 2, 3, 1)
        maps = F.linear(cells, last.weight, last.bias).permute(0, 3, 1, 2)
        stem = None if self._shared is None else self._caught[self._shared]
        self._caught.clear()
        return Lesson(logits, maps.float(), stem)


def _lend(network: SceneNetwork, student: nn.Module) -> str | None:
    """Give the student the teacher's first layers; the last of them, None where none fit."""
    if not isinstance(student, SceneTransformer):
        return None
    own = network.state_dict()
    wanted = student.stem.state_dict()
    fits = all(
        name in own and own[name].shape == value.shape
        for name, value in wanted.items()
    )
    if not fits:
        return None
    student.stem.load_state_dict({name: own[name] for name in wanted})
    student.stem.requires_grad_(False)
    name = student.stem.stage_names[-1]
    return f"{name}.{len(student.stem.get_submodule(name)) - 1}"  # type: ignore[arg-type]


def teacher_in(path: Path, student: nn.Module) -> Teacher:
    """The teacher whose weights are in a file."""
    network = read_weights(path).network
    if not isinstance(network, SceneNetwork):
        raise ValueError(
            f"{path} holds a transformer, which teaches nobody here: give the weights of "
            "a convolutional network"
        )
    return Teacher(network, student)
