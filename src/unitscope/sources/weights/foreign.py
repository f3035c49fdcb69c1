"""Foreign files: what people have that is not PyTorch's weights, and the remedy."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from unitscope.errors import WeightsError
from unitscope.sources.transfers import looks_like_html

ADAPTER = "adapter_config.json"
MERGE = (
    "merge it into its network with PEFT (merge_and_unload), save that with "
    "save_pretrained, and name the folder"
)
"""The remedy for a LoRA adapter, which is only a part of a network."""

_SUFFIXES = (".pth", ".pt", ".safetensors", ".tar", ".bin", ".ckpt")

_TENSORFLOW = (
    "TensorFlow: unitscope explains PyTorch networks, so load the weights into the same "
    "network in PyTorch, and save its state_dict()"
)

# How files of other kinds begin, what they are, and the remedy.
_BEGINNINGS = (
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, not the weights themselves: run 'git lfs pull' where it "
        "came from",
    ),
    (
        rb"\x89HDF",
        "an HDF5 file (Keras?): convert it to a PyTorch state_dict first",
    ),
    (rb"\x1f\x8b", "compressed with gzip: unpack it first"),
    (rb"BZh", "compressed with bzip2: unpack it first"),
    (rb"\xfd7zXZ", "compressed with xz: unpack it first"),
    (
        rb"\x93NUMPY",
        "a NumPy array: save a state_dict with torch.save or safetensors instead",
    ),
    (rb"GGUF", "a GGUF file: convert it to safetensors first"),
    (rb".{4}TFL3", f"a Lite model of {_TENSORFLOW}"),
    # Protocol buffers with the version of the format first, and then a text.
    (rb"\x08\x01\x12", f"a saved model of {_TENSORFLOW}"),
    (
        rb"\x08[\x03-\x1f]\x12",
        "an ONNX graph, which has no layers to look into: give the PyTorch weights "
        "that it was exported from",
    ),
    (
        rb"\s*\{",
        "a JSON file, not weights: name the weights themselves (where it lists the "
        "parts of them, name the folder, as in transformers:FOLDER)",
    ),
)
_TENSORFLOW_FILE = re.compile(r".*\.(index|data-\d+-of-\d+|pb|meta)")

# Libraries whose pickled models are no networks.
_OTHER_MODELS = re.compile(rb"\b(sklearn|xgboost|lightgbm|catboost)\b")


# What lies in the zip archives of others. torch.save's have a data.pkl in a folder.
_ARCHIVES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda name: name.endswith(".weights.h5"),
        f"a Keras model of {_TENSORFLOW}",
    ),
    (
        lambda name: name.endswith(".npy"),
        "an archive of NumPy arrays: make them a state_dict of tensors, and save that "
        "with torch.save or safetensors",
    ),
    (
        lambda name: (
            name.rpartition("/")[2] == "archive_format" or "models/" in name
        ),
        "a program that torch.export saved, which is code: where you trust it, save its "
        "weights, torch.save(torch.export.load(FILE).state_dict, 'weights.pth'), and "
        "give those with arch",
    ),
)


def refuse_foreign(begin: bytes, file: Path) -> None:
    """Raise WeightsError for a file that begins, or is called, as one of another kind."""
    if not begin:
        raise WeightsError(f"the weights file '{file}' is empty: get it again")
    if looks_like_html(begin):
        raise WeightsError(
            f"'{file}' is a web page, not weights: open the link in a browser and "
            "download the file itself"
        )
    for beginning, kind_and_remedy in _BEGINNINGS:
        if re.match(beginning, begin, re.DOTALL):
            raise WeightsError(f"'{file}' is {kind_and_remedy}")
    if _TENSORFLOW_FILE.fullmatch(file.name) and begin[:1] not in b"P\x80":
        raise WeightsError(f"'{file}' is a file of {_TENSORFLOW}")
    if begin[257:262] == b"ustar":
        raise WeightsError(
            f"'{file}' is a tar archive: unpack it and name the weights in it (PyTorch "
            "before 0.1.10 saved weights as tar, which cannot be read safely: save "
            "them again with a newer PyTorch)"
        )
    if begin.startswith(b"PK"):
        _refuse_archive(file)
    _refuse_pickle(begin, file)


def refuse_folder(folder: Path) -> None:
    """Raise WeightsError for a folder in the place of a weights file."""
    if (folder / ADAPTER).is_file():
        raise WeightsError(
            f"'{folder}' is a LoRA adapter, not a network: {MERGE}"
        )
    if (folder / "saved_model.pb").is_file():
        raise WeightsError(f"'{folder}' is a saved model of {_TENSORFLOW}")
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.suffix in _SUFFIXES
    )
    example = f", e.g. {folder.name}/{names[0]}" if names else ""
    raise WeightsError(
        f"'{folder}' is a folder: name the weights file in it{example}"
    )


def refuse_missing(file: Path) -> None:
    """Raise WeightsError for a path without a file."""
    if file.with_name(f"{file.name}.index").is_file():
        raise WeightsError(f"'{file}' is a checkpoint of {_TENSORFLOW}")
    raise WeightsError(
        f"there is no weights file '{file}': check the path (looked in {Path.cwd()})"
    )


def _refuse_archive(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # Reading it as PyTorch's says what is wrong.
    if any(name.endswith("data.pkl") for name in names):
        return
    for is_in, kind_and_remedy in _ARCHIVES:
        if any(map(is_in, names)):
            raise WeightsError(f"'{file}' is {kind_and_remedy}")


def _refuse_pickle(begin: bytes, file: Path) -> None:
    model = _OTHER_MODELS.search(begin)
    if begin.startswith(b"\x80") and model is not None:
        raise WeightsError(
            f"'{file}' is a pickled model of {model[1].decode()}, not a network's "
            "weights: unitscope explains PyTorch networks that classify images"
        )
