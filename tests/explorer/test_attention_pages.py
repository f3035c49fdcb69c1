"""Photos and atlases of transformers: heads by name, parts that add up to the logits, total and
direct effects beside each other, and attention called so."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from browsing import served, watched
from transformer import BLOCKS, HEADS, small_vit
from unitscope.atlas.scanning import scan
from unitscope.errors import MissingError
from unitscope.explorer.documents import Documents, photos_of
from unitscope.explorer.static_copy import export
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.residual.explanation import ResidualExplanation
from unitscope.residual.head import HEADS as LAYER

LABELS = ("red", "green", "blue", "grey", "white")
UNITS = BLOCKS * HEADS
SCHEMA = (
    Path(__file__).parents[2] / "src/unitscope/explorer/documents.schema.json"
)


@pytest.fixture(scope="module")
def vit() -> Classifier:
    cropped = Preprocessing(resize=36, crop=32)
    return wrap(small_vit(), labels=LABELS, preprocessing=cropped)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("photos")
    paths = [root / f"{place}.png" for place in range(8)]
    for seed, path in enumerate(paths):
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, (6, 7, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(path)
    return paths


@pytest.fixture(scope="module")
def documents(
    vit: Classifier,
    photos: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Documents:
    root = tmp_path_factory.mktemp("atlas")
    options: dict[str, Any] = {"top": 4, "sample": 4, "batch_size": 8}
    atlas = scan(vit, photos[0].parent, root / "atlas", **options)
    return Documents(
        vit,
        atlas,
        dataset=photos_of(atlas),
        folder=root / "tiles",
        photos=photos[:1],
        freezes=True,
    )


@pytest.fixture(scope="module")
def explained(vit: Classifier, photos: list[Path]) -> ResidualExplanation:
    explanation = vit.explain(photos[0])
    assert isinstance(explanation, ResidualExplanation)
    return explanation


@pytest.fixture(scope="module")
def address(documents: Documents) -> Iterator[str]:
    with served(documents) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with watched(browser, address) as page:
        yield page


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_documents_are_what_the_schema_says(
    documents: Documents, explained: ResidualExplanation
) -> None:
    photo = documents.photo("photo-0")
    ablated = documents.ablated("photo-0", LAYER, [1, 4])
    head_map = documents.head_map("photo-0", LAYER, 2, 4)
    sent = {
        "index": documents.index(),
        "network": documents.network(),
        "photos/photo-0": photo,
        "evidence": documents.evidence("photo-0", LAYER, 2),
        "head-map": head_map,
        "ablated": ablated,
        "units-0-0": documents.units(0, 0),
    }
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(
        json.loads(json.dumps(sent))
    )
    heads = photo["heads"]
    assert heads["names"][4] == "1.1" and len(heads["names"]) == UNITS
    total = sum(floats(part["logits"]) for part in heads["parts"])
    assert np.allclose(total, explained.logits[0], atol=1e-5)
    total_effect = explained.total_logits([1, 4])[0]
    direct_effect = explained.direct_logits([1, 4])[0]
    assert np.allclose(floats(ablated["logits"]), total_effect, atol=1e-5)
    assert np.allclose(floats(ablated["direct"]), direct_effect, atol=1e-5)
    assert not np.allclose(total_effect, direct_effect, atol=1e-3)
    own = explained.head_maps(4, 2)[0, 0, 0].flatten()
    assert np.allclose(floats(head_map["map"]), own, atol=1e-6)
    assert "sum of all parts = logit" in sent["network"]["head"]["checked"]
    # Attention is not read by what is compiled.
    documents.freeze()
    assert documents.model is not None and documents.model.engine() == "torch"


def test_only_heads_have_maps_of_their_own(documents: Documents) -> None:
    with pytest.raises(MissingError, match="are no attention heads"):
        documents.head_map("photo-0", "patches", 0, 0)


def test_a_photo_shows_heads_parts_and_both_effects(
    page: Any, address: str, explained: ResidualExplanation
) -> None:
    page.goto(f"{address}/#/photo/photo-0")
    page.wait_for_selector(".unit-switch")
    rows = page.locator(".parts tbody tr")
    names = [row.split("\n")[0] for row in rows.locator("th").all_inner_texts()]
    assert names == [*explained.parts, "all parts: the logit"]
    assert "their mean is the part" in page.inner_text(".map-words")
    first = page.locator(".unit-switch").first
    best = explained.maximal_unit(int(explained.logits.argmax()))
    name = explained.head.unit_name(best)
    assert f"head {name}" in first.inner_text()
    first.click()
    page.wait_for_selector("text=1 head off: direct effect")
    titles = page.locator(".predictions h2").all_inner_texts()
    assert titles == [
        "All heads on",
        "1 head off: total effect",
        "1 head off: direct effect",
    ]
    logits = page.locator(".predictions > div").nth(1).locator(".logit")
    largest = float(explained.total_logits(best).max())
    assert f"logit {largest:.2f}".replace("-", "−") in logits.first.inner_text()
    page.locator(".look").first.click()
    page.wait_for_selector(".map-words:has-text('alone')")
    assert f"through head {name} alone" in page.inner_text(".map-words")
    assert f"head={best}" in page.url and f"off={best}" in page.url
    # The address holds it all.
    page.goto(f"{page.url}&region=0-4")
    page.reload()
    page.wait_for_selector(".evidence caption:has-text('5 of 16 patches')")
    page.wait_for_selector(".look[aria-pressed=true]")
    page.fill(".by-number input", "1.2")
    page.click(".by-number button")
    page.wait_for_selector("text=2 heads off: total effect")


def test_pages_of_an_atlas_speak_of_heads_and_attention(
    page: Any, address: str
) -> None:
    page.goto(f"{address}/#/layer/{LAYER}")
    page.wait_for_selector(".card")
    text = page.inner_text("main")
    assert f"{UNITS} heads" in text and "head 1.1" in text
    assert page.inner_text("nav [aria-current]") == "Attention heads"
    page.goto(f"{address}/#/unit/{LAYER}/4")
    page.wait_for_selector("h1:has-text('Head 1.1')")
    text = page.inner_text("main")
    assert "Attention histogram" in text and "attention to patches" in text
    assert "activation" not in text.lower()


def test_a_copy_says_that_photos_are_left_out(
    vit: Classifier, documents: Documents, photos: list[Path], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="leave 1 photo out: without an exact"):
        export(
            documents.atlas, tmp_path / "pages", model=vit, photos=photos[:1]
        )
    index = (tmp_path / "pages" / "data" / "index.js").read_text()
    assert '"photos":[]' in index and '"names":["0.0"' in index
