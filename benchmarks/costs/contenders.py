"""Contenders: everything that is timed on a network, against its plain forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import unitscope
from costs import peers
from costs.engine import compiled_pass
from costs.machine import has_bfloat16, multiplications
from costs.networks import inputs, network
from costs.timing import ENGINE, Timed, bind, measure

PLAIN = "plain forward"
EXPLAIN = "unitscope: explain"
NOT_FROZEN = "unitscope: explain, not frozen"
EVERYTHING = "unitscope: everything"
HELD = "unitscope: everything, held in memory"
BFLOAT16 = "unitscope: everything, bfloat16"
LOCALLY = "unitscope: 5 classes locally"

# Those that run the network backward take minutes on every network.
_WITH_PEERS = ("resnet50", "miniplaces")


def measure_networks(
    names: list[str], sizes: list[int], rounds: int, device: str
) -> list[dict[str, Any]]:
    """Every contender on every network, and how many multiplications a pass is."""
    rows = []
    for name in names:
        module = network(name).to(device)
        for batch in sizes:
            x = inputs(name, batch, device)
            work = multiplications(module, x)
            results = _measure_network(name, module, x, rounds)
            for what, result in results.items():
                row = {"network": name, "batch": batch, "what": what}
                rows.append({**row, "multiplications": work, **result})
    return rows


def _measure_network(
    name: str, module: nn.Module, x: Tensor, rounds: int
) -> dict[str, dict[str, float]]:
    device = x.device.type
    results = measure(contenders(module, x), rounds, device)
    if name not in _WITH_PEERS:
        return results

    # Apart, and in fewer rounds: they take tens of times as long, and gigabytes, which
    # upsets what runs next.
    backward = measure(backward_peers(module, x), max(2, rounds // 3), device)
    return {**backward, **results}


def contenders(module: nn.Module, x: Tensor) -> Timed:
    """The plain forward pass first, then unitscope, then the peers that run nothing backward."""
    model = unitscope.wrap(module)
    head = model.head
    model.freeze(head.layer if head.layer_is_map else ())

    timed: Timed = {PLAIN: lambda: plain(module, x)}
    engine = compiled_pass(model, tuple(x.shape[1:]))
    if engine is not None:
        timed[ENGINE] = bind(engine, x)
    timed |= _explanations(model, x)

    # Heads are found and networks compiled once, outside the measured rounds.
    for run in timed.values():
        run()
    return {**timed, **peers.torchcam(module, x)}


def _explanations(model: unitscope.Classifier, x: Tensor) -> Timed:
    """What unitscope does, by name."""
    exact = model.head.exact

    def thawed() -> object:
        with model.thawed():
            return model.explain(x)

    def locally() -> object:
        explanation = model.explain(x, method="hirescam" if exact else None)
        return explanation.cams_of(peers.CLASSES)

    timed: Timed = {NOT_FROZEN: thawed, EXPLAIN: lambda: model.explain(x)}
    if exact:
        timed[EVERYTHING] = lambda: _everything(model, x)
        timed[HELD] = lambda: _held(model, x)
    if exact and x.device.type == "cpu" and has_bfloat16():
        timed[BFLOAT16] = lambda: _everything(model, x, precision="bfloat16")
    timed[LOCALLY] = locally
    return timed


def _everything(
    model: unitscope.Classifier, x: Tensor, **options: Any
) -> object:
    """All maps, contributions photo by photo, and ablations a few units at a time."""
    explanation = model.explain(x, **options)
    maps = explanation.cams
    for photo in explanation:
        assert photo.contributions.shape[0] == 1
    for _ in explanation.ablations():
        pass
    return maps


def _held(model: unitscope.Classifier, x: Tensor) -> object:
    """All maps, contributions and ablations of all photos at once."""
    explanation = model.explain(x)
    return (
        explanation.cams,
        explanation.contributions,
        explanation.ablate_each(),
    )


def backward_peers(module: nn.Module, x: Tensor) -> Timed:
    """The plain forward pass, and the peers that run the network backward."""
    return {
        PLAIN: lambda: plain(module, x),
        **peers.grad_cam(module, x),
        **peers.captum(module, x),
    }


def plain(module: nn.Module, x: Tensor) -> Tensor:
    """The user's own forward pass."""
    with torch.no_grad():
        logits: Tensor = module(x)
        return logits
