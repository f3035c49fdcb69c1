"""Requests: the parameters that the explorer's pages put into addresses and bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from unitscope.errors import InputError
from unitscope.explorer.web import HTTPException, Request

_LARGEST_UNIT = 10**9


class EvidenceRequest(NamedTuple):
    """The photo, the layer and the class of a question for evidence."""

    photo: str
    layer: str
    class_index: int


class HeadMapRequest(NamedTuple):
    """The photo, the layer, the class and the head of a question for a head's map."""

    photo: str
    layer: str
    class_index: int
    unit: int


class AblationRequest(NamedTuple):
    """The photo, the layer and the units to switch off."""

    photo: str
    layer: str
    units: list[int]


def number(text: str) -> int:
    """A number of at most nine digits; raises HTTPException 404 for all other texts."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise HTTPException(404)
    return int(text)


def path_numbers(request: Request) -> list[int]:
    """All parameters of a request's path, as numbers."""
    return [number(text) for text in request.path_params.values()]


def evidence_request(request: Request) -> EvidenceRequest:
    """The parameters of evidence.json; raises InputError where one is missing."""
    photo, layer, index = _asked(
        request, "evidence.json", ("photo", "layer", "class")
    )
    return EvidenceRequest(photo, layer, number(index))


def head_map_request(request: Request) -> HeadMapRequest:
    """The parameters of head-map.json; raises InputError where one is missing."""
    photo, layer, index, unit = _asked(
        request, "head-map.json", ("photo", "layer", "class", "unit")
    )
    return HeadMapRequest(photo, layer, number(index), number(unit))


def _asked(request: Request, document: str, names: Sequence[str]) -> list[str]:
    """The parameters of a document by name; raises InputError where one is missing."""
    query = request.query_params
    missing = [name for name in names if not query.get(name)]
    if missing:
        form = "&".join(f"{name}=…" for name in names)
        raise InputError(
            f"the question lacks {', '.join(missing)}: ask {document}?{form}"
        )
    return [query[name] for name in names]


def photo_name(request: Request) -> str:
    """The name of a photo that is sent; raises HTTPException 400 where it is missing.

    The name comes in a header that no form has, so that browsers ask this server first
    whether another site may send it, which is never allowed.
    """
    name = request.headers.get("x-photo-name")
    if name is None:
        raise HTTPException(
            400,
            "a photo is sent with its name in the header X-Photo-Name: add it",
        )
    return unquote(name, errors="replace")


def require_json(request: Request) -> None:
    """Raise HTTPException 415 unless a request's body is declared as JSON."""
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(
            415,
            "units to switch off are sent as JSON: set Content-Type to "
            "application/json",
        )


def ablation_request(body: bytes) -> AblationRequest:
    """The photo, layer and units in the JSON body of a request; raises InputError."""
    try:
        message = json.loads(body)
        photo, layer, units = (
            message["photo"],
            message["layer"],
            message["units"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        photo = layer = units = None

    are_names = isinstance(photo, str) and isinstance(layer, str)
    if not are_names or not _are_unit_numbers(units):
        raise InputError(
            'a question is {"photo": "…", "layer": "…", "units": [0, 1, …]}: send that'
        )
    return AblationRequest(photo, layer, units)


def _are_unit_numbers(units: Any) -> bool:
    if not isinstance(units, list):
        return False
    # A bool is an int too.
    return all(
        type(unit) is int and abs(unit) < _LARGEST_UNIT for unit in units
    )
