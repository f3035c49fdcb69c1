"""Documents and their schema: what Python sends is what documents.schema.json says, and no more."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from networks import BETWEEN, Between, Gap, Mlp, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.scanning import scan
from unitscope.attribution.scores import Scores
from unitscope.explorer.documents import Documents
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

ROOT = Path(__file__).parents[2]
EXPLORER = ROOT / "src" / "unitscope" / "explorer"
SCHEMA = json.loads(
    (EXPLORER / "documents.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

LABELS = ("red", "green", "blue", "grey", "white")
CROPPED = Preprocessing(resize=36, crop=32)
SCANNED: dict[str, Any] = {
    "top": 4,
    "sample": 10,
    "batch_size": 8,
    "engine": "torch",
}
OF_ATLAS = {
    *(
        "units-0-0",
        "units-1-0",
        "neighbours-0-0",
        "neighbours-1-0",
        "classes-0",
    ),
}


class Convolutions(Gap):
    """Convolutions whose pictures are of colours, of kernels and of whole filters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.Conv2d(8, 6, 1)
        )


def noise(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((48, 40)).save(path)
    return path


def classifier(kind: str = "gap") -> Classifier:
    makers: dict[str, Callable[[], nn.Module]] = {
        "gap": lambda: seeded(Gap),
        "local": lambda: seeded(Mlp),
        "convolutions": lambda: seeded(Convolutions),
        "layer norm": lambda: seeded(lambda: Between(BETWEEN["layer norm"][0])),
    }
    module = makers[kind]()
    return wrap(module, labels=LABELS, preprocessing=CROPPED)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photos in folders of five classes."""
    root = tmp_path_factory.mktemp("photos")
    for place in range(30):
        noise(root / LABELS[place % 5] / f"{place}.png", place)
    return root


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with masks of two concepts."""
    root = tmp_path_factory.mktemp("masked")
    random = np.random.default_rng(0)
    for place in range(8):
        noise(root / "images" / f"{place}.png", place)
        mask = random.integers(0, 3, (5, 6), np.uint8).repeat(8, 0).repeat(8, 1)
        path = root / "annotations" / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(path)
    (root / "names.txt").write_text("red\nblue\n")
    return root


@pytest.fixture(scope="module")
def atlas(
    photos: Path, masked: Path, tmp_path_factory: pytest.TempPathFactory
) -> Atlas:
    """An atlas with everything that can be measured."""
    return scan(
        classifier(),
        photos,
        tmp_path_factory.mktemp("atlas") / "atlas",
        layers=["features.0"],
        concepts=masked,
        **SCANNED,
    )


@pytest.fixture(scope="module")
def local_atlas(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Atlas:
    """An atlas of a network without an exact head, over a data set without labels."""
    unlabelled = tmp_path_factory.mktemp("unlabelled")
    for path in photos.rglob("*.png"):
        (unlabelled / path.name).write_bytes(path.read_bytes())
    return scan(
        classifier("local"),
        unlabelled,
        tmp_path_factory.mktemp("atlas") / "atlas",
        layers=["features.0"],
        **SCANNED,
    )


def sent(value: Any) -> Any:
    """A document as pages receive it."""
    return json.loads(json.dumps(value, allow_nan=False))


def check(**documents: Any) -> None:
    check_all(documents)


def check_all(documents: dict[str, Any]) -> None:
    for error in VALIDATOR.iter_errors(sent(documents)):
        raise AssertionError(
            f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        )


def of_atlas(documents: Documents) -> dict[str, Any]:
    contents = documents.atlas_documents
    assert contents is not None
    found: dict[str, Any] = {"index": documents.index()}
    for place in range(contents.layers):
        for chunk, _ in enumerate(contents.chunks(place)):
            found[f"units-{place}-{chunk}"] = documents.units(place, chunk)
            found[f"neighbours-{place}-{chunk}"] = documents.neighbours(
                place, chunk
            )
    for chunk in contents.class_chunks():
        found[f"classes-{chunk}"] = documents.classes(chunk)
    return found


def of_model(documents: Documents) -> dict[str, Any]:
    network = documents.network()
    found: dict[str, Any] = {"index": documents.index(), "network": network}
    for layer in network["filters"]:
        found[f"filters/{layer}"] = documents.filters(layer)
    for photo in documents.index()["photos"]:
        found[f"photos/{photo['id']}"] = documents.photo(photo["id"])
    return found


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects of a JSON value, itself included."""
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


# The schema


def test_the_schema_is_one_and_its_world_is_closed() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    objects = [node for node in nodes(SCHEMA) if node.get("type") == "object"]
    assert len(objects) > 30
    for node in objects:
        assert node["additionalProperties"] is False
        assert set(node.get("required", ())) <= set(node.get("properties", ()))


def test_every_definition_is_used() -> None:
    used = {
        node["$ref"].rpartition("/")[2]
        for node in nodes(SCHEMA)
        if "$ref" in node
    }
    assert used == set(SCHEMA["$defs"])


def test_types_of_the_pages_are_those_of_the_schema() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "document_types.py"))
    types = (EXPLORER / "documents.d.ts").read_text(encoding="utf-8")
    assert types == script["types_of"](SCHEMA), (
        "documents.d.ts is out of date: run `python scripts/document_types.py`"
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "unknown"},
        {"not": {}},
        {"type": "object", "patternProperties": {"a*": {}}},
    ],
)
def test_no_type_is_made_up(schema: dict[str, Any]) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "document_types.py"))
    with pytest.raises(ValueError, match="no TypeScript type is known"):
        script["types_of"]({"$defs": {"A": schema}, "patternProperties": {}})


def test_a_new_key_is_refused() -> None:
    check(photos={"photo": "a"})
    with pytest.raises(AssertionError, match="'more' was unexpected"):
        check(photos={"photo": "a", "more": 1})
    with pytest.raises(AssertionError, match="'unknown' does not match"):
        check(unknown={})


# What Python sends


def test_an_atlas_with_its_model(
    atlas: Atlas, photos: Path, tmp_path: Path
) -> None:
    documents = Documents(
        classifier(),
        atlas,
        dataset=atlas.photos(),
        folder=tmp_path,
        photos=[photos / "red" / "0.png"],
    )
    found = (
        of_atlas(documents) | of_model(documents) | {"head": documents.head()}
    )
    assert {name for name in found if not name.startswith("photos/image-")} == {
        "index",
        "head",
        "network",
        "filters/features.0",
        "filters/features.3",
        "photos/photo-0",
        *OF_ATLAS,
    }
    check_all(found)
    units = found["units-1-0"]["units"]
    assert all({"concepts", "hurt", "helped"} <= set(unit) for unit in units)
    assert all("important" in one for one in found["classes-0"]["classes"])
    columns = found["index"]["atlas"]["layers"][1]["columns"]
    assert set(columns) > {"category", "accuracy_change", "detector"}


def test_an_atlas_alone(atlas: Atlas, tmp_path: Path) -> None:
    documents = Documents(None, atlas, dataset=atlas.photos(), folder=tmp_path)
    found = of_atlas(documents) | {"head": documents.head()}
    assert found["index"]["model"] is None
    kept = found["index"]["photos"][0]["id"]
    photo = documents.photo(kept)
    assert "pooled" in photo
    check_all(found | {f"photos/{kept}": photo})


def test_an_atlas_whose_photos_are_gone(atlas: Atlas, tmp_path: Path) -> None:
    documents = Documents(None, atlas, folder=tmp_path)
    documents.index()
    check_all(of_atlas(documents))


def test_local_answers_with_an_atlas(
    local_atlas: Atlas, tmp_path: Path
) -> None:
    documents = Documents(
        classifier("local"),
        local_atlas,
        dataset=local_atlas.photos(),
        folder=tmp_path,
    )
    found = of_atlas(documents) | of_model(documents)
    check_all(found)
    assert "concepts" not in found["units-0-0"]["units"][0]
    assert not found["index"]["atlas"]["given"]


@pytest.mark.parametrize("kind", ["gap", "layer norm"])
def test_an_exact_head(kind: str, photos: Path, tmp_path: Path) -> None:
    documents = Documents(
        classifier(kind), folder=tmp_path, photos=[photos / "red" / "0.png"]
    )
    found = of_model(documents)
    assert found["photos/photo-0"]["exact"]
    layer = found["index"]["model"]["layers"][0]
    check_all(
        found
        | {
            "head": documents.head(),
            "ablated": documents.ablated("photo-0", "features.3", [0]),
            "photos/at-another-layer": documents.photo("photo-0", layer),
        }
    )


def test_local_answers(photos: Path, tmp_path: Path) -> None:
    path = photos / "red" / "0.png"
    documents = Documents(classifier("local"), folder=tmp_path, photos=[path])
    found = of_model(documents)
    photo = found["photos/photo-0"]
    assert not photo["exact"]
    check_all(
        found
        | {
            "evidence": documents.evidence("photo-0", photo["layer"], 1),
            "ablated": documents.ablated("photo-0", photo["layer"], [0, 2]),
            "photos": documents.add_photo(path.read_bytes(), "mine.png"),
        }
    )


def test_convolutions_of_all_kinds(tmp_path: Path) -> None:
    documents = Documents(classifier("convolutions"), folder=tmp_path)
    found = of_model(documents)
    pictures = {
        document["of"]
        for name, document in found.items()
        if name.startswith("filters")
    }
    assert pictures == {"kernel", "rgb", "filter"}
    check_all(found)


# What pages send


def test_pages_ask_for_documents_by_the_names_of_the_schema() -> None:
    """Every name in a call of `load` or `send` is one of the schema's."""
    asked = set()
    for file in (EXPLORER / "static").iterdir():
        if file.name.endswith(".js"):
            text = file.read_text(encoding="utf-8")
            asked |= set(
                re.findall(r'\b(?:load|send)\(\s*["`]([^"`]+)["`]', text)
            )
    assert len(asked) >= 9
    for name in asked:
        plain = re.sub(r"\$\{.*?\}+", "0", name)
        patterns = SCHEMA["patternProperties"]
        assert any(re.search(pattern, plain) for pattern in patterns), name


@pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed"
)
@pytest.mark.parametrize("scores", list(Scores))
def test_pages_compute_the_same_probabilities(scores: Scores) -> None:
    numbers = [0.25, -3.0, 700.0, 699.0, -800.0]
    algebra = (EXPLORER / "static" / "algebra.js").as_uri()
    script = (
        f"import {{ probabilities }} from '{algebra}';"
        f"const shares = probabilities(Float32Array.from({numbers}), '{scores}');"
        "console.log(JSON.stringify(shares && [...shares]));"
    )
    ran = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        capture_output=True,
        check=True,
        text=True,
    )
    expected = scores.probabilities(torch.tensor(numbers))
    told = json.loads(ran.stdout)
    assert told == (
        None if expected is None else pytest.approx(expected.tolist())
    )
