"""Atlas pages: whole, self-contained, safe against what labels and files are named, and right in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from networks import Gap, seeded
from unitscope.atlas import Atlas
from unitscope.datasets import open_dataset
from unitscope.errors import InputError, OutputError, UnitscopeWarning
from unitscope.geometry import Placement, lay_on_photo
from unitscope.model import wrap
from unitscope.preprocessing import Preprocessing
from unitscope.render import atlas_contents
from unitscope.render.atlas_pages import write_pages
from unitscope.render.tiles import STATES
from unitscope.scanning import scan
from unitscope.stored_atlas import write_table

HOSTILE = "<img src=x onerror=hacked=1>"
LABELS = (HOSTILE, "a_b", "</script><script>hacked=1</script>", "d", "e \u2028 \u202e e")
FILE = '"><svg onload=hacked=1>.png'
OPTIONAL = ("concepts", "unit_concepts", "unit_ablation", "class_ablation", "set_ablation")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """An atlas of six units on thirty photos in folders of five classes, whose names want to be markup."""
    root = tmp_path_factory.mktemp("scanned")
    noise = np.random.default_rng(5)
    folders = [name.replace("/", "∕") for name in LABELS]
    for name in folders:
        for number in range(6):
            pixels = noise.integers(0, 256, (6, 7, 3), np.uint8)
            photo = Image.fromarray(pixels).resize((48, 40))
            path = root / "photos" / name / (FILE if number == 0 else f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.save(path)
    model = wrap(seeded(Gap), labels=folders, preprocessing=Preprocessing(resize=36, crop=32))
    return scan(model, root / "photos", root / "atlas", layers=["features.0"], top=4, sample=10, batch_size=8)


@pytest.fixture(scope="module")
def pages(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of that atlas."""
    return write_pages(atlas, tmp_path_factory.mktemp("pages")).parent


def copied(atlas: Atlas, folder: Path) -> Atlas:
    return Atlas.open(shutil.copytree(atlas.path, folder))


def data(pages: Path, name: str) -> Any:
    """What a script of data would give a browser."""
    text = (pages / "data" / f"{name}.js").read_text(encoding="ascii")
    found = re.fullmatch(r'unitscopeAtlas\.add\("([^"]+)",(.*)\);\n', text, re.DOTALL)
    assert found is not None and found[1] == name
    return json.loads(found[2])


def chunks(pages: Path, kind: str) -> list[Any]:
    return [data(pages, path.stem) for path in sorted((pages / "data").glob(f"{kind}-*.js"))]


def texts(pages: Path) -> dict[str, str]:
    return {str(path.relative_to(pages)): path.read_text() for path in pages.rglob("*") if path.suffix in KINDS}


KINDS = (".html", ".js", ".css")


def test_everything_that_is_named_is_there(pages: Path, atlas: Atlas) -> None:
    html = (pages / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert (pages / name).is_file()
    index = data(pages, "index")
    assert [layer["name"] for layer in index["layers"]] == [layer.name for layer in atlas.layers]
    for place, layer in enumerate(index["layers"]):
        assert {len(column) for column in layer["columns"].values()} == {layer["units"]}
        found = [data(pages, f"units-{place}-{one}") for one in range(-(-layer["units"] // layer["chunk"]))]
        assert sum(len(chunk["units"]) for chunk in found) == layer["units"]
    for chunk in (*chunks(pages, "units"), *chunks(pages, "classes")):
        for image, (_, _, _, _, state) in chunk["images"].items():
            assert state == 0 and (pages / "images" / "0" / f"{image}.webp").is_file()
    for chunk in chunks(pages, "units"):
        named = {str(one) for unit in chunk["units"] for part in PARTS for one in unit[part]["images"]}
        assert named == set(chunk["images"])


PARTS = ("maximum", "mean", "range")


def test_numbers_are_those_of_the_tables(pages: Path, atlas: Atlas) -> None:
    index, layer = data(pages, "index"), atlas.layers[0]
    columns = index["layers"][0]["columns"]
    rows = atlas.table("units", where=[("layer", "=", layer.name)]).to_pydict()
    for name in ("maximum", "threshold", "selectivity"):
        np.testing.assert_allclose(np.array(columns[name], float), np.array(rows[name], float), rtol=1e-4)
    unit = data(pages, "units-0-0")["units"][3]
    tops = atlas.table("top_images", where=[("layer", "=", layer.name), ("unit", "=", 3)]).to_pydict()
    for criterion in ("maximum", "mean"):
        of = [place for place, name in enumerate(tops["criterion"]) if name == criterion]
        assert unit[criterion]["images"] == [tops["image"][place] for place in of]
    assert unit["range"]["scores"] == sorted(unit["range"]["scores"]) and unit["range"]["ranks"][-1] == 10
    # All cells are told: those in bars, those left of them, those of 0, and in this layer those below.
    assert index["layers"][0]["signed"]
    assert sum(unit["histogram"]) + unit["less"] == pytest.approx(rows["share_positive"][3], rel=1e-4)


def test_tiles_are_what_the_network_saw(pages: Path, atlas: Atlas) -> None:
    image = data(pages, "units-0-0")["units"][0]["maximum"]["images"][0]
    entry = {
        name: column[0] for name, column in atlas.table("images", where=[("image", "=", image)]).to_pydict().items()
    }
    dataset = open_dataset(atlas.manifest["data"]["source"])
    photo = Image.open(Path(dataset.source) / dataset.entries[image].id)
    box = [round(entry[side]) for side in ("left", "top", "right", "bottom")]
    with Image.open(pages / "images" / "0" / f"{image}.webp") as tile:
        wanted = photo.crop(box).resize(tile.size)
        difference = np.asarray(tile, float) - np.asarray(wanted, float)
        assert tile.width == tile.height == 36 and np.abs(difference).mean() < 8


def test_names_never_become_markup(pages: Path) -> None:
    for name, text in texts(pages).items():
        assert not re.search(r"<(img|svg onload|script>hacked|/script><script)", text), name
        if name.startswith("data"):
            assert not re.search("[<>&\u2028\u202e]", text), name
    assert any("hacked" in text for text in texts(pages).values()), "the names are there as text"
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in pages.rglob("*"))


def test_no_addresses_and_no_paths_of_the_writer(pages: Path, atlas: Atlas) -> None:
    for name, text in texts(pages).items():
        assert not re.search(r"https?:|(?<!:)//[a-z]", text.replace("// ", "")), name
        assert str(atlas.path.parent) not in text and "/tmp" not in text and str(Path.home()) + "/" not in text, name
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', (pages / "index.html").read_text())
    assert policy is not None and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]


def test_paths_in_what_is_told_lose_their_folders(atlas: Atlas, tmp_path: Path) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["model"] |= {
        "spec": "checkpoint:/home/someone/models/net.pth",
        "weights": "/home/someone/models/net.pth",
        "notes": ["from https://example.org/a/b", "labels of 'C:\\secret\\labels.txt'", "mean 0.485/0.456/0.406"],
    }
    about = dict(data(write_pages(other, tmp_path / "pages").parent, "index")["about"])
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
    page = write_pages(atlas, tmp_path / "out", each=done.append, images=2)
    total = sum(layer.units for layer in atlas.layers)
    assert done == list(range(1, total + 1)) and page == tmp_path / "out" / "index.html"
    assert len(data(page.parent, "units-0-0")["units"][0]["mean"]["images"]) == 2


@pytest.mark.parametrize("trouble", [RuntimeError("broken"), KeyboardInterrupt()], ids=repr)
def test_whole_or_nothing(atlas: Atlas, tmp_path: Path, trouble: BaseException) -> None:
    def fail(done: int) -> None:
        if done == 5:
            raise trouble

    with pytest.raises(type(trouble)):
        write_pages(atlas, tmp_path / "a" / "b", each=fail)
    assert list(tmp_path.iterdir()) == []


def test_refusals(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 image, not 0"):
        write_pages(atlas, tmp_path / "out", images=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="it is a file"):
        write_pages(atlas, tmp_path / "file")


@pytest.mark.filterwarnings("ignore:.*could not be shown")
def test_photos_that_are_gone_changed_or_damaged_leave_a_note(atlas: Atlas, tmp_path: Path) -> None:
    photos = shutil.copytree(atlas.manifest["data"]["source"], tmp_path / "photos")
    dataset = open_dataset(photos)
    paths = [photos / entry.id for entry in dataset.entries]
    paths[0].unlink()
    shutil.copy(paths[2], paths[1])
    shown = [row for chunk in written(atlas, tmp_path / "a", dataset) for row in chunk["images"].items()]
    states = {int(image): STATES[row[4]] for image, row in shown}
    assert states[0] == "photo not found" and states[1] == "another photo now" and states[2] == ""
    assert not (tmp_path / "a" / "images" / "0" / "0.webp").exists()
    assert data(tmp_path / "a", "index")["missing"] == 2

    photos.rename(tmp_path / "elsewhere")
    shown = [row for chunk in written(atlas, tmp_path / "b", dataset) for row in chunk["images"].items()]
    assert {STATES[row[4]] for _, row in shown} == {"photo not found"}


@pytest.mark.filterwarnings("ignore:.*could not be shown")
def test_a_data_set_that_is_gone(atlas: Atlas, tmp_path: Path) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["data"]["paths"] = [str(tmp_path / "nowhere")]
    shown = [row for chunk in written(other, tmp_path / "pages") for row in chunk["images"].values()]
    assert {STATES[row[4]] for row in shown} == {"photo not found"}


def test_missing_photos_are_told_and_other_files_left_alone(atlas: Atlas, tmp_path: Path) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["data"]["paths"] = [str(tmp_path / "nowhere")]
    with pytest.warns(UnitscopeWarning, match=r"30 of 30 images could not be shown"):
        write_pages(other, tmp_path / "pages")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        write_pages(atlas, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["index.html"]


def test_images_are_found_by_their_id(atlas: Atlas, tmp_path: Path) -> None:
    photos = shutil.copytree(atlas.manifest["data"]["source"], tmp_path / "photos")
    (photos / "aaa.png").write_bytes(next(photos.rglob("*.png")).read_bytes())
    shown = [row for chunk in written(atlas, tmp_path / "a", open_dataset(photos)) for row in chunk["images"].values()]
    assert {STATES[row[4]] for row in shown} == {""}


def test_the_split_that_was_scanned_is_found_again(atlas: Atlas, tmp_path: Path) -> None:
    photos = Path(atlas.manifest["data"]["source"])
    for split in ("train", "val"):
        shutil.copytree(photos, tmp_path / "photos" / split)
    dataset = open_dataset(tmp_path / "photos", split="val")
    other = copied(atlas, tmp_path / "atlas")
    rows = other.table("images").to_pydict()
    write_table(other.path / "images.parquet", rows | {"id": [dataset.entries[image].id for image in rows["image"]]})
    other.manifest["data"] |= {"paths": [str(tmp_path / "photos")], "split": "val"}
    shown = [row for chunk in written(other, tmp_path / "pages") for row in chunk["images"].values()]
    assert {STATES[row[4]] for row in shown} == {""}


def written(atlas: Atlas, out: Path, dataset: Any = None) -> list[Any]:
    write_pages(atlas, out, dataset=dataset)
    return [*chunks(out, "units"), *chunks(out, "classes")]


def test_pages_without_the_optional_tables(atlas: Atlas, tmp_path: Path) -> None:
    other = copied(atlas, tmp_path / "atlas")
    for name in OPTIONAL:
        (other.path / f"{name}.parquet").unlink(missing_ok=True)
    for unit in (
        unit for chunk in chunks(write_pages(other, tmp_path / "out").parent, "units") for unit in chunk["units"]
    ):
        assert not {"concepts", "hurt", "helped"} & set(unit)
    for one in (one for chunk in chunks(tmp_path / "out", "classes") for one in chunk["classes"]):
        assert not {"removals", "important"} & set(one)


def full(atlas: Atlas, folder: Path) -> Atlas:
    """The atlas with made-up tables of concepts and ablation, as docs/atlas.md has them."""
    other = copied(atlas, folder)
    head, count = atlas.layer(), len(atlas.classes)
    units, every = np.arange(head.units), np.repeat(np.arange(head.units), count)
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
    concept = {"layer": rows["layer"], "unit": rows["unit"], "rank": [1] * total, "concept": [1] * total}
    concept |= {"name": [HOSTILE] * total, "category": ["object"] * total}
    concept |= {name: np.full(total, 0.1) for name in ("iou", "iou_low", "iou_high", "chance", "chance_high")}
    shares = {name: np.full(head.units, 0.5) for name in ("accuracy", "accuracy_low", "accuracy_high")}
    effects = {"importance": importance, "importance_low": importance - 0.1, "importance_high": importance + 0.1}
    removed = ["none", "most important", "least important", "random"] * count
    balanced = {
        f"{name}{end}": np.full(len(removed), 0.5)
        for name in ("balanced_accuracy", "accuracy")
        for end in ("", "_low", "_high")
    }
    of = np.repeat(np.arange(count), 4)
    tables: dict[str, dict[str, Any]] = {
        "units": rows,
        "concepts": {"concept": [0, 1], "name": ["sky", HOSTILE], "category": ["object", "object"], "images": [1, 2]},
        "unit_concepts": concept,
        "unit_ablation": {"unit": units, **shares, "accuracy_change": np.linspace(-0.1, 0.1, head.units)},
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


def test_ablation_and_concepts_are_told_where_they_were_measured(atlas: Atlas, tmp_path: Path) -> None:
    other = full(atlas, tmp_path / "atlas")
    pages = write_pages(other, tmp_path / "pages").parent
    index = data(pages, "index")
    place = next(place for place, layer in enumerate(index["layers"]) if layer["head"])
    assert index["layers"][place]["columns"]["category"] == ["object"] * 6
    assert "accuracy_change" not in index["layers"][1 - place]["columns"]
    table = other.table("class_ablation").to_pydict()
    rows = [row for row in zip(table["unit"], table["class"], table["importance"], strict=True) if row[0] == 2]
    unit = data(pages, f"units-{place}-0")["units"][2]
    most = max(rows, key=lambda row: row[2])
    assert unit["hurt"][0][:2] == [most[1], pytest.approx(most[2], rel=1e-4)]
    assert all(row[1] > 0 for row in unit["hurt"]) and all(row[1] < 0 for row in unit["helped"])
    one = data(pages, "classes-0")["classes"][4]
    importances = [row[1] for row in one["important"]]
    assert importances == sorted(importances, reverse=True) and len(one["removals"]) == 4


@pytest.mark.parametrize("cells", [8, 32, 33, 112])
def test_maps_are_kept_to_a_part_of_their_peak(cells: int) -> None:
    shares = np.random.default_rng(0).uniform(-1, 1, (3, cells, cells)).astype(np.float16)
    factor = atlas_contents._factor((cells, cells))
    side = -(-cells // factor)
    for signed in (True, False):
        packed = np.frombuffer(base64.b64decode(atlas_contents._packed(shares, factor, signed)), np.uint8)
        found = packed.reshape(3, side, side) / 254
        found = 2 * found - 1 if signed else found
        rows = np.minimum(np.arange(side * factor), cells - 1)
        squares = shares[:, rows][:, :, rows].astype(float).reshape(3, side, factor, side, factor).max((2, 4))
        np.testing.assert_allclose(found, squares if signed else squares.clip(0), atol=0.005)
    assert side <= 32


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pages are not opened")
    program = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if program is None:
        pytest.skip("there is no Chromium: pages are not opened")
    with playwright.sync_playwright() as running:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = running.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that keeps what went wrong in `page.wrong`: errors, console messages, requests that leave the folder."""
    page = browser.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text))
    # What was still under way when another address was gone to is no failure.
    page.on("requestfailed", lambda one: "ABORTED" in one.failure or page.wrong.append(f"failed {one.url}"))
    page.on("request", lambda request: request.url.startswith("file:") or page.wrong.append(request.url))
    yield page
    assert page.wrong == []
    page.close()


def opened(page: Any, pages: Path, address: str) -> str:
    page.goto("about:blank")
    page.goto(f"{(pages / 'index.html').as_uri()}{address}")
    page.wait_for_selector("h1")
    assert page.evaluate("window.hacked") is None
    return str(page.inner_text("h1"))


def test_every_address_opens_from_disk(page: Any, atlas: Atlas, tmp_path: Path) -> None:
    pages = write_pages(full(atlas, tmp_path / "atlas"), tmp_path / "pages").parent
    assert opened(page, pages, "") == f"Units of {atlas.layer().name}"
    page.wait_for_selector(".card img")
    assert page.locator(".card").count() == 6 and HOSTILE in page.inner_text(".card .name")
    assert page.eval_on_selector(".card img", "image => image.decode().then(() => image.naturalWidth)") == 36
    assert opened(page, pages, "#/layer/features.0?sort=maximum&show=detectors") == "Units of features.0"
    # The rows of both layers stand in one table: every second unit of all is a detector.
    assert page.inner_text(".count") in ("4 of 8 units", "8 units")
    assert opened(page, pages, "#/unit/features.0/3?draw=heat&by=mean").startswith("Unit 3")
    assert page.locator(".gallery canvas.heat").count() == 4 + 8
    assert opened(page, pages, "#/class/0").endswith(HOSTILE)
    assert page.locator(".curves").count() == 1
    assert opened(page, pages, "#/classes?sort=accuracy") == "Classes"
    assert opened(page, pages, "#/about") == "About this atlas"
    for nowhere in ("#/unit/features.0/999", "#/layer/none", "#/class/77", "#/unit/features.0/%E0%A4%A"):
        assert opened(page, pages, nowhere) == "Not found"


def test_going_about_by_keys_and_back(page: Any, pages: Path, atlas: Atlas) -> None:
    opened(page, pages, "#/layer/features.0")
    page.keyboard.press("/")
    page.keyboard.type("5")
    assert page.inner_text(".count") == "1 of 8 units" and page.url.endswith("?q=5")
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
    assert page.inner_text(".count") == "1 of 8 units" and page.input_value("input[type=search]") == "5"
    opened(page, pages, "#/unit/features.0/3")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("h1:has-text('Unit 4')")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


@pytest.mark.filterwarnings("ignore:.*could not be shown")
def test_missing_photos_are_told_in_the_page(page: Any, atlas: Atlas, tmp_path: Path) -> None:
    other = copied(atlas, tmp_path / "atlas")
    other.manifest["data"]["paths"] = [str(tmp_path / "nowhere")]
    pages = write_pages(other, tmp_path / "pages").parent
    opened(page, pages, "#/unit/features.0/0")
    assert page.locator(".gallery .missing .note").first.inner_text() == "photo not found"
    assert "could not be shown" in page.inner_text("#warnings")


def test_contours_lie_where_the_geometry_lays_them(page: Any, pages: Path, atlas: Atlas) -> None:
    """What the browser draws is what `lay_on_photo` gives, to half of a hundredth of the picture."""
    opened(page, pages, "#/about")
    layer = atlas.layer("features.0")
    cells = np.zeros(layer.cells, np.float32)
    cells[3, 9] = 1.0
    size = atlas.manifest["model"]["input_shape"][-1]
    laid = lay_on_photo(cells, layer.grid, Placement.whole((size, size), (size, size)), (800, 800))
    rows, cols = np.nonzero(laid >= 0.5)
    script = """([values, layer, input]) => {
      const drawn = unitscopeDraw.contour(values, 0.5, layer, input);
      document.body.append(drawn);
      const box = drawn.querySelector("path").getBBox();
      return [box.x, box.y, box.x + box.width, box.y + box.height];
    }"""
    index = data(pages, "index")
    (told,) = [one for one in index["layers"] if one["name"] == "features.0"]
    box = page.evaluate(script, [cells.ravel().tolist(), told, index["input"]])
    wanted = np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]) / 8
    np.testing.assert_allclose(box, wanted, atol=0.7)
