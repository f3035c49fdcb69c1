"""Record: everything that a revision of unitscope computes for the inputs, written
into one folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import unitscope
import unitscope.__main__ as command_line
from comparison.inputs import Inputs, prepare
from comparison.networks import CASES

_UNITS = (0, 1, 5)
_TOP = 5


def record(folder: Path, only: Sequence[str] | None = None) -> None:
    """Record every step, or only those that are named, in a folder that is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(
            f"{folder} is not empty: name a new folder, or delete this one first"
        )

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    warnings.simplefilter("ignore")
    print(f"unitscope from {Path(unitscope.__file__).parent}", flush=True)

    # The paths that documents name are then the same in every record.
    os.chdir(folder)
    inputs = prepare(Path("inputs"))
    for name, step in STEPS.items():
        if only is None or name in only:
            with _timed(name):
                step(inputs)


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


def explanations(inputs: Inputs) -> None:
    """Ask every network everything about two photos."""
    photos = [str(photo) for photo in inputs.photos[:2]]
    for case in CASES:
        model = case.make()
        if case.frozen:
            model.freeze()
        for method in case.methods:
            name = case.name if method is None else f"{case.name}-{method}"
            explanation = model.explain(
                photos, method=method, precision=case.precision
            )
            _record_explanation(Path("explanations") / name, explanation)
        _record_inner_layer(Path("layers") / case.name, model, photos)
        _record_filters(Path("filters") / case.name, model)


def _record_explanation(folder: Path, explanation: Any) -> None:
    top = explanation.top(_TOP)
    classes = [prediction.index for prediction in top[0]]
    few = classes[:2]
    units = list(_UNITS)
    ablated = explanation.ablate(units)
    rows, cols = explanation.feature_map.shape[2:]
    region = torch.linspace(0, 1, rows * cols).reshape(rows, cols)

    _save_arrays(
        folder,
        logits=explanation.logits,
        feature_map=explanation.feature_map,
        pooled=explanation.pooled,
        cams=explanation.cams_of(classes),
        contributions=explanation.contributions_of(classes),
        left_out=explanation.left_out_of(classes),
        weights=torch.stack([explanation.weights_of(index) for index in few]),
        evidence=explanation.evidence(region, few),
        cams_on_photo=explanation.cams_on_photo(0, few, size=(160, 120)),
        ablated_logits=ablated.logits,
        ablated_cams=ablated.cams_of(few),
        ablated_each=explanation.ablate_each(classes, units),
        unit_maps=explanation.unit_maps(units).maps,
        unit_maps_on_photo=explanation.unit_maps(units).on_photo(
            1, size=(160, 120)
        ),
    )
    if explanation.exact:
        _save_arrays(
            folder,
            all_cams=explanation.cams,
            all_contributions=explanation.contributions,
            all_left_out=explanation.left_out,
            head_weight=explanation.head.weight,
            head_bias=explanation.head.bias,
            completeness_error=explanation.completeness_error,
        )

    answers = _answers(explanation, ablated, top, classes)
    _save_json(folder / "answers.json", answers)


def _answers(
    explanation: Any, ablated: Any, top: Any, classes: list[int]
) -> dict[str, Any]:
    """Answers that are no arrays."""
    return {
        "exact": explanation.exact,
        "kind": explanation.head.kind,
        "layer": explanation.layer,
        "head_error": explanation.head.error,
        "grid": _axes(explanation.grid),
        "rounded": explanation.rounded,
        "rounding_error": explanation.rounding_error(torch.float32),
        "top": top,
        "top_ablated": ablated.top(_TOP),
        "top_units": explanation.top_units(classes[0]),
        "maximal_units": [explanation.maximal_unit(index) for index in classes],
        "classes_of_unit": explanation.classes_of_unit(_UNITS[-1]),
    }


def _axes(grid: Any) -> list[Any]:
    return [[axis.start, axis.step] for axis in (grid.rows, grid.cols)]


def _record_inner_layer(folder: Path, model: Any, photos: list[str]) -> None:
    """Maps and ablation at a layer in the middle of the network."""
    maps = [layer for layer in model.layers() if layer.is_map]
    layer = maps[len(maps) // 2].name
    units = list(_UNITS)
    unit_maps = model.units(photos, layer, units)
    ablation = model.ablate(photos, layer, units)

    _save_arrays(
        folder,
        maps=unit_maps.maps,
        before=ablation.before,
        after=ablation.after,
        ablated_maps=ablation.maps.maps,
    )
    _save_json(
        folder / "answers.json",
        {
            "layer": layer,
            "engine": model.engine(),
            "grid": _axes(unit_maps.grid),
            "changes": ablation.changes(_TOP),
            "turned_over": ablation.turned_over(),
            "layers": [[layer.name, layer.kind, layer.shape] for layer in maps],
            "grids": [_axes(layer.grid) for layer in maps],
        },
    )


def _record_filters(folder: Path, model: Any) -> None:
    for scale in ("kernel", "shared"):
        filters = unitscope.filters(model, 0, scale=scale)
        _save_arrays(
            folder / scale,
            weights=filters.weights,
            images=filters.images,
            low=filters.low,
            high=filters.high,
        )


def commands(inputs: Inputs) -> None:
    """Run the command line on the photos, once for people and once as JSON."""
    photos = [str(photo) for photo in inputs.photos]
    first = photos[0]
    alexnet = ["--model", "torchvision:alexnet"]
    resnet = ["--model", "torchvision:resnet18"]
    runs: dict[str, list[str]] = {
        "explain": ["explain", *photos],
        "explain-report": ["explain", first, "--out", "reports/bundled"],
        "explain-class": ["explain", first, "--class", "3", "--unit", "7"],
        "explain-bfloat16": ["explain", first, "--precision", "bfloat16"],
        "explain-local": ["explain", first, *alexnet],
        "explain-gradcam": ["explain", first, "--method", "gradcam"],
        "explain-layer": ["explain", first, *resnet, "--layer", "layer3"],
        "units": ["units", *photos, "--unit", "3", "--unit", "5"],
        "units-layer": [
            "units",
            first,
            *resnet,
            "--layer",
            "layer2",
            "--unit",
            "3",
        ],
        "ablate": ["ablate", *photos],
        "ablate-class": ["ablate", *photos, "--maximal", "--class", "3"],
        "ablate-layer": [
            "ablate",
            first,
            *resnet,
            "--layer",
            "layer2",
            "--unit",
            "3",
        ],
        "filters": ["filters"],
        "filters-shared": [
            "filters",
            *resnet,
            "--scale",
            "shared",
            "--channel",
            "0",
        ],
        "info": ["info"],
        "info-local": ["info", *alexnet],
    }
    if inputs.weights is not None and inputs.labels is not None:
        runs["explain-checkpoint"] = ["explain", *photos]
        runs["explain-checkpoint"] += [
            "--model",
            f"checkpoint:{inputs.weights}",
        ]
        runs["explain-checkpoint"] += [
            "--arch",
            f"python:{inputs.network}:SimpleNet",
        ]
        runs["explain-checkpoint"] += ["--labels", str(inputs.labels)]
        runs["explain-checkpoint"] += ["--preprocessing", "resize=144,crop=128"]

    for name, words in runs.items():
        _save_output("commands", name, words)
    for name in ("ablate", "ablate-layer", "info", "info-local"):
        _save_output("commands", f"{name}-text", runs[name], as_json=False)

    for name in ("explain-class", "explain-local"):
        report = [*runs[name], "--no-pieces", "--out", f"reports/{name}"]
        _save_output("commands", f"{name}-text", report, as_json=False)


def atlas(inputs: Inputs) -> None:
    """Scan the data set, whole and in two parts, and read everything back out of the atlas."""
    dataset = str(inputs.dataset)
    options = ["--batch-size", "16", "--shard-size", "64", "--sample", "12"]
    concepts = []
    if inputs.masks is not None:
        concepts = ["--concepts", str(inputs.masks)]
        concepts += ["--concept-names", str(inputs.concept_names)]
    inner = _inner_layer()

    scan = ["scan", dataset, *options, "--layer", inner, *concepts]
    _save_output(
        "atlas-output", "scan", [*scan, "--engine", "torch", "--out", "atlas"]
    )
    for part in ("1", "2"):
        words = ["scan", dataset, *options, "--part", f"{part}/2"]
        _save_output(
            "atlas-output", f"part-{part}", [*words, "--out", f"part-{part}"]
        )
    merge = ["atlas", "merge", "part-1", "part-2", "--out", "merged"]
    _save_output("atlas-output", "merge", merge)

    for name, words in _atlas_questions(inner, bool(concepts)).items():
        _save_output("atlas-output", name, words)
        _save_output("atlas-output", f"{name}-text", words, as_json=False)
    _record_atlas_arrays(inner)

    export = [
        "explore",
        "atlas",
        "--export",
        "pages",
        "--photo",
        str(inputs.photos[0]),
    ]
    _save_output("atlas-output", "export-text", export, as_json=False)


def _inner_layer() -> str:
    """A layer in the middle of the bundled network."""
    maps = [layer.name for layer in unitscope.load().layers() if layer.is_map]
    return maps[len(maps) // 2]


def _atlas_questions(inner: str, with_concepts: bool) -> dict[str, list[str]]:
    units = ["atlas", "units", "atlas"]
    questions = {
        "info": ["atlas", "info", "atlas"],
        "units": units,
        "units-layer": [*units, "--layer", inner, "--sort", "selectivity"],
        "units-class": [*units, "--class", "3", "--top", "20"],
        "units-dead": [*units, "--dead"],
        "classes": ["atlas", "classes", "atlas"],
        "classes-unit": ["atlas", "classes", "atlas", "--unit", "7"],
        "ablation-units": [
            "atlas",
            "ablation",
            "atlas",
            "--unit",
            "7",
            "--unit",
            "8",
        ],
        "ablation-class": ["atlas", "ablation", "atlas", "--class", "3"],
    }
    if with_concepts:
        questions |= {
            "units-detectors": [*units, "--detectors"],
            "concepts": ["atlas", "concepts", "atlas"],
            "concepts-unit": ["atlas", "concepts", "atlas", "--unit", "7"],
        }
    return questions


def _record_atlas_arrays(inner: str) -> None:
    opened = unitscope.Atlas.open("atlas")
    for name, layer in (("head", None), ("inner", inner)):
        for by in ("maximum", "mean", "sample"):
            maps = opened.unit_maps(7, layer, by=by).maps
            _save_arrays(Path("atlas-output") / name, **{by: maps})
        neighbours = opened.neighbours(7, layer)
        _save_json(Path("atlas-output") / name / "neighbours.json", neighbours)


STEPS: dict[str, Callable[[Inputs], None]] = {
    "explanations": explanations,
    "commands": commands,
    "atlas": atlas,
}


def _save_output(
    folder: str, name: str, words: list[str], *, as_json: bool = True
) -> None:
    """Save what a command prints on standard output; where it fails, how.

    A revision that fails is recorded as such: the other one may fail in the same way.
    """
    torch.manual_seed(0)
    arguments = ["unitscope", *words, *(["--json"] if as_json else [])]
    output = io.StringIO()
    errors = io.StringIO()
    failure = ""
    with (
        mock.patch.object(sys, "argv", arguments),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            status = command_line.main()
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        else:
            failure = errors.getvalue() if status else ""

    path = Path(folder) / f"{name}.{'json' if as_json else 'txt'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if failure:
        print(f"failed: {' '.join(arguments)}\n  {failure.strip()}", flush=True)
        path.with_suffix(".failed.txt").write_text(failure)
    else:
        path.write_text(output.getvalue())


def _save_arrays(folder: Path, **arrays: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(values))


def _save_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))
