"""What unitscope can say of which architecture: every head found anew, proved, and set
beside torchcam's own choice.

    python scripts/architectures.py --out docs/architectures.md [--json FILE] [--most-parameters 60]

Random weights (seed 0), each network's own input size. For torchvision every
classifier; of timm the smallest networks of every family; of transformers every type of
image classifier in its default configuration: all up to `--most-parameters` million.
Results are kept in `--json` as they come, so that the command can be stopped and goes
on. Exit status 1 where a real forward pass does not bear out a claim of exactness.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import io
import json
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import unitscope
from architectures_page import SOURCES, page, proved
from unitscope.accounts.verification import verify
from unitscope.attribution.probes import probes
from unitscope.errors import UnitscopeError
from unitscope.tracing.layers import evaluating
from unitscope.tracing.outputs import first_tensor

TIME_LIMIT = 300


class TooLong(Exception):
    pass


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(_signal: int, _frame: Any) -> None:
        raise TooLong(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def torchvision_names() -> list[str]:
    import torchvision.models as models

    names: list[str] = models.list_models(module=models)
    return names


def timm_names(each: int) -> list[str]:
    """Of every family (module of timm) some names, from its beginning to its end, the
    smaller networks first."""
    import timm

    chosen = []
    for module in sorted(timm.list_modules()):
        names = timm.list_models(module=module)
        sizes = []
        for name in names[:: max(1, len(names) // (2 * each))]:
            sizes.append((parameters_of(f"timm:{name}"), name))
        chosen += [name for _, name in sorted(sizes)[:each]]
    return chosen


def transformers_names() -> list[str]:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    return sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)


def parameters_of(spec: str) -> int:
    """The size of a network, in parameters, found without making its weights; 0 where
    that cannot be."""
    source, name = spec.split(":", 1)
    if source == "torchvision":
        import torchvision.models as models

        return int(models.get_model_weights(name).DEFAULT.meta["num_params"])
    try:
        with torch.device("meta"):
            if source == "timm":
                import timm

                network = timm.create_model(name)
            else:
                from transformers import (
                    AutoConfig,
                    AutoModelForImageClassification,
                )

                network = AutoModelForImageClassification.from_config(
                    AutoConfig.for_model(name)
                )
    except Exception:
        return 0
    return sum(parameter.numel() for parameter in network.parameters())


def measured(spec: str) -> dict[str, Any]:
    row: dict[str, Any] = {"spec": spec}
    try:
        with limited(TIME_LIMIT), quiet():
            model = unitscope.load(spec, seed=0)
            draw_zero_layers(model.network)
            draw_if_silent(model)
            parameters = model.network.parameters()
            row["parameters"] = sum(
                parameter.numel() for parameter in parameters
            )
            row["input"] = list(model.input_shape)

            begin = time.process_time()
            model.head_or_refusal()
            seconds = time.process_time() - begin

            row |= dataclasses.asdict(verify(model))
            row["seconds"] = seconds
            row["torchcam"] = None
            if row["kind"] != "refused":
                row["torchcam"] = torchcam_says(model)
    except TooLong as error:
        row |= {"kind": "failed", "reason": str(error)}
    except (UnitscopeError, ImportError) as error:
        row |= {"kind": "failed", "reason": " ".join(str(error).split())[:200]}
    return row


@torch.no_grad()
def draw_zero_layers(network: nn.Module) -> None:
    """Some networks begin with a head of zeros, which makes all logits alike: nothing
    could go wrong with those."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not bool(
            module.weight.any()
        ):
            module.weight.normal_(0, 0.02, generator=generator)


@torch.no_grad()
def draw_if_silent(model: unitscope.Classifier) -> None:
    """Some networks begin with weights so small that nothing of an input arrives at the
    logits, and no cell has a place: those are drawn anew by torch's own rule."""
    network = model.network
    example = torch.zeros((1, *model.input_shape), dtype=model.like.dtype)
    with evaluating(network):
        logits = first_tensor(network(next(iter(probes(example)))))
    if logits is None or float(logits.abs().max()) > 1e-4:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def torchcam_says(model: unitscope.Classifier) -> str | None:
    """What torchcam's CAM makes of the network when it is left to find the layers by itself.

    "right": its map, with the bias of its linear layer, adds up to the logit (to 1e-4
    of the largest); "wrong": it gives a map that does not; "error": it gives none.
    """
    try:
        from torchcam.methods import CAM
    except ImportError:
        return None
    x = probes(torch.empty((1, *model.input_shape)))[1]
    try:
        with (
            evaluating(model.network),
            CAM(model.network, input_shape=model.input_shape) as extractor,
        ):
            logits = _logits(model.network(x))
            index = int(logits[0].argmax())
            (cam,) = extractor(index, logits, normalized=False)
            bias = _bias_beside(extractor._fc_weights, model.network, index)
    except Exception:
        return "error"

    error = abs(float(cam.mean()) + bias - float(logits[0, index]))
    return "right" if error <= 1e-4 * float(logits.abs().max()) else "wrong"


def _logits(result: Any) -> Tensor:
    """The logits in a network's result: the result itself, or what it calls so."""
    logits = result if isinstance(result, Tensor) else result.logits
    return logits.reshape(1, -1)


def _bias_beside(weight: Any, network: nn.Module, index: int) -> float:
    """The bias of a class in the linear layer with this very weight; 0 where there is none."""
    for module in network.modules():
        if not isinstance(module, nn.Linear) or not isinstance(
            module.bias, Tensor
        ):
            continue
        if module.weight.data_ptr() == weight.data_ptr():
            return float(module.bias[index])
    return 0.0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("architectures.json"),
        help="where results are kept",
    )
    parser.add_argument(
        "--most-parameters", type=float, default=60, metavar="MILLION"
    )
    parser.add_argument(
        "--each", type=int, default=3, help="networks of each family of timm"
    )
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    return parser


def specs_of(sources: list[str], each: int) -> list[str]:
    """The networks of these sources, as `source:name`."""
    names = {
        "torchvision": torchvision_names,
        "timm": lambda: timm_names(each),
        "transformers": transformers_names,
    }
    with quiet():
        return [
            f"{source}:{name}" for source in sources for name in names[source]()
        ]


def main() -> int:
    arguments = parser().parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.json.exists():
        rows = json.loads(arguments.json.read_text())

    done = {row["spec"] for row in rows}
    specs = specs_of(arguments.sources, arguments.each)
    for spec in tqdm(
        [spec for spec in specs if spec not in done], disable=None
    ):
        with quiet():
            size = parameters_of(spec)
        if size <= arguments.most_parameters * 1e6:
            rows.append(_measured_aloud(spec))
        arguments.json.write_text(json.dumps(rows, indent=1))

    if arguments.out:
        arguments.out.write_text(page(rows))

    wrong = [
        row["spec"] for row in rows if row.get("adds_up") and not proved(row)
    ]
    if wrong:
        names = ", ".join(wrong)
        print(
            f"claimed to be exact, and not borne out: {names}", file=sys.stderr
        )
    return 1 if wrong else 0


def _measured_aloud(spec: str) -> dict[str, Any]:
    begin = time.perf_counter()
    row = measured(spec)
    gc.collect()
    seconds = time.perf_counter() - begin
    print(
        f"{seconds:6.1f} s  {spec}  {row['kind']}  {row.get('reason', '')[:150]}"
    )
    return row


if __name__ == "__main__":
    sys.exit(main())
