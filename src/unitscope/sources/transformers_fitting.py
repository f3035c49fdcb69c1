"""Weights into a network of transformers', which renames its parameters now and then."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from unitscope.errors import WeightsError
from unitscope.sources.transformers_library import quiet
from unitscope.sources.weights import Weights, fit_weights


def fit(module: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Load the weights, if need be under the names that transformers uses today."""
    try:
        return fit_weights(module, weights)
    except WeightsError:
        renewed = _renewed(module, weights)
        if renewed is None:
            raise
    notes = fit_weights(module, renewed)
    return (*notes, f"the names in {weights.name} renewed by transformers")


def _renewed(module: Any, weights: Weights) -> Weights | None:
    """The weights under the names that transformers gives them when it loads them.

    What it lacks stays absent, and what it cannot use stays, so that the misfit shows.
    None where it cannot load them at all.
    """
    try:
        with quiet():
            renamed, report = type(module).from_pretrained(
                None,
                config=module.config,
                state_dict=dict(weights.state),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception:  # Then the names in the file are the ones to complain of.
        return None

    mismatched = _mismatched_shapes(report)
    # transformers draws at random what it does not find, and what has another shape.
    random = {*report["missing_keys"], *mismatched}
    state = {
        name: tensor
        for name, tensor in renamed.state_dict().items()
        if name not in random
    }
    unexpected = dict.fromkeys(report["unexpected_keys"])
    for name, shape in (*mismatched.items(), *unexpected.items()):
        if shape is None:
            state[name] = weights.state.get(name, torch.empty(0))
        else:
            state[name] = torch.empty(shape, device="meta")
    return dataclasses.replace(weights, state=state, versions=None)


def _mismatched_shapes(report: Any) -> dict[str, Any]:
    """The shapes in the file of the tensors that have another shape in the network.

    Some versions of transformers give a list of (name, shape in the file, shape in the
    network), others the names alone, and the shape is None.
    """
    shapes: dict[str, Any] = {}
    for entry in report["mismatched_keys"]:
        if isinstance(entry, str):
            shapes[entry] = None
        else:
            shapes[entry[0]] = entry[1]
    return shapes
