"""A photo's class against another: the browser's margins are the library's, the sets that flip a
prediction are the smallest where that is said, and the page does both by address and by keys."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from browsing import served, watched
from networks import BETWEEN, Between, Gap, Mlp, seeded
from transformer import small_vit
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.explorer.documents import Documents
from unitscope.explorer.photo_contents import head_contents, photo_contents
from unitscope.explorer.static_copy import export
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap
from unitscope.residual.explanation import ResidualExplanation

LABELS = ("coast", "harbor", "<b>mountain</b>", "a_long/label", "e")
CROPPED = Preprocessing(resize=36, crop=32)
NARROW = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    Image.fromarray(pixels).resize((60, 40)).save(path)
    return path


def documents_of(module: nn.Module, given: Path, folder: Path) -> Documents:
    model = wrap(module, labels=LABELS, preprocessing=CROPPED)
    return Documents(model, folder=folder, photos=[given])


def strong(units: int = 6, bias: bool = True, seed: int = 4) -> Gap:
    """A network in which units weigh more than the biases."""
    network = seeded(lambda: Gap(units=units, bias=bias), seed)
    with torch.no_grad():
        network.fc.weight *= 4
    return network


@pytest.fixture(scope="module")
def documents(
    given: Path, tmp_path_factory: pytest.TempPathFactory
) -> Documents:
    return documents_of(strong(), given, tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="module")
def address(documents: Documents) -> Iterator[str]:
    with served(documents) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    size = {"width": 1280, "height": 900}
    with watched(browser, address, viewport=size) as page:
        yield page


@pytest.fixture(scope="module")
def explained(documents: Documents, given: Path) -> Explanation:
    assert documents.model is not None
    return documents.model.explain(given)


def opened(page: Any, address: str, state: str = "") -> None:
    page.goto("about:blank")
    page.goto(f"{address}/#/photo/photo-0{state}")
    page.wait_for_selector(".unit-switch")


def goes_to(page: Any, state: str) -> None:
    """Wait until the address says a choice: it is written after the choice is drawn."""
    page.wait_for_function("state => location.hash.includes(state)", arg=state)


def number(text: str) -> float:
    """A number as pages write it."""
    mantissa, _, power = text.replace("−", "-").partition(" × 10")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    return float(mantissa) * 10.0 ** int(power.translate(digits) or 0)


def told_of(explanation: Explanation) -> tuple[Any, Any]:
    assert isinstance(explanation.head, ExactHead)
    return photo_contents(explanation), head_contents(explanation.head.readout)


def network_of(kind: str, seed: int = 0) -> nn.Module:
    if kind == "gap":
        return seeded(Gap, seed)
    return seeded(lambda: Between(BETWEEN[kind][0]), seed)


def noise(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, 32, 32, generator=generator)


# The algebra of a margin

MARGIN = """async ([head, told, one, other, off, region]) => {
  const { ExactPhoto, marginOf, readoutOf } = await import("/static/algebra.js");
  const photo = new ExactPhoto(told, readoutOf(head));
  const set = new Set(off);
  const evidenceOf = (index) => ({
    map: photo.map(index, set),
    contributions: photo.contributions(index, set),
    leftOut: photo.leftOut(index),
  });
  const margin = marginOf(evidenceOf(one), evidenceOf(other));
  const evidence = photo.evidence(new Set(region), set);
  return {
    cam: [...margin.map],
    contributions: [...margin.contributions],
    left_out: margin.leftOut,
    region: evidence[one] - evidence[other],
  };
}"""


@pytest.mark.parametrize(
    "kind",
    ["gap", "batch norm", "layer norm", "root mean square norm", "unit length"],
)
def test_margins_are_the_differences_of_the_library_and_add_up(
    page: Any, address: str, kind: str
) -> None:
    page.goto(f"{address}/#/photo")
    model = wrap(network_of(kind))
    numbers = np.random.default_rng(4)
    for seed in range(4):
        explanation = model.explain(noise(seed))
        told, head = told_of(explanation)
        one, other = numbers.choice(5, 2, replace=False).tolist()
        off = sorted(numbers.choice(6, seed, replace=False).tolist())
        cells = told["map"]["rows"] * told["map"]["cols"]
        region = numbers.choice(cells, 3, replace=False).tolist()

        question = [head, told, one, other, off, region]
        found = page.evaluate(MARGIN, question)

        without = explanation.ablate(off) if off else explanation
        mask = torch.zeros(cells)
        mask[region] = 1
        evidence = without.evidence(mask.view(told["map"]["rows"], -1))[0]
        cams = without.cams_of([one, other])[0].flatten(1)
        given = without.contributions_of([one, other])[0]
        left_out = without.left_out_of([one, other])[0]
        atol = 1e-5 * max(float(explanation.logits.abs().max()), 1)
        expected = {
            "cam": cams[0] - cams[1],
            "contributions": given[0] - given[1],
            "left_out": left_out[0] - left_out[1],
            "region": evidence[one] - evidence[other],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[name], value.numpy(), atol=atol, err_msg=name
            )

        # Both add up to the margin of a real forward pass.
        real = model.forward_without(explanation.inputs(), off)[0]
        margin = float(real[one] - real[other])
        for sum_ in (np.mean(found["cam"]), np.sum(found["contributions"])):
            assert sum_ + found["left_out"] == pytest.approx(margin, abs=atol)


# The sets that flip a prediction

FLIP = """async ([head, told, questions]) => {
  const { ExactPhoto, readoutOf } = await import("/static/algebra.js");
  const { exactFlip } = await import("/static/flip.js");
  const photo = new ExactPhoto(told, readoutOf(head));
  return questions.map(([leader, rival]) => {
    const { units, logits, by } = exactFlip(photo, leader, rival);
    return { units, logits: [...logits], by };
  });
}"""


def smallest_of(
    logits_without: Callable[[list[int]], np.ndarray],
    units: int,
    leader: int,
    rival: int | None,
) -> int | None:
    """The size of the smallest set without which another class is ahead: all sets are tried."""
    for size in range(1, units + 1):
        for off in itertools.combinations(range(units), size):
            if is_beaten(logits_without(list(off)), leader, rival):
                return size
    return None


def is_beaten(logits: Any, leader: int, rival: int | None) -> bool:
    """Whether another class is ahead, by more than rounding."""
    other = int(np.argmax(logits)) if rival is None else rival
    return bool(logits[other] > logits[leader] + 1e-6)


def questions_of(logits: np.ndarray) -> list[tuple[int, int | None]]:
    """Every pair, the class that is ahead first, and the first prediction against all."""
    ranked = np.argsort(-logits, kind="stable").tolist()
    pairs: list[tuple[int, int | None]] = [(ranked[0], None)]
    return pairs + list(itertools.combinations(ranked, 2))


@pytest.mark.parametrize("units", [5, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_no_smaller_set_flips_a_linear_head(
    page: Any, address: str, units: int, bias: bool
) -> None:
    """All subsets of the units of small heads are tried, for every pair of classes."""
    page.goto(f"{address}/#/photo")
    sizes: list[int | None] = []
    for seed in range(3):
        model = wrap(strong(units, bias, seed))
        explanation = model.explain(noise(seed))
        logits = explanation.logits[0].double().numpy()
        contributions = explanation.contributions[0].double().numpy()

        def without(
            off: list[int],
            logits: np.ndarray = logits,
            contributions: np.ndarray = contributions,
        ) -> np.ndarray:
            left: np.ndarray = logits - contributions[:, off].sum(axis=1)
            return left

        questions = questions_of(logits)
        told, head = told_of(explanation)
        found = page.evaluate(FLIP, [head, told, questions])
        for (leader, rival), flip in zip(questions, found, strict=True):
            expected = smallest_of(without, units, leader, rival)
            chosen = flip["units"]
            assert flip["by"] == "proven"
            assert (None if chosen is None else len(chosen)) == expected
            sizes.append(expected)
            if chosen is None:
                continue
            real = model.forward_without(explanation.inputs(), chosen)[0]
            assert is_beaten(real.numpy(), leader, rival)
            np.testing.assert_allclose(flip["logits"], real, atol=1e-5)
    # Small and large sets were among them.
    assert {1, 2} <= set(sizes) and max(size or 0 for size in sizes) > 2


@pytest.mark.parametrize(
    "kind", ["layer norm", "root mean square norm", "unit length"]
)
def test_sets_behind_a_normalisation_flip_and_are_called_greedy(
    page: Any, address: str, kind: str
) -> None:
    page.goto(f"{address}/#/photo")
    sizes: list[tuple[int, int]] = []
    for seed in range(4):
        model = wrap(network_of(kind, seed))
        explanation = model.explain(noise(seed))
        inputs = explanation.inputs()
        every = {
            off: model.forward_without(inputs, list(off))[0].numpy()
            for size in range(1, 7)
            for off in itertools.combinations(range(6), size)
        }

        def without(
            off: list[int], every: dict[Any, np.ndarray] = every
        ) -> np.ndarray:
            return every[tuple(off)]

        questions = questions_of(explanation.logits[0].numpy())
        told, head = told_of(explanation)
        found = page.evaluate(FLIP, [head, told, questions])
        for (leader, rival), flip in zip(questions, found, strict=True):
            assert flip["by"] == "greedy"
            if flip["units"] is None:
                continue
            chosen = sorted(flip["units"])
            assert is_beaten(every[tuple(chosen)], leader, rival)
            least = smallest_of(without, 6, leader, rival)
            assert least is not None
            sizes.append((len(chosen), least))
    assert sizes and all(size >= least for size, least in sizes)
    # Greed finds the smallest one more often than not.
    assert sum(size == least for size, least in sizes) > len(sizes) / 2


MEASURED = """async ([differences, gains]) => {
  const { measuredFlip } = await import("/static/flip.js");
  const asked = [];
  const logitsWithout = async (off) => {
    asked.push(off.size);
    return Float64Array.from([1, gains[off.size]]);
  };
  const flip = await measuredFlip(Float64Array.from(differences), 0, 1, logitsWithout);
  return [flip.units, flip.passes, asked, [...flip.logits]];
}"""


@pytest.mark.parametrize(
    ("turns", "asked", "chosen"),
    [
        (1, [1], [5]),
        (2, [1, 2], [5, 3]),
        (3, [1, 2, 4, 3], [5, 3, 1]),
        (5, [1, 2, 4, 5], [5, 3, 1, 4, 2]),
        (9, [1, 2, 4, 5], None),
    ],
)
def test_measured_sets_are_doubled_then_halved(
    page: Any,
    address: str,
    turns: int,
    asked: list[int],
    chosen: list[int] | None,
) -> None:
    """Only units that speak for the leader are tried, the strongest first."""
    page.goto(f"{address}/#/photo")
    differences = [-1, 3, 1, 4, 2, 5]
    gains = [2.0 if size >= turns else 0.0 for size in range(7)]
    found = page.evaluate(MEASURED, [differences, gains])
    assert found[:3] == [chosen, len(asked), asked]
    assert found[3][1] == (0 if chosen is None else 2)


# The page


def margins_of(explanation: Explanation, one: int, other: int) -> np.ndarray:
    given = explanation.contributions_of([one, other])[0]
    return (given[0] - given[1]).numpy()


def test_a_class_is_explained_against_the_second(
    page: Any, address: str, documents: Documents, explained: Explanation
) -> None:
    first, second = (one.index for one in explained.top(2)[0])
    opened(page, address)
    before = page.inner_text(".map-words")
    page.get_by_role("button", name="Against the second").click()
    goes_to(page, f"against={second}")
    title = page.inner_text(".contrast h2")
    assert title == f"Why {LABELS[first]}, not {LABELS[second]}?"
    assert page.inner_text(".map-words") != before
    # Which colour speaks for which class, from left to right.
    ends = page.locator(".ends span").all_inner_texts()
    assert [end.strip() for end in ends] == [
        f"for {LABELS[second]}",
        f"for {LABELS[first]}",
    ]
    given = margins_of(explained, first, second)
    order = [f"unit {unit}" for unit in np.argsort(-given, kind="stable")]
    listed = page.locator(".unit-switch .unit")
    assert listed.all_inner_texts() == order
    page.locator(".units select").select_option(
        label=f"most for {LABELS[second]}"
    )
    assert listed.all_inner_texts() == order[::-1]
    title = page.inner_text(".units h2")
    assert (
        title == f"Units that speak for {LABELS[second]}, not {LABELS[first]}"
    )

    # A unit off changes the margin at once.
    page.locator(".unit-switch").first.click()
    unit = int(order[-1].split()[1])
    assert documents.model is not None
    real = documents.model.forward_without(explained.inputs(), unit)[0]
    margin = f"{float(real[first] - real[second]):+.3f}".replace("-", "−")
    assert page.inner_text(".margin .value") == f"{margin} logits"
    page.go_back()
    page.go_back()
    page.go_back()
    page.wait_for_function("() => !location.hash.includes('against')")
    assert "and not another class" in page.inner_text(".contrast h2")
    assert page.inner_text(".map-words") == before


def test_the_contrast_is_in_the_address(
    browser: Any, page: Any, address: str
) -> None:
    opened(page, address, "?class=3&against=1&off=0,2&region=0-6&units=against")
    places = [".contrast", ".under", ".evidence", ".units", ".standing"]
    before = {place: page.inner_text(place) for place in places}
    assert "Why a_long/label, not harbor?" in before[".contrast"]
    row = page.locator(".evidence tbody tr").first
    assert row.locator("th").inner_text() == "a_long/label − harbor"
    with watched(browser, address) as other:
        other.goto(page.url)
        other.wait_for_selector(".evidence table")
        assert {place: other.inner_text(place) for place in places} == before
    # The margin of a region is the difference of the rows of both classes.
    rows = {
        one.locator("th").inner_text(): [
            number(text) for text in one.locator("td").all_inner_texts()
        ]
        for one in page.locator(".evidence tbody tr").all()
    }
    margin = rows["a_long/label − harbor"]
    for place in range(3):
        difference = rows["a_long/label"][place] - rows["harbor"][place]
        assert margin[place] == pytest.approx(difference, abs=0.011)


@pytest.mark.parametrize(
    "state", ["?against=9", "?against=x", "?class=2&against=2"]
)
def test_addresses_without_a_sensible_rival_show_none(
    page: Any, address: str, state: str
) -> None:
    opened(page, address, state)
    assert "and not another class" in page.inner_text(".contrast h2")


def test_the_contrast_by_keys_keeps_the_focus(
    page: Any, address: str, explained: Explanation
) -> None:
    second = explained.top(2)[0][1].index
    opened(page, address)
    page.keyboard.press("v")
    goes_to(page, f"against={second}")
    # The class that is explained and the one against it change places.
    page.keyboard.press("2")
    assert page.inner_text(".contrast h2").startswith(
        f"Why {LABELS[second]}, not"
    )
    page.keyboard.press("1")
    page.keyboard.press("v")
    page.wait_for_function("() => !location.hash.includes('against')")
    button = page.get_by_role("button", name="Against the second")
    for pressed in ("true", "false"):
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(50)
        focused = page.evaluate("document.activeElement.textContent")
        assert focused.startswith("Against the second")
        assert button.get_attribute("aria-pressed") == pressed
    field = page.locator(".contrast select")
    field.focus()
    field.select_option(label=LABELS[second])
    goes_to(page, f"against={second}")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert "explain it against the second class" in page.inner_text("#help")


def test_the_smallest_set_is_switched_off(
    page: Any, address: str, documents: Documents, explained: Explanation
) -> None:
    logits = explained.logits[0].double().numpy()
    contributions = explained.contributions[0].double().numpy()
    first = int(np.argmax(logits))

    def without(off: list[int]) -> np.ndarray:
        left: np.ndarray = logits - contributions[:, off].sum(axis=1)
        return left

    opened(page, address)
    page.keyboard.press("f")
    page.wait_for_selector(".flip:not(:empty)")
    size = smallest_of(without, 6, first, None)
    assert size == 2
    assert page.locator(".unit-switch[aria-checked=false]").count() == size
    words = page.inner_text(".flip")
    assert words.startswith("Smallest set: ") and "Exact, by algebra" in words
    off = [
        int(text.split()[1])
        for text in page.locator(
            ".unit-switch[aria-checked=false] .unit"
        ).all_inner_texts()
    ]
    assert documents.model is not None
    real = documents.model.forward_without(explained.inputs(), off)[0]
    shares = torch.softmax(real, 0)
    winner = int(real.argmax())
    assert winner != first
    assert f"{LABELS[winner]} wins ({float(shares[winner]):.1%})" in words
    assert f"{LABELS[first]} becomes {LABELS[winner]}" in page.inner_text(
        ".summary"
    )
    # It is said of this state only.
    goes_to(page, "off=")
    state = page.url
    page.get_by_role("button", name="All on").click()
    assert page.locator(".flip:not(:empty)").count() == 0
    page.go_back()
    page.wait_for_url(state)
    page.wait_for_selector(".flip:not(:empty)")
    # Who opens the address sees the units off, and may search anew.
    opened(page, address, state.partition("photo-0")[2])
    assert page.locator(".unit-switch[aria-checked=false]").count() == size
    page.get_by_role("button", name="Smallest set that flips it").click()
    assert page.inner_text(".flip") == words


def test_a_prediction_that_nothing_flips_is_said_to_be_one(
    browser: Any, given: Path, tmp_path: Path
) -> None:
    network = seeded(Gap)
    with torch.no_grad():
        network.fc.bias[2] = 50
    documents = documents_of(network, given, tmp_path)
    with served(documents) as address, watched(browser, address) as page:
        opened(page, address)
        page.keyboard.press("f")
        page.wait_for_selector(".flip:not(:empty)")
        words = page.inner_text(".flip")
        assert words == (
            "No set of units puts another class ahead of <b>mountain</b>: exact, by algebra."
        )
        page.keyboard.press("v")
        page.keyboard.press("f")
        page.wait_for_selector(".flip:has-text('still ahead by')")
        assert page.locator(".unit-switch[aria-checked=false]").count() == 0
        assert "off=" not in page.url


def test_a_copy_contrasts_and_flips_from_disk(
    browser: Any, given: Path, tmp_path: Path
) -> None:
    model = wrap(strong(), labels=LABELS, preprocessing=CROPPED)
    pages = export(None, tmp_path / "pages", model=model, photos=[given])
    with watched(browser, "file:") as page:
        page.goto(f"{pages.as_uri()}#/photo/photo-0?against=1")
        page.wait_for_selector(".unit-switch")
        page.keyboard.press("v")
        page.keyboard.press("f")
        page.wait_for_selector(".flip:not(:empty)")
        assert "Exact, by algebra" in page.inner_text(".flip")
        goes_to(page, "off=")
        goes_to(page, "against=")


def test_a_local_margin_is_measured(
    browser: Any, given: Path, tmp_path: Path
) -> None:
    network = seeded(Mlp, 4)
    with torch.no_grad():
        network.classifier[3].weight.mul_(20)  # type: ignore[operator]
    documents = documents_of(network, given, tmp_path)
    assert documents.model is not None
    explanation = documents.model.explain(given)
    assert not explanation.exact
    first, second = (one.index for one in explanation.top(2)[0])
    given_ = margins_of(explanation, first, second)
    order = np.argsort(-given_, kind="stable").tolist()
    with served(documents) as address, watched(browser, address) as page:
        opened(page, address, f"?against={second}&region=0-9")
        page.wait_for_selector(".evidence table")
        listed = page.locator(".unit-switch .unit").all_inner_texts()
        assert listed == [f"unit {unit}" for unit in order]
        assert "by gradient × activation" in page.inner_text(".contrast")
        page.get_by_role("button", name="Find a set that flips it").click()
        page.wait_for_selector(".flip:has-text('Measured')")
        off = page.locator(".unit-switch[aria-checked=false]").count()
        words = page.inner_text(".flip")
        inputs = explanation.inputs()

        def flips(many: int) -> bool:
            real = documents.model.forward_without(  # type: ignore[union-attr]
                inputs, order[:many], layer=explanation.layer
            )
            return is_beaten(real[0].numpy(), first, second)

        assert 1 < off and flips(off) and not any(map(flips, range(1, off)))
        assert words.startswith("A set that flips it: ")
        assert "real forward pass" in words
        assert f"{LABELS[second]} wins" in words


def test_heads_of_attention_are_contrasted_too(
    browser: Any, given: Path, tmp_path: Path
) -> None:
    documents = documents_of(small_vit(), given, tmp_path)
    assert documents.model is not None
    explanation = documents.model.explain(given)
    assert isinstance(explanation, ResidualExplanation)
    first, second = (one.index for one in explanation.top(2)[0])
    with served(documents) as address, watched(browser, address) as page:
        opened(page, address, f"?against={second}&head=4")
        page.wait_for_selector(".parts tbody tr")
        title = page.inner_text(".parts h2")
        assert title == (
            f"What makes up the margin of {LABELS[first]} over {LABELS[second]}"
        )
        shown = [
            row.locator("td").first.inner_text()
            for row in page.locator(".parts tbody tr").all()
        ]
        parts = [
            float(part[0, first] - part[0, second])
            for part in explanation.parts.values()
        ]
        logits = explanation.logits[0]
        margin = float(logits[first] - logits[second])
        for text, value in zip(shown, [*parts, margin], strict=True):
            assert number(text) == pytest.approx(value, abs=6e-4)
        assert "to the margin" in page.inner_text(".map-words")
        # Heads also give what they took from the class token, which is not on the map.
        words = page.inner_text(".contrast .soft")
        told = [number(one[:-1]) for one in re.findall(r"[+−][\d.]+\)", words)]
        given_ = float(margins_of(explanation, first, second).sum())
        assert told == pytest.approx([given_, margin - given_], abs=6e-4)
        page.locator(".unit-switch").first.click()
        page.wait_for_selector(".margin:has-text('by the direct effect')")
        page.keyboard.press("f")
        page.wait_for_selector(".flip:has-text('Measured')")


def test_a_contrast_fits_a_narrow_window(browser: Any, address: str) -> None:
    with watched(browser, address, viewport=NARROW) as page:
        opened(page, address, "?class=3&against=2&off=0&region=0-9")
        page.keyboard.press("f")
        page.wait_for_selector(".flip:not(:empty)")
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(fits)
