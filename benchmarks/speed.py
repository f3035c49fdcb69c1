"""What unitscope costs, against the user's own plain forward pass, its peers and the machine: one run, paired.

    python benchmarks/speed.py [--out docs/speed.md] [--json FILE] [--rounds 15] [--networks resnet50 ...]

Every round times each contender once, in random order (peers that run the network
backward in rounds of their own); a ratio is that to the plain pass of the same round,
and the table gives the median and the quartiles of the ratios. "everything" reads the
maps of all classes, the contributions of all units to all classes, photo by photo, and
the logits with every unit off in turn, a few units at a time; "held in memory" keeps
the last two for all photos at once, batch × unit × class numbers each. Peers are timed
where they are installed, on five classes of each photo, as people use them. The floor
is the network's multiplications over what this machine's own convolutions reach at
their best. Photos are made of noise and shapes, so that nothing need be downloaded.
Models are frozen, unless a row says otherwise; "the engine alone" is the compiled
forward pass with nothing around it. Where there is a GPU, the same is measured on it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image, ImageDraw
from torch import Tensor, nn

import unitscope
from unitscope.inputs import jpegs
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.preprocessing import Preprocessing

CLASSES = [0, 1, 2, 3, 4]

# Those that run the network backward take minutes on every network.
_WITH_PEERS = ("resnet50", "miniplaces")

_NETWORKS = [
    "resnet50",
    "miniplaces",
    "squeezenet1_1",
    "convnext_tiny",
    "efficientnet_b0",
    "densenet121",
    "vit_b_16",
]

Timed = dict[str, Callable[[], object]]


def measure(
    timed: Timed, rounds: int, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Seconds, and the ratio to the first contender in the same round: median and quartiles."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    names, order = list(timed), random.Random(0)
    for round_ in range(rounds + 1):
        # In another order each round: what runs before leaves caches and memory in a
        # state of its own.
        for name in order.sample(names, len(names)):
            _wait(device)
            begin = time.perf_counter()
            result = timed[name]()
            _wait(device)
            if round_ > 0:  # The first round warms up.
                seconds[name].append(time.perf_counter() - begin)
            del result
    results = {}
    for name, times in seconds.items():
        ratios = [
            one / base for one, base in zip(times, seconds[names[0]], strict=True)
        ]
        low, median, high = statistics.quantiles(ratios, n=4)
        results[name] = {
            "seconds": statistics.median(times),
            "ratio": median,
            "ratio_low": low,
            "ratio_high": high,
        }
        engine = seconds.get("the engine alone")
        if engine:
            results[name]["to_engine"] = statistics.median(
                one / base for one, base in zip(times, engine, strict=True)
            )
    return results


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def contenders(module: nn.Module, x: Tensor) -> Timed:
    """What is timed on one network: the plain forward pass first, and the peers that run none backward."""
    model = unitscope.wrap(module)

    def everything(**options: Any) -> object:
        explanation = model.explain(x, **options)
        maps = explanation.cams
        for one in explanation:
            assert one.contributions.shape[0] == 1
        for _ in explanation.ablations():
            pass
        return maps

    def thawed() -> object:
        with model.thawed():
            return model.explain(x)

    def held() -> object:
        explanation = model.explain(x)
        return explanation.cams, explanation.contributions, explanation.ablate_each()

    timed: Timed = {"plain forward": lambda: _plain(module, x)}
    head = model.head
    model.freeze(head.layer if head.layer_is_map else ())
    compiled = model._forward.compiled(tuple(x.shape[1:]), ())
    if compiled is not None:
        timed["the engine alone"] = lambda: compiled.run(x)
    timed["unitscope: explain, not frozen"] = thawed
    timed["unitscope: explain"] = lambda: model.explain(x)
    if head.exact:
        timed["unitscope: everything"] = everything
        timed["unitscope: everything, held in memory"] = held
        if x.device.type == "cpu" and _has_bfloat16():
            timed["unitscope: everything, bfloat16"] = lambda: everything(
                precision="bfloat16"
            )
    method = "hirescam" if head.exact else None
    timed["unitscope: 5 classes locally"] = lambda: model.explain(
        x, method=method
    ).cams_of(CLASSES)
    for run in timed.values():  # heads are found, and networks compiled, once
        run()
    return {**timed, **_torchcam(module, x)}


def backward_peers(module: nn.Module, x: Tensor) -> Timed:
    """The plain forward pass, and the peers that run the network backward."""
    return {
        "plain forward": lambda: _plain(module, x),
        **_grad_cam(module, x),
        **_captum(module, x),
    }


def _plain(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = module(x)
        return logits


def _has_bfloat16() -> bool:
    return any(flag in _cpu("flags") for flag in ("avx512_bf16", "amx_bf16"))


def _layer_of(module: nn.Module) -> nn.Module | None:
    return getattr(module, "layer4", getattr(module, "features", None))


def _torchcam(module: nn.Module, x: Tensor) -> Timed:
    try:
        from torchcam.methods import CAM
    except ImportError:
        return {}
    if not isinstance(getattr(module, "fc", None), nn.Linear) or not hasattr(
        module, "layer4"
    ):
        return {}

    def run() -> object:
        with CAM(module, target_layer="layer4") as extractor:
            scores = module(x)
            return [
                extractor([index] * len(x), scores, normalized=False)
                for index in CLASSES
            ]

    return {"torchcam: CAM, 5 classes": run}


def _grad_cam(module: nn.Module, x: Tensor) -> Timed:
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        return {}
    layer = _layer_of(module)
    if layer is None:
        return {}

    def run() -> object:
        with GradCAM(model=module, target_layers=[layer]) as method:
            return [
                method(x, [ClassifierOutputTarget(index)] * len(x)) for index in CLASSES
            ]

    return {"pytorch-grad-cam: GradCAM, 5 classes": run}


def _captum(module: nn.Module, x: Tensor) -> Timed:
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        return {}
    layer = _layer_of(module)
    if layer is None:
        return {}
    method = LayerGradCam(module, layer)
    return {
        "captum: LayerGradCam, 5 classes": lambda: [
            method.attribute(x, target=index) for index in CLASSES
        ]
    }


def networks(
    names: list[str], sizes: list[int], rounds: int, device: str
) -> list[dict[str, Any]]:
    """Every contender on every network, and what the machine could do at best."""
    rows = []
    for name in names:
        module = (
            unitscope.load().module
            if name == "miniplaces"
            else torchvision.models.get_model(name)
        )
        for layer in (
            module.modules()
        ):  # some last layers begin at zero, and then there is nothing to explain
            if isinstance(layer, nn.Linear) and not layer.weight.any():
                nn.init.normal_(layer.weight, std=0.02)
        module, side = module.eval().to(device), 128 if name == "miniplaces" else 224
        for batch in sizes:
            x = torch.randn(batch, 3, side, side, device=device)
            work = multiplications(module, x)
            found = measure(contenders(module, x), rounds, device)
            # Apart, and in fewer rounds: they take tens of times as long, and
            # gigabytes, which upsets what runs next.
            if name in _WITH_PEERS:
                found = {
                    **measure(backward_peers(module, x), max(2, rounds // 3), device),
                    **found,
                }
            for what, result in found.items():
                rows.append(
                    {
                        "network": name,
                        "batch": batch,
                        "what": what,
                        "multiplications": work,
                        **result,
                    }
                )
    return rows


def profile(batches: list[int], rounds: int) -> list[dict[str, Any]]:
    """Where the time of everything goes on ResNet-50: seconds one after the other, medians."""
    model, rows = unitscope.wrap(torchvision.models.resnet50().eval()).freeze(), []
    compiled = model._forward.compiled(model.input_shape, ())
    assert compiled is not None, (
        "the network could not be compiled: install unitscope[fast]"
    )
    for batch in batches:
        x, laps = torch.randn(batch, 3, 224, 224), dict[str, list[float]]()
        for _ in range(rounds):
            alone = _seconds(lambda x=x: compiled.run(x))
            explained = _seconds(lambda x=x: model.explain(x))
            e = model.explain(x)
            for what, run in {
                "the engine alone": lambda a=alone: a,
                "checks, and Python": lambda a=alone, b=explained: max(0.0, b - a),
                "maps of all classes": lambda e=e: _seconds(lambda: e.cams),
                "contributions": lambda e=e: _seconds(
                    lambda: [one.contributions for one in e]
                ),
                "ablations": lambda e=e: _seconds(
                    lambda: [None for _ in e.ablations()]
                ),
            }.items():
                laps.setdefault(what, []).append(run())
        spent = {what: statistics.median(seconds) for what, seconds in laps.items()}
        engine = spent["the engine alone"]
        rows += [
            {"batch": batch, "what": what, "seconds": one, "share": one / engine}
            for what, one in spent.items()
        ]
    return rows


def multiplications(module: nn.Module, x: Tensor) -> float:
    """Multiplications (with an addition each) of the convolutions and linear layers of one forward pass."""
    total = 0.0

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        total += output.numel() * weight[0].numel()

    hooks = [
        one.register_forward_hook(count)
        for one in module.modules()
        if isinstance(one, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return total


def peaks() -> dict[str, float]:
    """What this machine reaches at its best: multiplications a second in convolutions, and bytes a second of memory."""
    best = 0.0
    for channels, side, batch in ((256, 14, 8), (512, 7, 8), (128, 28, 4)):
        x = torch.randn(batch, channels, side, side).contiguous(
            memory_format=torch.channels_last
        )
        module = nn.Conv2d(channels, channels, 3, padding=1, bias=False).eval()
        work = multiplications(module, x)
        with torch.no_grad():
            for _ in range(12):
                begin = time.perf_counter()
                module(x)
                best = max(best, work / (time.perf_counter() - begin))
    numbers, into = torch.randn(30_000_000), torch.empty(30_000_000)
    fastest = min(_seconds(lambda: torch.add(numbers, 1, out=into)) for _ in range(12))
    return {
        "multiplications_per_second": best,
        "bytes_per_second": 8 * numbers.numel() / fastest,
    }


def _seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def readiness(names: list[str]) -> list[dict[str, Any]]:
    """What freezing costs: the seconds of the first explanation, and memory beside the plain network's.

    Each in a process of its own.
    """
    code = (
        "import gc, pathlib, sys, time, torch, unitscope\n"
        "name = sys.argv[1]\n"
        "model = unitscope.load(name, **({} if name == 'miniplaces' else {'weights': "
        "None}))\n"
        "x = torch.randn(1, *model.input_shape)\n"
        "def used():\n"
        "    gc.collect()\n"
        "    status = pathlib.Path('/proc/self/status')\n"
        "    return int(status.read_text().split('VmRSS:')[1].split()[0]) / 1024 if "
        "status.exists() else float('nan')\n"
        "for layer in model.module.modules():\n"
        "    if isinstance(layer, torch.nn.Linear) and not layer.weight.any(): "
        "torch.nn.init.normal_(layer.weight)\n"
        "for _ in range(3): model.explain(x)\n"
        "before = used()\n"
        "begin = time.perf_counter(); model.freeze().engine(); first = "
        "time.perf_counter() - begin\n"
        "for _ in range(3): model.explain(x)\n"
        "begin = time.perf_counter(); model.freeze().engine()\n"
        "print(first, time.perf_counter() - begin, used() - before)\n"
    )
    rows = []
    for name in names:
        spec = name if name == "miniplaces" else f"torchvision:{name}"
        command = [sys.executable, "-W", "ignore", "-c", code, spec]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout
        first, again, mebibytes = map(float, done.split())
        rows.append(
            {"network": name, "seconds": first, "again": again, "mebibytes": mebibytes}
        )
    return rows


def growth(rounds: int) -> list[dict[str, Any]]:
    """How the bundled network's explanation grows with photos, and with the classes whose maps are read."""
    model = unitscope.load().freeze()
    timed: Timed = {}
    for batch in (1, 2, 4, 8, 16, 32):
        x = torch.randn(batch, 3, 128, 128)
        timed[f"{batch} photo{'s' * (batch > 1)}"] = lambda x=x: model.explain(x).cams
    explained = model.explain(torch.randn(8, 3, 128, 128))
    for classes in (1, 10, 100):
        timed[f"maps of {classes} class{'es' * (classes > 1)} of 8 photos"] = (
            lambda n=classes: explained.cams_of(list(range(n)))
        )
    for run in timed.values():
        run()
    return [{"what": name, **result} for name, result in measure(timed, rounds).items()]


def reading(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Photos from files to inputs, against torchvision's ImageFolder, DataLoader and transforms; seconds a photo."""
    rows = []
    for name, size, count, resize, crop in (
        ("128×128", (128, 128), 400, 144, 128),
        ("1280×850", (1280, 850), 32, 256, 224),
    ):
        place = folder / name / "a"
        place.mkdir(parents=True)
        for index in range(count):
            _photo(size, index).save(place / f"{index:04}.jpg", quality=90)
        transforms = torchvision.transforms
        pipeline = transforms.Compose(
            [
                transforms.Resize(resize),
                transforms.CenterCrop(crop),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )
        data = torchvision.datasets.ImageFolder(str(place.parent), pipeline)
        paths, ours = (
            [path for path, _ in data.samples],
            Preprocessing(resize=resize, crop=crop),
        )

        def loaded(workers: int, data: Any = data) -> None:
            for _ in torch.utils.data.DataLoader(
                data, batch_size=16, num_workers=workers
            ):
                pass

        def read(paths: list[str] = paths, ours: Preprocessing = ours) -> None:
            for batch in batches(paths, ours, 16):
                stacked([tensor for _, tensor in batch])

        timed: Timed = {
            "ImageFolder + DataLoader": lambda: loaded(0),
            "ImageFolder + DataLoader, 2 workers": lambda: loaded(2),
            "unitscope": read,
        }
        for what, result in measure(timed, rounds).items():
            rows.append(
                {
                    "photos": name,
                    "what": what,
                    **result,
                    "seconds": result["seconds"] / count,
                }
            )
    return rows


def _photo(size: tuple[int, int], seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(
        0, 256, (size[1] // 32 + 1, size[0] // 32 + 1, 3), dtype=np.uint8
    )
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        left, top = (int(generator.integers(0, side)) for side in size)
        draw.ellipse(
            (left, top, left + size[0] // 6, top + size[1] // 6),
            tuple(generator.integers(0, 256, 3).tolist()),
        )
    grain = generator.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))


def starting(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Seconds of whole processes, and of one photo explained in a fresh one."""
    photo = folder / "photo.jpg"
    _photo((640, 480), 1).save(photo)
    once = (
        "import time, torch, torchvision, unitscope; model = unitscope.load({spec}); "
        "net = model.module; "
        "x = torch.randn(1, *model.input_shape); torch.set_grad_enabled(False); "
        "net.eval()(x); "
        "begin = time.perf_counter(); e = model.explain({photo!r}); e.top(5), e.cams; "
        "print(time.perf_counter() - begin)"
    )
    commands = {
        "unitscope --help": [
            str(Path(sys.executable).with_name("unitscope")),
            "--help",
        ],
        "import unitscope": [sys.executable, "-c", "import unitscope"],
        "python alone": [sys.executable, "-c", "pass"],
    }
    rows = []
    for what, command in commands.items():
        times = [
            _seconds(
                lambda c=command: subprocess.run(c, check=True, capture_output=True)
            )
            for _ in range(rounds)
        ]
        rows.append({"what": what, "seconds": statistics.median(times)})
    for spec in ("'miniplaces'", "'torchvision:resnet50', weights=None"):
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            once.format(spec=spec, photo=str(photo)),
        ]
        times = [
            float(
                subprocess.run(
                    command, check=True, capture_output=True, text=True
                ).stdout
            )
            for _ in range(5)
        ]
        rows.append(
            {
                "what": f"first photo explained, {spec}",
                "seconds": statistics.median(times),
            }
        )
    return rows


def memory() -> list[dict[str, Any]]:
    """Peak memory above the start, of explaining ever more photos in batches of 16, in processes of their own."""
    code = (
        "import pathlib, sys, torch, unitscope; model = unitscope.load().freeze(); n = "
        "int(sys.argv[1])\n"
        # Not getrusage's, which a process inherits from the one that started it.
        "status = pathlib.Path('/proc/self/status')\n"
        "def peak(): return int(status.read_text().split('VmHWM:')[1].split()[0]) / "
        "1024\n"
        "x = torch.randn(16, 3, 128, 128)\n"
        "for _ in range(10): model.explain(x).cams\n"
        "before = peak()\n"
        "for _ in range(n // 16):\n"
        "    e = model.explain(x); e.cams, e.contributions, e.ablate_each()\n"
        "print(before, peak())"
    )
    rows: list[dict[str, Any]] = []
    if not Path("/proc/self/status").exists():
        return rows
    for photos in (160, 1600, 9600):
        run = subprocess.run(
            [sys.executable, "-c", code, str(photos)],
            check=True,
            capture_output=True,
            text=True,
        )
        before, after = map(float, run.stdout.split())
        rows.append(
            {"photos": photos, "mebibytes": after, "above_start": after - before}
        )
    return rows


def _cpu(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), ""
    )


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# What it costs",
        "",
        "Written by `python benchmarks/speed.py --out docs/speed.md`; not edited by "
        "hand.",
        f"{found['machine']}. Every number is a median; ratios are to the plain eager "
        "float32 pass of the same",
        "round (quartiles in brackets), all contenders in random order in one run.",
        "",
        "## Against the plain forward pass",
        "",
        "| network | photos | what | milliseconds | × plain forward | × the engine "
        "alone |",
        "|---|---:|---|---:|---|---:|",
    ]
    for row in found["networks"]:
        engine = (
            f"{row['to_engine']:.2f}"
            if row["what"].startswith("unitscope: e") and "to_engine" in row
            else ""
        )
        lines.append(
            f"| {row['network']} | {row['batch']} | {row['what']} | "
            f"{1000 * row['seconds']:.1f} | {_ratio(row)} "
            f"| {engine} |"
        )
    lines += [
        "",
        _bound(found),
        "",
        *_WHY,
        "",
        "## Where the time of everything goes",
        "",
    ]
    lines += [
        "| ResNet-50, photos | what | milliseconds | share |",
        "|---:|---|---:|---:|",
    ]
    lines += [
        f"| {row['batch']} | {row['what']} | {1000 * row['seconds']:.1f} | "
        f"{100 * row['share']:.0f} % |"
        for row in found["profile"]
    ]
    lines += [
        "",
        "Shares are of the engine's own time.",
        "",
        "## Freezing",
        "",
        "What `model.freeze()` takes when inputs of a shape first come: in a fresh "
        "process, again in the same one",
        "(without the imports), and what the process then holds beside the plain "
        "network.",
        "",
        "| network | seconds | again | MiB |",
        "|---|---:|---:|---:|",
    ]
    for row in found["readiness"]:
        lines.append(
            f"| {row['network']} | {row['seconds']:.1f} | {row['again']:.1f} | "
            f"{row['mebibytes']:.0f} |"
        )
    lines += [
        "",
        "## Growth",
        "",
        "| what (bundled network) | milliseconds |",
        "|---|---:|",
    ]
    lines += [
        f"| {row['what']} | {1000 * row['seconds']:.2f} |" for row in found["growth"]
    ]
    lines += ["", "## Photos from files to inputs", ""]
    lines += [
        "| JPEG photos | what | milliseconds a photo | × ImageFolder + DataLoader |",
        "|---|---|---:|---|",
    ]
    for row in found["reading"]:
        lines.append(
            f"| {row['photos']} | {row['what']} | {1000 * row['seconds']:.2f} | "
            f"{_ratio(row)} |"
        )
    lines += [
        "",
        "JPEG files were decoded by "
        f"{'simplejpeg' if jpegs.decode_jpeg else 'Pillow'}, and resized by torch's "
        "kernel "
        "for bytes where that is within",
        "one of 255 levels of Pillow's (bilinear; of photos resized to more than half "
        "the rows are Pillow's own).",
    ]
    lines += ["", "## Starting", "", "| what | seconds |", "|---|---:|"]
    lines += [f"| {row['what']} | {row['seconds']:.3f} |" for row in found["starting"]]
    lines += [
        "",
        "## Memory",
        "",
        "Everything of the bundled network, 16 photos at a time.",
        "",
    ]
    lines += [
        "| photos | peak MiB of the process | above its warm start |",
        "|---:|---:|---:|",
    ]
    lines += [
        f"| {row['photos']} | {row['mebibytes']:.0f} | {row['above_start']:.0f} |"
        for row in found["memory"]
    ]
    lines += ["", "## On a GPU", ""]
    if found["gpu"]:
        lines += [
            "| network | photos | what | milliseconds | × plain forward |",
            "|---|---:|---|---:|---|",
        ]
        for row in found["gpu"]:
            lines.append(
                f"| {row['network']} | {row['batch']} | {row['what']} | "
                f"{1000 * row['seconds']:.2f} | {_ratio(row)} |"
            )
    else:
        lines.append(
            "There was none in this run. Networks are not compiled there: they run as "
            "they are."
        )
    lines += ["", "## Where unitscope loses", "", *_losses(found)]
    return "\n".join(lines) + "\n"


_WHY = """## Why ONNX Runtime

A frozen network is exported by torch.export as ONNX and run by ONNX Runtime. `python benchmarks/engines.py` has the
engines side by side; it was chosen because

- it is the fastest in float32, the precision that exact answers are given in, on every network measured there;
- neither the number of threads nor what else is in the batch changes a bit of what it gives, so that scans are the same
  byte for byte whatever the workers, and one graph serves batches of any size;
- it keeps NaN and infinities, which says when a network overflows;
- it sends nothing anywhere. OpenVINO's converter reports its use over the network unless the user has opted out.

What it does not do is bfloat16 on processors that have it. That is left to torch's autocast, eagerly; OpenVINO would be
about twice as fast there (0.14–0.24 of the plain pass was seen on an Intel Xeon with AMX). torch's own compiler needs a
C++ compiler on the user's machine, and half a minute.""".split("\n")


def _ratio(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"


def _bound(found: dict[str, Any]) -> str:
    best = found["peaks"]["multiplications_per_second"]
    text = [
        f"The floor: this machine's convolutions reach {best / 1e9:.0f} billion "
        "multiplications a second at their",
        f"best, and its memory {found['peaks']['bytes_per_second'] / 1e9:.0f} GB a "
        "second. At that rate one pass takes",
    ]
    plain = [row for row in found["networks"] if row["what"] == "plain forward"]
    shares = [
        f"{row['multiplications'] / best / row['seconds']:.2f} of the plain one for "
        f"{row['network']} at {row['batch']}"
        for row in plain
    ]
    return "\n".join(
        [*text, ", ".join(shares) + "; no float32 explanation can cost less."]
    )


# What was aimed at, as a ratio to the plain pass, by network and what is computed; of
# all networks where none is named.
_AIMED = {
    ("resnet50", "unitscope: everything"): 0.55,
    ("miniplaces", "unitscope: everything"): 0.50,
    ("convnext_tiny", "unitscope: everything"): 0.80,
    ("efficientnet_b0", "unitscope: everything"): 0.65,
    ("densenet121", "unitscope: everything"): 0.65,
    ("vit_b_16", "unitscope: explain"): 0.90,
    ("", "unitscope: everything, bfloat16"): 0.25,
    ("", "unitscope: 5 classes locally"): 2.0,
}

# And as a ratio to the engine alone.
_AROUND = 1.10

# And of starting, in seconds.
_STARTING = {
    "unitscope --help": 0.15,
    "import unitscope": 0.1,
    "first photo explained": 0.7,
}


def _losses(found: dict[str, Any]) -> list[str]:
    """Every row in which unitscope is slower than what it is measured against, in words."""
    said = []
    for row in (*found["networks"], *found["gpu"]):
        photos = f"{row['batch']} photo{'s' * (row['batch'] > 1)}"
        place = f"{row['network']}, {photos}, {row['what']}"
        target = _AIMED.get(
            (row["network"], row["what"]), _AIMED.get(("", row["what"]), 1.0)
        )
        if (
            row["what"].startswith("unitscope")
            and row["ratio"] > target
            and "not frozen" not in row["what"]
        ):
            said.append(
                f"- {place}: {row['ratio']:.2f} × the plain pass, aimed at "
                f"{target:.2f}."
            )
        if row["what"] == "unitscope: everything" and row["to_engine"] > _AROUND:
            said.append(
                f"- {place}: {row['to_engine']:.2f} × the engine alone, aimed at "
                f"{_AROUND:.2f}."
            )
    for row in found["reading"]:
        if row["what"] == "unitscope" and row["ratio"] > 0.5:
            said.append(
                f"- reading photos of {row['photos']}: {1 / row['ratio']:.1f} times as "
                "fast, aimed at 2."
            )
    for row in found["starting"]:
        target = next(
            (
                seconds
                for what, seconds in _STARTING.items()
                if row["what"].startswith(what)
            ),
            row["seconds"],
        )
        if row["seconds"] > target:
            said.append(
                f"- {row['what']}: {row['seconds']:.2f} seconds, aimed at {target:.2f}."
            )
    return said or ["Nowhere in this run."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=_NETWORKS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--again",
        nargs="+",
        default=[],
        help="measure these parts of --json anew, and what it lacks",
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Callable[[], Any]] = {
            "peaks": peaks,
            "networks": lambda: networks(
                arguments.networks, arguments.batch, arguments.rounds, "cpu"
            ),
            "profile": lambda: profile(arguments.batch, arguments.rounds),
            "readiness": lambda: readiness(arguments.networks),
            "growth": lambda: growth(arguments.rounds),
            "reading": lambda: reading(min(arguments.rounds, 7), Path(folder)),
            "starting": lambda: starting(arguments.rounds, Path(folder)),
            "memory": memory,
            "gpu": lambda: (
                networks(arguments.networks, arguments.batch, arguments.rounds, "cuda")
                if gpu
                else []
            ),
        }
        found: dict[str, Any] = (
            json.loads(arguments.json.read_text()) if arguments.again else {}
        )
        found["machine"] = (
            f"{_cpu('model name') or platform.machine()}, {torch.get_num_threads()} "
            "threads, torch "
            f"{torch.__version__}, float32, 224×224 (miniplaces 128×128)"
        )
        for name, step in steps.items():
            if name not in found or name in arguments.again:
                found[name] = step()
                gc.collect()
            if arguments.json:  # as it comes: all of it takes a quarter of an hour
                arguments.json.write_text(json.dumps(found, indent=1))
    text = page(found)
    if arguments.out:
        arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
