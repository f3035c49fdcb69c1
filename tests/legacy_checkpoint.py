"""Writes checkpoints as PyTorch 0.2 under Python 2.7 did, which is how the Places365
files were made.

That is: torch's first format (pickles, then raw storages), protocol 2, every text a
byte string, no dtype or `requires_grad` with a tensor (`_rebuild_tensor`), CUDA
storages, and OrderedDict built from a list of pairs.
"""

from __future__ import annotations

import collections
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C


class Python2Pickler(pickle._Pickler):
    """Python's own pickler, in Python, writing what Python 2.7 wrote."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=2)
        self.storages: dict[str, Tensor] = {}

    def save_text(self, text: str) -> None:
        data = text.encode("latin-1")
        assert len(data) < 256
        written = pickle.SHORT_BINSTRING + bytes([len(data)]) + data
        self.write(written)  # type: ignore[attr-defined]
        self.memoize(text)  # type: ignore[attr-defined]

    dispatch[str] = save_text

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, collections.OrderedDict):
            return collections.OrderedDict, (
                [[key, item] for key, item in value.items()],
            )
        if isinstance(value, Tensor):
            return torch._utils._rebuild_tensor, (
                _Storage(value),
                0,
                tuple(value.shape),
                value.stride(),
            )
        return NotImplemented

    def persistent_id(self, value: object) -> Any:
        if not isinstance(value, _Storage):
            return None
        key = str(94_000_000 + len(self.storages))
        self.storages[key] = value.tensor
        return (
            "storage",
            torch.cuda.FloatStorage,
            key,
            "cuda:0",
            value.tensor.numel(),
            None,
        )


class _Storage:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def save_as_python2(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        sizes = {
            "protocol_version": 1001,
            "little_endian": True,
            "type_sizes": {"short": 2, "int": 4, "long": 4},
        }
        for part in (MAGIC, 1001, sizes):
            Python2Pickler(file).dump(part)
        pickler = Python2Pickler(file)
        pickler.dump(content)
        Python2Pickler(file).dump(list(pickler.storages))
        for tensor in pickler.storages.values():
            file.write(
                struct.pack("<q", tensor.numel())
                + tensor.contiguous().numpy().tobytes()
            )


def places365_checkpoint(
    state: Mapping[str, Tensor], arch: str
) -> dict[str, Any]:
    """What the Places365 authors' training script saved, from today's state dict of
    the same network."""
    old: collections.OrderedDict[str, Tensor] = collections.OrderedDict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        # The script wrapped all of a network in DataParallel, but only the features of
        # an AlexNet.
        wrapped = (
            name.replace("features.", "features.module.")
            if arch == "alexnet"
            else f"module.{name}"
        )
        old[wrapped] = tensor
    return {"epoch": 90, "arch": arch, "state_dict": old, "best_prec1": 54.65}
