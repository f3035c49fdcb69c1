"""Output choice: which of the tensors that a network gives holds the logits.

Numbers decide, of one photo and of two: a row for each photo, softmax, order. What they
do not decide is asked.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.errors import ModelError, near_matches, warn_user
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    CARRIERS,
    CELLWISE,
    EXTREMES,
    INDEX_SORTS,
    SORTS,
    TAKINGS,
)
from unitscope.tracing.output_words import (
    described,
    in_place_of_logits,
    nothing,
)
from unitscope.tracing.outputs import (
    Leaf,
    OutputChoice,
    is_table,
    leaves_of,
    tensors_of,
)

OutputName: TypeAlias = str | int

# How far softmax of the logits may be from the probabilities, relative to their spread.
_SAME = 1e-3

# So many columns are in order by chance for one network in 40,000.
_MANY_COLUMNS = 8

# The least change of the steps between columns, in steps, for ranks.
_VARYING = 0.5


class Given(NamedTuple):
    """What a network gave for one photo, and for two; None where it takes no two.

    `makers` are the calls that made the tensors for one photo, by path.
    """

    one: Any
    two: Any
    makers: Mapping[str, Call]


def choose_output(
    given: Given, wanted: OutputName | None = None, labels: int | None = None
) -> OutputChoice:
    """The choice of the tensor that holds the logits.

    The user's (`wanted`, a name or an index) where there is one. Else the only tensor;
    the one called `logits`; the only one with a column for each of so many `labels`; or
    the one whose softmax, log-softmax or sigmoid is another one.

    Raises ModelError, with all tensors and their shapes, where none can be told to be the
    logits, or where the chosen one is none.
    """
    outputs = _Outputs(given)
    if wanted is not None:
        path = outputs.named(wanted)
        outputs.check_table(path)
        if outputs.is_sorted(path):
            warn_user(
                f"output {path!r} has its numbers in order of size on every photo, as "
                "topk and sort give: its columns are ranks, not classes"
            )
        return OutputChoice(path, outputs.among(), is_wanted=True)

    found = outputs.obvious()
    if found is None:
        found = outputs.by_labels(labels) or outputs.by_proof(labels)
    if found is None:
        raise outputs.undecided(labels)
    outputs.check_table(found)
    outputs.check_unsorted(found)
    return OutputChoice(found, outputs.among())


class _Outputs:
    """The tensors in a network's result, as far as they may be logits.

    `tables` are those with one row for each photo, (photo, column), by path.
    """

    def __init__(self, given: Given) -> None:
        self._given = given
        one = {leaf.path: leaf.tensor for leaf in leaves_of(given.one)}
        self._batch = 1 if given.two is None else 2
        self._widest = given.one if given.two is None else given.two
        self._leaves = leaves_of(self._widest)
        self._paths = tuple(one)
        self._grows = set(one) != {leaf.path for leaf in self._leaves}
        self.tables = {
            leaf.path: leaf.tensor.detach().reshape(self._batch, -1)
            for leaf in self._leaves
            if leaf.path in one and self._is_table(leaf.tensor, one[leaf.path])
        }

    def among(self) -> tuple[str, ...]:
        """The paths of all tensors; none where they depend on the number of photos."""
        return () if self._grows else self._paths

    def _is_table(self, tensor: Tensor, alone: Tensor) -> bool:
        if not is_table(tensor, self._batch) or not is_table(alone, 1):
            return False
        return tensor.numel() == self._batch * alone.numel()

    def named(self, wanted: OutputName) -> str:
        """The path of the tensor that the user names; ModelError where there is none."""
        exact = [leaf for leaf in self._leaves if leaf.path == str(wanted)]
        if not exact and isinstance(wanted, str):
            exact = [
                leaf for leaf in self._leaves if leaf.keys[-1:] == (wanted,)
            ]
        if len(exact) == 1:
            return exact[0].path

        index = _number(wanted)
        if index is not None and -len(self._leaves) <= index < len(
            self._leaves
        ):
            return self._leaves[index].path
        if not self._leaves:
            raise nothing(self._widest)
        several = f"are {len(exact)} outputs" if exact else "is no output"
        near = near_matches(str(wanted), [leaf.path for leaf in self._leaves])
        raise ModelError(
            f"there {several} called {wanted!r}{near}: the network gives "
            f"{self._listing()}"
        )

    def obvious(self) -> str | None:
        """The only tensor with more than a lone number, or the one called `logits`."""
        if not self._leaves:
            raise nothing(self._widest)
        leaves = [leaf for leaf in self._leaves if leaf.tensor.ndim]
        if len(leaves) == 1:
            return leaves[0].path

        called = [
            leaf for leaf in self._leaves if leaf.keys[-1:] == ("logits",)
        ]
        depth = min((len(leaf.keys) for leaf in called), default=0)
        outermost = [leaf for leaf in called if len(leaf.keys) == depth]
        if len(outermost) == 1 and not self._has_rival(outermost[0]):
            return outermost[0].path
        # The same numbers under several names.
        if len(self.tables) == len(self._leaves):
            return _one_of(self.tables)
        return None

    def _has_rival(self, logits: Leaf) -> bool:
        """Whether a table further out has as many columns as logits further in.

        Those may be of a teacher or an auxiliary network.
        """
        return any(
            len(leaf.keys) < len(logits.keys)
            and leaf.path in self.tables
            and leaf.tensor.shape == logits.tensor.shape
            for leaf in self._leaves
        )

    def by_labels(self, labels: int | None) -> str | None:
        """The only table with a column for each label."""
        return _one_of(self._fitting(labels)) if labels else None

    def by_proof(self, labels: int | None) -> str | None:
        """The table whose softmax, log-softmax or sigmoid is another one."""
        tables = self._fitting(labels) or self.tables
        pairs = [
            (logits, other)
            for logits in tables
            for other in tables
            if other != logits and _are_scores(tables[other], tables[logits])
        ]
        # Log-probabilities are logits of the probabilities, but not the first ones.
        scores = {other for _, other in pairs}
        proved = {
            logits: tables[logits]
            for logits, other in pairs
            if logits not in scores and not self._is_gate(logits, other)
        }
        return _one_of(proved)

    def _is_gate(self, logits: str, scores: str) -> bool:
        """Whether logits and their scores weigh something of which another table is made.

        So do the routers of experts, and the weights of attention.
        """
        makers = self._given.makers
        parts = [makers[path] for path in (logits, scores) if path in makers]
        others = [makers[path] for path in self.tables if path in makers]
        return any(
            _is_part_of(other, parts)
            for other in others
            if not any(other is part for part in parts)
        )

    def _fitting(self, labels: int | None) -> dict[str, Tensor]:
        """The tables with a column for each label; one column may stand for two."""
        fitting: dict[str, Tensor] = {}
        for columns in (labels, 1 if labels == 2 else None):
            fitting = fitting or {
                path: table
                for path, table in self.tables.items()
                if table.shape[1] == columns
            }
        return fitting

    def check_table(self, path: str) -> None:
        """Raise ModelError, in fitting words, where a tensor has no row for each photo."""
        if path not in self.tables:
            raise self._unfit(path)

    def check_unsorted(self, path: str) -> None:
        """Raise ModelError where the columns are ranks, as topk and sort give them."""
        if self.is_sorted(path):
            what = f"output {path!r}" if path else "the output"
            raise ModelError(
                f"{what} of the network has its numbers in order of size on every "
                "photo, as topk and sort give: its columns are ranks, not classes; "
                "wrap a module that gives the logits before they are sorted; if they "
                "are classes all the same, say so with output="
                f"{path or 0!r} (--output {shlex.quote(path or '0')})"
            )

    def is_sorted(self, path: str) -> bool:
        """Whether a table's columns are in order of size, and not by chance.

        Few columns may be: then the trace must show a sort, or the indices beside them.
        """
        table = self.tables[path].float()
        columns = table.shape[1]
        steps = table.diff(dim=1)
        if not bool((steps <= 0).all() or (steps >= 0).all()):
            return False

        maker = self._given.makers.get(path)
        if columns == 1:
            is_largest = _is_made_by(maker, SORTS | EXTREMES)
            return is_largest and bool(self._integers_like(path))
        if _is_made_by(maker, SORTS) or self._has_ranks_like(path):
            return True
        # Thresholds of one number, as in ordinal regression, and classes that lean on
        # their biases are in order too, with the same steps for every photo.
        changes = (steps[1:] - steps[:1]).abs().mean()
        vary = bool(changes > _VARYING * steps.abs().mean())
        return columns >= _MANY_COLUMNS and vary

    def _has_ranks_like(self, path: str) -> bool:
        """Whether there are indices of the columns beside a table."""
        columns = self.tables[path].shape[1]
        for indices in self._integers_like(path):
            in_order = indices.reshape(self._batch, -1).sort(dim=1).values
            are_distinct = bool((in_order.diff(dim=1) > 0).all())
            # Two predictions of 0 and 1 are no indices.
            if are_distinct and (columns > 2 or int(in_order.max()) >= columns):
                return True
        return False

    def _integers_like(self, path: str) -> list[Tensor]:
        everything = {
            leaf.path: leaf.tensor for leaf in tensors_of(self._widest)
        }
        shape = everything[path].shape
        return [
            tensor
            for tensor in everything.values()
            if tensor.dtype is torch.int64 and tensor.shape == shape
        ]

    def undecided(self, labels: int | None) -> ModelError:
        """The error where several tensors may be the logits, or none may."""
        if not self.tables:
            return self._unfit(self._leaves[0].path)
        known = f" and {labels} labels were given" if labels else ""
        listing = self._listing()
        return ModelError(
            f"the network gives {len(self._leaves)} outputs, {listing}{known}: which of "
            f"them are the logits is not clear; {self._ask()}, or wrap a module that "
            "gives logits alone"
        )

    def _unfit(self, path: str) -> ModelError:
        if self._grows:
            return ModelError(
                f"the network gave {self._listing()} for {self._batch} photos, and "
                f"{len(self._paths)} for one: a list with an entry for each photo, as a "
                "detector gives, is not logits (batch, class); wrap a module that "
                "classifies images"
            )
        leaf = next(leaf for leaf in self._leaves if leaf.path == path)
        what, remedy = in_place_of_logits(leaf.tensor.shape, self._batch)
        name = f" {path!r}" if path else ""
        if self.tables:
            remedy = f"of {self._listing()} {self._ask()}"
        return ModelError(
            f"the network gave a tensor{name} of shape {tuple(leaf.tensor.shape)} for a "
            f"batch of {self._batch}, not logits (batch, class): {what}; {remedy}"
        )

    def _listing(self) -> str:
        """All tensors with their shapes, in words."""
        words = [described(leaf, self._batch) for leaf in self._leaves]
        return ", ".join(words)

    def _ask(self) -> str:
        name = next(reversed(self.tables))
        return (
            f'choose one with output="{name}" (command line: --output '
            f"{shlex.quote(name)})"
        )


def _number(wanted: OutputName) -> int | None:
    if isinstance(wanted, bool):
        return None
    try:
        return int(wanted)
    except ValueError:
        return None


def _one_of(tables: Mapping[str, Tensor]) -> str | None:
    """The path of the only table, or of several that hold the same numbers."""
    paths = list(tables)
    if not paths:
        return None
    first = tables[paths[0]]
    is_one = all(torch.equal(first, tables[path]) for path in paths)
    return paths[0] if is_one else None


def _are_scores(
    scores: Float[Tensor, "photo class"], logits: Float[Tensor, "photo class2"]
) -> bool:
    """Whether scores are the softmax, log-softmax or sigmoid of logits."""
    if scores.shape != logits.shape:
        return False
    logits = logits.float()
    made = [logits.sigmoid()]
    if logits.shape[1] > 1:
        made += [logits.softmax(dim=1), logits.log_softmax(dim=1)]
    return any(_are_same(scores, each) for each in made)


def _are_same(first: Tensor, second: Tensor) -> bool:
    """Whether numbers agree by far more than they differ among themselves.

    Small probabilities of many classes are all alike.
    """
    tolerance = max(_SAME, 8 * torch.finfo(first.dtype).eps)
    first, second = first.float(), second.float()
    spread = float((second - second.mean()).abs().max())
    difference = float((first - second).abs().max())
    return spread > 0 and difference <= tolerance * spread


def _is_made_by(call: Call | None, names: frozenset[str]) -> bool:
    """Whether one of these functions chose the numbers, whatever was computed of each.

    Indices that such a function gave may also have been used to take them.
    """
    while call is not None and call.inputs:
        if call.name in names:
            return True
        if call.name in TAKINGS:
            others = {before.name for before in call.inputs[1:]}
            return bool(others & (names | INDEX_SORTS))
        before = call.inputs[0]
        is_numberwise = call.name in CELLWISE | CARRIERS
        if not is_numberwise or math.prod(before.shape) != math.prod(
            call.shape
        ):
            return False
        call = before
    return False


def _is_part_of(call: Call, parts: Sequence[Call]) -> bool:
    """Whether a call was computed from one of `parts`, and from something else too."""
    seen: set[int] = set()
    frontier = [call]
    meets_part = meets_input = False
    while frontier:
        each = frontier.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if any(each is part for part in parts):
            meets_part = True
            continue
        meets_input = meets_input or each.name == "input"
        frontier += each.inputs
    return meets_part and meets_input
