"""Names of weights: which name in a file is which name in a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice

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
_OLD_DENSENET = re.compile(
    r"(.*\bdenselayer\d+\.(?:norm|relu|conv))\.([12]\..+)"
)
AVERAGED = re.compile(r"(^|[._])(ema|averag|swa|shadow|teacher)", re.IGNORECASE)
"""Where a key or prefix says that the weights are averages over the training."""
COUNTS = "num_batches_tracked"
"""The ending of batch normalisations' counters, which inference does not use."""

# What the FLOP counter thop leaves in a state dict.
_COUNTERS = ("total_ops", "total_params")

# How many names are looked for in a file to find its prefixes.
_PROBES = 8
_MOST_SHOWN = 3


def match_names(
    own: Iterable[str], state: Iterable[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Match the names in a file with those of a network: {new name: file's name}.

    `own` are the network's names and `state` the file's. A new name is one of the
    network's, or is unknown to it. A renaming is adopted only when strictly more of the
    network's names are found by it; the notes say which were.
    """
    renaming = _Renaming(own, state)
    renaming.renew_densenet()
    renaming.unwrap()
    renaming.remove_prefixes()
    renaming.add_prefix()
    return renaming.without_counters(), tuple(renaming.notes)


def other_sets(
    own: Iterable[str], names: Mapping[str, str], state: Iterable[str]
) -> list[str]:
    """The prefixes of whole sets of weights in a file that `names` did not choose.

    `names` are {network's name: file's name}, `state` all names in the file.
    """
    wanted = {name for name in own if not name.endswith(COUNTS)}
    file_names = set(state)
    chosen = {names.get(name) for name in wanted}
    others = []
    for prefix in ["", *_prefixes(wanted, file_names)]:
        whole = {prefix + name for name in wanted}
        if whole <= file_names and whole.isdisjoint(chosen):
            others.append(prefix)
    return others


def shown(names: Collection[str], separator: str = ", ") -> str:
    """The first names of some, for a message."""
    first = list(islice(names, _MOST_SHOWN))
    more = " …" if len(names) > _MOST_SHOWN else ""
    return separator.join(first) + more


class _Renaming:
    """The names of a file while one repair after another is tried on them.

    `wanted` are the network's names; `names` maps each new name to the file's name.
    """

    def __init__(self, own: Iterable[str], state: Iterable[str]) -> None:
        self.wanted = set(own)
        self.names = {name: name for name in state}
        self.notes: list[str] = []

    def renew_densenet(self) -> None:
        """Renew DenseNet's old spelling where the file has it and the network not."""
        if _has_old_spelling(self.wanted) or not _has_old_spelling(self.names):
            return

        # By itself this may make nothing fit yet: a prefix may stand before it.
        self.names = self._renamed(_renewed)
        self.notes.append("DenseNet's old spelling of names (norm.1) renewed")

    def unwrap(self) -> None:
        """Take the segments of wrappers off the names."""
        bare = self._renamed(unwrapped)
        if len(bare) == len(self.names):
            self._adopt(
                bare, "wrappers' segments ('module.') taken off the names"
            )

    def remove_prefixes(self) -> None:
        """Take off the prefixes under which the file has names of the network."""
        for prefix in _prefixes(self.wanted, self.names):
            self._adopt(
                self._without_prefix(prefix),
                f"prefix '{prefix}' taken off the names",
            )

    def add_prefix(self) -> None:
        """Put the network's one common prefix before the names."""
        prefix = _shared_prefix(self.wanted)
        if not prefix:
            return
        prefixed = self._renamed(prefix.__add__)
        self._adopt(prefixed, f"prefix '{prefix}' put before the names")

    def without_counters(self) -> dict[str, str]:
        """The names without the counters that are unknown to the network."""
        names = {}
        for name, old in self.names.items():
            if name in self.wanted or not name.endswith(_COUNTERS):
                names[name] = old
        return names

    def _renamed(self, rename: Callable[[str], str]) -> dict[str, str]:
        renamed = {}
        for name, old in self.names.items():
            renamed[rename(name)] = old
        return renamed

    def _without_prefix(self, prefix: str) -> dict[str, str]:
        """The names that the network has already, and those behind the prefix."""
        matched = {}
        inside = {}
        for name, old in self.names.items():
            if name.startswith(prefix):
                inside[name.removeprefix(prefix)] = old
            elif name in self.wanted:
                matched[name] = old
        return matched | inside

    def _adopt(self, renamed: Mapping[str, str], note: str) -> None:
        """Adopt a renaming if more of the network's names are found by it."""
        matches_before = len(self.wanted & self.names.keys())
        matches = len(self.wanted & renamed.keys())
        if matches <= matches_before:
            return

        left_out = len(self.names) - len(renamed)
        if left_out:
            kept = set(renamed.values())
            outside = [old for old in self.names.values() if old not in kept]
            note += (
                f", {left_out} tensors outside it left aside ({shown(outside)})"
            )
        self.names = dict(renamed)
        self.notes.append(note)


def _has_old_spelling(names: Iterable[str]) -> bool:
    return any(map(_OLD_DENSENET.fullmatch, names))


def _renewed(name: str) -> str:
    return _OLD_DENSENET.sub(r"\1\2", name)


def unwrapped(name: str) -> str:
    """A name without the segments that wrappers put into it."""
    parts = name.split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS)


def _prefixes(wanted: Iterable[str], names: Iterable[str]) -> list[str]:
    """Prefixes before the network's names in the file, the most frequent first."""
    ordered = sorted(wanted)
    probes = ordered[:: max(1, len(ordered) // _PROBES)]
    file_names = list(names)

    counts: Counter[str] = Counter()
    for probe in probes:
        for name in file_names:
            if name.endswith("." + probe):
                prefix = name.removesuffix(probe)
                counts[prefix] += 1

    def rank(prefix: str) -> tuple[int, bool, int, str]:
        averaged = bool(AVERAGED.search(prefix))
        return -counts[prefix], averaged, len(prefix), prefix

    return sorted(counts, key=rank)


def _shared_prefix(wanted: Iterable[str]) -> str:
    """The first segment of the network's names where all have the same, or ""."""
    first = {name.split(".")[0] for name in wanted if "." in name}
    if len(first) != 1:
        return ""
    return f"{first.pop()}."
