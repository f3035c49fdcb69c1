"""Atlas pages: a unit atlas as HTML that is looked through from disk, without a server or a network."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from unitscope.atlas import Atlas
from unitscope.datasets import Dataset
from unitscope.errors import InputError, OutputError, UnitscopeError, UnitscopeWarning
from unitscope.files import folder_written_whole
from unitscope.render.atlas_contents import RANGE, ClassContents, LayerContents
from unitscope.render.colours import HEAT, table
from unitscope.render.markup import source, templates
from unitscope.render.tiles import DRAWN, PER_FOLDER, STATES, Tiles
from unitscope.render.words import clean, number, percent, plural, power, shape, shorten

INDEX = "index.html"
ASSETS = ("atlas.css", "atlas-draw.js", "atlas.js")

_DATA = "data"
# Scripts of about this many bytes are loaded together, and of not more units than these.
_CHUNK_BYTES = 400_000
_CHUNK_UNITS = 64
_CLASSES_A_CHUNK = 32


def write_pages(
    atlas: Atlas,
    out: Path,
    *,
    dataset: Dataset | None = None,
    each: Callable[[int], None] | None = None,
    images: int = 9,
) -> Path:
    """Write an atlas as pages that need nothing but themselves: whole, or nothing at all. Returns OUT/index.html.

    Every unit is shown with `images` images by its maximum and by its mean. Photos are read again from `dataset`, or
    from the data set that was scanned where none is given; one that is gone, or is another now, is shown as a grey
    tile that says so. `each` is called with the number of units done, after each.

    Raises InputError where `images` is less than 1, AtlasError where the atlas is not done, and OutputError where the
    pages cannot be written.
    """
    if images < 1:
        raise InputError(f"a unit is shown with at least 1 image, not {images}")
    if out.is_dir() and any(out.iterdir()) and not (out / ASSETS[-1]).is_file():
        raise OutputError(f"'{out}' holds other files, and no pages of an atlas: name another folder")
    dataset = _opened(atlas) if dataset is None else dataset
    with folder_written_whole(out) as staging:
        (staging / _DATA).mkdir()
        tiles = Tiles(atlas, dataset, staging)
        layers: list[dict[str, Any]] = []
        done = itertools.count(1)
        for place, layer in enumerate(atlas.layers):
            contents = LayerContents(atlas, layer, images)
            plain = contents.plain()
            plain["chunk"] = _units_a_chunk(plain, images)
            layers.append(plain)
            for begin in range(0, layer.units, plain["chunk"]):
                units = []
                for unit in range(begin, min(begin + plain["chunk"], layer.units)):
                    units.append(contents.unit(unit))
                    _draw(tiles, _images_of_unit(units[-1]))
                    if each is not None:
                        each(next(done))
                shown = (image for told in units for image in _images_of_unit(told))
                _write_script(
                    staging, f"units-{place}-{begin // plain['chunk']}", _with_images("units", units, shown, tiles)
                )
        classes = ClassContents(atlas, images)
        _write_classes(staging, classes, tiles)
        _write_script(staging, "index", _index(atlas, layers, classes, tiles))
        for name in ASSETS:
            (staging / name).write_text(source(name), encoding="utf-8")
        title = f"{shorten(atlas.manifest['model']['architecture'], 60)} – unit atlas – unitscope"
        page = templates().get_template("atlas.html.j2").render(title=title, version=atlas.manifest["versions"])
        (staging / INDEX).write_text(page, encoding="utf-8")
    if tiles.missing:
        warnings.warn(
            f"{tiles.missing} of {tiles.asked} images could not be shown: say where the data set lies now",
            UnitscopeWarning,
            stacklevel=2,
        )
    return out / INDEX


def _opened(atlas: Atlas) -> Dataset | None:
    """The data set that was scanned, or what is in its place by now; None where nothing is."""
    try:
        return atlas.photos()
    except (UnitscopeError, OSError):
        return None


def _units_a_chunk(layer: dict[str, Any], images: int) -> int:
    maps = (2 * images + RANGE) * layer["map"]["rows"] * layer["map"]["cols"] * 4 / 3
    return int(max(1, min(_CHUNK_UNITS, _CHUNK_BYTES // maps)))


def _images_of_unit(told: dict[str, Any]) -> list[int]:
    return [image for part in ("maximum", "mean", "range") for image in told[part]["images"]]


def _draw(tiles: Tiles, images: Iterable[int]) -> None:
    for image in images:
        tiles.draw(image)


def _write_classes(folder: Path, classes: ClassContents, tiles: Tiles) -> None:
    for begin in range(0, len(classes), _CLASSES_A_CHUNK):
        told = [classes.of(index) for index in range(begin, min(begin + _CLASSES_A_CHUNK, len(classes)))]
        shown = (image for one in told for image in (*one["found"], *one["missed"]))
        _write_script(folder, f"classes-{begin // _CLASSES_A_CHUNK}", _with_images("classes", told, shown, tiles))


def _with_images(name: str, told: list[Any], shown: Iterable[int], tiles: Tiles) -> dict[str, Any]:
    """What is told, with the images that are shown for it by number."""
    return {name: told, "images": {image: tiles.row(image) for image in sorted(set(shown))}}


def _write_script(folder: Path, name: str, value: Any) -> None:
    """Write data as a script, as pages from disk can load scripts only.

    Nothing in it can end the script or be read as an address: "<", ">" and "&" are written as escapes, as is all that
    is not ASCII, and so is the second of two slashes.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    text = text.replace("//", "/\\/")
    (folder / _DATA / f"{name}.js").write_text(f'unitscopeAtlas.add("{name}",{text});\n', encoding="ascii")


def _index(atlas: Atlas, layers: list[dict[str, Any]], classes: ClassContents, tiles: Tiles) -> dict[str, Any]:
    manifest = atlas.manifest
    rows, cols = manifest["model"]["input_shape"][-2:]
    return {
        "architecture": shorten(manifest["model"]["architecture"], 60),
        "data": _last(manifest["data"]["source"]),
        "images": atlas.images,
        "given": manifest["data"]["labels"] == "given",
        # Ablation without labels: what the network says with all units stands for the truth.
        "againstItself": (manifest.get("ablation") or {}).get("labels") == "predicted",
        "complete": atlas.complete,
        "random": "random" in manifest["model"]["weights"].lower(),
        "quantile": manifest["parameters"]["quantile"],
        "input": [int(rows), int(cols)],
        "colours": ["".join(f"{value:02x}" for value in colour) for colour in table(HEAT)],
        "labels": [shorten(label, 120) for label in atlas.labels],
        "layers": layers,
        "classes": classes.plain(),
        "classChunk": _CLASSES_A_CHUNK,
        "tiles": {"perFolder": PER_FOLDER, "suffix": tiles.suffix, "states": list(STATES), "drawn": DRAWN},
        "missing": tiles.missing,
        "about": _about(atlas),
    }


def _about(atlas: Atlas) -> list[list[Any]]:
    """What was scanned and how, as terms and what is said of each: a text, or a list of them."""
    manifest = atlas.manifest
    model, data, settings, scanned = (manifest[key] for key in ("model", "data", "parameters", "scanned"))
    head = model["head"]
    told: list[list[Any]] = [
        ["model", f"{model['architecture']} ({model['spec']}), {model['parameters']:,} parameters"],
        ["weights", model["weights"]],
        ["SHA-256 of the weights", model["sha256"] or "not known"],
        [
            "head",
            "none that is exact: what units add to a logit was not measured"
            if head is None
            else f"{head['kind']}, reads {head['layer']}; it gives the network's logits "
            + (f"to {power(head['error'])} of their size" if head["error"] else "exactly"),
        ],
        ["preprocessing", model["preprocessing"]],
        ["data set", f"{_last(data['source'])} ({data['kind']}), {plural(data['images'], 'image')}"],
        ["fingerprint of the data set", manifest["identity"]["data set"]],
        [
            "labels",
            f"{data['labels']}, {plural(len(data['classes']), 'class')}"
            + ("" if data["labels"] == "given" else ": the data set has none, so that classes are what the model says"),
        ],
        ["images scanned", f"{scanned['images']:,}; {scanned['skipped']:,} were skipped as they could not be read"],
        [
            "layers",
            [
                f"{layer.name} ({layer.kind}): {plural(layer.units, 'unit')} of {shape(layer.cells)} cells"
                + (", read by the head" if layer.is_head else "")
                for layer in atlas.layers
            ],
        ],
        ["parameters", " · ".join(_lines(settings))],
    ]
    if manifest.get("concepts"):
        told.append(["concepts", _concept_lines(manifest["concepts"])])
    if manifest.get("ablation"):
        told.append(["ablation", _ablation_lines(manifest["ablation"])])
    told.append(["versions", " · ".join(f"{name} {version}" for name, version in manifest["versions"].items())])
    told.append(["notes on the model", list(model["notes"])])
    told.append(["notes on the data set", list(data["notes"])])
    return [[term, _shown(said)] for term, said in told if said]


def _chance(units: float | None) -> str:
    return "not counted, as there are too few" if units is None else f"{number(units)} on average"


def _concept_lines(measured: dict[str, Any]) -> list[str]:
    """Where the masks came from, the parameters, and how many detectors there are against how many by chance."""
    detectors = measured.get("detectors", {})
    rest = {name: one for name, one in measured.items() if name not in ("identity", "detectors", "notes")}
    if "source" in rest:
        rest["source"] = _last(rest["source"])
    return [
        *_lines(rest),
        *(
            f"{layer}: {plural(found['units'], 'detector')} of {plural(found['concepts'], 'concept')}; with masks of "
            f"other images {_chance(found['units_by_chance'][0])}"
            for layer, found in detectors.items()
        ),
        *measured.get("notes", []),
    ]


def _ablation_lines(measured: dict[str, Any]) -> list[str]:
    """What the ablation was measured on."""
    accuracy, low, high = measured["accuracy"]
    return [
        f"each unit of the head's map off in turn, over {plural(measured['images'], 'image')}, labels "
        f"{measured['labels']}; accuracy with all units on {percent(accuracy)} "
        f"(95% interval {percent(low)}–{percent(high)})",
        f"many units off: ranked on {plural(measured['ranking'], 'image')}, measured on the other "
        f"{plural(measured['reporting'], 'image')}; units off: {_value(measured['sizes'])}",
    ]


def _lines(settings: dict[str, Any]) -> list[str]:
    return [f"{name.replace('_', ' ')}: {_value(value)}" for name, value in settings.items() if value not in (None, [])]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _shown(said: str | list[str]) -> str | list[str]:
    return [_shown_line(line) for line in said] if isinstance(said, list) else _shown_line(said)


def _shown_line(text: str) -> str:
    """The text without the folders of absolute paths, which are nobody's business but the writer's."""
    return re.sub(r"(?<![\w/.])(?<!:(?=//))(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:]+)+[/\\](?=[^\s/\\])", "", clean(text))


def _last(path: str) -> str:
    """The last part of a path, of either kind."""
    return shorten(re.split(r"[/\\]", path.rstrip("/\\"))[-1], 120) or "the data set"
