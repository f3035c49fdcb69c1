"""What an explanation costs, as multiples of the user's own plain forward pass, paired and interleaved in one run.

    python benchmarks/explain.py [--networks resnet50 squeezenet1_1] [--batch 1 8] [--rounds 15] [--json FILE]

Each round times, in random order, one plain `module(x)` and each explanation; a ratio is that of the same round, and
the table gives the median and the quartiles of the ratios. "everything" reads the maps of all classes, all
contributions, and the logits with every unit off in turn, where the head is exact. "5 classes locally" is gradient ×
activation at the same layer, by one forward and five backward passes of what follows it. Peers are timed when they are
installed, on five classes of each picture, as people use them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

import unitscope

CLASSES = [0, 1, 2, 3, 4]


def contenders(module: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed: the plain forward pass first."""
    model = unitscope.wrap(module)

    def plain() -> object:
        with torch.no_grad():
            return module(x)

    def everything() -> object:
        explanation = model.explain(x)
        return explanation.cams, explanation.contributions, explanation.ablate_each()

    timed: dict[str, Callable[[], object]] = {
        "plain forward": plain,
        "unitscope: explain": lambda: model.explain(x),
        "unitscope: 5 classes locally": lambda: model.explain(x, method="hirescam").cams_of(CLASSES),
    }
    if model.head.exact:
        timed["unitscope: everything"] = everything
    model.explain(x)  # The head is found once, not in each explanation.
    model.explain(x, method="hirescam")
    timed.update(_torchcam(module, x))
    timed.update(_captum(module, x))
    return timed


def _torchcam(module: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    try:
        from torchcam.methods import CAM
    except ImportError:
        return {}
    if not isinstance(getattr(module, "fc", None), nn.Linear):
        return {}

    def run() -> object:
        with CAM(module, target_layer="layer4") as extractor:
            scores = module(x)
            return [extractor([index] * len(x), scores, normalized=False) for index in CLASSES]

    return {"torchcam: CAM, 5 classes": run}


def _captum(module: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        return {}
    layer = getattr(module, "layer4", getattr(module, "features", None))
    if layer is None:
        return {}
    method = LayerGradCam(module, layer)
    return {"captum: LayerGradCam, 5 classes": lambda: [method.attribute(x, target=index) for index in CLASSES]}


def measure(timed: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds, and the ratio to the plain pass of the same round: median and quartiles."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    names, order = list(timed), random.Random(0)
    for round_ in range(rounds + 1):
        # In another order each round: what runs before leaves caches and memory in a state of its own.
        for name in order.sample(names, len(names)):
            run = timed[name]
            begin = time.perf_counter()
            run()
            if round_:  # The first round warms up.
                seconds[name].append(time.perf_counter() - begin)
    plain = seconds["plain forward"]
    results = {}
    for name, times in seconds.items():
        ratios = [one / base for one, base in zip(times, plain, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        results[name] = {"seconds": statistics.median(times), "ratio": median, "ratio_low": low, "ratio_high": high}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["resnet50", "squeezenet1_1"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for name in arguments.networks:
        module = torchvision.models.get_model(name).eval()
        for batch in arguments.batch:
            x = torch.randn(batch, 3, 224, 224)
            for what, result in measure(contenders(module, x), arguments.rounds).items():
                rows.append({"network": name, "batch": batch, "what": what, **result})
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, 224×224; "
        "ratios to the plain pass of the same round\n"
    )
    print("| network | pictures | what | seconds | × plain forward (quartiles) |\n|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
        print(f"| {row['network']} | {row['batch']} | {row['what']} | {row['seconds']:.3f} | {ratio} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
