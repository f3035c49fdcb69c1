"""The page: the results as Markdown, a section for everything that was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from costs.contenders import EVERYTHING, EXPLAIN, PLAIN
from costs.losses import losses
from costs.reading import decoder

Results = dict[str, Any]
Row = dict[str, Any]

_WHY_ONNX_RUNTIME = """\
A frozen network is exported by torch.export as ONNX and run by ONNX Runtime.
[engines.md](engines.md) has the engines side by side. It was chosen because

- in float32, the precision of exact answers, it was the fastest on an AMD EPYC on every
  network measured (ResNet-50 at one photo: 0.45 of the plain pass, OpenVINO 0.51), and as
  fast as OpenVINO on an Intel Xeon;
- neither the number of threads nor the rest of the batch changes a bit of its results:
  scans are the same byte for byte whatever the workers, and one graph serves batches of
  any size;
- it keeps NaN and infinities, which show that a network overflows;
- it sends nothing anywhere. OpenVINO's converter reports its use over the network unless
  the user has opted out.

It does not compute in bfloat16 on processors that have it. That is left to torch's
autocast, eagerly. OpenVINO is about twice as fast there: see its rows in engines.md.
torch's own compiler needs a C++ compiler on the user's machine, and half a minute."""


def page(results: Results) -> str:
    """The results as Markdown."""
    sections = {
        "Against the plain forward pass": _against_plain(results),
        "Why ONNX Runtime": [_WHY_ONNX_RUNTIME],
        "Where the time of everything goes": _profile(results["profile"]),
        "Freezing": _freezing(results["readiness"]),
        "Growth": _growth(results["growth"]),
        "Photos from files to inputs": _reading(results["reading"]),
        "Starting": _starting(results["starting"]),
        "Memory": _memory(results["memory"]),
        "On a GPU": _gpu(results["gpu"]),
        "Where unitscope loses": losses(results),
    }
    lines = [
        "# What it costs",
        "",
        "Written by `python benchmarks/speed.py --out docs/speed.md`; not edited by",
        f"hand. {results['machine']}. Every number is a median; ratios are to",
        "the plain eager float32 pass of the same round (quartiles in brackets), all",
        "contenders in random order in one run.",
    ]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def _table(
    heading: str, alignment: str, rows: Iterable[Iterable[str]]
) -> list[str]:
    body = [f"| {' | '.join(cells)} |" for cells in rows]
    return [f"| {heading} |", f"|{alignment}|", *body]


def _ratio(row: Row) -> str:
    return (
        f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
    )


def _milliseconds(row: Row, digits: int = 1) -> str:
    return f"{1000 * row['seconds']:.{digits}f}"


def _against_plain(results: Results) -> list[str]:
    rows = []
    for row in results["networks"]:
        engine = ""
        if row["what"].startswith((EXPLAIN, EVERYTHING)) and "to_engine" in row:
            engine = f"{row['to_engine']:.2f}"
        rows.append([*_contender(row), _milliseconds(row), _ratio(row), engine])

    table = _table(
        "network | photos | what | milliseconds | × plain forward | × the engine alone",
        "---|---:|---|---:|---|---:",
        rows,
    )
    return [*table, "", *_floor(results)]


def _contender(row: Row) -> list[str]:
    return [row["network"], str(row["batch"]), row["what"]]


def _floor(results: Results) -> list[str]:
    """What the machine could do at best."""
    best = results["peaks"]["multiplications_per_second"]
    memory = results["peaks"]["bytes_per_second"]

    shares = []
    for row in results["networks"]:
        if row["what"] == PLAIN:
            share = row["multiplications"] / best / row["seconds"]
            place = f"{row['network']} at {row['batch']}"
            shares.append(f"{share:.2f} of the plain one for {place}")

    return [
        f"The floor: this machine's convolutions reach {best / 1e9:.0f} billion",
        f"multiplications a second at their best, and its memory {memory / 1e9:.0f} GB",
        "a second. At that rate one pass takes",
        f"{', '.join(shares)}; no float32 explanation can cost less.",
    ]


def _profile(rows: list[Row]) -> list[str]:
    table = _table(
        "ResNet-50, photos | what | milliseconds | share",
        "---:|---|---:|---:",
        (
            [
                str(row["batch"]),
                row["what"],
                _milliseconds(row),
                f"{100 * row['share']:.0f} %",
            ]
            for row in rows
        ),
    )
    return [*table, "", "Shares are of the engine's own time."]


def _freezing(rows: list[Row]) -> list[str]:
    table = _table(
        "network | seconds | again | MiB",
        "---|---:|---:|---:",
        (
            [
                row["network"],
                f"{row['seconds']:.1f}",
                f"{row['again']:.1f}",
                f"{row['mebibytes']:.0f}",
            ]
            for row in rows
        ),
    )
    return [
        "What `model.freeze()` takes when inputs of a shape first come: in a fresh",
        "process, again in the same one (without the imports), and what the process",
        "then holds beside the plain network.",
        "",
        *table,
    ]


def _growth(rows: list[Row]) -> list[str]:
    return _table(
        "what (bundled network) | milliseconds",
        "---|---:",
        ([row["what"], _milliseconds(row, 2)] for row in rows),
    )


def _reading(rows: list[Row]) -> list[str]:
    table = _table(
        "JPEG photos | what | milliseconds a photo | × ImageFolder + DataLoader",
        "---|---|---:|---",
        (
            [row["photos"], row["what"], _milliseconds(row, 2), _ratio(row)]
            for row in rows
        ),
    )
    return [
        *table,
        "",
        f"JPEG files were decoded by {decoder()}, and resized by torch's kernel for "
        "bytes",
        "where that is within one of 255 levels of Pillow's (bilinear; photos resized",
        "to more than half the rows are Pillow's own).",
    ]


def _starting(rows: list[Row]) -> list[str]:
    return _table(
        "what | seconds",
        "---|---:",
        ([row["what"], f"{row['seconds']:.3f}"] for row in rows),
    )


def _memory(rows: list[Row]) -> list[str]:
    table = _table(
        "photos | peak MiB of the process | above its warm start",
        "---:|---:|---:",
        (
            [
                str(row["photos"]),
                f"{row['mebibytes']:.0f}",
                f"{row['above_start']:.0f}",
            ]
            for row in rows
        ),
    )
    return [
        "Everything of the bundled network, 16 photos at a time.",
        "",
        *table,
    ]


def _gpu(rows: list[Row]) -> list[str]:
    if not rows:
        return [
            "This run had none. Networks are not compiled there: they run as is."
        ]

    return _table(
        "network | photos | what | milliseconds | × plain forward",
        "---|---:|---|---:|---",
        (
            [*_contender(row), _milliseconds(row, 2), _ratio(row)]
            for row in rows
        ),
    )
