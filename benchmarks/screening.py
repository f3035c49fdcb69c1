"""How well the estimates of `model.screen` rank units: beside real ablations of all units.

PYTHONPATH=src python benchmarks/screening.py photo.jpg                 all networks
PYTHONPATH=src python benchmarks/screening.py photo.jpg --cost SPEC     time and memory

Every unit of the layers below is switched off by a real pass, one at a time. The table is
Markdown, for docs/answers.md. Networks of torchvision have random weights unless
--weights SPEC=FILE gives them some.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import unitscope
from unitscope.attribution.screening import rank_correlation
from unitscope.errors import HeadError
from unitscope.model import Classifier

NETWORKS: Mapping[str, tuple[str, ...]] = {
    "miniplaces": ("relu", "layer1", "layer2", "layer3", "layer4"),
    "miniplaces-vit": (
        "stem",
        "patch_embed",
        "blocks.0",
        "blocks.2",
        "blocks.4",
        "blocks.2.mlp.act",
        "blocks",
    ),
    "torchvision:resnet18": ("relu", "layer1", "layer2", "layer3", "layer4"),
    "torchvision:resnet50": ("relu", "layer1", "layer2", "layer3", "layer4"),
    "torchvision:squeezenet1_1": (
        "features.0",
        "features.3",
        "features.6",
        "features.9",
        "features",
    ),
}


def effects(model: Classifier, photo: str, layer: str, index: int) -> Tensor:
    """What switching each unit of a layer off does to a class's logit (unit)."""
    try:
        explanation = model.explain(photo, layer=layer)
        without = explanation.ablate_each(classes=[index])[0, :, 0]
        return without - explanation.logits[0, index]
    except HeadError:  # a layer of which one token counts
        before = model.explain(photo).logits[0, index]
        units = model.screen(photo, index, layer).estimates[layer].shape[1]
        return torch.stack(
            [
                model.forward_without(photo, unit, layer)[0, index] - before
                for unit in range(units)
            ]
        )


def rows_of(model: Classifier, name: str, photo: str) -> list[str]:
    """One row of the table for each layer of a network."""
    layers = NETWORKS[name]
    screening = model.screen(photo, layers=layers)
    rows = []
    for layer in layers:
        estimates = screening.estimates[layer][0]
        real = effects(model, photo, layer, screening.classes[0])
        correlation = rank_correlation(estimates.tolist(), real.tolist())
        count = min(20, len(real))
        top = set(estimates.abs().topk(count).indices.tolist())
        truly = set(real.abs().topk(count).indices.tolist())
        shown = "–" if correlation is None else f"{correlation:.3f}"
        rows.append(
            f"| {name} | `{layer}` | {len(real)} | {shown} | "
            f"{len(top & truly)} of {count} | {float(estimates.abs().max()):.3g} | "
            f"{float(real.abs().max()):.3g} |"
        )
        print(rows[-1], flush=True)
    return rows


def print_cost(spec: str, photo: str, weights: Mapping[str, str]) -> None:
    """Time beside a plain explanation, and memory, of one screening."""
    model = loaded(spec, weights)
    model.explain(photo)
    model.layers()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    explaining = least_time(lambda: model.explain(photo))
    between = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    screening = least_time(lambda: model.screen(photo))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{spec}: explain {explaining * 1000:.0f} ms, screen {screening * 1000:.0f} ms "
        f"({screening / explaining:.1f} times); peak memory before {before / 1024:.0f} "
        f"MiB, explaining {between / 1024:.0f} MiB, screening {after / 1024:.0f} MiB"
    )


def least_time(run: Any, times: int = 5) -> float:
    """The least of several times, in seconds."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def loaded(spec: str, weights: Mapping[str, str]) -> Classifier:
    """A network, with random weights where none are given."""
    if not spec.startswith("torchvision:"):
        return unitscope.load(spec)
    torch.manual_seed(0)
    file = weights.get(spec)
    if file is None:
        return unitscope.load(spec, weights=None)
    model = unitscope.load(spec, weights=file)
    model.module.float()
    return model


def main() -> None:
    """Print the table, or the cost of one network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo")
    parser.add_argument("--network", action="append", choices=list(NETWORKS))
    parser.add_argument("--cost", metavar="SPEC", action="append")
    parser.add_argument("--weights", metavar="SPEC=FILE", action="append")
    options = parser.parse_args()
    weights = dict(each.split("=", 1) for each in options.weights or ())
    warnings.simplefilter("ignore")

    for spec in options.cost or ():
        print_cost(spec, options.photo, weights)
    if options.cost:
        return
    print(
        "| network | layer | units | ρ | top 20 | largest estimate | effect |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in options.network or NETWORKS:
        rows_of(loaded(name, weights), name, options.photo)


if __name__ == "__main__":
    main()
