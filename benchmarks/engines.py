"""Inference engines side by side: a bare forward pass of each, against plain eager torch, in one run.

    python benchmarks/engines.py [--out docs/engines.md] [--rounds 15] [--networks resnet50 ...] [--inductor]

Every engine gets the network as torch.export gives it, and must return the same logits;
what is not installed is left out. OpenVINO (`pip install openvino`) reads the ONNX
file, so that its converter, which reports its use over the network, is not called.
`--inductor` adds torch.compile with frozen weights, which needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
import torchvision
from speed import _NETWORKS, _cpu
from torch import Tensor, nn

import unitscope
from unitscope.engine.exporting import quietly


def engines(
    module: nn.Module, x: Tensor, inductor: bool
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """The engines by name, each as a call that runs a batch, and the seconds that each took to get ready."""
    given, ready = x.numpy(), {"torch, eager": 0.0}
    timed: dict[str, Callable[[], object]] = {"torch, eager": lambda: module(x)}
    expected = module(x)

    def add(name: str, begin: float, run: Callable[[], object], logits: Tensor) -> None:
        off = float((logits - expected).abs().max() / expected.abs().max())
        assert off <= 1e-5, f"{name} is off by {off:.1e}"
        timed[name], ready[name] = run, time.perf_counter() - begin

    if "avx512_bf16" in _cpu("flags"):
        timed["torch, bfloat16 by autocast (rounded)"] = lambda: _autocast(module, x)
    last = x.contiguous(memory_format=torch.channels_last)
    timed["torch, units last in memory"] = lambda: module(last)
    ready["torch, units last in memory"] = 0.0
    with tempfile.TemporaryDirectory() as folder, quietly():
        begin = time.perf_counter()
        batch = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(
            module,
            (torch.cat([x, x])[:2],),
            dynamo=True,
            verbose=False,
            dynamic_shapes=batch,
        )
        path = Path(folder) / "network.onnx"
        program.save(path)
        exported = time.perf_counter() - begin

        begin = time.perf_counter() - exported
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        logits = torch.from_numpy(session.run(None, {name: given})[0])
        add("ONNX Runtime", begin, lambda: session.run(None, {name: given}), logits)

        try:
            import openvino
        except ImportError:
            pass
        else:
            begin = time.perf_counter() - exported
            core = openvino.Core()
            model = core.read_model(path)
            model.reshape(list(x.shape))
            # Where the processor has bfloat16, OpenVINO rounds to it unless it is told
            # not to.
            settings = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            }
            settings["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
            request = core.compile_model(model, "CPU", settings).create_infer_request()
            run = lambda: request.infer([given], share_inputs=True, share_outputs=True)  # noqa: E731
            add("OpenVINO", begin, run, torch.from_numpy(run()[0].copy()))
            if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                settings["INFERENCE_PRECISION_HINT"] = "bf16"
                reduced = core.compile_model(
                    model, "CPU", settings
                ).create_infer_request()
                timed["OpenVINO, bfloat16 (rounded)"] = lambda: reduced.infer(
                    [given], share_inputs=True, share_outputs=True
                )
    if inductor:
        begin = time.perf_counter()
        torch._dynamo.reset()
        compiled = torch.compile(module, options={"freezing": True})
        add("torch.compile, frozen weights", begin, lambda: compiled(x), compiled(x))
    return timed, ready


def _autocast(module: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        found: Tensor = module(x.contiguous(memory_format=torch.channels_last))
    return found


def measure(
    timed: dict[str, Callable[[], object]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Median seconds, and the median ratio to the first in the same round."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    order = random.Random(0)
    for round_ in range(rounds + 1):
        for name in order.sample(list(timed), len(timed)):
            begin = time.perf_counter()
            timed[name]()
            if round_ > 0:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    plain = seconds[next(iter(timed))]
    return {
        name: (
            statistics.median(times),
            statistics.median(a / b for a, b in zip(times, plain, strict=True)),
        )
        for name, times in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=_NETWORKS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--inductor", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_grad_enabled(False)
    lines = [
        "# Engines side by side",
        "",
        "Written by `python benchmarks/engines.py --out docs/engines.md`; not edited "
        "by hand. Bare forward passes,",
        f"float32: {_cpu('model name')}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, ONNX Runtime",
        f"{onnxruntime.__version__}. Medians; ratios are to plain eager torch in the "
        "same round.",
        "",
        "| network | photos | engine | milliseconds | × eager | ready in seconds |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for name in arguments.networks:
        module = (
            unitscope.load().module
            if name == "miniplaces"
            else torchvision.models.get_model(name)
        )
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and not layer.weight.any():
                nn.init.normal_(layer.weight, std=0.02)
        for batch in arguments.batch:
            x = torch.randn(
                batch, 3, *([128] * 2 if name == "miniplaces" else [224] * 2)
            )
            timed, ready = engines(module.eval(), x, arguments.inductor)
            for what, (seconds, ratio) in measure(timed, arguments.rounds).items():
                took = f"{ready[what]:.1f}" if ready.get(what) else ""
                lines.append(
                    f"| {name} | {batch} | {what} | {1000 * seconds:.1f} | {ratio:.2f} "
                    f"| {took} |"
                )
                print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
