"""Pickles: read with `weights_only=True`, or refused with the reason."""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from unitscope.errors import WeightsError

# Pickles of protocol 2 and later, and the zip archives that torch.save writes today.
_PICKLE_MAGICS = (b"\x80", b"PK\x03\x04")

# Ordinary checkpoints hold these objects beside the weights. They are never built: an
# inert stand-in takes their place.
_HARMLESS_GLOBALS = (
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

# Modules that malicious pickles call. This list only chooses the words of the refusal:
# torch refuses every global that it does not know.
_ATTACK_MODULES = frozenset(
    """
    os posix nt sys subprocess shutil socket runpy importlib ctypes pty code pip
    webbrowser urllib http requests operator functools types marshal pickle builtins
    __builtin__ commands platform threading multiprocessing asyncio tempfile io codecs
    """.split()
)

_LONGEST_REASON = 160


class _StandIn:
    """Replaces an object beside the weights, without running any of its code."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        """Accept whatever the real class would be built from."""
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read_pickle(handle: BufferedReader, begin: bytes, file: Path) -> Any:
    """Unpickle a file that torch.save wrote, onto the CPU, with `weights_only=True`.

    `begin` is the beginning of the file. Raises WeightsError for a file of another
    kind, a damaged one, and a pickle that asks for code to be run.
    """
    if not begin.startswith(_PICKLE_MAGICS):
        raise WeightsError(
            f"'{file}' is not a PyTorch or safetensors file: give weights saved with "
            "torch.save or safetensors"
        )
    try:
        return _unpickled(handle)
    except pickle.UnpicklingError as error:
        # torch.save writes pickles of protocol 2.
        if (
            begin.startswith(b"\x80")
            and begin[1] > 2
            and "GLOBAL" not in str(error)
        ):
            raise _not_of_torch(file) from None
        raise _refused(file, error) from None
    except (
        Exception
    ) as error:  # A damaged file makes torch raise almost anything.
        raise _unreadable(file, error) from None


def _unpickled(handle: BufferedReader) -> Any:
    try:
        return _torch_load(handle, "utf-8")
    except UnicodeDecodeError:
        # Python 2 pickled bytes as text; latin-1 takes every byte, and the names of
        # weights are ASCII anyway.
        handle.seek(0)
        return _torch_load(handle, "latin1")


def _torch_load(handle: BufferedReader, encoding: str) -> Any:
    with warnings.catch_warnings(), _stand_ins():
        # torch warns of pickle protocols other than 2 and of TypedStorage; either it
        # can read the file or it says so.
        warnings.simplefilter("ignore")
        return torch.load(
            handle, map_location="cpu", weights_only=True, encoding=encoding
        )


def _stand_ins() -> contextlib.AbstractContextManager[object]:
    version = re.findall(r"\d+", torch.__version__)[:2]
    if tuple(map(int, version)) < (2, 6):
        # These versions cannot map a name to a stand-in: such files are refused with a
        # reason.
        return contextlib.nullcontext()

    known = {
        entry[1]
        for entry in torch.serialization.get_safe_globals()
        if isinstance(entry, tuple)
    }
    missing = [name for name in _HARMLESS_GLOBALS if name not in known]
    return torch.serialization.safe_globals(
        [(_StandIn, name) for name in missing]
    )


def _refused(file: Path, error: Exception) -> WeightsError:
    text = str(error)
    match = re.search(r"GLOBAL ([\w.]+)", text)
    if match is not None:
        return _refused_global(file, match[1])

    if "Unsupported operand" not in text and "persistent" not in text:
        return _unreadable(file, error)
    return WeightsError(
        f"'{file}' is refused: it holds more than weights (pickles are only read with "
        f"weights_only=True, which found {_reason(text) or 'something else'}): save "
        "the network's state_dict() with torch.save or safetensors"
    )


def _refused_global(file: Path, name: str) -> WeightsError:
    """The error for a pickle that asks for the function or class of that name."""
    if name.split(".")[0] in _ATTACK_MODULES or "." not in name:
        return WeightsError(
            f"'{file}' is refused: it asks Python to run {name} while it is loaded, "
            "which weights never need and malicious files do (pickles are only read "
            "with weights_only=True): delete it, and get the weights from a source you "
            "trust"
        )
    if name.startswith("fastai."):
        return WeightsError(
            f"'{file}' is refused: it is a learner that fastai exported, whose code "
            "would have to be run: where you trust it, wrap its network, "
            "unitscope.wrap(fastai.vision.all.load_learner(FILE).model)"
        )
    return WeightsError(
        f"'{file}' is refused: it holds a pickled {name}, a whole network or other "
        "object whose code would have to be run (pickles are only read with "
        "weights_only=True): where you trust it, load it with PyTorch yourself and "
        "save network.state_dict() instead"
    )


def _unreadable(file: Path, error: Exception) -> WeightsError:
    text = str(error)
    if "TorchScript" in text:
        return WeightsError(
            f"'{file}' is a TorchScript archive, which holds code: load it with "
            "torch.jit.load where you trust it, and save its state_dict()"
        )
    if "legacy .tar" in text:
        return WeightsError(
            f"'{file}' was saved by a PyTorch before 0.1.10, which cannot be read "
            "safely: save it again"
        )
    if "Invalid magic number" in text:
        return _not_of_torch(file)
    return WeightsError(
        f"'{file}' is damaged or cut short ({_reason(text) or type(error).__name__}): "
        "get a whole copy of it"
    )


def _not_of_torch(file: Path) -> WeightsError:
    return WeightsError(
        f"'{file}' is a pickle that torch.save did not write: load it yourself and "
        "save its weights with torch.save"
    )


def _reason(text: str) -> str:
    """Find the cause within torch's many lines of advice."""
    match = re.search(r"WeightsUnpickler error: (.*)", text)
    cause = match[1] if match else text
    words = " ".join(cause.split())
    if len(words) <= _LONGEST_REASON:
        return words
    return words[:_LONGEST_REASON].rsplit(" ", 1)[0] + " …"
