"""A folder as transformers writes it: its origin, the configuration, the weights.

It is the user's own, or a repository on the Hugging Face hub that was fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitscope.errors import ModelError, WeightsError, near_matches, one_line
from unitscope.sources.hub import fetch_snapshot
from unitscope.sources.request import RANDOM_NOTE, Request
from unitscope.sources.transformers_library import (
    classifier_types,
    quiet,
    transformers_library,
)
from unitscope.sources.weights import ADAPTER, MERGE, Weights, read_weights

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
CONFIG_FILE = "config.json"

_FOREIGN_WEIGHTS = ("tf_model.h5", "flax_model.msgpack", "model.onnx")

# Vocabularies: each kind of tokenizer can be made from one of these.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_TOKENIZER_FILES = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)

_SETTINGS = (CONFIG_FILE, *PROCESSOR_FILES, *_TOKENIZER_FILES)
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


@dataclass(frozen=True)
class Origin:
    """What a name after "transformers:" stands for: a folder, or a type (None)."""

    folder: Path | None
    notes: tuple[str, ...] = ()
    fetched: bool = False


def find_origin(request: Request) -> Origin:
    """Find the folder, the type or the repository of that name; raises ModelError."""
    name = request.name
    folder = Path(name).expanduser()
    types = classifier_types()
    # A folder called "resnet" that holds something else does not stand in the way of
    # the type.
    if folder.is_dir() and (
        (folder / CONFIG_FILE).is_file() or name not in types
    ):
        return Origin(folder)
    if name in types:
        return Origin(None)
    if folder.is_file():
        raise ModelError(
            f"'{name}' is a file: name the folder with config.json, or for a weights "
            f"file alone 'checkpoint:{name}' with arch, e.g. arch "
            "'transformers:resnet'"
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
        f"'{name}'{near_matches(name, types)}: use a type such as resnet, convnext or "
        "swin, a folder, or a repository on the Hugging Face hub (organisation/name)"
    )


def _fetched(repository: str, request: Request) -> Origin:
    """Fetch a repository's settings, and its weights unless the user gives some."""
    otherwise = (
        f"name a folder that holds it (there is none called '{repository}' in "
        f"{Path.cwd()})"
    )
    choices = _FETCHED if request.weights is None else (_SETTINGS,)
    for files in choices:
        folder = fetch_snapshot(repository, files, request.progress, otherwise)
        if any(_weights_files(folder)):
            break
    source = f"{repository} on the Hugging Face hub, commit {folder.name}"
    return Origin(folder, (f"Source: {source}.",), fetched=True)


def read_config(folder: Path, request: Request) -> Any:
    """Read a folder's config.json as transformers does, without running any code."""
    file = folder / CONFIG_FILE
    remedy = "name a folder that save_pretrained wrote"
    settings = _settings(file, remedy)
    if (
        settings.get("auto_map")
        and settings.get("model_type") not in classifier_types()
    ):
        raise ModelError(
            f"'{request.spec}' is a network whose own code would have to be run "
            "(trust_remote_code), which unitscope never does: where you trust it, load "
            "it yourself and use unitscope.wrap"
        )

    transformers = transformers_library()
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                str(folder), trust_remote_code=False
            )
            # A configuration may name a kernel on the hub for its attention, which is
            # code too.
            config._attn_implementation = None
    except Exception as error:  # Every configuration checks its own settings.
        raise ModelError(
            f"transformers {transformers.__version__} cannot read '{file}' "
            f"({one_line(error)}): {remedy}"
        ) from None
    return config


def _settings(file: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a configuration file; raises ModelError."""
    folder = file.parent
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / ADAPTER).is_file():
            raise ModelError(
                f"'{folder}' is a LoRA adapter, not a network: {MERGE}"
            ) from None
        deeper = sorted(
            entry.parent.name for entry in folder.glob("*/config.json")
        )
        hint = f", e.g. {folder.name}/{deeper[-1]}" if deeper else ""
        raise ModelError(
            f"the folder '{folder}' holds no config.json: {remedy}{hint}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"'{file}' cannot be read as JSON ({one_line(error)}): {remedy}"
        ) from None
    if not isinstance(settings, dict):
        raise ModelError(
            f"'{file}' holds a {type(settings).__name__}, not a network's "
            f"configuration: {remedy}"
        )
    return settings


def weights_in(folder: Path) -> Weights | None:
    """Read the weights of a folder, from one file or from shards; None without any."""
    file = next(_weights_files(folder), None)
    if file is None:
        _refuse_foreign_weights(folder)
        return None
    if file.suffix != ".json":
        return read_weights(file)

    parts = [read_weights(folder / shard) for shard in _shards_of(file)]
    state = {
        name: tensor for part in parts for name, tensor in part.state.items()
    }
    notes: list[str] = []
    for part in parts:
        notes += [f"{part.name}: SHA-256 {part.sha256}", *part.notes]
    return Weights(
        f"{len(parts)} files listed in {file.name}", state, "", tuple(notes)
    )


def refuse_without_weights(origin: Origin, request: Request) -> list[str]:
    """Notes on weights that a folder lacks; WeightsError where a repository does."""
    files = " or ".join(WEIGHTS_FILES)
    if origin.fetched:
        raise WeightsError(
            f"{request.spec} holds no {files}: name a repository with PyTorch's "
            "weights, or give the path of a weights file"
        )
    reason = [f"'{origin.folder}' holds no {files}."] if origin.folder else []
    return [*reason, RANDOM_NOTE]


def _refuse_foreign_weights(folder: Path) -> None:
    """Raise WeightsError for weights that are not PyTorch's, or not a whole network's."""
    if (folder / ADAPTER).is_file():
        raise WeightsError(
            f"'{folder}' is a LoRA adapter, not a network: {MERGE}"
        )
    for name in _FOREIGN_WEIGHTS:
        if (folder / name).is_file():
            raise WeightsError(
                f"'{folder}' holds weights of another library ({name}), and none of "
                f"PyTorch's: save it with PyTorch, or give a weights file"
            )


def _weights_files(folder: Path) -> Iterator[Path]:
    """The files of weights in a folder, and the lists of shards, the best first."""
    for name in WEIGHTS_FILES:
        for file in (folder / name, folder / f"{name}.index.json"):
            if file.is_file():
                yield file


def _shards_of(file: Path) -> list[str]:
    """The names of the weights files that an index lists; raises WeightsError."""
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        shards = {str(shard) for shard in index["weight_map"].values()}
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
    return sorted(shards)
