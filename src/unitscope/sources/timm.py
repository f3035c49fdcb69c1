"""timm:NAME: timm's classifiers, with its weights, yours or none."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from unitscope.attribution.scores import Scores
from unitscope.errors import (
    MissingExtraError,
    ModelError,
    WeightsError,
    near_matches,
    one_line,
)
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.preprocessing import AnyPreprocessing, Preprocessing
from unitscope.model import Classifier
from unitscope.sources.hub import fetch_snapshot
from unitscope.sources.request import RANDOM_NOTE, Request, seeded
from unitscope.sources.torchvision import published_file
from unitscope.sources.weights import (
    Weights,
    fit_weights,
    infer_class_count,
    read_weights,
)

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")

_IMAGENET_CLASSES = 1000
# timm's default: the share of the resized photo that the crop keeps.
_USUAL_CROP = 0.875

# How many names an error lists.
_MOST_NAMES = 6


def network_names() -> list[str]:
    """List the names of timm's networks, without the tags of their weights."""
    names: list[str] = _timm().list_models()
    return names


def build(
    name: str,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    trained: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a timm classifier for inference, for `num_classes`.

    `input_size` (rows, cols) matters to the networks whose weights depend on it (ViT,
    Swin). `trained` are the weights that timm publishes for the network: it knows under
    which names they were published.
    """
    timm = _timm()
    options: dict[str, Any] = {}
    if input_size is not None and _configuration(name).fixed_input_size:
        options["img_size"] = input_size
    if trained is not None:
        options |= {
            "pretrained": True,
            "pretrained_cfg_overlay": {"state_dict": dict(trained)},
        }
    try:
        with warnings.catch_warnings():
            # What timm's networks warn of (a slow kernel, an absent library) is not the
            # user's doing.
            warnings.simplefilter("ignore")
            module: nn.Module = timm.create_model(
                name, num_classes=num_classes, **options
            )
    except Exception as error:  # Each network has its own way of refusing.
        raise ModelError(
            f"timm cannot build {name} for {num_classes} classes, input "
            f"{input_size or 'size as it is'} ({one_line(error)})"
        ) from None
    # timm keeps the weights that it was given beside the network.
    getattr(module, "pretrained_cfg", {}).pop("state_dict", None)
    return module.eval()


def load(request: Request) -> Classifier:
    """Load one of timm's classifiers; see `unitscope.load`."""
    name, renamed = _known_name(request.name, request.spec)
    request = dataclasses.replace(request, name=name)

    configuration = _configuration(name)
    overrides = {}
    if request.sides:
        channels = configuration.input_size[0]
        overrides["input_size"] = (channels, *request.sides)
    data = _timm().data.resolve_data_config(
        overrides, pretrained_cfg=configuration.to_dict()
    )
    note = f"timm's configuration of {_weights_name(configuration, name)}"
    preprocessing = request.chosen_preprocessing(translated(data, note))

    if isinstance(request.weights, str) and request.weights == "DEFAULT":
        return _official(request, configuration, preprocessing, renamed)
    file = request.weights_file()
    if file is None:
        return _random(request, configuration, preprocessing, renamed)
    _refuse_tag(request)
    return _local(request, file, configuration, preprocessing, renamed)


def translated(data: Mapping[str, Any], note: str) -> AnyPreprocessing:
    """Timm's data configuration as a `Preprocessing` that gives the same pixels.

    A `Preprocessing` cannot add a border or cut out an oblong input: there timm's own
    transform is taken, `timm.data.create_transform`.
    """
    _, rows, cols = data["input_size"]
    share = data.get("crop_pct") or _USUAL_CROP
    scaled = (math.floor(rows / share), math.floor(cols / share))
    mode = data.get("crop_mode") or "center"
    resize: int | tuple[int, int]
    if mode == "squash":
        resize = scaled
    elif mode != "border" and scaled[0] == scaled[1]:
        resize = scaled[0]
    else:
        return _timm_transform(
            data, f"{note}, {rows}×{cols} with crop mode '{mode}'"
        )
    return Preprocessing(
        resize=resize,
        crop=rows if rows == cols else (rows, cols),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=str(data["interpolation"]),
        note=note,
    )


def _timm_transform(data: Mapping[str, Any], note: str) -> AnyPreprocessing:
    transform = _timm().data.create_transform(**data, is_training=False)

    # The name stands in the description of the preprocessing.
    def timm_transform(image: Image.Image) -> Any:
        return transform(image)

    return MeasuredPreprocessing(timm_transform, note)


def _random(
    request: Request,
    configuration: Any,
    preprocessing: AnyPreprocessing,
    notes: Sequence[str],
) -> Classifier:
    classes = (
        request.num_classes or configuration.num_classes or _IMAGENET_CLASSES
    )
    labels = request.labels_for(classes)
    with seeded(request.seed) as seed:
        module = build(request.name, classes, request.sides)
    notes = [*notes, RANDOM_NOTE]
    if not configuration.num_classes and not request.num_classes:
        notes.append(
            f"timm's own {request.name} has no classes, only features: it was built "
            f"for {classes} classes."
        )
    provenance = request.provenance(
        f"random initialisation, seed {seed}", None, notes
    )
    return Classifier(
        module, labels, preprocessing, provenance, scores=request.scores
    )


def _official(
    request: Request,
    configuration: Any,
    preprocessing: AnyPreprocessing,
    renamed: Sequence[str],
) -> Classifier:
    name = _weights_name(configuration, request.name)
    classes = int(configuration.num_classes)
    if not configuration.has_weights or not classes:
        raise _no_classifier(name, configuration, request)
    if request.num_classes not in (None, classes):
        raise WeightsError(
            f"timm's {name} is for {classes} classes, not {request.num_classes}: leave "
            "num_classes out, or give your own weights"
        )

    labels = request.labels_for(classes)
    weights, source = _published(configuration, request)
    with seeded(request.seed):
        module = build(request.name, classes, request.sides, weights.state)

    notes = [*renamed, *weights.notes, source]
    if labels is None:
        data_set, labels = _data_set(classes)
        if labels:
            notes.append(
                f"The labels are those of {data_set}, which timm tells by the number "
                f"of classes, {classes}."
            )
        else:
            notes.append(
                f"timm has no names for the {classes} classes, which may be the axes "
                "of an embedding."
            )
    if configuration.license:
        notes.append(f"licence: {configuration.license}")
    provenance = request.provenance(name, weights.sha256, notes)
    # Such weights were trained to tell which one class is right.
    scores = request.scores or Scores.SOFTMAX
    return Classifier(module, labels, preprocessing, provenance, scores=scores)


def _no_classifier(
    name: str, configuration: Any, request: Request
) -> WeightsError:
    """The error for a network of which timm has no weights, or none with classes."""
    lack = "no weights of its own"
    if configuration.has_weights:
        lack = "only features without classes"
    others = [
        tagged
        for tagged, other in _tagged(request.name).items()
        if other.has_weights and other.num_classes
    ]
    remedy = "give the path of a weights file"
    if others:
        remedy = f"name one of {_few(others)}, or {remedy}"
    return WeightsError(f"timm has {lack} for {name}: {remedy}")


def _local(
    request: Request,
    file: Path,
    configuration: Any,
    preprocessing: AnyPreprocessing,
    renamed: Sequence[str],
) -> Classifier:
    weights = read_weights(file)
    trained_for = infer_class_count(
        lambda count: build(request.name, count, request.sides), weights
    )
    classes = (
        request.num_classes
        or trained_for
        or configuration.num_classes
        or _IMAGENET_CLASSES
    )
    # What is drawn here is overwritten at once, but the user's random state must not
    # move.
    with seeded(request.seed):
        module = build(request.name, classes, request.sides)
    notes = [*renamed, *weights.notes, *fit_weights(module, weights)]
    labels = request.labels_for(classes)
    if labels is None and classes == configuration.num_classes:
        data_set, labels = _data_set(classes)
        if labels:
            notes.append(
                f"The labels are assumed to be those of {data_set}, since the network "
                f"has {classes} classes."
            )
    if request.preprocessing is None:
        notes.append(
            "The preprocessing is assumed to be that of timm's own "
            f"{_weights_name(configuration, request.name)} weights."
        )
    provenance = request.provenance(weights.name, weights.sha256, notes)
    return Classifier(
        module, labels, preprocessing, provenance, scores=request.scores
    )


def _published(configuration: Any, request: Request) -> tuple[Weights, str]:
    """Fetch the weights that timm publishes; the second is a note on their source."""
    repository = configuration.hf_hub_id
    if not repository:
        url = str(configuration.url)
        download = published_file(url, "timm", request.progress)
        return read_weights(download.path), f"Source: {url}."

    own_name = configuration.hf_hub_filename
    files = (own_name,) if own_name else _HUB_FILES
    otherwise = "give the path of a weights file"
    for name in files:
        folder = fetch_snapshot(repository, [name], request.progress, otherwise)
        if (folder / name).is_file():
            source = (
                f"{repository} on the Hugging Face hub, commit {folder.name}"
            )
            return read_weights(folder / name), f"Source: {source}."
    raise WeightsError(
        f"{repository} on the Hugging Face hub holds no {' or '.join(files)}: "
        f"{otherwise}"
    )


def _data_set(classes: int) -> tuple[str, tuple[str, ...] | None]:
    """The data set of so many classes, and its labels; "" and None where unknown."""
    data = _timm().data
    subset = data.infer_imagenet_subset({"num_classes": classes})
    if not subset:
        return "", None
    descriptions = data.ImageNetInfo(subset).label_descriptions()
    labels = tuple(str(label) for label in descriptions)
    return str(subset), labels if len(labels) == classes else None


def _known_name(name: str, spec: str) -> tuple[str, tuple[str, ...]]:
    """The name that timm uses today, and a note where the user gave an older one.

    Raises ModelError for an unknown name.
    """
    if "/" in name or ":" in name or "\\" in name:
        raise ModelError(
            f"'{spec}' is not one of timm's names: write timm:resnet18, or "
            f"'transformers:{name.rpartition(':')[2]}' for a repository on the Hugging "
            "Face hub or a folder"
        )
    current = _current_name(name)
    notes = () if current == name else (f"timm now calls {name} {current}.",)

    known = network_names()
    architecture, dot, tag = current.partition(".")
    if architecture not in known:
        raise ModelError(
            f"timm has no network '{architecture}'{near_matches(architecture, known)}: "
            "list them with timm.list_models()"
        )
    tagged = _tagged(architecture)
    if dot and current not in tagged:
        raise ModelError(
            f"timm has no weights '{tag}' for "
            f"{architecture}{near_matches(current, list(tagged))}: use "
            f"{_few([architecture, *tagged])}"
        )
    return current, notes


def _current_name(name: str) -> str:
    """The name that replaced a deprecated one; any other name as it is."""
    deprecated: Mapping[str, str | None] = (
        _timm().models.get_deprecated_models()
    )
    known = network_names()
    if name not in deprecated or name in known:
        return name
    current = deprecated[name]
    if not current:
        raise ModelError(
            f"timm has removed '{name}'{near_matches(name, known)}: list its names "
            "with timm.list_models()"
        )
    return current


def _refuse_tag(request: Request) -> None:
    """Raise WeightsError where the tag of timm's own weights stands for a file."""
    weights = request.weights
    if not isinstance(weights, str) or Path(weights).exists():
        return
    architecture = request.name.partition(".")[0]
    name = f"{architecture}.{weights}"
    if name in _tagged(architecture):
        raise WeightsError(
            f"'{weights}' is no file, but weights of timm's: ask for 'timm:{name}' "
            "with weights 'DEFAULT'"
        )


def _configuration(name: str) -> Any:
    """Timm's `PretrainedCfg` of a network's weights, the default ones without a tag."""
    models = _timm().models
    configuration = models.get_pretrained_cfg(name)
    return models.PretrainedCfg() if configuration is None else configuration


def _tagged(name: str) -> Mapping[str, Any]:
    """The configurations of all the weights that a network has, by name and tag."""
    timm = _timm()
    names = timm.list_models(name.partition(".")[0], include_tags=True)
    return {
        tagged: timm.models.get_pretrained_cfg(tagged)
        for tagged in names
        if "." in tagged
    }


def _weights_name(configuration: Any, name: str) -> str:
    """The name with the tag of the weights, where they have one."""
    if "." in name or not configuration.tag:
        return name
    return f"{name}.{configuration.tag}"


def _few(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{listed} and {more} more" if more > 0 else listed


def _timm() -> Any:
    try:
        with warnings.catch_warnings():
            # timm uses what torch deprecates.
            warnings.simplefilter("ignore")
            import timm
    except ImportError:
        raise MissingExtraError("timm", "timm", "a timm: model") from None
    return timm
