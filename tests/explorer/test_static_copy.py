"""Static copy: whole, self-contained, safe against what labels and files are named,
and right in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsing import watched
from networks import Gap, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.disk.tables import write_table
from unitscope.atlas.scanning import scan
from unitscope.datasets import open_dataset
from unitscope.errors import InputError, OutputError, UnitscopeWarning
from unitscope.explorer.bundle import bundle
from unitscope.explorer.map_contents import packed_maps, pooling_factor
from unitscope.explorer.static_copy import export
from unitscope.explorer.tiles import STATES
from unitscope.geometry import Placement, lay_on_photo
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap

HOSTILE = "<img src=x onerror=hacked=1>"
LABELS = (
    HOSTILE,
    "a_b",
    "</script><script>hacked=1</script>",
    "d",
    "e \u2028 \u202e e",
)
FILE = '"><svg onload=hacked=1>.png'
OPTIONAL = (
    "concepts",
    "unit_concepts",
    "unit_ablation",
    "class_ablation",
    "set_ablation",
)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """An atlas of six units on thirty photos in folders of five classes, whose names
    want to be markup."""
    root = tmp_path_factory.mktemp("scanned")
    noise = np.random.default_rng(5)
    folders = [name.replace("/", "∕") for name in LABELS]
    for name in folders:
        for number in range(6):
            pixels = noise.integers(0, 256, (6, 7, 3), np.uint8)
            photo = Image.fromarray(pixels).resize((48, 40))
            path = (
                root
                / "photos"
                / name
                / (FILE if number == 0 else f"{number}.png")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.save(path)
    model = wrap(
        seeded(Gap),
        labels=folders,
        preprocessing=Preprocessing(resize=36, crop=32),
    )
    return scan(
        model,
        root / "photos",
        root / "atlas",
        engine="torch",
        layers=["features.0"],
        top=4,
        sample=10,
        batch_size=8,
    )


@pytest.fixture(scope="module")
def pages(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of that atlas."""
    return export(atlas, tmp_path_factory.mktemp("pages")).parent


def copied(atlas: Atlas, folder: Path) -> Atlas:
    return Atlas.open(shutil.copytree(atlas.path, folder))


def data(pages: Path, name: str) -> Any:
    """What a script of data would give a browser."""
    text = (pages / "data" / f"{name}.js").read_text(encoding="ascii")
    found = re.fullmatch(
        r'unitscope\.add\("([^"]+)",(.*)\);\n', text, re.DOTALL
    )
    assert found is not None and found[1] == name
    return json.loads(found[2])


def index_of(pages: Path) -> Any:
    """What the first document tells of the atlas."""
    return data(pages, "index")["atlas"]


def chunks(pages: Path, kind: str) -> list[Any]:
    return [
        data(pages, path.stem)
        for path in sorted((pages / "data").glob(f"{kind}-*.js"))
    ]


def texts(pages: Path) -> dict[str, str]:
    return {
        str(path.relative_to(pages)): path.read_text()
        for path in pages.rglob("*")
        if path.suffix in KINDS
    }


KINDS = (".html", ".js", ".css")


def test_everything_that_is_named_is_there(pages: Path, atlas: Atlas) -> None:
    html = (pages / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert (pages / name).is_file()
    index = index_of(pages)
    assert [layer["name"] for layer in index["layers"]] == [
        layer.name for layer in atlas.layers
    ]
    for place, layer in enumerate(index["layers"]):
        assert {len(column) for column in layer["columns"].values()} == {
            layer["units"]
        }
        found = [
            data(pages, f"units-{place}-{one}")
            for one in range(-(-layer["units"] // layer["chunk"]))
        ]
        assert sum(len(chunk["units"]) for chunk in found) == layer["units"]
    for chunk in (*chunks(pages, "units"), *chunks(pages, "classes")):
        for image, (_, _, _, _, state) in chunk["images"].items():
            assert (
                state == 0
                and (pages / "images" / "0" / f"{image}.webp").is_file()
            )
    for chunk in chunks(pages, "units"):
        named = {
            str(one)
            for unit in chunk["units"]
            for part in PARTS
            for one in unit[part]["images"]
        }
        assert named == set(chunk["images"])


PARTS = ("maximum", "mean", "range")


def test_numbers_are_those_of_the_tables(pages: Path, atlas: Atlas) -> None:
    index, layer = index_of(pages), atlas.layers[0]
    columns = index["layers"][0]["columns"]
    rows = atlas.table("units", where=[("layer", "=", layer.name)]).to_pydict()
    for name in ("maximum", "threshold", "selectivity"):
        np.testing.assert_allclose(
            np.array(columns[name], float),
            np.array(rows[name], float),
            rtol=1e-4,
        )
    unit = data(pages, "units-0-0")["units"][3]
    tops = atlas.table(
        "top_images", where=[("layer", "=", layer.name), ("unit", "=", 3)]
    ).to_pydict()
    for criterion in ("maximum", "mean"):
        of = [
            place
            for place, name in enumerate(tops["criterion"])
            if name == criterion
        ]
        assert unit[criterion]["images"] == [
            tops["image"][place] for place in of
        ]
    assert (
        unit["range"]["scores"] == sorted(unit["range"]["scores"])
        and unit["range"]["ranks"][-1] == 10
    )
    # All cells are told: those in bars, those left of them, those of 0, and in this
    # layer those below.
    assert index["layers"][0]["signed"]
    assert sum(unit["histogram"]) + unit["less"] == pytest.approx(
        rows["share_positive"][3], rel=1e-4
    )


def test_tiles_are_what_the_network_saw(pages: Path, atlas: Atlas) -> None:
    image = data(pages, "units-0-0")["units"][0]["maximum"]["images"][0]
    entry = {
        name: column[0]
        for name, column in atlas.table("images", where=[("image", "=", image)])
        .to_pydict()
        .items()
    }
    dataset = open_dataset(atlas.manifest["data"]["source"])
    photo = Image.open(Path(dataset.source) / dataset.entries[image].id)
    left, top, right, bottom = (
        round(entry[side]) for side in ("left", "top", "right", "bottom")
    )
    with Image.open(pages / "images" / "0" / f"{image}.webp") as tile:
        wanted = photo.crop((left, top, right, bottom)).resize(tile.size)
        difference = np.asarray(tile, float) - np.asarray(wanted, float)
        assert tile.width == tile.height == 36 and np.abs(difference).mean() < 8


def test_names_never_become_markup(pages: Path) -> None:
    for name, text in texts(pages).items():
        assert not re.search(
            r"<(img|svg onload|script>hacked|/script><script)", text
        ), name
        if name.startswith("data"):
            assert not re.search("[<>&\u2028\u202e]", text), name
    assert any("hacked" in text for text in texts(pages).values()), (
        "the names are there as text"
    )
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in pages.rglob("*"))


def test_no_addresses_and_no_paths_of_the_writer(
    pages: Path, atlas: Atlas
) -> None:
    for name, text in texts(pages).items():
        assert not re.search(
            r"https?:|(?<!:)//[a-z]", text.replace("// ", "")
        ), name
        assert (
            str(atlas.path.parent) not in text
            and "/tmp" not in text
            and str(Path.home()) + "/" not in text
        ), name
    policy = re.search(
        r'Content-Security-Policy" content="([^"]+)"',
        (pages / "index.html").read_text(),
    )
    assert (
        policy is not None
        and "default-src 'none'" in policy[1]
        and "unsafe" not in policy[1]
    )


def test_paths_in_what_is_told_lose_their_folders(
    atlas: Atlas, tmp_path: Path
) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["model"] |= {
        "spec": "checkpoint:/home/someone/models/net.pth",
        "weights": "/home/someone/models/net.pth",
        "notes": [
            "from https://example.org/a/b",
            "labels of 'C:\\secret\\labels.txt'",
            "mean 0.485/0.456/0.406",
        ],
    }
    about = dict(index_of(export(other, tmp_path / "pages").parent)["about"])
    assert about["weights"] == "net.pth" and "someone" not in about["model"]
    assert about["notes on the model"] == [
        "from https://example.org/a/b",
        "labels of 'labels.txt'",
        "mean 0.485/0.456/0.406",
    ]


def test_sizes(pages: Path) -> None:
    for path in pages.rglob("*.js"):
        assert path.stat().st_size < 600_000, path
    for path in pages.rglob("*.webp"):
        assert path.stat().st_size < 8_000, path


def test_units_done_are_counted(atlas: Atlas, tmp_path: Path) -> None:
    done: list[int] = []
    page = export(atlas, tmp_path / "out", each=done.append, images=2)
    total = sum(layer.units for layer in atlas.layers)
    assert (
        done == list(range(1, total + 1))
        and page == tmp_path / "out" / "index.html"
    )
    assert (
        len(data(page.parent, "units-0-0")["units"][0]["mean"]["images"]) == 2
    )


@pytest.mark.parametrize(
    "trouble", [RuntimeError("broken"), KeyboardInterrupt()], ids=repr
)
def test_whole_or_nothing(
    atlas: Atlas, tmp_path: Path, trouble: BaseException
) -> None:
    def fail(done: int) -> None:
        if done == 5:
            raise trouble

    with pytest.raises(type(trouble)):
        export(atlas, tmp_path / "a" / "b", each=fail)
    assert list(tmp_path.iterdir()) == []


def test_refusals(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 image, not 0"):
        export(atlas, tmp_path / "out", images=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="it is a file"):
        export(atlas, tmp_path / "file")


@pytest.mark.filterwarnings("ignore:.*could not be shown")
def test_photos_that_are_gone_changed_or_damaged_leave_a_note(
    atlas: Atlas, tmp_path: Path
) -> None:
    photos = shutil.copytree(
        atlas.manifest["data"]["source"], tmp_path / "photos"
    )
    dataset = open_dataset(photos)
    paths = [photos / entry.id for entry in dataset.entries]
    paths[0].unlink()
    shutil.copy(paths[2], paths[1])
    shown = [
        row
        for chunk in written(atlas, tmp_path / "a", dataset)
        for row in chunk["images"].items()
    ]
    states = {int(image): STATES[row[4]] for image, row in shown}
    assert (
        states[0] == "photo not found"
        and states[1] == "another photo now"
        and states[2] == ""
    )
    assert not (tmp_path / "a" / "images" / "0" / "0.webp").exists()
    assert index_of(tmp_path / "a")["missing"] == 2

    photos.rename(tmp_path / "elsewhere")
    shown = [
        row
        for chunk in written(atlas, tmp_path / "b", dataset)
        for row in chunk["images"].items()
    ]
    assert {STATES[row[4]] for _, row in shown} == {"photo not found"}


@pytest.mark.filterwarnings("ignore:.*could not be shown")
def test_a_data_set_that_is_gone(atlas: Atlas, tmp_path: Path) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["data"]["paths"] = [str(tmp_path / "nowhere")]
    shown = [
        row
        for chunk in written(other, tmp_path / "pages")
        for row in chunk["images"].values()
    ]
    assert {STATES[row[4]] for row in shown} == {"photo not found"}


def test_missing_photos_are_told_and_other_files_left_alone(
    atlas: Atlas, tmp_path: Path
) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["data"]["paths"] = [str(tmp_path / "nowhere")]
    with pytest.warns(
        UnitscopeWarning, match=r"30 of 30 images could not be shown"
    ):
        export(other, tmp_path / "pages")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        export(atlas, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [
        "index.html"
    ]


def test_images_are_found_by_their_id(atlas: Atlas, tmp_path: Path) -> None:
    photos = shutil.copytree(
        atlas.manifest["data"]["source"], tmp_path / "photos"
    )
    (photos / "aaa.png").write_bytes(next(photos.rglob("*.png")).read_bytes())
    shown = [
        row
        for chunk in written(atlas, tmp_path / "a", open_dataset(photos))
        for row in chunk["images"].values()
    ]
    assert {STATES[row[4]] for row in shown} == {""}


def test_the_split_that_was_scanned_is_found_again(
    atlas: Atlas, tmp_path: Path
) -> None:
    photos = Path(atlas.manifest["data"]["source"])
    for split in ("train", "val"):
        shutil.copytree(photos, tmp_path / "photos" / split)
    dataset = open_dataset(tmp_path / "photos", split="val")
    other = copied(atlas, tmp_path / "atlas")
    rows = other.table("images").to_pydict()
    write_table(
        other.path / "images.parquet",
        rows | {"id": [dataset.entries[image].id for image in rows["image"]]},
    )
    other.manifest["data"] |= {
        "paths": [str(tmp_path / "photos")],
        "split": "val",
    }
    shown = [
        row
        for chunk in written(other, tmp_path / "pages")
        for row in chunk["images"].values()
    ]
    assert {STATES[row[4]] for row in shown} == {""}


def written(atlas: Atlas, out: Path, dataset: Any = None) -> list[Any]:
    export(atlas, out, dataset=dataset)
    return [*chunks(out, "units"), *chunks(out, "classes")]


def test_pages_without_the_optional_tables(
    atlas: Atlas, tmp_path: Path
) -> None:
    other = copied(atlas, tmp_path / "atlas")
    for name in OPTIONAL:
        (other.path / f"{name}.parquet").unlink(missing_ok=True)
    for unit in (
        unit
        for chunk in chunks(export(other, tmp_path / "out").parent, "units")
        for unit in chunk["units"]
    ):
        assert not {"concepts", "hurt", "helped"} & set(unit)
    for one in (
        one
        for chunk in chunks(tmp_path / "out", "classes")
        for one in chunk["classes"]
    ):
        assert not {"removals", "important"} & set(one)


def full(atlas: Atlas, folder: Path) -> Atlas:
    """The atlas with made-up tables of concepts and ablation, as docs/atlas.md has them."""
    other = copied(atlas, folder)
    head, count = atlas.layer(), len(atlas.classes)
    units, every = (
        np.arange(head.units),
        np.repeat(np.arange(head.units), count),
    )
    classes = np.tile(np.arange(count), head.units)
    importance = np.sin(np.arange(len(every)))
    rows = atlas.table("units").to_pydict()
    total = len(rows["unit"])
    rows |= {
        "name": [HOSTILE] * total,
        "named_by": ["concept"] * total,
        "concept": [1] * total,
        "concept_name": [HOSTILE] * total,
        "iou": np.linspace(0.1, 0.2, total),
        "iou_low": np.full(total, 0.05),
        "iou_high": np.full(total, 0.25),
        "p_value": np.full(total, 0.01),
        "detector": [place % 2 == 0 for place in range(total)],
    }
    concept = {
        "layer": rows["layer"],
        "unit": rows["unit"],
        "rank": [1] * total,
        "concept": [1] * total,
    }
    concept |= {"name": [HOSTILE] * total, "category": ["object"] * total}
    concept |= {
        name: np.full(total, 0.1)
        for name in ("iou", "iou_low", "iou_high", "chance", "chance_high")
    }
    shares = {
        name: np.full(head.units, 0.5)
        for name in ("accuracy", "accuracy_low", "accuracy_high")
    }
    effects = {
        "importance": importance,
        "importance_low": importance - 0.1,
        "importance_high": importance + 0.1,
    }
    removed = ["none", "most important", "least important", "random"] * count
    balanced = {
        f"{name}{end}": np.full(len(removed), 0.5)
        for name in ("balanced_accuracy", "accuracy")
        for end in ("", "_low", "_high")
    }
    of = np.repeat(np.arange(count), 4)
    tables: dict[str, dict[str, Any]] = {
        "units": rows,
        "concepts": {
            "concept": [0, 1],
            "name": ["sky", HOSTILE],
            "category": ["object", "object"],
            "images": [1, 2],
        },
        "unit_concepts": concept,
        "unit_ablation": {
            "unit": units,
            **shares,
            "accuracy_change": np.linspace(-0.1, 0.1, head.units),
        },
        "class_ablation": {
            "unit": every,
            "class": classes,
            "class_name": [atlas.classes[one] for one in classes],
            **effects,
            "balanced_accuracy": np.full(len(every), 0.6),
            "contribution": importance,
        },
        "set_ablation": {
            "class": of,
            "class_name": [atlas.classes[one] for one in of],
            "removed": removed,
            "units": [0, 2, 2, 2] * count,
            **balanced,
        },
    }
    for name, columns in tables.items():
        write_table(other.path / f"{name}.parquet", columns)
    return other


def test_ablation_and_concepts_are_told_where_they_were_measured(
    atlas: Atlas, tmp_path: Path
) -> None:
    other = full(atlas, tmp_path / "atlas")
    pages = export(other, tmp_path / "pages").parent
    index = index_of(pages)
    place = next(
        place for place, layer in enumerate(index["layers"]) if layer["head"]
    )
    assert index["layers"][place]["columns"]["category"] == ["object"] * 6
    assert "accuracy_change" not in index["layers"][1 - place]["columns"]
    table = other.table("class_ablation").to_pydict()
    rows = [
        row
        for row in zip(
            table["unit"], table["class"], table["importance"], strict=True
        )
        if row[0] == 2
    ]
    unit = data(pages, f"units-{place}-0")["units"][2]
    most = max(rows, key=lambda row: row[2])
    assert unit["hurt"][0][:2] == [most[1], pytest.approx(most[2], rel=1e-4)]
    assert all(row[1] > 0 for row in unit["hurt"]) and all(
        row[1] < 0 for row in unit["helped"]
    )
    one = data(pages, "classes-0")["classes"][4]
    importances = [row[1] for row in one["important"]]
    assert (
        importances == sorted(importances, reverse=True)
        and len(one["removals"]) == 4
    )


@pytest.mark.parametrize("cells", [8, 32, 33, 112])
def test_maps_are_kept_to_a_part_of_their_peak(cells: int) -> None:
    shares = (
        np.random.default_rng(0)
        .uniform(-1, 1, (3, cells, cells))
        .astype(np.float16)
    )
    factor = pooling_factor((cells, cells))
    side = -(-cells // factor)
    for signed in (True, False):
        packed = np.frombuffer(
            base64.b64decode(packed_maps(shares, factor, signed)), np.uint8
        )
        found = packed.reshape(3, side, side) / 254
        found = 2 * found - 1 if signed else found
        rows = np.minimum(np.arange(side * factor), cells - 1)
        squares = (
            shares[:, rows][:, :, rows]
            .astype(float)
            .reshape(3, side, factor, side, factor)
            .max((2, 4))
        )
        np.testing.assert_allclose(
            found, squares if signed else squares.clip(0), atol=0.005
        )
    assert side <= 32


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that loads files only, and in which nothing goes wrong."""
    with watched(browser, "file:") as page:
        yield page


def opened(page: Any, pages: Path, address: str) -> str:
    page.goto("about:blank")
    page.goto(f"{(pages / 'index.html').as_uri()}{address}")
    page.wait_for_selector("h1")
    assert page.evaluate("window.hacked") is None
    return str(page.inner_text("h1"))


def test_every_address_opens_from_disk(
    page: Any, atlas: Atlas, tmp_path: Path
) -> None:
    pages = export(full(atlas, tmp_path / "atlas"), tmp_path / "pages").parent
    assert opened(page, pages, "") == "Ask it about a photo"
    assert opened(page, pages, "#/layer") == f"Units of {atlas.layer().name}"
    page.wait_for_selector(".card img")
    assert page.locator(".card").count() == 6 and HOSTILE in page.inner_text(
        ".card .name"
    )
    assert (
        page.eval_on_selector(
            ".card img",
            "image => image.decode().then(() => image.naturalWidth)",
        )
        == 3 * 36
    )
    assert (
        opened(page, pages, "#/layer/features.0?sort=maximum&show=detectors")
        == "Units of features.0"
    )
    # The rows of both layers stand in one table: every second unit of all is a
    # detector.
    assert page.inner_text(".count") in ("4 of 8 units", "8 units")
    assert opened(
        page, pages, "#/unit/features.0/3?draw=heat&by=mean"
    ).startswith("Unit 3")
    assert page.locator(".gallery canvas.heat").count() == 4 + 8
    assert opened(page, pages, "#/class/0").endswith(HOSTILE)
    assert page.locator(".curves").count() == 1
    # Random draws have no confidence interval, but ends.
    assert "lowest and highest of the draws" in page.inner_text("main")
    assert opened(page, pages, "#/classes?sort=accuracy") == "Classes"
    assert opened(page, pages, "#/about") == "About this atlas"
    for nowhere in (
        "#/unit/features.0/999",
        "#/layer/none",
        "#/class/77",
        "#/unit/features.0/%E0%A4%A",
    ):
        assert opened(page, pages, nowhere) == "Not found"


def test_going_about_by_keys_and_back(
    page: Any, pages: Path, atlas: Atlas
) -> None:
    opened(page, pages, "#/layer/features.0")
    page.keyboard.press("/")
    page.keyboard.type("5")
    assert page.inner_text(".count") == "1 of 8 units" and page.url.endswith(
        "?q=5"
    )
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".stats")
    assert page.url.endswith("#/unit/features.0/5?q=5")
    page.check("input[value=heat]")
    assert "draw=heat" in page.url and page.locator("canvas.heat").count() > 0
    page.go_back()
    page.wait_for_selector("canvas.heat", state="detached")
    page.go_back()
    page.wait_for_selector(".cards")
    assert (
        page.inner_text(".count") == "1 of 8 units"
        and page.input_value("input[type=search]") == "5"
    )
    opened(page, pages, "#/unit/features.0/3")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("h1:has-text('Unit 4')")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


@pytest.mark.filterwarnings("ignore:.*could not be shown")
def test_missing_photos_are_told_in_the_page(
    page: Any, atlas: Atlas, tmp_path: Path
) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["data"]["paths"] = [str(tmp_path / "nowhere")]
    pages = export(other, tmp_path / "pages").parent
    opened(page, pages, "#/unit/features.0/0")
    assert (
        page.locator(".gallery .missing .note").first.inner_text()
        == "photo not found"
    )
    assert "could not be shown" in page.inner_text("#warnings")


def drawing(*names: str) -> str:
    """A script that gives functions of the pages' own as `drawing`."""
    modules = resources.files("unitscope.explorer") / "static"
    return bundle(
        lambda name: (modules / name).read_text(), "maps.js", "drawing", names
    )


def test_contours_lie_where_the_geometry_lays_them(
    page: Any, pages: Path, atlas: Atlas
) -> None:
    """What the browser draws is what `lay_on_photo` gives, to half of a hundredth of
    the picture."""
    opened(page, pages, "#/about")
    layer = atlas.layer("features.0")
    cells = np.zeros(layer.cells, np.float32)
    cells[3, 9] = 1.0
    size = atlas.manifest["model"]["input_shape"][-1]
    laid = lay_on_photo(
        cells,
        layer.grid,
        Placement.whole((size, size), (size, size)),
        (800, 800),
    )
    rows, cols = np.nonzero(laid >= 0.5)
    script = """(given) => {
      BUNDLED
      const [values, layer, input] = given;
      const drawn = drawing.contour(values, 0.5, layer, input);
      document.body.append(drawn);
      const box = drawn.querySelector("path").getBBox();
      return [box.x, box.y, box.x + box.width, box.y + box.height];
    }"""
    index = index_of(pages)
    (told,) = [one for one in index["layers"] if one["name"] == "features.0"]
    box = page.evaluate(
        script.replace("BUNDLED", drawing("contour")),
        [cells.ravel().tolist(), told, data(pages, "index")["input"]],
    )
    wanted = (
        np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]) / 8
    )
    np.testing.assert_allclose(box, wanted, atol=0.7)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Atlas, Path]:
    """An atlas of 300 units on eight photos, and its pages."""
    root = tmp_path_factory.mktemp("wide")
    noise = np.random.default_rng(3)
    for number in range(8):
        path = root / "photos" / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (5, 5, 3), np.uint8)).resize(
            (40, 40)
        ).save(path)
    net = seeded(lambda: Gap(units=300, classes=2))
    model = wrap(
        net,
        labels=["class 0", "class 1"],
        preprocessing=Preprocessing(resize=36, crop=32),
    )
    atlas = scan(
        model,
        root / "photos",
        root / "atlas",
        engine="torch",
        top=6,
        sample=4,
        batch_size=8,
    )
    return atlas, export(atlas, root / "pages", images=3).parent


def until(page: Any, condition: str) -> None:
    """Wait for a condition; the pages' own policy forbids Playwright to look for it from within."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


CORNERS = """(selector) => [...document.querySelectorAll(selector)].map((one) => {
  const box = one.getBoundingClientRect();
  return [box.left, box.top, box.right, box.bottom];
})"""


def numbers(page: Any) -> list[int]:
    return [
        int(text)
        for text in page.locator(".cards.many > li .unit").all_inner_texts()
    ]


def focused(page: Any) -> int:
    """The unit of the card that has the focus, which can be seen; −1 where none has it."""
    script = """() => {
      const card = document.activeElement.closest(".card");
      if (!card) return -1;
      const { top, bottom } = document.activeElement.getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight ? Number(card.querySelector(".unit").textContent) : -2;
    }"""
    return int(page.evaluate(script))


def test_only_cards_near_the_window_are_there(
    page: Any, wide: tuple[Atlas, Path]
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    opened(page, wide[1], "#/layer/features")
    page.wait_for_selector(".card img")
    columns, shown = 4, numbers(page)
    assert (
        shown == list(range(len(shown)))
        and 8 < len(shown) < 40
        and len(shown) % columns == 0
    )
    first = page.locator(".cards.many > li").first
    assert (
        first.get_attribute("aria-posinset"),
        first.get_attribute("aria-setsize"),
    ) == ("1", "300")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    until(
        page,
        "document.querySelector('.cards.many').lastChild.innerText.startsWith('299')",
    )
    last = page.locator(".cards.many > li").last
    assert last.get_attribute("aria-posinset") == "300" and 0 not in numbers(
        page
    )
    corners = page.evaluate(CORNERS, ".cards.many, .many > li")
    # All of the list's height is taken up by what it would hold.
    assert corners[0][3] == pytest.approx(corners[-1][3], abs=1.5)
    corners = corners[1:]
    for place, (left, top, _, _) in enumerate(corners[1:], 1):
        _, _, right, bottom = (
            corners[place - 1] if place % columns else corners[place - columns]
        )
        assert left > right if place % columns else top > bottom, (
            "cards do not overlap"
        )


def test_keys_and_focus_outlast_the_cards_that_go(
    page: Any, wide: tuple[Atlas, Path]
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    opened(page, wide[1], "#/layer/features")
    for _ in range(41):
        page.keyboard.press("j")
    page.keyboard.press("ArrowLeft")
    assert focused(page) == 39 and 0 not in numbers(page)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    until(
        page,
        "document.querySelector('.cards.many').lastChild.innerText.startsWith('299')",
    )
    assert focused(page) == -2 and 39 in numbers(page), (
        "the focus stays where it is"
    )
    page.keyboard.press("j")
    assert focused(page) == 40
    for _ in range(50):
        page.keyboard.press("Tab")
    assert focused(page) == 90
    page.keyboard.press("Shift+Tab")
    assert focused(page) == 89
    page.set_viewport_size({"width": 700, "height": 800})
    until(
        page,
        "document.querySelector('.cards.many').getBoundingClientRect().width < 700",
    )
    page.wait_for_timeout(200)
    assert focused(page) == 89
    assert (
        len({round(left) for left, *_ in page.evaluate(CORNERS, ".many > li")})
        == 2
    )
    page.wait_for_timeout(200)
    before = page.evaluate("scrollY")
    page.keyboard.press("Enter")
    page.wait_for_selector(".stats")
    assert page.inner_text("h1").startswith("Unit 89")
    page.go_back()
    page.wait_for_selector(".cards.many > li")
    assert page.evaluate("scrollY") == pytest.approx(
        before, abs=2
    ) and 89 in numbers(page)


def test_contours_of_a_card_lie_on_its_images(
    page: Any, atlas: Atlas, pages: Path
) -> None:
    """The one drawing on a card is that of each image, moved to its place."""
    opened(page, pages, "#/layer/features.0")
    page.wait_for_selector(".card:nth-child(6) .strip .contour")
    whole = page.eval_on_selector(
        ".card:nth-child(6) .line", "one => one.getAttribute('d')"
    )
    script = """(given) => {
      BUNDLED
      const [part, level, layer, input] = given;
      return drawing.mapsOf(part, layer).map((map) => drawing.contourPath(map, level, layer, input, 32));
    }"""
    (place, told) = next(
        pair
        for pair in enumerate(index_of(pages)["layers"])
        if pair[1]["name"] == "features.0"
    )
    part = data(pages, f"units-{place}-0")["units"][5]["maximum"]
    given = [
        part,
        told["columns"]["threshold"][5],
        told,
        data(pages, "index")["input"],
    ]
    each = page.evaluate(
        script.replace("BUNDLED", drawing("contourPath", "mapsOf")), given
    )
    assert len(each) == 4 and sum(map(bool, each)) > 1

    def ends(path: str, across: int = 0, down: int = 0) -> list[list[float]]:
        return [
            [float(x) + across, float(y) + down]
            for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)
        ]

    wanted = [
        point
        for rank, path in enumerate(each)
        for point in ends(path, 100 * (rank % 3), 100 * (rank // 3))
    ]
    np.testing.assert_allclose(ends(whole), wanted, atol=0.06)
    size = (
        "one => one.decode().then(() => [one.naturalWidth, one.naturalHeight])"
    )
    assert page.eval_on_selector(".card:nth-child(6) img", size) == [
        3 * 36,
        2 * 36,
    ]


@pytest.mark.slow
def test_another_threshold(page: Any, wide: tuple[Atlas, Path]) -> None:
    atlas, pages = wide
    opened(page, pages, "#/unit/features/3")
    (row,) = [row for row in atlas.units() if row["unit"] == 3]
    own = page.get_attribute("#threshold", "aria-valuetext")
    assert (
        own == page.inner_text("output")
        and own.startswith(f"{row['threshold']:.3f},")
        and "about" not in own
    )
    lines = "() => [...document.querySelectorAll('.gallery .line')].map(path => path.getAttribute('d')).join('')"
    before, bar = page.evaluate(lines), page.text_content(".histogram .marked")
    page.focus("#threshold")
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    until(page, "location.hash.includes('at=')")
    level = float(
        page.evaluate(
            "new URLSearchParams(location.hash.split('?')[1]).get('at')"
        )
    )
    assert 0 < level < row["threshold"] and page.evaluate(lines) != before
    assert page.text_content(".histogram .marked") != bar
    # What the page reads off wide bins lies between their edges' shares, and near what
    # the atlas's narrow ones say.
    lower, _, counts = atlas.summary().histogram.buckets()
    edges = np.array(index_of(pages)["layers"][0]["bins"]["edges"])

    def reached(level: float) -> float:
        return float(
            counts[3, lower >= level * (1 - 1e-6)].sum() / counts[3].sum()
        )

    for asked in (
        level,
        *(part * row["maximum"] for part in (0.03, 0.1, 0.3, 0.5, 0.7, 0.9)),
    ):
        opened(page, pages, f"#/unit/features/3?at={asked:.4g}")
        said = re.search(r"about ([\d.]+)%", page.inner_text("output"))
        assert said is not None
        share = float(said[1]) / 100
        place = int(np.searchsorted(edges, asked, side="right"))
        assert (
            reached(edges[place]) - 1e-4
            <= share
            <= reached(edges[place - 1]) + 1e-4
        )
        assert share == pytest.approx(reached(asked), rel=0.1, abs=2e-3)
    page.click("text=Reset to its own")
    assert page.inner_text("output") == own and "at=" not in page.url
    assert page.evaluate("document.activeElement.id") == "threshold"
    page.go_back()
    until(page, "document.querySelector('output').innerText.includes('about')")


def test_neighbours_are_shown_with_their_correlation(
    page: Any, wide: tuple[Atlas, Path]
) -> None:
    atlas, pages = wide
    opened(page, pages, "#/unit/features/70")
    page.wait_for_selector(".neighbours .card")
    rows = atlas.neighbours(70)
    shown = page.locator(".neighbours .card .unit").all_inner_texts()
    assert [int(text) for text in shown] == [
        row["unit"] for row in rows
    ] and len(shown) == 8
    assert (
        page.locator(".neighbours .score").first.inner_text()
        == f"r = {rows[0]['correlation']:.2f}"
    )
    assert "over all 8 images" in page.inner_text(".neighbours p")
    page.locator(".neighbours .card a").first.click()
    page.wait_for_selector(f"h1:has-text('Unit {rows[0]['unit']}')")


def test_scripts_leave_nothing_but_the_way_in(page: Any, pages: Path) -> None:
    opened(page, pages, "#/about")
    assert page.evaluate(
        "[typeof show, typeof site, typeof load, Object.keys(unitscope).join()]"
    ) == [
        "undefined",
        "undefined",
        "undefined",
        "add",
    ]
