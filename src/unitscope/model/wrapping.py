"""Wrapping: what can be made into a classifier, and what has to be given instead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain

import torch
from torch import nn

from unitscope.attribution.scores import Scores
from unitscope.errors import ModelError

# Where other libraries keep the network: fastai's Learner, and trainers of many kinds.
_HOLDERS = ("model", "module", "net", "network")


# What transformers trains a network for, by the problem_type of its configuration.
SCORES_OF_PROBLEMS = {
    "single_label_classification": Scores.SOFTMAX,
    "multi_label_classification": Scores.SIGMOID,
    "regression": Scores.NONE,
}


def check_module(module: object) -> None:
    """Raise ModelError, with the remedy, unless `module` is a torch.nn.Module."""
    if not isinstance(module, nn.Module):
        raise ModelError(
            "a classifier is made from a torch.nn.Module, not from "
            f"{_named(module)}: {_remedy(module)}"
        )
    for name, tensor in chain(
        module.named_parameters(), module.named_buffers()
    ):
        if tensor.is_meta:
            raise ModelError(
                f"the weights '{name}' are on the device 'meta', which holds no numbers: "
                "make the network on a real device, and load its weights"
            )


def _named(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return type(given).__name__


def _remedy(given: object) -> str:
    if isinstance(given, torch.export.ExportedProgram):
        return "wrap the Python module that it was exported from"
    if isinstance(given, type):
        return f"wrap an object of it, {given.__name__}(…)"
    if isinstance(given, Mapping):
        return (
            "load these weights into the network that they belong to "
            "(load_state_dict), and wrap that"
        )
    if isinstance(given, (str, os.PathLike)):
        return "use unitscope.load for models by their names, and for files"
    for name in _HOLDERS:
        if isinstance(getattr(given, name, None), nn.Module):
            return f"wrap its .{name}"
    if callable(given):
        return "wrap a module whose forward calls it"
    return "wrap the network that gives the logits"


def gradient_obstacle(module: nn.Module) -> str:
    """Why no gradient passes a network, and the remedy; empty where one may."""
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.is_inference() for tensor in tensors):
        return (
            "the weights were made inside torch.inference_mode(), where gradients "
            "cannot be had: wrap copy.deepcopy(network), made outside of that"
        )
    if any(_is_quantized(part) for part in module.modules()):
        return (
            "the network is quantized, and gradients do not pass whole numbers: wrap "
            "the float network that it was made from"
        )
    return ""


def _is_quantized(module: nn.Module) -> bool:
    """Whether a module computes with whole numbers: torch.ao's, torchao's, bitsandbytes'."""
    weight = getattr(module, "weight", None)
    if callable(weight):
        # Modules of torch.ao unpack theirs when they are asked for it.
        weight = weight()
    if not isinstance(weight, torch.Tensor):
        return False
    return weight.is_quantized or not (
        weight.is_floating_point() or weight.is_complex()
    )


def asked_scores(
    module: nn.Module, scores: Scores | str | None
) -> Scores | None:
    """The scores asked for, or named by a transformers module's configuration, or None.

    Raises ModelError for an unknown kind.
    """
    if scores is not None:
        return Scores.read(scores)
    config = getattr(module, "config", None)
    problem = getattr(config, "problem_type", None)
    if not isinstance(problem, str):
        return None
    return SCORES_OF_PROBLEMS.get(problem)
