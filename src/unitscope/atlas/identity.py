"""Identity: the properties that two scans must share to be the same scan."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch

from unitscope.atlas.disk.manifest import identity_of
from unitscope.model import Classifier
from unitscope.tracing.arguments import tensors_in

_SHA256_DIGITS = 64


def fingerprint(model: Classifier) -> str:
    """A SHA-256 over the network's structure, all its weights, and its fixed inputs."""
    # A function in the structure is shown with its address, which changes in each run.
    structure = re.sub(r" at 0x[0-9a-fA-F]+", "", str(model.network))
    digest = hashlib.sha256(structure.encode())
    state = model.network.state_dict()
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        shape = tuple(tensor.shape)
        header = f"\n{name} {shape} {tensor.dtype}\n"
        digest.update(header.encode())
        digest.update(_bytes_of(tensor))
    for name, value in model.also.items():
        digest.update(f"\nalso {name} {value}\n".encode())
        # The text of a large tensor leaves numbers out.
        for tensor in tensors_in(value):
            digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    on_processor = tensor.detach().cpu()
    flat = on_processor.contiguous().flatten()
    as_bytes = flat.view(torch.uint8)
    return as_bytes.numpy().data


def sha256_of(text: str) -> str:
    """A SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def difference(manifest: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """How the scan of a manifest differs from one with another identity.

    It is the first difference, in words; empty where there is none.
    """
    stored = identity_of(manifest)
    for name, now in identity.items():
        then = stored.get(name)
        if then != now:
            return _described(name, then, now)
    return ""


def _described(name: str, then: Any, now: Any) -> str:
    if name == "parameters":
        return _different_parameter(then, now)
    if isinstance(now, str) and len(now) == _SHA256_DIGITS:
        then_short = str(then)[:8]
        now_short = now[:8]
        return f"another {name} (fingerprint {then_short}, not {now_short})"
    return f"another {name} ({then}, not {now})"


def _different_parameter(
    then: Mapping[str, Any], now: Mapping[str, Any]
) -> str:
    for parameter, value in now.items():
        before = then.get(parameter)
        if before != value:
            return f"other parameters ({parameter} was {before}, not {value})"
    return "other parameters"
