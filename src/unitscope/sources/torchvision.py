"""torchvision:NAME: torchvision's classification networks, with its own weights, a local file, or random weights."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unitscope.errors import MissingExtraError, ModelError, WeightsError, near_matches
from unitscope.inputs.preprocessing import (
    AnyPreprocessing,
    Preprocessing,
    as_preprocessing,
)
from unitscope.model import Classifier
from unitscope.sources.downloads import Download, fetch
from unitscope.sources.request import RANDOM_NOTE, Request, seeded
from unitscope.sources.weights import fit_weights, infer_class_count, read_weights

# Heads that only training uses; torchvision drops them from its own pretrained networks
# too.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_WITH_AUXILIARY = ("googlenet", "inception_v3")
# torchvision downloads into the hub's folder, and what is there already need not be
# fetched again.
_HUB_FOLDER = "checkpoints"


def network_names() -> list[str]:
    """List the names of torchvision's image classifiers."""
    models = _models()
    names: list[str] = models.list_models(module=models)
    return names


def build(
    name: str,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    trained: bool = False,
) -> nn.Module:
    """Build a torchvision classifier for inference: without auxiliary heads, for `num_classes`.

    `input_size` (rows, cols) matters to the networks whose weights depend on it (ViT,
    MaxViT). `trained` says that weights will be loaded, as by torchvision itself:
    GoogLeNet and Inception then undo ImageNet's normalisation in their forward.
    """
    options: dict[str, Any] = {}
    if name in _WITH_AUXILIARY:
        options |= {
            "aux_logits": False,
            "init_weights": not trained,
            "transform_input": trained,
        }
    if input_size is not None and name.startswith("vit_"):
        if input_size[0] != input_size[1]:
            raise ModelError(
                f"torchvision:{name} needs a square input, not "
                f"{input_size[0]}×{input_size[1]}: give input_size a side"
            )
        options["image_size"] = input_size[0]
    if input_size is not None and name.startswith("maxvit"):
        options["input_size"] = input_size
    try:
        module: nn.Module = _models().get_model_builder(name)(
            weights=None, num_classes=num_classes, **options
        )
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"torchvision cannot build {name} for {num_classes} classes, input "
            f"{input_size} ({text})"
        ) from None
    return module.eval()


def load(request: Request) -> Classifier:
    """Load one of torchvision's classifiers; see `unitscope.load`."""
    name = request.name
    _check_name(name, request.spec)
    entries = _entries(name)
    entry = _chosen_entry(request, entries)
    if entry is not None:
        return _official(request, entry)
    default = as_preprocessing(entries["DEFAULT"].transforms()) if entries else None
    preprocessing = request.chosen_preprocessing(default)
    categories = tuple(entries["DEFAULT"].meta.get("categories", ())) if entries else ()
    file = request.weights_file()
    return (
        _random(request, preprocessing)
        if file is None
        else _local(request, file, preprocessing, categories)
    )


def _random(request: Request, preprocessing: AnyPreprocessing) -> Classifier:
    classes = 1000 if request.num_classes is None else request.num_classes
    labels = request.labels_for(classes)
    with seeded(request.seed) as seed:
        module = build(request.name, classes, _built_size(request, preprocessing))
    return Classifier(
        module,
        labels,
        preprocessing,
        request.provenance(f"random initialisation, seed {seed}", None, [RANDOM_NOTE]),
    )


def _official(request: Request, entry: Any) -> Classifier:
    categories = tuple(str(category) for category in entry.meta["categories"])
    if request.num_classes not in (None, len(categories)):
        raise WeightsError(
            f"{entry} is for {len(categories)} classes, not {request.num_classes}: "
            "leave num_classes out, or give your "
            "own weights"
        )
    labels = request.labels_for(len(categories)) or categories
    preprocessing = request.chosen_preprocessing(as_preprocessing(entry.transforms()))
    minimum = entry.meta.get("min_size", (1, 1))
    size = _built_size(request, preprocessing) or (int(minimum[0]), int(minimum[1]))
    weights = read_weights(
        published_file(str(entry.url), "torchvision", request.progress).path
    )
    module = build(request.name, len(categories), size, trained=True)
    notes = fit_weights(module, weights, AUXILIARY)
    # torchvision's links to licences and recipes say under what terms and how the
    # weights came about.
    sources = tuple(
        f"{word}: {entry.meta[key]}"
        for word, key in (("recipe", "recipe"), ("licence", "license"))
        if key in entry.meta
    )
    return Classifier(
        module,
        labels,
        preprocessing,
        request.provenance(entry.name, weights.sha256, [*notes, *sources]),
    )


def _local(
    request: Request,
    file: Path,
    preprocessing: AnyPreprocessing,
    categories: tuple[str, ...],
) -> Classifier:
    weights = read_weights(file)
    size = _built_size(request, preprocessing)
    found = infer_class_count(
        lambda count: build(request.name, count, size, trained=True), weights
    )
    classes = request.num_classes or found or 1000
    module = build(request.name, classes, size, trained=True)
    notes = list(fit_weights(module, weights, AUXILIARY))
    labels = request.labels_for(classes)
    if labels is None and len(categories) == classes:
        labels = categories
        notes.append(
            f"The labels are assumed to be ImageNet's, since the network has {classes} "
            "classes."
        )
    if request.preprocessing is None:
        notes.append(
            "The preprocessing is assumed to be that of torchvision's own "
            f"{request.name} weights."
        )
    if request.name in _WITH_AUXILIARY:
        notes.append(
            "The network is assumed to undo ImageNet's normalisation "
            "(transform_input), as torchvision's trained one "
            "does."
        )
    return Classifier(
        module,
        labels,
        preprocessing,
        request.provenance(weights.name, weights.sha256, [*weights.notes, *notes]),
    )


def _built_size(
    request: Request, preprocessing: AnyPreprocessing
) -> tuple[int, int] | None:
    if request.sides is not None:
        return request.sides
    return (
        preprocessing.input_size if isinstance(preprocessing, Preprocessing) else None
    )


def _chosen_entry(request: Request, entries: Any) -> Any:
    """Find torchvision's own weights of that name; None when no weights or a file was asked for."""
    weights = request.weights
    known = {"DEFAULT", *entries.__members__} if entries else set()
    if isinstance(weights, enum.Enum):
        if entries is None or not isinstance(weights, entries):
            raise WeightsError(
                f"{weights} does not belong to {request.spec}: use {_listed(known)}"
            )
        return weights
    if not isinstance(weights, str):
        return None
    name = (
        weights.rpartition(".")[2]
        if re.fullmatch(r"\w+_Weights\.\w+", weights)
        else weights
    )
    if name in known:
        return entries[name]
    if Path(weights).exists() or re.search(r"[./\\]", weights):
        return None
    raise WeightsError(
        f"'{weights}' is neither a file nor one of torchvision's weights for "
        f"{request.name}{near_matches(weights, known)}: use {_listed(known)}, or the "
        "path of a weights file"
    )


def _listed(names: set[str]) -> str:
    return (
        ", ".join(sorted(names)) or "a weights file (torchvision has none of its own)"
    )


def published_file(url: str, folder: str, progress: bool | None) -> Download:
    """Get a weights file whose name ends in the first digits of its SHA-256, from PyTorch's hub's folder or our cache.

    `folder` is the one in our cache.
    """
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    prefix = found[1] if found else ""
    hub = Path(torch.hub.get_dir()) / _HUB_FOLDER
    at_hub = hub / url.rsplit("/", 1)[-1]
    if at_hub.is_file() and prefix:
        import hashlib

        with at_hub.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        if sha256.startswith(prefix):
            return Download(at_hub, sha256)
    return fetch(url, folder, sha256_prefix=prefix, progress=progress)


def _entries(name: str) -> Any:
    """Give torchvision's enumeration of the weights of a network, or None where it has none."""
    try:
        entries = _models().get_model_weights(name)
    except ValueError:
        return None
    return entries if len(entries) else None


def _check_name(name: str, spec: str) -> None:
    names = network_names()
    if name in names:
        return
    models = _models()
    if name in models.list_models():
        kind = (
            models.get_model_builder(name)
            .__module__.removeprefix("torchvision.models.")
            .split(".")[0]
        )
        what = {"optical_flow": "optical-flow", "quantization": "quantized"}.get(
            kind, kind
        )
        raise ModelError(
            f"'{spec}' is one of torchvision's {what} networks, and unitscope explains "
            "image classifiers"
            f"{near_matches(name.removeprefix('quantized_'), names)}: use one of "
            "torchvision.models.list_models(torchvision.models)"
        )
    raise ModelError(
        f"torchvision has no classifier '{name}'{near_matches(name, sorted(names))}: "
        "list them with "
        "torchvision.models.list_models()"
    )


def _models() -> Any:
    try:
        import torchvision
    except ImportError:
        raise MissingExtraError(
            "torchvision", "torchvision", "a torchvision: or places365: model"
        ) from None
    return torchvision.models
