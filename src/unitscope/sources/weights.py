"""Weights: reading the files people really have, safely, and fitting them to a network."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unitscope.errors import NonFiniteError, WeightsError, one_line
from unitscope.sources.downloads import looks_like_html

# Where training scripts put the weights in what they save, most explicit first.
_NESTS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model_dict",
    "model",
    "net_state_dict",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "parameters",
)
_AVERAGED = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "params_ema",
    "ema",
    "averaged_model",
    "shadow",
)
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|loss|criterion|amp|rng|args|config|hparam|hyper|callback|history",
    re.IGNORECASE,
)

# Segments that wrappers put into the names: DataParallel, torch.compile, Opacus, FSDP,
# activation checkpointing.
_WRAPPERS = frozenset(
    {
        "module",
        "_orig_mod",
        "_module",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
    }
)
# torchvision's DenseNet before 0.2.1 (April 2018) spelt denselayer1.norm.1, which is
# now denselayer1.norm1.
_OLD_DENSENET = re.compile(r"(.*\bdenselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")
# What the FLOP counter thop leaves in a state dict.
_COUNTERS = ("total_ops", "total_params")

# What lies beside the weights in ordinary checkpoints. It is never built: an inert
# stand-in takes its place.
_BESIDE = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "datetime.datetime",
    "datetime.date",
    "datetime.timedelta",
)

_ATTACKS = frozenset(
    """
    os posix nt sys subprocess shutil socket runpy importlib ctypes pty code pip webbrowser urllib http
    requests operator functools types marshal pickle builtins __builtin__ commands platform threading
    multiprocessing asyncio tempfile io codecs
    """.split()
)

_FOREIGN = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the weights themselves: run 'git lfs pull' where it "
        "came from",
    ),
    (b"\x89HDF", "an HDF5 file (Keras?): convert it to a PyTorch state_dict first"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"BZh", "compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed with xz: unpack it first"),
    (
        b"\x93NUMPY",
        "a NumPy array: save a state_dict with torch.save or safetensors instead",
    ),
    (b"GGUF", "a GGUF file: convert it to safetensors first"),
)


@dataclass(frozen=True, eq=False)
class Weights:
    """One weights file, read: tensors by name, in float32 where they are floating-point, and what is known of the file.

    `name` is the file's own name, without its folder; `sha256` that of its bytes;
    `notes` say what was converted; `metadata` holds a safetensors file's own strings;
    `architecture` is the name that the checkpoint gives its network, if any; `versions`
    are the modules' state-dict versions that torch.save stores along.
    """

    name: str
    state: Mapping[str, Tensor]
    sha256: str
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    architecture: str | None = None
    versions: Mapping[str, Any] | None = None


class _StandIn:
    """Takes the place of what lies beside the weights, without any of its code being run."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        """Accept whatever the real thing would be built from."""
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a weights file: a safetensors file, a state dict saved by torch.save, or a checkpoint that nests one.

    Pickles are only ever read with `weights_only=True`, onto the CPU; half and double
    precision become float32, with a note. Raises WeightsError for anything that is not
    a whole weights file, and for a pickle that wants code to be run.
    """
    file = Path(path)
    with _opened(file) as handle:
        begin = handle.read(1024)
        _refuse_foreign(begin, file)
        handle.seek(0)
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        handle.seek(0)
        metadata: Mapping[str, str] = {}
        if _is_safetensors(begin):
            loaded, metadata = _read_safetensors(handle, file)
        else:
            loaded = _read_pickle(handle, begin, file)
    state, notes = _find_state(loaded, file)
    state, converted = _converted(state, file)
    return Weights(
        name=file.name,
        state=state,
        sha256=sha256,
        notes=(*notes, *converted),
        metadata=metadata,
        architecture=_architecture(loaded),
        versions=getattr(
            _follow(loaded, _path_to_state(loaded) or ()), "_metadata", None
        ),
    )


def fit_weights(
    module: nn.Module, weights: Weights, spare: Sequence[str] = ()
) -> tuple[str, ...]:
    """Load the weights into `module`, every one of them, and return notes on what had to be repaired.

    The names are repaired only where that makes more of them fit: wrappers' segments
    (`module.`) and prefixes are taken off, DenseNet's old spelling is renewed, absent
    `num_batches_tracked` are filled in. Names that begin with one of `spare` are left
    out of the file's when the network has no such part. Raises WeightsError, with the
    names that differ, when the weights do not fit, and NonFiniteError when they hold
    NaN or infinite numbers.
    """
    own = module.state_dict()
    names, notes = match_names(own, weights.state)
    names = {
        name: old
        for name, old in names.items()
        if name in own or not _is_spare(name, spare)
    }
    state = {name: weights.state[old] for name, old in names.items()}
    absent_counts = [
        name
        for name in own
        if name not in state and name.endswith("num_batches_tracked")
    ]
    if absent_counts and len(absent_counts) < len(own):
        state.update({name: own[name] for name in absent_counts})
        notes = (
            *notes,
            f"{weights.name} has no num_batches_tracked (PyTorch before 0.4.1), which "
            "inference does not use",
        )
    misfit = _misfit(
        own, state, weights, type(module).__name__, filled=len(absent_counts)
    )
    if misfit and not _fits_by_itself(module, weights):
        raise WeightsError(misfit)
    if not misfit:
        _load(
            module,
            own,
            state,
            weights,
            renamed=any(name != old for name, old in names.items()),
        )
    _refuse_non_finite(module, weights.name)
    return notes


def match_names(
    own: Iterable[str], state: Iterable[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Find which name in the file gives which name in the network: {network's or unknown name: file's name}, and notes.

    A renaming is adopted only when strictly more of the network's names are found by
    it.
    """
    wanted = set(own)
    names = {name: name for name in state}
    notes: list[str] = []

    def adopt(renamed: Mapping[str, str], whole: bool, note: str) -> None:
        nonlocal names
        better = len(wanted & renamed.keys()) > len(wanted & names.keys())
        if better and (not whole or len(renamed) == len(names)):
            left = len(names) - len(renamed)
            names = dict(renamed)
            notes.append(
                note + (f", {left} tensors outside it left aside" if left else "")
            )

    if not any(map(_OLD_DENSENET.fullmatch, wanted)) and any(
        map(_OLD_DENSENET.fullmatch, names)
    ):
        # By itself this may make nothing fit yet: a prefix may stand before it.
        names = {_OLD_DENSENET.sub(r"\1\2", name): old for name, old in names.items()}
        notes.append("DenseNet's old spelling of names (norm.1) renewed")
    unwrapped = {_unwrapped(name): old for name, old in names.items()}
    adopt(unwrapped, True, "wrappers' segments ('module.') taken off the names")
    for prefix in _prefixes(wanted, names):
        within = {
            name.removeprefix(prefix): old
            for name, old in names.items()
            if name.startswith(prefix)
        }
        kept = {
            name: old
            for name, old in names.items()
            if name in wanted and not name.startswith(prefix)
        }
        adopt({**kept, **within}, False, f"prefix '{prefix}' taken off the names")
    shared = _shared_prefix(wanted)
    if shared:
        adopt(
            {shared + name: old for name, old in names.items()},
            True,
            f"prefix '{shared}' put before the names",
        )
    return {
        name: old
        for name, old in names.items()
        if name in wanted or not name.endswith(_COUNTERS)
    }, tuple(notes)


def infer_class_count(
    build: Callable[[int], nn.Module], weights: Weights
) -> int | None:
    """Say how many classes the weights were trained for: the size of whatever grows with the number of classes.

    `build` makes the network for a number of classes; it is called twice, if possible
    without memory for the weights. None when the network does not tell.
    """
    for device in ("meta", "cpu"):
        # Some networks (RegNet) read numbers off tensors while they are built, which
        # "meta" tensors do not hold.
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                two, three = (_shapes(build(count)) for count in (2, 3))
            break
        except Exception:  # The builder may be anybody's; where it cannot be asked, nothing is inferred.
            two, three = {}, {}
    names, _ = match_names(two, weights.state)
    counts = set()
    for name, shape in two.items():
        grown = three.get(name, ())
        growing = [
            axis
            for axis, sides in enumerate(zip(shape, grown, strict=False))
            if sides == (2, 3)
        ]
        if len(grown) == len(shape) and growing and name in names:
            found = weights.state[names[name]].shape
            counts.add(found[growing[0]] if len(found) == len(shape) else None)
    return counts.pop() if len(counts) == 1 else None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    try:
        if file.is_dir():
            inside = sorted(
                entry.name
                for entry in file.iterdir()
                if entry.suffix in (".pth", ".pt", ".safetensors", ".tar")
            )
            hint = f", e.g. {file.name}/{inside[0]}" if inside else ""
            raise WeightsError(
                f"'{file}' is a folder: name the weights file in it{hint}"
            )
        handle = file.open("rb")
    except WeightsError:
        raise
    except FileNotFoundError:
        raise WeightsError(
            f"there is no weights file '{file}': check the path (looked in "
            f"{Path.cwd()})"
        ) from None
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the weights file '{file}' cannot be read ({error}): check the path and "
            "its permissions"
        ) from None
    with handle:
        yield handle


def _refuse_foreign(begin: bytes, file: Path) -> None:
    if not begin:
        raise WeightsError(f"the weights file '{file}' is empty: get it again")
    if looks_like_html(begin):
        raise WeightsError(
            f"'{file}' is a web page, not weights: open the link in a browser and "
            "download the file itself"
        )
    for magic, what in _FOREIGN:
        if begin.startswith(magic):
            raise WeightsError(f"'{file}' is {what}")
    if begin[257:262] == b"ustar":
        raise WeightsError(
            f"'{file}' is a tar archive: unpack it and name the weights in it (PyTorch "
            "before 0.1.10 saved weights as "
            "tar, which cannot be read safely: save them again with a newer PyTorch)"
        )


def _is_safetensors(begin: bytes) -> bool:
    return (
        len(begin) > 8
        and begin[8:9] == b"{"
        and 2 <= struct.unpack("<Q", begin[:8])[0] <= 100_000_000
    )


def _read_safetensors(
    handle: BufferedReader, file: Path
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = handle.read()
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"'{file}' is not a whole safetensors file ({one_line(error)}): get it "
            "again"
        ) from None
    return tensors, header.get("__metadata__") or {}


def _read_pickle(handle: BufferedReader, begin: bytes, file: Path) -> Any:
    if not begin.startswith((b"\x80", b"PK\x03\x04")):
        raise WeightsError(
            f"'{file}' is not a PyTorch or safetensors file: give weights saved with "
            "torch.save or safetensors"
        )
    try:
        try:
            return _torch_load(handle, "utf-8")
        except UnicodeDecodeError:
            # Python 2 pickled bytes as text; latin-1 takes every byte, and the names of
            # weights are ASCII anyway.
            handle.seek(0)
            return _torch_load(handle, "latin1")
    except pickle.UnpicklingError as error:
        raise _refused(file, error) from None
    except Exception as error:  # A damaged file makes torch raise almost anything.
        raise _unreadable(file, error) from None


def _torch_load(handle: BufferedReader, encoding: str) -> Any:
    with warnings.catch_warnings(), _stand_ins():
        # torch warns of pickle protocols other than 2 and of TypedStorage; either it
        # can read the file or it says so.
        warnings.simplefilter("ignore")
        return torch.load(
            handle, map_location="cpu", weights_only=True, encoding=encoding
        )


def _stand_ins() -> contextlib.AbstractContextManager[object]:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < (2, 6):
        return contextlib.nullcontext()  # Names cannot be given to stand-ins yet: such files are refused with a reason.
    known = {
        entry[1]
        for entry in torch.serialization.get_safe_globals()
        if isinstance(entry, tuple)
    }
    return torch.serialization.safe_globals(
        [(_StandIn, name) for name in _BESIDE if name not in known]
    )


def _refused(file: Path, error: Exception) -> WeightsError:
    text = str(error)
    wanted = re.search(r"GLOBAL ([\w.]+)", text)
    if wanted is None:
        if "Unsupported operand" in text or "persistent" in text:
            return WeightsError(
                f"'{file}' is refused: it holds more than weights (pickles are only "
                "read with weights_only=True, which "
                f"found {_reason(text) or 'something else'}): save the network's "
                "state_dict() with torch.save or "
                "safetensors"
            )
        return _unreadable(file, error)
    name = wanted[1]
    if name.split(".")[0] in _ATTACKS or "." not in name:
        return WeightsError(
            f"'{file}' is refused: it asks Python to run {name} while it is loaded, "
            "which weights never need and "
            "malicious files do (pickles are only read with weights_only=True): delete "
            "it, and get the weights from a "
            "source you trust"
        )
    return WeightsError(
        f"'{file}' is refused: it holds a pickled {name}, a whole network or other "
        "object whose code would have to be "
        "run (pickles are only read with weights_only=True): where you trust it, load "
        "it with PyTorch yourself and "
        "save network.state_dict() instead"
    )


def _unreadable(file: Path, error: Exception) -> WeightsError:
    text = str(error)
    if "TorchScript" in text:
        return WeightsError(
            f"'{file}' is a TorchScript archive, which holds code: load it with "
            "torch.jit.load where you trust it, and "
            "save its state_dict()"
        )
    if "legacy .tar" in text:
        return WeightsError(
            f"'{file}' was saved by a PyTorch before 0.1.10, which cannot be read "
            "safely: save it again"
        )
    if "Invalid magic number" in text:
        return WeightsError(
            f"'{file}' is a pickle that torch.save did not write: load it yourself and "
            "save its weights with torch.save"
        )
    return WeightsError(
        f"'{file}' is damaged or cut short ({_reason(text) or type(error).__name__}): "
        "get a whole copy of it"
    )


def _reason(text: str) -> str:
    """Find the cause within torch's many lines of advice."""
    found = re.search(r"WeightsUnpickler error: (.*)", text)
    words = " ".join((found[1] if found else text).split())
    return words if len(words) <= 160 else words[:160].rsplit(" ", 1)[0] + " …"


def _find_state(
    loaded: Any, file: Path
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    where = _path_to_state(loaded)
    if where is None:
        raise WeightsError(
            f"'{file}' holds {_contents(loaded)} and no weights: save the network's "
            "state_dict()"
        )
    state = _follow(loaded, where)
    notes: list[str] = []
    if any(step in _AVERAGED for step in where):
        notes.append(
            f"the averaged weights '{'.'.join(where)}' were used: {file.name} holds no "
            "others"
        )
    elif isinstance(loaded, Mapping) and (
        beside := [
            name for name in _AVERAGED if _path_to_state(loaded.get(name)) is not None
        ]
    ):
        notes.append(
            f"{file.name} also holds averaged weights ('{beside[0]}'), which were not "
            "used"
        )
    return {
        name: value for name, value in state.items() if isinstance(value, Tensor)
    }, tuple(notes)


def _path_to_state(loaded: Any, depth: int = 0) -> tuple[str, ...] | None:
    """Say through which keys the weights are reached, or None where there are none."""
    if not isinstance(loaded, Mapping) or depth > 4:
        return None
    inner = [
        name
        for name, value in loaded.items()
        if isinstance(name, str) and isinstance(value, Mapping)
    ]
    averaged = [name for name in inner if name in _AVERAGED]
    others = [
        name
        for name in inner
        if name not in _NESTS + _AVERAGED and not _NOT_WEIGHTS.search(name)
    ]
    for name in sorted((name for name in inner if name in _NESTS), key=_NESTS.index):
        if (rest := _path_to_state(loaded[name], depth + 1)) is not None:
            return (name, *rest)
    tensors = [
        name
        for name, value in loaded.items()
        if isinstance(value, Tensor) and isinstance(name, str)
    ]
    if tensors and (not inner or any("." in name for name in tensors)):
        return ()
    for name in averaged + others:
        if (rest := _path_to_state(loaded[name], depth + 1)) is not None:
            return (name, *rest)
    return None


def _follow(loaded: Any, where: Sequence[str]) -> Any:
    for step in where:
        loaded = loaded[step]
    return loaded


def _contents(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return f"a {type(loaded).__name__}"
    if not loaded:
        return "an empty dictionary"
    names = [str(name)[:40] for name in loaded]
    return (
        f"{', '.join(repr(name) for name in names[:6])}{' …' if len(names) > 6 else ''}"
    )


def _architecture(loaded: Any) -> str | None:
    if not isinstance(loaded, Mapping):
        return None
    found = (
        loaded.get(name)
        for name in ("arch", "model_arch", "architecture", "model_name")
    )
    return next(
        (
            name
            for name in found
            if isinstance(name, str) and re.fullmatch(r"[\w.\-]{1,60}", name)
        ),
        None,
    )


def _converted(
    state: Mapping[str, Tensor], file: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    converted: dict[str, Tensor] = {}
    kinds: dict[str, int] = {}
    for name, tensor in state.items():
        value = tensor.detach()
        if value.is_quantized:
            raise WeightsError(
                f"'{file}' holds quantized weights ({name}): dequantize them, or use "
                "the float checkpoint"
            )
        if value.is_meta:
            raise WeightsError(
                f"'{file}' holds names and shapes without values ({name}): save the "
                "weights themselves"
            )
        if value.layout != torch.strided:
            value = value.to_dense()
        if value.is_floating_point() and value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            kinds[kind] = kinds.get(kind, 0) + 1
            value = value.to(torch.float32)
        converted[name] = value
    notes = tuple(
        f"{count} tensors of {file.name} converted from {kind} to float32"
        for kind, count in kinds.items()
    )
    return converted, notes


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(wanted: Iterable[str], names: Iterable[str]) -> list[str]:
    """Prefixes under which the file has names of the network, the most successful first."""
    probes = sorted(wanted)
    probes = probes[:: max(1, len(probes) // 8)]
    held = list(names)
    counts: dict[str, int] = {}
    for probe in probes:
        for name in held:
            if name.endswith("." + probe):
                prefix = name[: -len(probe)]
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix))


def _shared_prefix(wanted: Iterable[str]) -> str:
    first = {name.split(".")[0] for name in wanted if "." in name}
    return f"{first.pop()}." if len(first) == 1 else ""


def _is_spare(name: str, spare: Sequence[str]) -> bool:
    return name.startswith(tuple(spare)) if spare else False


def _misfit(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    weights: Weights,
    network: str,
    filled: int,
) -> str:
    """One line on what does not fit, or "" when everything does."""
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    other = [
        name
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if not (missing or unexpected or other):
        return ""
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"
        for names, what in (
            (missing, "missing from the file"),
            (unexpected, "unknown to the network"),
        )
        if names
    ]
    if other:
        shown = [
            f"{name} is {_sides(state[name])} in the file, {_sides(own[name])} in the "
            "network"
            for name in other[:3]
        ]
        parts.append(
            f"{len(other)} of another shape "
            f"({'; '.join(shown)}{' …' if len(other) > 3 else ''})"
        )
    held = len(own) - filled
    fitting = held - len(missing) - len(other)
    remedy = "name the architecture that these weights were trained with"
    counts = {state[name].shape[0] for name in other if state[name].ndim}
    ending = [state[name].shape[1:] == own[name].shape[1:] for name in other]
    if not missing and not unexpected and len(counts) == 1 and all(ending):
        remedy = f"the file looks like one for {counts.pop()} classes, so pass that as num_classes"
    elif weights.architecture:
        remedy += f" (the file says '{weights.architecture}')"
    return f"'{weights.name}' does not fit {network}: {', '.join(parts)}; {fitting} of {held} tensors fit: {remedy}"


def _fits_by_itself(module: nn.Module, weights: Weights) -> bool:
    """Whether the network's own loading hooks know the file's names, as torchvision's ViT knows its older ones."""
    try:
        _load(module, {}, dict(weights.state), weights, renamed=False)
    except (WeightsError, ValueError):
        return False
    return True


def _load(
    module: nn.Module,
    own: Mapping[str, Tensor],
    state: dict[str, Tensor],
    weights: Weights,
    renamed: bool,
) -> None:
    ordered: OrderedDict[str, Tensor] = OrderedDict(state)
    # Some modules (MNASNet) refuse a state dict without versions, and the file's
    # versions go with the file's names.
    versions = (
        weights.versions
        if weights.versions and not renamed
        else getattr(own, "_metadata", None)
    )
    if versions:
        ordered._metadata = versions  # type: ignore[attr-defined]
    try:
        module.load_state_dict(ordered, strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"'{weights.name}' does not fit {type(module).__name__} "
            f"({one_line(error)}): name the architecture that "
            "these weights were trained with"
        ) from None


def _refuse_non_finite(module: nn.Module, file: str) -> None:
    tensors = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }
    bad = {
        name: int((~tensor.isfinite()).sum())
        for name, tensor in tensors.items()
        if not bool(tensor.isfinite().all())
    }
    if bad:
        shown = ", ".join(
            f"{name}: {count} of {tensors[name].numel()}"
            for name, count in list(bad.items())[:3]
        )
        raise NonFiniteError(
            f"'{file}' holds NaN or infinite numbers in {len(bad)} of {len(tensors)} "
            f"tensors ({shown}"
            f"{' …' if len(bad) > 3 else ''}): training diverged or the file is "
            "damaged; use an earlier checkpoint"
        )


def _sides(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
