"""What unitscope can say of which architecture: every head found anew, proved, and set beside torchcam's own choice.

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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import unitscope
from unitscope.accounts.verification import verify
from unitscope.attribution.probes import probes
from unitscope.errors import UnitscopeError
from unitscope.tracing.layers import evaluating
from unitscope.tracing.trace import logits_of

KINDS = {
    "gap-linear": "pool → linear",
    "gap-norm-linear": "pool → normalisation → linear",
    "conv-gap": "convolution → pool",
    "gap": "pool",
    "local": "local",
    "refused": "refused",
    "failed": "does not run",
}
EXACT = ("gap-linear", "conv-gap", "gap")
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
    """Of every family (module of timm) some names, from its beginning to its end, the smaller networks first."""
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
    """The size of a network, in parameters, found without making its weights; 0 where that cannot be."""
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
                from transformers import AutoConfig, AutoModelForImageClassification

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
            row["parameters"] = sum(
                parameter.numel() for parameter in model.network.parameters()
            )
            row["input"] = list(model.input_shape)
            begun = time.process_time()
            model.head_or_refusal()
            seconds = time.process_time() - begun
            row |= dataclasses.asdict(verify(model)) | {"seconds": seconds}
            row["torchcam"] = torchcam_says(model) if row["kind"] != "refused" else None
    except TooLong as error:
        row |= {"kind": "failed", "reason": str(error)}
    except (UnitscopeError, ImportError) as error:
        row |= {"kind": "failed", "reason": " ".join(str(error).split())[:200]}
    return row


@torch.no_grad()
def draw_zero_layers(network: nn.Module) -> None:
    """Some networks begin with a head of zeros, which makes all logits alike: nothing could go wrong with those."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not bool(module.weight.any()):
            module.weight.normal_(0, 0.02, generator=generator)


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
            logits = logits_of(model.network(x), 1)
            index = int(logits[0].argmax())
            (cam,) = extractor(index, logits, normalized=False)
            weight: Any = extractor._fc_weights
            biases = [
                module.bias
                for module in model.network.modules()
                if isinstance(module, nn.Linear)
                and module.weight.data_ptr() == weight.data_ptr()
            ]
            bias = (
                float(biases[0][index])
                if biases and isinstance(biases[0], Tensor)
                else 0.0
            )
            off = abs(float(cam.mean()) + bias - float(logits[0, index]))
            return "right" if off <= 1e-4 * float(logits.abs().max()) else "wrong"
    except Exception:
        return "error"


def proved(row: dict[str, Any]) -> bool:
    """Whether real forward passes, and the identity, bear out what is claimed to be exact."""
    ablation = row["ablation_error"]
    return row["identity_error"] <= 1e-5 and ablation is not None and ablation <= 1e-5


def table(rows: list[dict[str, Any]], title: str) -> list[str]:
    lines = [
        f"## {title}",
        "",
        "| architecture | million parameters | head | layer | map | identity error | "
        "ablation error | seconds "
        "| torchcam |",
        "|---|---:|---|---|---|---:|---:|---:|---|",
    ]
    for row in sorted(rows, key=lambda row: row["spec"]):
        name = row["spec"].split(":", 1)[1]
        if row["kind"] == "failed":
            continue
        rows_, cols = row["map_size"]
        error = row["identity_error"]
        shown = (
            ""
            if error is None
            else f"{error:.0e}"
            if row["exact"]
            else f"leaves out {error:.0%}"
        )
        ablation = (
            "" if row["ablation_error"] is None else f"{row['ablation_error']:.0e}"
        )
        size = f"{row['units']}×{rows_}×{cols}" if row["units"] else ""
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.1f} | {KINDS[row['kind']]} | "
            f"{row['layer']} | {size} | {shown} | "
            f"{ablation} | {row['seconds']:.1f} | {row.get('torchcam') or ''} |"
        )
    return [*lines, ""]


def page(rows: list[dict[str, Any]]) -> str:
    ran = [row for row in rows if row["kind"] != "failed"]
    kinds = Counter(row["kind"] for row in ran)
    exact = [row for row in ran if row["exact"]]
    local = [row for row in ran if row["kind"] == "local"]
    borne_out = sum(map(proved, exact))
    counts = (
        f"{sum(kinds[kind] for kind in EXACT)} exact, "
        f"{kinds['gap-norm-linear']} exact with a normalisation in the head"
    )
    ablation, identity = (
        max(row[key] for row in exact) for key in ("ablation_error", "identity_error")
    )
    lines = [
        "# Which answers which architecture gets",
        "",
        "Written by `python scripts/architectures.py --out docs/architectures.md`; not "
        "edited by hand. Random weights",
        "(drawn anew where a network begins with a layer of zeros),",
        "each network's own input size, float32, torch "
        f"{torch.__version__.split('+')[0]}.",
        "",
        f"{len(ran)} networks: **{counts}, {len(local)} local, {kinds['refused']} "
        "refused.** "
        f"Of the {len(exact)} exact ones, {borne_out} give, for three random units "
        "switched off one by one, the "
        "logits of a real forward pass to 1e-5 of the largest logit "
        f"(largest error {ablation:.1e}); the largest identity error is "
        f"{identity:.1e}.",
        "",
        "- *head*: what stands between the feature map and the logits; *local* answers "
        "are gradient × activation.",
        "- *identity error*: mean of the map + bias against the logit, relative to the "
        "largest logit, on three random",
        "  inputs; for a local answer, how much of the logit the map of the first "
        "class leaves out.",
        "- *ablation error*: logits with a unit off against a real forward pass of the "
        "network with its map at zero.",
        "- *seconds*: processor time for finding and verifying the head, once for each "
        "network.",
        "",
    ]
    lines += _beside_torchcam(ran)
    for source in ("torchvision", "timm", "transformers"):
        chosen = [row for row in rows if row["spec"].startswith(f"{source}:")]
        if chosen:
            lines += table(chosen, source)
            sizes = [row["parameters"] for row in chosen if row["kind"] != "failed"]
            lines[-1:] = [
                "",
                f"{len(sizes)} networks of up to {max(sizes) / 1e6:.0f} million "
                "parameters.",
                "",
            ]
    failed = [row for row in rows if row["kind"] == "failed"]
    if failed:
        lines += [
            "## Not run",
            "",
            *(f"- `{row['spec']}`: {row['reason']}" for row in failed),
            "",
        ]
    refused = [row for row in ran if row["kind"] == "refused"]
    if refused:
        lines += [
            "## Refused, with the reason",
            "",
            *(f"- `{row['spec']}`: {row['reason']}" for row in refused),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _beside_torchcam(ran: list[dict[str, Any]]) -> list[str]:
    asked = [row for row in ran if row.get("torchcam")]
    if not asked:
        return []
    exact = Counter(row["torchcam"] for row in asked if row["exact"])
    other = Counter(row["torchcam"] for row in asked if not row["exact"])
    return [
        "torchcam's `CAM(model)`, left to find its layers by itself, on the same "
        "networks: of those with an exact head "
        f"{exact['right']} right, {exact['wrong']} wrong without a word, "
        f"{exact['error']} errors; of the others "
        f"{other['right']} right, {other['wrong']} wrong without a word, "
        f"{other['error']} errors. *Right* means that "
        "its map and the bias of its linear layer add up to the logit to 1e-4.",
        "",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("architectures.json"),
        help="where results are kept",
    )
    parser.add_argument("--most-parameters", type=float, default=60, metavar="MILLION")
    parser.add_argument(
        "--each", type=int, default=3, help="networks of each family of timm"
    )
    parser.add_argument(
        "--sources", nargs="+", default=["torchvision", "timm", "transformers"]
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = (
        json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    )
    names = {
        "torchvision": torchvision_names,
        "timm": lambda: timm_names(arguments.each),
        "transformers": transformers_names,
    }
    with quiet():
        specs = [
            f"{source}:{name}"
            for source in arguments.sources
            for name in names[source]()
        ]
    done = {row["spec"] for row in rows}
    for spec in tqdm([spec for spec in specs if spec not in done], disable=None):
        with quiet():
            size = parameters_of(spec)
        if size <= arguments.most_parameters * 1e6:
            begun = time.perf_counter()
            rows.append(measured(spec))
            gc.collect()
            print(
                f"{time.perf_counter() - begun:6.1f} s  {spec}  {rows[-1]['kind']}  "
                f"{rows[-1].get('reason', '')[:150]}"
            )
        arguments.json.write_text(json.dumps(rows, indent=1))
    if arguments.out:
        arguments.out.write_text(page(rows))
    wrong = [row["spec"] for row in rows if row.get("exact") and not proved(row)]
    if wrong:
        print(
            f"claimed to be exact, and not borne out: {', '.join(wrong)}",
            file=sys.stderr,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
