"""The photo page: its algebra is the library's, its state is its address, and
everything on it can be done by keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from browsing import opened_page, served, watched
from networks import BETWEEN, Between, Gap, Mlp, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.scanning import scan
from unitscope.attribution.explanation import Explanation
from unitscope.errors import AtlasError, MissingError, PhotoError
from unitscope.explorer.documents import Documents
from unitscope.explorer.index_contents import distinct_labels
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.sources import load

# As many units and classes as a ResNet-50 for Places365 has.
WIDE = Path(__file__).parents[2] / "benchmarks" / "wide.py"

HOSTILE = "<img src=x onerror=hacked=1>"
LABELS = (HOSTILE, "a_b", "</script><script>hacked=1</script>", "d", "e/f")
CROPPED = Preprocessing(resize=36, crop=32)


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (60, 40)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize(size).save(path)
    return path


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo(
        tmp_path_factory.mktemp("given") / f"{HOSTILE.replace('/', '')}.png"
    )


def documents_of(
    module: nn.Module, given: Path, folder: Path, *others: Path
) -> Documents:
    return Documents(
        wrap(module, labels=LABELS, preprocessing=CROPPED),
        folder=folder,
        photos=[given, *others],
    )


@pytest.fixture(scope="module")
def documents(
    given: Path, tmp_path_factory: pytest.TempPathFactory
) -> Documents:
    return documents_of(seeded(Gap), given, tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="module")
def address(documents: Documents) -> Iterator[str]:
    with served(documents) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with watched(
        browser, address, viewport={"width": 1280, "height": 900}
    ) as page:
        yield page


def opened(page: Any, address: str, state: str = "") -> None:
    page.goto("about:blank")
    page.goto(f"{address}/#/photo/photo-0{state}")
    page.wait_for_selector(".unit-switch")


def listed(page: Any, which: int) -> list[str]:
    """The labels of the list of predictions before (0) or after (1) units were switched off."""
    found: list[str] = (
        page.locator(".ranking").nth(which).locator(".label").all_inner_texts()
    )
    return found


# What is told


def test_a_photo_is_told_as_it_was_explained(
    documents: Documents, given: Path
) -> None:
    told, head = documents.photo("photo-0"), documents.head()
    assert documents.model is not None
    explanation = documents.model.explain(given)
    features = floats(told["features"]).reshape(told["units"], -1)
    weight = floats(head["weight"]).reshape(head["classes"], head["units"])
    np.testing.assert_array_equal(floats(told["logits"]), explanation.logits[0])
    np.testing.assert_array_equal(
        features, explanation.feature_map[0].flatten(1)
    )
    np.testing.assert_allclose(
        features.mean(1) @ weight.T + floats(head["bias"]),
        explanation.logits[0],
        rtol=1e-5,
    )
    placed = explanation.subjects[0].placement(explanation.input_size)
    assert (told["box"], told["size"], told["input"]) == (
        list(placed.box),
        [60, 40],
        [32, 32],
    )
    json.dumps([told, head, documents.index()], allow_nan=False)


def test_pictures_are_upright_and_nothing_but_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret"
    Image.new("RGB", (3000, 1500), "red").save(
        tmp_path / "turned.jpg", exif=exif
    )
    documents = documents_of(seeded(Gap), tmp_path / "turned.jpg", tmp_path)
    picture = documents.picture("photo-0")
    (tmp_path / "out.jpg").write_bytes(picture)
    with Image.open(tmp_path / "out.jpg") as out:
        assert out.size == (512, 1024) and not out.getexif()
    assert b"secret" not in picture


def test_refusals(documents: Documents, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="send it again"):
        documents.photo("0123456789abcdef01234567")
    with pytest.raises(MissingError, match="no atlas is open"):
        documents.photo("image-3")
    with pytest.raises(MissingError, match="no atlas is open"):
        documents.units(0, 0)
    with pytest.raises(MissingError, match="nothing to explore"):
        Documents(None, folder=tmp_path)
    with pytest.raises(PhotoError):
        documents.add_photo(b"no picture", "x.png")
    damaged = photo(tmp_path / "x.png").read_bytes()[:60]
    with pytest.raises(PhotoError):
        documents.photo(documents.add_photo(damaged, "x.png")["photo"])


def test_later_photos_push_out_earlier_explanations(
    documents: Documents, tmp_path: Path
) -> None:
    first = documents.add_photo(
        photo(tmp_path / "first.png", 1).read_bytes(), "first"
    )["photo"]
    before = documents.photo(first)
    for seed in range(2, 22):
        documents.photo(
            documents.add_photo(
                photo(tmp_path / "x.png", seed).read_bytes(), "x"
            )["photo"]
        )
    assert (
        len(documents._explanations) <= 16 and documents.photo(first) == before
    )


# The browser's algebra

ALGEBRA = """async ([head, told, one, off, region]) => {
  const { ExactPhoto, readoutOf } = await import("/static/algebra.js");
  const photo = new ExactPhoto(told, readoutOf(head));
  const set = new Set(off);
  return {
    logits: [...photo.logitsWithout(set)], contributions: [...photo.contributions(one, set)],
    map: [...photo.map(one, set)], evidence: [...photo.evidence(new Set(region), set)], error: photo.error(),
  };
}"""


def test_the_browser_computes_what_the_library_does(
    page: Any, address: str
) -> None:
    page.goto(f"{address}/#/photo")
    # One page serves all: a new one takes a second.
    for kind in (
        "gap",
        "batch norm",
        "layer norm",
        "root mean square norm",
        "unit length",
    ):
        assert_computed(page, kind)


def assert_computed(page: Any, kind: str) -> None:
    module = (
        seeded(Gap)
        if kind == "gap"
        else seeded(lambda: Between(BETWEEN[kind][0]))
    )
    model = wrap(module)
    numbers = np.random.default_rng(3)
    for round_ in range(6):
        explanation = model.explain(
            torch.randn(
                1, 3, 32, 32, generator=torch.Generator().manual_seed(round_)
            )
        )
        told, head = told_of(explanation)
        off = sorted(numbers.choice(6, round_, replace=False).tolist())
        cells = told["map"]["rows"] * told["map"]["cols"]
        region = numbers.choice(cells, 3, replace=False).tolist()
        found = page.evaluate(ALGEBRA, [head, told, 2, off, region])
        mask = torch.zeros(cells)
        mask[region] = 1
        without = explanation.ablate(off) if off else explanation
        size = float(explanation.logits.abs().max())
        expected = {
            "logits": model.forward_without(explanation.inputs(), off)[0]
            if off
            else explanation.logits[0],
            "contributions": without.contributions_of(2)[0, 0],
            "map": without.cams_of(2)[0, 0].flatten(),
            "evidence": without.evidence(mask.view(told["map"]["rows"], -1))[0],
        }
        for name, values in expected.items():
            np.testing.assert_allclose(
                found[name],
                values.numpy(),
                atol=1e-5 * max(size, 1),
                err_msg=f"{kind}: {name}",
            )
        assert found["error"] < 1e-5


def told_of(explanation: Explanation) -> tuple[Any, Any]:
    from unitscope.attribution.exact_heads import ExactHead
    from unitscope.explorer.photo_contents import head_contents, photo_contents

    assert isinstance(explanation.head, ExactHead)
    return photo_contents(explanation), head_contents(explanation.head.readout)


def test_sets_in_addresses_come_back(page: Any, address: str) -> None:
    page.goto(f"{address}/#/photo")
    back = """async (values) => {
      const { setOf, written } = await import("/static/sets.js");
      const text = written(new Set(values));
      return [text, [...setOf(text, 64)]];
    }"""
    assert page.evaluate(back, [5, 3, 4, 9]) == ["3-5,9", [3, 4, 5, 9]]
    assert page.evaluate(back, []) == ["", []]
    odd = (
        'async (text) => [...(await import("/static/sets.js")).setOf(text, 10)]'
    )
    assert page.evaluate(odd, "8-99999999999,x,-1,2-,3") == [8, 9, 3]


# The page


def test_units_are_switched_off_and_the_top_moves(
    page: Any, address: str, documents: Documents, given: Path
) -> None:
    assert documents.model is not None
    explanation = documents.model.explain(given)
    opened(page, address)
    assert (
        page.inner_text("h1") == given.name
        and page.evaluate("window.hacked") is None
    )
    labels = [prediction.label for prediction in explanation.top(5)[0]]
    assert listed(page, 0) == labels and page.locator(".ranking").count() == 1
    first = explanation.top(1)[0][0]
    units = [one.unit for one in explanation.top_units(first.index, 6)]
    assert page.locator(".unit-switch .unit").all_inner_texts() == [
        f"unit {unit}" for unit in units
    ]
    page.locator(".unit-switch").nth(0).click()
    page.locator(".unit-switch").nth(1).click()
    after = explanation.ablate(units[:2])
    assert listed(page, 1) == [
        prediction.label for prediction in after.top(5)[0]
    ]
    shown = page.locator(".ranking").nth(1).locator(".share").all_inner_texts()
    real = torch.softmax(
        documents.model.forward_without(explanation.inputs(), units[:2])[0], 0
    ).sort(descending=True)
    assert shown == [f"{float(share):.1%}" for share in real.values]
    assert "2 of 6 units off" in page.inner_text(
        ".summary"
    ) and "exact" in page.inner_text(".summary")
    assert page.locator(".unit-switch[aria-checked=false]").count() == 2
    page.go_back()
    page.wait_for_function(
        "() => document.querySelectorAll('.unit-switch[aria-checked=false]').length "
        "=== 1"
    )
    page.get_by_role("button", name="All on").click()
    assert page.locator(".ranking").count() == 1


def test_the_whole_state_is_in_the_address(
    browser: Any, page: Any, address: str
) -> None:
    opened(page, address)
    page.locator(".ranking .prediction").nth(2).click()
    page.locator(".units select").select_option("against")
    page.locator(".unit-switch").nth(0).click()
    page.locator(".slider input").nth(1).fill("40")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Mark a region").click()
    box = page.locator(".crop").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 3, steps=30)
    page.mouse.up()
    seen = [
        ".standing",
        ".evidence",
        ".units",
        ".under .scale",
        ".seen .controls",
    ]
    before = {place: page.inner_text(place) for place in seen}
    assert "Evidence from the region" in before[".evidence"]
    with watched(
        browser, address, viewport={"width": 1280, "height": 900}
    ) as other:
        other.goto(page.url)
        other.wait_for_selector(".evidence table")
        assert {place: other.inner_text(place) for place in seen} == before


@pytest.mark.parametrize(
    ("cells", "words"), [("4", "1 cell"), ("0-6", "7 cells")]
)
def test_a_region_is_said_in_words(
    page: Any, address: str, cells: str, words: str
) -> None:
    opened(page, address, f"?region={cells}")
    region = page.locator(".region").get_attribute("aria-label")
    assert region == f"A region of {words} is marked"


def test_regions_add_up_to_the_logit(page: Any, address: str) -> None:
    opened(page, address, "?region=0-6")

    def number(text: str) -> float:
        mantissa, _, power = text.replace("−", "-").partition(" × 10")
        return float(mantissa) * 10.0 ** int(
            power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0
        )

    for row in page.locator(".evidence tbody tr").all():
        region, rest, logit = (
            number(text) for text in row.locator("td").all_inner_texts()
        )
        assert region + rest == pytest.approx(logit, abs=0.011)
    page.get_by_role("button", name="Clear the region").click()
    assert (
        page.locator(".evidence tbody tr").count() == 0
        and "region" not in page.url
    )


def test_keys(page: Any, address: str) -> None:
    opened(page, address)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(
        "document.activeElement.querySelector('.unit').textContent"
    ) == page.inner_text(".unit-list li:nth-child(2) .unit")
    page.keyboard.press("Space")
    assert page.locator(".unit-switch[aria-checked=false]").count() == 1
    page.keyboard.press("2")
    assert (
        page.locator(".ranking >> nth=0")
        .locator(".prediction")
        .nth(1)
        .get_attribute("aria-pressed")
        == "true"
    )
    page.keyboard.press("m")
    assert page.locator(".stage.mapped").count() == 0
    page.keyboard.press("c")
    assert page.locator(".lines svg").count() == 2
    page.keyboard.press("b")
    for key in (
        "ArrowRight",
        "Space",
        "ArrowRight",
        "Space",
        "ArrowDown",
        "Space",
    ):
        page.keyboard.press(key)
    assert page.locator(".region .marked").count() == 3
    page.keyboard.press("0")
    assert page.locator(".region .marked").count() == 0
    assert page.locator(".unit-switch[aria-checked=false]").count() == 0
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("a_b")
    page.keyboard.press("Enter")
    assert "a_b" in page.inner_text(".units h2")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert "switch the unit off" in page.inner_text("#help")


def test_photos_are_dropped_pasted_and_picked(
    page: Any, address: str, tmp_path: Path
) -> None:
    path = photo(tmp_path / "mine.png", 8)
    page.goto(f"{address}/#/photo")
    page.locator(".drop input").set_input_files(str(path))
    page.wait_for_selector(".unit-switch")
    assert page.inner_text("h1") == "mine.png"
    give = """([kind, bytes, name]) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
      const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        name = f"{kind} {HOSTILE}.png"
        page.evaluate(
            give,
            [
                kind,
                list(photo(tmp_path / "x.png", 20 + len(kind)).read_bytes()),
                name,
            ],
        )
        page.wait_for_function(
            "name => document.querySelector('h1').textContent.startsWith(name)",
            arg=f"{kind} <img",
        )
    assert page.evaluate("window.hacked") is None


def test_what_is_no_photo_is_said_to_be_none(
    browser: Any, address: str, tmp_path: Path
) -> None:
    (tmp_path / "x.png").write_text("not a picture")
    page = opened_page(browser)
    page.goto(f"{address}/#/photo")
    page.locator(".drop input").set_input_files(str(tmp_path / "x.png"))
    page.wait_for_selector(".said.trouble")
    assert "x.png" in page.inner_text(
        ".said"
    ) and "Traceback" not in page.inner_text(".said")
    page.goto(f"{address}/#/photo/nothing-like-it")
    page.get_by_role("heading", name="This photo cannot be shown").wait_for()
    page.close()


def test_local_answers_are_measured_by_the_server(
    browser: Any, given: Path, tmp_path: Path
) -> None:
    documents = documents_of(seeded(Mlp), given, tmp_path)
    assert documents.model is not None
    explanation = documents.model.explain(given)
    assert not explanation.exact
    with served(documents) as address, watched(browser, address) as page:
        opened(page, address)
        assert "measured" in page.inner_text(".count") and listed(page, 0) == [
            one.label for one in explanation.top(5)[0]
        ]
        first = explanation.top(1)[0][0].index
        unit = explanation.top_units(first, 1)[0].unit
        assert page.inner_text(".unit-switch .unit >> nth=0") == f"unit {unit}"
        page.locator(".unit-switch").nth(0).click()
        page.wait_for_selector(".ranking >> nth=1")
        real = documents.model.forward_without(
            explanation.inputs(), [unit], layer=explanation.layer
        )
        shares = torch.softmax(real[0], 0).sort(descending=True).values
        assert page.locator(".ranking").nth(1).locator(
            ".share"
        ).all_inner_texts() == [f"{one:.1%}" for one in shares]
        assert "by real forward passes" in page.inner_text(".summary")


# Atlases


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    root = tmp_path_factory.mktemp("scanned")
    for number in range(20):
        photo(root / "photos" / "ab"[number % 2] / f"{number}.png", number)
    return scan(
        model(),
        root / "photos",
        root / "atlas",
        engine="torch",
        top=4,
        sample=6,
        batch_size=8,
    )


def model() -> Classifier:
    return wrap(seeded(Gap), labels=LABELS, preprocessing=CROPPED)


def test_an_atlas_alone_explains_what_it_kept(
    atlas: Atlas, tmp_path: Path
) -> None:
    documents = Documents(None, atlas, dataset=atlas.photos(), folder=tmp_path)
    with_model = Documents(
        model(), atlas, dataset=atlas.photos(), folder=tmp_path
    )
    shown = documents.index()["photos"]
    assert len(shown) == 6 and shown == with_model.index()["photos"]
    for one in shown:
        kept, real = documents.photo(one["id"]), with_model.photo(one["id"])
        assert {
            name: kept[name]
            for name in ("size", "box", "input", "map", "layer", "units")
        } == {
            name: real[name]
            for name in ("size", "box", "input", "map", "layer", "units")
        }
        np.testing.assert_allclose(
            floats(kept["logits"]), floats(real["logits"]), atol=1e-5
        )
        largest = np.abs(floats(real["features"])).max()
        np.testing.assert_allclose(
            floats(kept["features"]),
            floats(real["features"]),
            atol=1e-3 * largest,
        )
    with pytest.raises(MissingError, match="--model"):
        documents.photo("image-99")
    with pytest.raises(MissingError, match="--model"):
        documents.add_photo(b"", "x")


def test_an_atlas_of_another_model_is_refused(
    atlas: Atlas, tmp_path: Path
) -> None:
    other = wrap(seeded(Gap, 1), labels=LABELS, preprocessing=CROPPED)
    with pytest.raises(AtlasError, match="another model"):
        Documents(other, atlas, folder=tmp_path)


def test_an_atlas_of_another_output_is_refused(
    atlas: Atlas, tmp_path: Path
) -> None:
    other = Atlas.open(atlas.path)
    other.manifest["identity"]["output"] = "out"
    model = wrap(seeded(Gap), labels=LABELS, preprocessing=CROPPED)
    with pytest.raises(
        AtlasError, match=r"another output .* with --output out"
    ):
        Documents(model, other, folder=tmp_path)


def test_kept_photos_say_so(browser: Any, atlas: Atlas, tmp_path: Path) -> None:
    documents = Documents(None, atlas, dataset=atlas.photos(), folder=tmp_path)
    id = documents.index()["photos"][0]["id"]
    assert "pooled" in documents.photo(id)
    with served(documents) as address, watched(browser, address) as page:
        page.goto(f"{address}/")
        page.locator(".at-hand a").first.click()
        page.wait_for_selector(".unit-switch")
        assert "atlas kept" in page.inner_text(".count")
        page.locator(".unit-switch").nth(0).click()
        assert page.locator(".ranking").count() == 2


# Size


def test_2048_units_and_365_classes_are_switched_while_one_clicks(
    browser: Any, given: Path, tmp_path: Path
) -> None:
    documents = Documents(
        load(f"python:{WIDE}:Wide"), folder=tmp_path, photos=[given]
    )
    # What a toggle takes is measured in benchmarks/explore.py; here, that it is right
    # at this size.
    assert documents.model is not None
    explanation = documents.model.explain(given)
    with served(documents) as address, watched(browser, address) as page:
        opened(page, address)
        page.get_by_role("button", name="All but the first 10 off").click()
        kept = [
            one.unit
            for one in explanation.top_units(explanation.top(1)[0][0].index, 10)
        ]
        after = explanation.ablate(
            [unit for unit in range(2048) if unit not in kept]
        )
        assert listed(page, 1) == [one.label for one in after.top(5)[0]]
        assert len(page.url) < 400


def test_labels_are_told_apart() -> None:
    assert distinct_labels(["cat", "", "dog", "cat", "\u200b"]) == [
        "cat · 0",
        "class 1",
        "dog",
        "cat · 3",
        "class 4",
    ]


# What comes late, fails or is pressed twice


@pytest.fixture
def slow(
    browser: Any, given: Path, tmp_path: Path
) -> Iterator[tuple[Any, str, list[Any]]]:
    """A page of a network without an exact head, and the requests for data that are
    held back while that is asked."""
    documents = documents_of(
        seeded(Mlp), given, tmp_path, photo(tmp_path / "other.png", 9)
    )
    held: list[Any] = []
    with served(documents) as address:
        page = opened_page(browser, viewport={"width": 1280, "height": 900})
        page.holding = ""

        def pass_or_hold(route: Any) -> None:
            if page.holding and page.holding in route.request.url:
                held.append(route)
            else:
                route.continue_()

        page.route("**/data/**", pass_or_hold)
        opened(page, address)
        yield page, address, held
        page.close()


def test_clicks_while_another_photo_is_explained_change_nothing(
    slow: tuple[Any, str, list[Any]],
) -> None:
    page, address, held = slow
    page.holding = "photos/photo-1.json"
    page.goto(f"{address}/#/photo/photo-1")
    page.evaluate(
        "() => { for (const one of document.querySelectorAll('.unit-switch')) "
        "one.click(); }"
    )
    page.get_by_role("heading", name="Explaining").wait_for()
    held.pop().continue_()
    page.get_by_role("heading", name="other.png").wait_for()
    page.locator(".unit-switch").first.wait_for()
    assert (
        page.url.endswith("#/photo/photo-1")
        and page.locator(".unit-switch[aria-checked=false]").count() == 0
    )


def test_a_late_look_never_replaces_what_was_chosen(
    slow: tuple[Any, str, list[Any]],
) -> None:
    page, _, held = slow
    chosen = page.inner_text(".map-words strong")
    page.holding = "evidence.json"
    page.locator(".prediction").nth(2).hover()
    page.wait_for_timeout(400)
    page.mouse.move(2, 2)
    assert held
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert page.inner_text(".map-words strong") == chosen


def test_what_was_asked_last_is_shown_and_what_fails_can_be_tried_again(
    slow: tuple[Any, str, list[Any]],
) -> None:
    page, _, held = slow
    page.holding = "ablated"
    for which in (0, 1):
        page.locator(".unit-switch").nth(which).click()
        page.wait_for_timeout(50)
    # What is off is seen at once, whatever the server is doing.
    assert page.locator(".unit-switch[aria-checked=false]").count() == 2
    assert (
        page.get_attribute(".predictions", "aria-busy") == "true"
        and len(held) == 2
    )
    held[1].fulfill(
        status=503,
        content_type="application/json",
        body='{"error": "busy: 32 wait"}',
    )
    page.get_by_role("button", name="Try again").wait_for()
    assert "busy: 32 wait" in page.inner_text(".warning[role=alert]")
    held[0].continue_()
    page.wait_for_timeout(200)
    assert page.get_by_role("button", name="Try again").count() == 1
    page.holding = ""
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("heading", name="2 units off").wait_for()
    assert (
        not page.is_visible(".warning[role=alert]")
        and page.get_attribute(".predictions", "aria-busy") is None
    )


def test_a_photo_is_taken_on_every_page(
    page: Any, address: str, tmp_path: Path
) -> None:
    page.goto(f"{address}/#/network")
    page.get_by_role("heading", name="The network").wait_for()
    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], "dropped here.png", { type: "image/png" }));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list(photo(tmp_path / "x.png", 30).read_bytes()),
    )
    page.get_by_role("heading", name="dropped here.png").wait_for()


def test_what_became_of_the_prediction_is_seen_on_narrow_screens(
    browser: Any, address: str
) -> None:
    with watched(
        browser, address, viewport={"width": 320, "height": 640}
    ) as page:
        opened(page, address, "?region=0-6")
        page.locator(".unit-switch").last.click()
        box = page.locator(".summary").bounding_box()
        assert 0 <= box["y"] < 640 and "1 of 6 units off" in page.inner_text(
            ".summary"
        )
        assert page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth"
        )


def test_the_focus_is_never_lost(page: Any, address: str) -> None:
    opened(page, address, "?region=0-6&off=1")
    for name in ("Clear the region", "All on"):
        page.get_by_role("button", name=name).focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        assert page.evaluate("document.activeElement !== document.body"), name
    page.locator(".prediction").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert page.evaluate("document.activeElement.className") == "prediction"


def test_longer_lists_keep_what_is_there(
    browser: Any, given: Path, tmp_path: Path
) -> None:
    documents = Documents(
        load(f"python:{WIDE}:Wide"), folder=tmp_path, photos=[given]
    )
    with served(documents) as address, watched(browser, address) as page:
        opened(page, address)
        page.evaluate(
            "() => { document.querySelector('.unit-switch').dataset.mine = '1'; }"
        )
        page.get_by_role("button", name="More units").click()
        page.wait_for_function(
            "() => document.querySelectorAll('.unit-switch').length === 48"
        )
        assert (
            page.locator(".unit-switch").first.get_attribute("data-mine") == "1"
        )
        values = page.locator(".unit-switch .unit").all_inner_texts()
        assert documents.model is not None
        explanation = documents.model.explain(given)
        units = explanation.top_units(explanation.top(1)[0][0].index, 48)
        assert values == [f"unit {one.unit}" for one in units]
        # Only pictures near the window are drawn.
        page.wait_for_timeout(300)
        assert 0 < page.locator(".thumb canvas.heat").count() < 48
