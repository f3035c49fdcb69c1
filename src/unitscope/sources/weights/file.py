"""A weights file: its kind, its SHA-256, and the tensors in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from torch import Tensor

from unitscope.errors import WeightsError, one_line
from unitscope.sources.weights.foreign import (
    refuse_folder,
    refuse_foreign,
    refuse_missing,
)
from unitscope.sources.weights.pickles import read_pickle
from unitscope.sources.weights.state import (
    architecture_of,
    as_float32,
    find_state,
    path_to_state,
    value_at,
)

# How much of a file tells its kind, in bytes.
_BEGINNING = 1024
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of a weights file by name, and what is known of the file.

    Floating-point tensors are float32. `name` is the file's own name, without its
    folder; `sha256` is that of its bytes; `notes` say what was converted; `metadata`
    holds a safetensors file's own strings; `architecture` is the name that the
    checkpoint gives its network, if any; `versions` are the modules' state-dict
    versions, which torch.save stores too.
    """

    name: str
    state: Mapping[str, Tensor]
    sha256: str
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    architecture: str | None = None
    versions: Mapping[str, Any] | None = None


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a safetensors file, a state dict of torch.save, or a checkpoint with one.

    Pickles are only ever read with `weights_only=True`, onto the CPU; half and double
    precision become float32, with a note. Raises WeightsError for anything that is not
    a whole weights file, and for a pickle that asks for code to be run.
    """
    file = Path(path)
    metadata: Mapping[str, str] = {}
    with _opened(file) as handle:
        begin = handle.read(_BEGINNING)
        refuse_foreign(begin, file)

        handle.seek(0)
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()

        handle.seek(0)
        if _is_safetensors(begin):
            loaded, metadata = _read_safetensors(handle, file)
        else:
            loaded = read_pickle(handle, begin, file)

    state, notes = find_state(loaded, file)
    state, conversions = as_float32(state, file)
    state_dict = value_at(loaded, path_to_state(loaded) or ())
    return Weights(
        name=file.name,
        state=state,
        sha256=sha256,
        notes=(*notes, *conversions),
        metadata=metadata,
        architecture=architecture_of(loaded),
        versions=getattr(state_dict, "_metadata", None),
    )


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    try:
        if file.is_dir():
            refuse_folder(file)
        if not file.exists():
            refuse_missing(file)
        if not file.is_file():
            raise WeightsError(
                f"'{file}' is a device or a pipe: weights are read from a regular file, "
                "so save them to one"
            )
        handle = file.open("rb")
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the weights file '{file}' cannot be read ({error}): check the path and "
            "its permissions"
        ) from None
    with handle:
        yield handle


def _is_safetensors(begin: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and the header."""
    if len(begin) <= 8 or begin[8:9] != b"{":
        return False
    return 2 <= _header_length(begin) <= _LARGEST_HEADER


def _header_length(data: bytes) -> int:
    (length,) = struct.unpack("<Q", data[:8])
    return int(length)


def _read_safetensors(
    handle: BufferedReader, file: Path
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors of a safetensors file, and its metadata."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = handle.read()
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + _header_length(data)])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"'{file}' is not a whole safetensors file ({one_line(error)}): get it "
            "again"
        ) from None
    return tensors, header.get("__metadata__") or {}
