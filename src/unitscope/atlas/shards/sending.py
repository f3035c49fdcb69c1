"""Sending: a task as bytes, and the task again in a worker process.

A network may be made of things that cannot be pickled: a function without a name, a class
made inside a function, a closure. One that `load` loaded is then loaded once more by the
worker, takes over all the numbers, and has to give the same logits.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.errors import RunnerError, one_line
from unitscope.model import Classifier
from unitscope.sources.user_code import loaded_code

Packed: TypeAlias = tuple[bytes, bytes]
"""The user's code that the task needs, and the task."""

# Of the largest logit.
_TOLERANCE = 1e-4


def packed(task: Callable[[int], Any]) -> Packed:
    """Pickle a task; raises RunnerError where that cannot be done."""
    code = pickle.dumps(loaded_code())
    try:
        return code, pickle.dumps(task)
    except Exception as error:  # The user's module may raise anything.
        reason = one_line(error)
    buffer = io.BytesIO()
    try:
        _Reloading(buffer).dump(task)
    except Exception:
        raise RunnerError(
            f"the model cannot be sent to other processes ({reason}): use one worker, "
            "or define what cannot be sent in a module, under a name"
        ) from None
    return code, buffer.getvalue()


def unpacked(packed: Packed) -> Callable[[int], Any]:
    """The task; raises RunnerError with the cause where it cannot be built here."""
    code, body = packed
    try:
        pickle.loads(code)
        task: Callable[[int], Any] = pickle.loads(body)
    except RunnerError:
        raise
    except BaseException as error:
        raise RunnerError(
            "a worker process cannot load the model "
            f"({type(error).__name__}: {one_line(error)}): use one worker, or define "
            "the network in a file that can be imported"
        ) from error
    return task


class _Reloading(pickle.Pickler):
    """Sends the parts of classifiers that cannot be pickled as the way to load them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._ways: dict[int, Any] = {}

    def reducer_override(self, obj: Any) -> Any:
        """The way to load an object anew; NotImplemented for all others."""
        if isinstance(obj, Classifier) and obj.provenance.reload is not None:
            reloaded = _Reloaded.of(obj)
            if not _can_be_pickled(obj.module):
                self._ways[id(obj.module)] = reloaded.module, ()
            if not _can_be_pickled(obj.preprocessing):
                way = reloaded.preprocessing, (obj.preprocessing.describe(),)
                self._ways[id(obj.preprocessing)] = way
        return self._ways.get(id(obj), NotImplemented)


@dataclass(eq=False)
class _Reloaded:
    """A classifier loaded once more: the numbers it takes over, and logits to compare."""

    reload: Callable[[], Classifier]
    state: dict[str, Any]
    inputs: Float[Tensor, "1 channel row col"]
    logits: Float[Tensor, "1 class"]

    @classmethod
    def of(cls, model: Classifier) -> _Reloaded:
        """How to load a classifier again."""
        reload: Any = model.provenance.reload
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((1, *model.input_shape), generator=generator)
        inputs = model.as_input(noise)
        return cls(
            reload, model.module.state_dict(), inputs, _logits(model, inputs)
        )

    @cached_property
    def _classifier(self) -> Classifier:
        model = self.reload()
        model.module.load_state_dict(self.state)
        model.module.to(self.inputs.device, self.inputs.dtype)
        logits = _logits(model, self.inputs)
        difference = float((logits - self.logits).abs().max())
        if difference > _TOLERANCE * float(self.logits.abs().max()):
            raise RunnerError(
                "the network that a worker loaded once more gives other logits (by up "
                f"to {difference:.2g}): it was changed after it was loaded, or its "
                "files were; load it again, or use one worker"
            )
        return model

    def module(self) -> nn.Module:
        """The network, with the numbers of the one that was sent."""
        return self._classifier.module

    def preprocessing(self, described: str) -> Any:
        """The preprocessing, which has to describe itself in the same words."""
        preprocessing = self._classifier.preprocessing
        if preprocessing.describe() != described:
            raise RunnerError(
                f"the preprocessing ({described}) cannot be sent to other processes: "
                "use one worker, or a function of a module that can be imported"
            )
        return preprocessing


def _logits(model: Classifier, inputs: Tensor) -> Tensor:
    with model.thawed():
        return model.activations(inputs).logits


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # Anybody's class may raise anything.
        return False
    return True
