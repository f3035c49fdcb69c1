"""transformers:REPO: Hugging Face's image classifiers, from its hub, a folder, or a type with random weights."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unitscope.errors import (
    MissingExtraError,
    ModelError,
    WeightsError,
    near_matches,
    one_line,
)
from unitscope.inputs.preprocessing import (
    AnyPreprocessing,
    MeasuredPreprocessing,
    Preprocessing,
)
from unitscope.labels import read_labels
from unitscope.model import Classifier
from unitscope.sources.hub import fetch_snapshot
from unitscope.sources.image_processor import preprocessing_of, usual_processor
from unitscope.sources.request import RANDOM_NOTE, Request, resized, seeded
from unitscope.sources.weights import (
    Weights,
    fit_weights,
    infer_class_count,
    read_weights,
)

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
# What each of the two kinds of weights consists of on the hub, shards included.
_FETCHED = (
    (
        *_SETTINGS,
        "model.safetensors",
        "model.safetensors.index.json",
        "model-*-of-*.safetensors",
    ),
    (
        *_SETTINGS,
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "pytorch_model-*-of-*.bin",
    ),
)
_REPOSITORY = re.compile(r"(?!\.{1,2}/)[\w.\-]+/[\w.\-]+(@[\w.\-/]+)?")
_NUMBERED = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class _Origin:
    """Where the configuration comes from: a folder, fetched or the user's own, or a bare type without one."""

    folder: Path | None
    notes: tuple[str, ...] = ()
    fetched: bool = False


def load(request: Request) -> Classifier:
    """Load one of transformers' image classifiers; see `unitscope.load`. No code of a repository is ever run."""
    _transformers()
    origin = _origin(request)
    config = (
        _read_config(origin.folder, request)
        if origin.folder
        else _default_config(request)
    )
    _check_kind(config, request)
    _set_input_size(config, request)
    preprocessing, notes = _preprocessing(config, origin, request)
    file = request.weights_file()
    if file is not None:
        weights = read_weights(file)
    else:
        found = _weights_in(origin.folder) if origin.folder else None
        if found is None:
            return _random(request, config, origin, preprocessing, notes)
        weights = found
        if request.num_classes not in (None, config.num_labels):
            raise WeightsError(
                f"the weights of {request.spec} are for {config.num_labels} classes, "
                f"not {request.num_classes}: leave "
                "num_classes out, or give your own weights"
            )
    classes = request.num_classes or config.num_labels
    if file is not None and request.num_classes is None:
        classes = (
            infer_class_count(lambda count: _build(config, count), weights) or classes
        )
    with seeded(request.seed):
        module = _build(config, classes)
        repairs = _fit(module, weights)
    labels = request.labels_for(classes) or _own_labels(config, classes)
    return Classifier(
        module,
        labels,
        preprocessing,
        request.provenance(
            weights.name,
            weights.sha256 or None,
            [*origin.notes, *weights.notes, *repairs, *notes],
        ),
    )


def _random(
    request: Request,
    config: Any,
    origin: _Origin,
    preprocessing: AnyPreprocessing,
    notes: Sequence[str],
) -> Classifier:
    if origin.fetched:
        raise WeightsError(
            f"{request.spec} holds no {' or '.join(_WEIGHTS)}: name a repository with "
            "PyTorch's weights, or give the "
            "path of a weights file"
        )
    classes = request.num_classes or config.num_labels
    labels = request.labels_for(classes) or _own_labels(config, classes)
    with seeded(request.seed) as seed:
        module = _build(config, classes)
    why = (
        [f"'{origin.folder}' holds no {' or '.join(_WEIGHTS)}."]
        if origin.folder
        else []
    )
    provenance = request.provenance(
        f"random initialisation, seed {seed}", None, [*why, RANDOM_NOTE, *notes]
    )
    return Classifier(module, labels, preprocessing, provenance)


def _origin(request: Request) -> _Origin:
    name = request.name
    folder = Path(name).expanduser()
    types = _types()
    # A folder called "resnet" that holds something else does not stand in the way of
    # the type.
    if folder.is_dir() and ((folder / "config.json").is_file() or name not in types):
        return _Origin(folder)
    if name in types:
        return _Origin(None)
    if folder.is_file():
        raise ModelError(
            f"'{name}' is a file: name the folder with config.json, or for a weights "
            "file alone "
            f"'checkpoint:{name}' with arch, e.g. arch 'transformers:resnet'"
        )
    if _REPOSITORY.fullmatch(name):
        return _fetched(name, request)
    if "/" in name or "\\" in name or name.startswith("~"):
        raise ModelError(
            f"there is no folder '{name}' for '{request.spec}': check the path (looked "
            f"in {Path.cwd()})"
        )
    raise ModelError(
        "transformers has no image classifier of type "
        f"'{name}'{near_matches(name, types)}: use a type such as "
        "resnet, convnext or swin, a folder, or a repository on the Hugging Face hub "
        "(organisation/name)"
    )


def _fetched(repository: str, request: Request) -> _Origin:
    otherwise = f"name a folder that holds it (there is none called '{repository}' in {Path.cwd()})"
    for files in _FETCHED if request.weights is None else (_SETTINGS,):
        folder = fetch_snapshot(repository, files, request.progress, otherwise)
        if any(_weights_files(folder)):
            break
    return _Origin(
        folder,
        (f"Source: {repository} on the Hugging Face hub, commit {folder.name}.",),
        fetched=True,
    )


def _read_config(folder: Path, request: Request) -> Any:
    """Read a folder's config.json as transformers does, without running any code that may lie beside it."""
    file = folder / "config.json"
    remedy = "name a folder that save_pretrained wrote"
    try:
        text = file.read_text(encoding="utf-8")
        raw = json.loads(text)
    except FileNotFoundError:
        inside = sorted(entry.parent.name for entry in folder.glob("*/config.json"))
        hint = f", e.g. {folder.name}/{inside[-1]}" if inside else ""
        raise ModelError(
            f"the folder '{folder}' holds no config.json: {remedy}{hint}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"'{file}' cannot be read as JSON ({one_line(error)}): {remedy}"
        ) from None
    if not isinstance(raw, dict):
        raise ModelError(
            f"'{file}' holds a {type(raw).__name__}, not a network's configuration: "
            f"{remedy}"
        )
    transformers = _transformers()
    if raw.get("auto_map") and raw.get("model_type") not in _types():
        raise ModelError(
            f"'{request.spec}' is a network whose own code would have to be run "
            "(trust_remote_code), which unitscope "
            "never does: where you trust it, load it yourself and use unitscope.wrap"
        )
    try:
        with _quiet():
            config = transformers.AutoConfig.from_pretrained(
                str(folder), trust_remote_code=False
            )
            # A configuration may name a kernel on the hub for its attention, which is
            # code too.
            config._attn_implementation = None
            return config
    except Exception as error:  # Every configuration checks its own settings.
        raise ModelError(
            f"transformers {transformers.__version__} cannot read '{file}' "
            f"({one_line(error)}): {remedy}"
        ) from None


def _default_config(request: Request) -> Any:
    try:
        with _quiet():
            return _transformers().AutoConfig.for_model(request.name)
    except Exception as error:
        raise ModelError(
            f"transformers has no default configuration of {request.name} "
            f"({one_line(error)})"
        ) from None


def _check_kind(config: Any, request: Request) -> None:
    if type(config) not in _transformers().MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"'{request.spec}' is a network of type '{config.model_type}', of which "
            "transformers has no image "
            "classifier: name one that classifies images"
        )


def _sized(config: Any) -> Any:
    """The part of a configuration that says the size of the input, or None where the network takes any."""
    parts = (config, getattr(config, "vision_config", None))
    return next((part for part in parts if getattr(part, "image_size", None)), None)


def _image_size(config: Any) -> int | tuple[int, int] | None:
    sized = _sized(config)
    if sized is None:
        return None
    sides = sized.image_size
    return int(sides) if isinstance(sides, int) else (int(sides[0]), int(sides[-1]))


def _set_input_size(config: Any, request: Request) -> None:
    sized = _sized(config)
    if request.sides is not None and sized is not None:
        rows, cols = request.sides
        sized.image_size = rows if rows == cols else [rows, cols]


def _preprocessing(
    config: Any, origin: _Origin, request: Request
) -> tuple[AnyPreprocessing, tuple[str, ...]]:
    """Choose what was given, else what the folder says, else what transformers does for the type, with a note."""
    if request.preprocessing is not None:
        return request.chosen_preprocessing(None), ()
    processor = _processor_in(origin.folder, config) if origin.folder else None
    if processor is not None:
        found = preprocessing_of(processor, f"as {request.spec} says")
    else:
        found = _usual_preprocessing(config, request)
    notes = (
        ()
        if processor is not None
        else (f"The preprocessing is assumed: {found.describe()}.",)
    )
    if isinstance(found, MeasuredPreprocessing) and request.sides not in (
        None,
        found.input_size,
    ):
        raise ModelError(
            f"{request.spec} is preprocessed by {found.describe()}, which cannot be "
            "taken to input_size "
            f"{request.input_size}: give a preprocessing"
        )
    return request.chosen_preprocessing(found), notes


def _processor_in(folder: Path, config: Any) -> Any:
    """Read the image processor of a folder; None where it has none."""
    held = [name for name in _SETTINGS[1:] if (folder / name).is_file()]
    # timm keeps it in config.json.
    if not held and config.model_type != "timm_wrapper":
        return None
    try:
        with _quiet():
            return _transformers().AutoImageProcessor.from_pretrained(
                str(folder), trust_remote_code=False
            )
    except Exception as error:
        raise ModelError(
            f"'{folder / (held or _SETTINGS)[0]}' cannot be read as an image processor "
            f"({one_line(error)}): correct "
            "it, or give a preprocessing"
        ) from None


def _usual_preprocessing(config: Any, request: Request) -> AnyPreprocessing:
    """What transformers does by default for networks of this kind, at the size of the network's input."""
    sides = request.sides or _image_size(config)
    sides = (sides, sides) if isinstance(sides, int) else sides
    with _quiet():
        processor = usual_processor(config, sides)
    if processor is None:
        found: AnyPreprocessing = Preprocessing(
            note="ImageNet's convention, since transformers has none for the type"
        )
    else:
        found = preprocessing_of(
            processor, f"the defaults of {type(processor).__name__}"
        )
    if sides is None or not isinstance(found, Preprocessing):
        return found
    return resized(
        found, sides, "as asked" if request.sides else "which is the network's"
    )


def _build(config: Any, classes: int) -> nn.Module:
    config = copy.deepcopy(config)
    if config.num_labels != classes:
        config.num_labels = classes
    # By this transformers chooses among the several classifiers of one type (DeiT), and
    # does not expect None.
    config.architectures = config.architectures or []
    if getattr(config, "model_args", None):
        # timm writes its number of classes there too, and transformers passes both.
        config.model_args = {
            name: value
            for name, value in config.model_args.items()
            if name != "num_classes"
        }
    try:
        with _quiet():
            automatic = _transformers().AutoModelForImageClassification
            module: nn.Module = automatic.from_config(config, trust_remote_code=False)
    except Exception as error:  # Each network has its own way of refusing.
        raise ModelError(
            f"transformers cannot build a {config.model_type} network for {classes} "
            f"classes ({one_line(error)})"
        ) from None
    # A configuration may ask for half precision, which is for running on a GPU.
    return module.to(torch.float32).eval()


def _fit(module: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Load the weights, under today's names where transformers has renamed what the file holds."""
    try:
        return fit_weights(module, weights)
    except WeightsError:
        renewed = _renewed(module, weights)
        if renewed is None:
            raise
    notes = fit_weights(module, renewed)
    return (*notes, f"the names in {weights.name} renewed by transformers")


def _renewed(module: Any, weights: Weights) -> Weights | None:
    """Let transformers rename the weights as it does when it loads them; what it lacks or cannot use stays visible."""
    try:
        with _quiet():
            renamed, report = type(module).from_pretrained(
                None,
                config=module.config,
                state_dict=dict(weights.state),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception:  # Then the names in the file are the ones to complain of.
        return None
    own = renamed.state_dict()
    # transformers draws at random what it does not find, and what has another shape:
    # (name, shape in the file, shape in the network), or in some versions the name
    # alone.
    other = [
        (entry, None) if isinstance(entry, str) else (entry[0], entry[1])
        for entry in report["mismatched_keys"]
    ]
    drawn = {*report["missing_keys"], *(name for name, _ in other)}
    state = {name: tensor for name, tensor in own.items() if name not in drawn}
    for name, shape in (*other, *((name, None) for name in report["unexpected_keys"])):
        state[name] = (
            weights.state.get(name, torch.empty(0))
            if shape is None
            else torch.empty(shape, device="meta")
        )
    return dataclasses.replace(weights, state=state, versions=None)


def _weights_files(folder: Path) -> Iterator[Path]:
    for name in _WEIGHTS:
        yield from (
            file
            for file in (folder / name, folder / f"{name}.index.json")
            if file.is_file()
        )


def _weights_in(folder: Path) -> Weights | None:
    """Read the weights of a folder, from one file or from shards; None where it has none."""
    file = next(_weights_files(folder), None)
    if file is None or file.suffix != ".json":
        return None if file is None else read_weights(file)
    try:
        shards = sorted(
            {
                str(shard)
                for shard in json.loads(file.read_text(encoding="utf-8"))[
                    "weight_map"
                ].values()
            }
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise WeightsError(
            f"'{file}' does not list the files of the weights ({one_line(error)}): get "
            "it again"
        ) from None
    if any(Path(shard).name != shard for shard in shards):
        raise WeightsError(
            f"'{file}' names files outside its folder: get it from a source you trust"
        )
    parts = [read_weights(folder / shard) for shard in shards]
    state = {name: tensor for part in parts for name, tensor in part.state.items()}
    notes = [
        note
        for part in parts
        for note in (f"{part.name}: SHA-256 {part.sha256}", *part.notes)
    ]
    return Weights(f"{len(parts)} files listed in {file.name}", state, "", tuple(notes))


def _own_labels(config: Any, classes: int) -> tuple[str, ...] | None:
    """The names of the classes in the configuration; None where they are only numbered, or for other classes."""
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    if len(names) != classes or all(map(_NUMBERED.fullmatch, names)):
        return None
    return read_labels(names)


def _types() -> list[str]:
    """List the types of network that transformers has an image classifier for."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    return sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from logging, warning and drawing bars: what matters comes as an error or a note."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _transformers() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
    except ImportError:
        raise MissingExtraError(
            "transformers", "transformers", "a transformers: model"
        ) from None
    return transformers
