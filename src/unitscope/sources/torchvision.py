"""torchvision:NAME: torchvision's classifiers, with its weights, yours or none."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unitscope.attribution.scores import Scores
from unitscope.errors import (
    MissingExtraError,
    ModelError,
    WeightsError,
    near_matches,
)
from unitscope.inputs.adapting import as_preprocessing
from unitscope.inputs.preprocessing import (
    AnyPreprocessing,
    Preprocessing,
)
from unitscope.model import Classifier
from unitscope.sources.checksums import sha256_of
from unitscope.sources.downloads import Download, fetch
from unitscope.sources.request import RANDOM_NOTE, Request, seeded
from unitscope.sources.weights import (
    fit_weights,
    infer_class_count,
    read_weights,
)

# Heads that only training uses; torchvision drops them from its own pretrained networks
# too.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_WITH_AUXILIARY = ("googlenet", "inception_v3")
# torchvision downloads into the hub's folder, and what is there already need not be
# fetched again.
_HUB_FOLDER = "checkpoints"

_IMAGENET_CLASSES = 1000


# Folders of torchvision.models whose names are no adjectives.
_ADJECTIVES = {"optical_flow": "optical-flow", "quantization": "quantized"}


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
    """Build a torchvision classifier for inference, without auxiliary heads.

    `input_size` (rows, cols) matters to the networks whose weights depend on it (ViT,
    MaxViT). `trained` says that weights will be loaded, as by torchvision itself:
    GoogLeNet and Inception then undo ImageNet's normalisation in their forward.
    """
    options = _size_options(name, input_size)
    if name in _WITH_AUXILIARY:
        options |= {
            "aux_logits": False,
            "init_weights": not trained,
            "transform_input": trained,
        }
    builder = _models().get_model_builder(name)
    try:
        module: nn.Module = builder(
            weights=None, num_classes=num_classes, **options
        )
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"torchvision cannot build {name} for {num_classes} classes, input "
            f"{input_size} ({text})"
        ) from None
    return module.eval()


def _size_options(
    name: str, input_size: tuple[int, int] | None
) -> dict[str, Any]:
    """The arguments by which a network is built for a size of its input."""
    if input_size is None:
        return {}
    if name.startswith("maxvit"):
        return {"input_size": input_size}
    if not name.startswith("vit_"):
        return {}

    rows, cols = input_size
    if rows != cols:
        raise ModelError(
            f"torchvision:{name} needs a square input, not {rows}×{cols}: give "
            "input_size a side, or make the preprocessing's crop square"
        )
    return {"image_size": rows}


def load(request: Request) -> Classifier:
    """Load one of torchvision's classifiers; see `unitscope.load`."""
    name = request.name
    _check_name(name, request.spec)
    entries = _entries(name)
    entry = _chosen_entry(request, entries)
    if entry is not None:
        return _official(request, entry)

    default = entries["DEFAULT"] if entries else None
    usual = None if default is None else as_preprocessing(default.transforms())
    preprocessing = request.chosen_preprocessing(usual)
    file = request.weights_file()
    if file is None:
        return _random(request, preprocessing)
    categories = () if default is None else default.meta.get("categories", ())
    return _local(request, file, preprocessing, tuple(categories))


def _random(request: Request, preprocessing: AnyPreprocessing) -> Classifier:
    classes = request.num_classes or _IMAGENET_CLASSES
    labels = request.labels_for(classes)
    size = _built_size(request, preprocessing)
    with seeded(request.seed) as seed:
        module = build(request.name, classes, size)
    how = f"random initialisation, seed {seed}"
    provenance = request.provenance(how, None, [RANDOM_NOTE])
    return Classifier(
        module, labels, preprocessing, provenance, scores=request.scores
    )


def _official(request: Request, entry: Any) -> Classifier:
    categories = tuple(str(category) for category in entry.meta["categories"])
    classes = len(categories)
    if request.num_classes not in (None, classes):
        raise WeightsError(
            f"{entry} is for {classes} classes, not {request.num_classes}: leave "
            "num_classes out, or give your own weights"
        )

    labels = request.labels_for(classes) or categories
    usual = as_preprocessing(entry.transforms())
    preprocessing = request.chosen_preprocessing(usual)
    size = _built_size(request, preprocessing)
    if size is None:
        rows, cols = entry.meta.get("min_size", (1, 1))
        size = (int(rows), int(cols))

    download = published_file(str(entry.url), "torchvision", request.progress)
    weights = read_weights(download.path)
    module = build(request.name, classes, size, trained=True)
    notes = list(fit_weights(module, weights, AUXILIARY))
    # torchvision's links to licences and recipes say under what terms and how the
    # weights came about.
    for word, key in (("recipe", "recipe"), ("licence", "license")):
        if key in entry.meta:
            notes.append(f"{word}: {entry.meta[key]}")

    provenance = request.provenance(entry.name, weights.sha256, notes)
    # Such weights were trained to tell which one class is right.
    scores = request.scores or Scores.SOFTMAX
    return Classifier(module, labels, preprocessing, provenance, scores=scores)


def _local(
    request: Request,
    file: Path,
    preprocessing: AnyPreprocessing,
    categories: tuple[str, ...],
) -> Classifier:
    weights = read_weights(file)
    size = _built_size(request, preprocessing)
    trained_for = infer_class_count(
        lambda count: build(request.name, count, size, trained=True), weights
    )
    classes = request.num_classes or trained_for or _IMAGENET_CLASSES
    module = build(request.name, classes, size, trained=True)
    notes = [*weights.notes, *fit_weights(module, weights, AUXILIARY)]

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
            "(transform_input), as torchvision's trained one does."
        )
    provenance = request.provenance(weights.name, weights.sha256, notes)
    return Classifier(
        module, labels, preprocessing, provenance, scores=request.scores
    )


def _built_size(
    request: Request, preprocessing: AnyPreprocessing
) -> tuple[int, int] | None:
    """(rows, cols) that the network is built for; None where no size is known."""
    if request.sides is not None:
        return request.sides
    if isinstance(preprocessing, Preprocessing):
        return preprocessing.input_size
    return None


def _chosen_entry(request: Request, entries: Any) -> Any:
    """Torchvision's own weights that the user names; None for a file or no weights."""
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

    name = weights
    if re.fullmatch(r"\w+_Weights\.\w+", weights):
        name = weights.rpartition(".")[2]
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
    if not names:
        return "a weights file (torchvision has none of its own)"
    return ", ".join(sorted(names))


def published_file(url: str, folder: str, progress: bool | None) -> Download:
    """Fetch a published weights file, unless PyTorch's hub has downloaded it already.

    The file's name ends in the first digits of its SHA-256, which are compared.
    `folder` is the one in our cache.
    """
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    prefix = match[1] if match else ""
    hub_folder = Path(torch.hub.get_dir()) / _HUB_FOLDER
    hub_file = hub_folder / url.rsplit("/", 1)[-1]
    if hub_file.is_file() and prefix:
        sha256 = sha256_of(hub_file)
        if sha256.startswith(prefix):
            return Download(hub_file, sha256)
    return fetch(url, folder, sha256_prefix=prefix, progress=progress)


def _entries(name: str) -> Any:
    """Torchvision's enumeration of a network's weights; None where it has none."""
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
    if name not in models.list_models():
        raise ModelError(
            f"torchvision has no classifier '{name}'"
            f"{near_matches(name, sorted(names))}: list them with "
            "torchvision.models.list_models()"
        )

    module = models.get_model_builder(name).__module__
    task = module.removeprefix("torchvision.models.").split(".")[0]
    similar = near_matches(name.removeprefix("quantized_"), names)
    raise ModelError(
        f"'{spec}' is one of torchvision's {_ADJECTIVES.get(task, task)} networks, and "
        f"unitscope explains image classifiers{similar}: use one of "
        "torchvision.models.list_models(torchvision.models)"
    )


def _models() -> Any:
    try:
        import torchvision
    except ImportError:
        raise MissingExtraError(
            "torchvision", "torchvision", "a torchvision: or places365: model"
        ) from None
    return torchvision.models
