"""Atlas tables: rows of an atlas's tables by unit or class, as plain data for pages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Shaped

from unitscope.atlas.storage import StoredAtlas
from unitscope.render.words import shorten

# Which rows of a table are read, in pyarrow's form.
Where: TypeAlias = list[tuple[str, str, Any]]
Rows: TypeAlias = list[list[Any]]
Columns: TypeAlias = Mapping[str, Shaped[np.ndarray, " row"]]

IMPORTANCE = (
    "importance",
    "importance_low",
    "importance_high",
    "balanced_accuracy",
    "contribution",
)
"""What the table `class_ablation` says of a unit and a class."""

_DIGITS = 5
_LONGEST_LABEL = 120


def plain_values(values: Iterable[Any], digits: int = _DIGITS) -> list[Any]:
    """Values for JSON: short numbers, clean labels, None for missing ones."""
    return [plain_value(value, digits) for value in values]


def plain_value(value: Any, digits: int = _DIGITS) -> Any:
    """One value for JSON, its number rounded to so many significant digits."""
    if isinstance(value, str):
        return shorten(value, _LONGEST_LABEL)
    if not isinstance(value, float):
        return value
    if not np.isfinite(value):
        return None
    rounded = f"{value:.{digits}g}"
    return float(rounded)


def rows_by(
    key: str,
    atlas: StoredAtlas,
    table: str,
    columns: Sequence[str],
    where: Where | None = None,
) -> dict[int, Rows]:
    """The rows of a table by unit or class (`key`), in the table's order.

    Empty where the atlas lacks the table.
    """
    if not atlas.has(table):
        return {}
    lists = atlas.table(table, [key, *columns], where).to_pydict()
    keys = lists.pop(key)
    values = [plain_values(lists[name]) for name in columns]

    groups: dict[int, Rows] = defaultdict(list)
    for index, *row in zip(keys, *values, strict=True):
        groups[index].append(row)
    return dict(groups)


def class_importance(atlas: StoredAtlas, where: Where) -> Columns | None:
    """The columns of `class_ablation` as arrays; None where it was not measured."""
    if not atlas.has("class_ablation"):
        return None
    names = ("unit", "class", *IMPORTANCE)
    table = atlas.table("class_ablation", names, where)

    columns = {}
    for name in names:
        column = table.column(name)
        columns[name] = column.to_numpy(zero_copy_only=False)
    return columns


def ranked(
    columns: Columns,
    key: str,
    member: str,
    order_by: Float[np.ndarray, " row"],
    most: int,
) -> dict[int, Rows]:
    """For each unit or class (`key`) its first rows [member, importance, …].

    At most `most` rows, by rising `order_by`; rows without a value are left out.
    """
    keys = columns[key]
    members = columns[member]
    order = np.lexsort((members, order_by, keys))
    has_value = np.isfinite(order_by[order])
    order = order[has_value]
    if not len(order):
        return {}

    distinct, starts = np.unique(keys[order], return_index=True)
    groups = np.split(order, starts[1:])

    rows: dict[int, Rows] = {}
    for index, places in zip(distinct, groups, strict=True):
        first = places[:most].tolist()
        rows[int(index)] = [
            _ranked_row(columns, member, place) for place in first
        ]
    return rows


def _ranked_row(columns: Columns, member: str, place: int) -> list[Any]:
    row: list[Any] = [int(columns[member][place])]
    for name in IMPORTANCE:
        value = float(columns[name][place])
        row.append(plain_value(value))
    return row
