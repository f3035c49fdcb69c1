"""What it costs to switch every unit of a layer off, one at a time: beside the floor, and
beside captum's LayerFeatureAblation and pytorch-grad-cam's AblationCAM.

    python benchmarks/each_unit.py [--network resnet50] [--layers layer1 layer2 layer3]
        [--units 64] [--peer-units 8] [--rounds 3] [--threads 1]

One photo of noise, random weights: the time depends on neither, but for units that are
silent on the photo, which cost nothing; the first `--units` that are not are measured (0
for all).
The floor is the multiplications of what follows the layer, times the units, over what the
plain pass reaches: its multiplications over its time. Every round times the plain pass and
each contender once, in processor time; given is the median ratio to the plain pass, a unit.
Peers run the whole network for every unit, so few units are enough to tell.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import unitscope


def main() -> None:
    options = _parser().parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    import torchvision.models as models

    net = models.get_model(options.network, weights=None).eval()
    model = unitscope.wrap(net)
    x = torch.randn(1, *model.input_shape)
    all_flops, after = _flops(net, options.layers, x)

    print(
        f"{options.network}, {all_flops / 1e9:.2f} GFLOP a plain pass, "
        f"{options.threads} thread(s), {options.rounds} rounds"
    )
    print(
        f"{'layer':<24}{'units':>7}{'rest':>7}{'floor':>8}{'ours':>8}{'/floor':>8}"
        f"{'captum':>9}{'grad-cam':>10}   plain passes a unit"
    )
    for layer in options.layers:
        units = _active(model, layer, x)
        few = units[: options.units] if options.units else units
        contenders: dict[str, tuple[int, Callable[[], Any]]] = {
            "ours": (len(few), partial(model.ablations, x, layer, few)),
        }
        module = net.get_submodule(layer)
        peers = units[: options.peer_units]
        contenders |= _captum(net, module, x, peers)
        contenders |= _ablation_cam(net, module, x, peers)
        ratios = _measure(lambda: _plain(net, x), contenders, options.rounds)

        floor = after[layer] / all_flops
        row = f"{layer:<24}{len(units):>7}{floor:>7.2f}{floor:>8.3f}"
        row += f"{ratios['ours']:>8.3f}{ratios['ours'] / floor:>8.2f}"
        row += "".join(
            f"{ratios[name]:>{width}.2f}" if name in ratios else " " * width
            for name, width in (("captum", 9), ("grad-cam", 10))
        )
        print(row, flush=True)


def _plain(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = net(x)
    return logits


def _measure(
    plain: Callable[[], Any],
    contenders: dict[str, tuple[int, Callable[[], Any]]],
    rounds: int,
) -> dict[str, float]:
    """The median time of each contender a unit, in plain passes of the same round."""
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        one = min(_seconds(plain) for _ in range(3))
        for name, (units, run) in contenders.items():
            seconds = _seconds(run)
            if round_:  # the first one warms up
                ratios[name].append(seconds / units / one)
    return {name: statistics.median(values) for name, values in ratios.items()}


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def _flops(
    net: nn.Module, layers: list[str], x: Tensor
) -> tuple[int, dict[str, int]]:
    """Multiplications of a pass, and of what comes after each layer."""
    done: dict[str, int] = {}
    counter = FlopCounterMode(display=False)
    hooks = [
        net.get_submodule(layer).register_forward_hook(
            lambda *_, layer=layer: done.update(
                {layer: counter.get_total_flops()}
            )
        )
        for layer in layers
    ]
    with counter, torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    total = counter.get_total_flops()
    return total, {layer: total - before for layer, before in done.items()}


def _active(model: unitscope.Classifier, layer: str, x: Tensor) -> list[int]:
    """The units that are not silent."""
    maps = model.units(x, layer, range(_count(model, layer))).maps[0]
    active = maps.flatten(1).any(dim=1).nonzero().flatten()
    return [int(unit) for unit in active]


def _count(model: unitscope.Classifier, layer: str) -> int:
    return next(each.shape[0] for each in model.layers() if each.name == layer)


def _captum(
    net: nn.Module, module: nn.Module, x: Tensor, units: list[int]
) -> dict[str, tuple[int, Callable[[], Any]]]:
    try:
        from captum.attr import LayerFeatureAblation
    except ImportError:
        return {}
    method = LayerFeatureAblation(net, module)
    with torch.no_grad():
        target = int(net(x).argmax())
        kept: list[Tensor] = []
        hook = module.register_forward_hook(
            lambda _m, _i, out: kept.append(out)
        )
        net(x)
        hook.remove()
    # Units that are not measured are one feature together.
    mask = torch.full((1, kept[0].shape[1], 1, 1), len(units))
    for place, unit in enumerate(units):
        mask[0, unit] = place

    def run() -> object:
        with torch.no_grad():
            return method.attribute(
                x, target=target, layer_mask=mask, perturbations_per_eval=8
            )

    return {"captum": (len(units) + 1, run)}


def _ablation_cam(
    net: nn.Module, module: nn.Module, x: Tensor, units: list[int]
) -> dict[str, tuple[int, Callable[[], Any]]]:
    try:
        from pytorch_grad_cam import AblationCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        return {}
    target = int(_plain(net, x).argmax())
    ratio = len(units) / _units_of(net, module, x)

    def run() -> object:
        with (
            AblationCAM(
                model=net,
                target_layers=[module],
                batch_size=8,
                ratio_channels_to_ablate=ratio,
            ) as method,
            contextlib.redirect_stderr(io.StringIO()),  # its progress bar
        ):
            return method(x, [ClassifierOutputTarget(target)])

    # It chooses by itself how many units it switches off.
    photos: list[int] = []
    hook = net.register_forward_pre_hook(
        lambda _module, given: photos.append(len(given[0]))
    )
    run()
    hook.remove()
    return {"grad-cam": (sum(photos) - 1, run)}


def _units_of(net: nn.Module, module: nn.Module, x: Tensor) -> int:
    kept: list[int] = []
    hook = module.register_forward_hook(
        lambda _module, _given, output: kept.append(output.shape[1])
    )
    _plain(net, x)
    hook.remove()
    return kept[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", default="resnet50")
    parser.add_argument(
        "--layers",
        nargs="+",
        default=["conv1", "layer1", "layer2", "layer3"],
    )
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--peer-units", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
