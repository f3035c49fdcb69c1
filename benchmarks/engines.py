"""Inference engines side by side: a bare forward pass of each, against plain eager
torch, in one run.

    python benchmarks/engines.py [--out docs/engines.md] [--rounds 15]
        [--networks resnet50 ...] [--inductor]

Every engine gets the network as torch.export gives it, and must return the same logits;
what is not installed is left out. OpenVINO (`pip install openvino`) reads the ONNX
file, so that its converter, which reports its use over the network, is not called.
`--inductor` adds torch.compile with frozen weights, which needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from costs.machine import processor
from costs.networks import NETWORKS, inputs, network
from costs.timing import Timed, measure
from unitscope.engine.exporting import quietly

_ALLOWED_ERROR = 1e-5


@dataclass
class Engines:
    """Engines that run one network on one batch; `ready` is the seconds that each took
    to get ready."""

    module: nn.Module
    x: Tensor
    timed: Timed = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, begin: float, run: Callable[[], Any]) -> None:
        """Add an engine that began to get ready at `begin`, and that must give the
        network's logits."""
        logits = torch.as_tensor(run())
        seconds = time.perf_counter() - begin
        expected = self.module(self.x)
        error = float((logits - expected).abs().max() / expected.abs().max())
        assert error <= _ALLOWED_ERROR, f"{name} is off by {error:.1e}"

        self.timed[name] = run
        self.ready[name] = seconds


def engines(module: nn.Module, x: Tensor, inductor: bool) -> Engines:
    """All engines that are installed."""
    prepared = Engines(module, x)
    _add_torch(prepared)

    with tempfile.TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "network.onnx"
        begin = time.perf_counter()
        _export(module, x, path)
        exporting = time.perf_counter() - begin
        _add_onnxruntime(prepared, path, exporting)
        _add_openvino(prepared, path, exporting)

    if inductor:
        begin = time.perf_counter()
        torch._dynamo.reset()
        compiled = torch.compile(module, options={"freezing": True})
        prepared.add(
            "torch.compile, frozen weights", begin, lambda: compiled(x)
        )
    return prepared


def _add_torch(engines: Engines) -> None:
    module, x = engines.module, engines.x
    units_last = x.contiguous(memory_format=torch.channels_last)

    def autocast() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return module(x.contiguous(memory_format=torch.channels_last))

    engines.timed["torch, eager"] = lambda: module(x)
    if "avx512_bf16" in processor("flags"):
        engines.timed["torch, bfloat16 by autocast (rounded)"] = autocast
    engines.timed["torch, units last in memory"] = lambda: module(units_last)


def _export(module: nn.Module, x: Tensor, path: Path) -> None:
    """Write the network as ONNX, for batches of any size."""
    two = torch.cat([x, x])[:2]
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        module, (two,), dynamo=True, verbose=False, dynamic_shapes=shapes
    )
    assert program is not None
    program.save(path)


def _add_onnxruntime(engines: Engines, path: Path, exporting: float) -> None:
    begin = time.perf_counter() - exporting
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )

    feed = {session.get_inputs()[0].name: engines.x.numpy()}
    engines.add("ONNX Runtime", begin, lambda: session.run(None, feed)[0])


def _add_openvino(engines: Engines, path: Path, exporting: float) -> None:
    try:
        import openvino
    except ImportError:
        return

    begin = time.perf_counter() - exporting
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(engines.x.shape))
    images = engines.x.numpy()

    def compiled(precision: str) -> Callable[[], Any]:
        # Where the processor has bfloat16, OpenVINO rounds to it unless float32 is
        # asked for.
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        request = core.compile_model(
            model, "CPU", settings
        ).create_infer_request()
        return lambda: request.infer(
            [images], share_inputs=True, share_outputs=True
        )[0]

    engines.add("OpenVINO", begin, compiled("f32"))
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        engines.timed["OpenVINO, bfloat16 (rounded)"] = compiled("bf16")


def _heading() -> list[str]:
    machine = f"{processor('model name')}, {torch.get_num_threads()} threads"
    versions = (
        f"torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}"
    )
    return [
        "# Engines side by side",
        "",
        "Written by `python benchmarks/engines.py --out docs/engines.md`; not edited",
        "by hand. Bare forward passes, float32:",
        f"{machine}, {versions}.",
        "Medians; ratios are to plain eager torch in the same round.",
        "",
        "| network | photos | engine | milliseconds | × eager | ready in seconds |",
        "|---|---:|---|---:|---:|---:|",
    ]


def _row(
    name: str, batch: int, what: str, result: dict[str, float], ready: str
) -> str:
    milliseconds = f"{1000 * result['seconds']:.1f}"
    cells = [
        name,
        str(batch),
        what,
        milliseconds,
        f"{result['ratio']:.2f}",
        ready,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--inductor", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_grad_enabled(False)

    lines = _heading()
    for name in options.networks:
        module = network(name)
        for batch in options.batch:
            prepared = engines(module, inputs(name, batch), options.inductor)
            results = measure(prepared.timed, options.rounds)
            for what, result in results.items():
                seconds = prepared.ready.get(what)
                ready = "" if seconds is None else f"{seconds:.1f}"
                lines.append(_row(name, batch, what, result, ready))
                print(lines[-1], flush=True)

    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
