"""The network and filters pages: their documents are the library's numbers, and their
state is their address."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import unitscope
from browsing import served, watched
from networks import Flattened, Gap, Kinds, SharedConv, seeded
from unitscope.atlas.scanning import scan
from unitscope.errors import LayerError, UnitError
from unitscope.explorer import filter_contents
from unitscope.explorer.documents import Documents
from unitscope.explorer.filter_contents import filters
from unitscope.explorer.network_contents import network
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.kernels import convolutions
from unitscope.kernels import filters as filters_of
from unitscope.model import Classifier, wrap
from unitscope.network_facts import NetworkFacts
from unitscope.render import diagram

# Modules may be called anything that has no dot.
HOSTILE = "a?b#c/<img src=x onerror=hacked=1>"
CROPPED = Preprocessing(resize=36, crop=32)


class Mixed(nn.Module):
    """Convolutions of all kinds that run on maps, one of them of a name that wants to be markup."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb = nn.Conv2d(3, 8, (3, 5), stride=2)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4)
        self.transposed = nn.ConvTranspose2d(12, 6, 3, groups=2)
        self.add_module(HOSTILE, nn.Conv2d(6, 20, 7, padding=3))
        self.depthwise = nn.Conv2d(20, 20, 3, groups=20)
        self.single = nn.Conv2d(20, 10, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.transposed(self.grouped(self.rgb(x)).relu())
        x = self.single(
            self.depthwise(self.get_submodule(HOSTILE)(x)).relu()
        ).relu()
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


@pytest.fixture(scope="module")
def mixed() -> Classifier:
    return wrap(seeded(Mixed), preprocessing=CROPPED)


@pytest.fixture(scope="module")
def scenes() -> Classifier:
    return unitscope.load("scenes")


def unpacked(told: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels in 0–1, low and high of a document of filters, each picture in a row."""
    low, high = (
        np.frombuffer(base64.b64decode(told[name]), "<f4")
        for name in ("low", "high")
    )
    pixels = np.frombuffer(base64.b64decode(told["pixels"]), np.uint8)
    return pixels.reshape(len(low), -1) / 255, low, high


def weights_of(told: dict[str, Any]) -> np.ndarray:
    """(filter, channel, row, col), read off a document."""
    pixels, low, high = unpacked(told)
    weights: np.ndarray = low[:, None] + pixels * (high - low)[:, None]
    sides = (told["rows"], told["cols"])
    if told["of"] == "rgb":
        return np.moveaxis(weights.reshape(told["count"], *sides, 3), -1, 1)
    return weights.reshape((told["count"], told["channels"], *sides))


class TestFiltersDocument:
    @pytest.mark.parametrize(
        "layer", ["plain", "grouped", "depthwise", "transposed", "one"]
    )
    def test_pictures_are_those_of_the_library(self, layer: str) -> None:
        model = wrap(seeded(Kinds))
        told, found = filters(model, layer), filters_of(model, layer)
        pixels, low, high = unpacked(told)
        np.testing.assert_allclose(
            pixels, found.images.reshape(pixels.shape), atol=0.5 / 255 + 1e-6
        )
        np.testing.assert_array_equal(low, found.low.ravel())
        np.testing.assert_array_equal(high, found.high.ravel())
        assert (told["least"], told["greatest"]) == (
            found.weights.min(),
            found.weights.max(),
        )
        assert told["of"] == ("rgb" if found.rgb else "kernel")
        assert (told["filters"], told["channels"], told["groups"]) == (
            found.filters_in_layer, found.channels_in_kernel, found.groups,
        )  # fmt: skip
        json.dumps(told, allow_nan=False)

    @pytest.mark.parametrize(
        "layer",
        ["rgb", "grouped", "transposed", HOSTILE, "depthwise", "single"],
    )
    def test_weights_can_be_read_off_to_a_part_of_their_range(
        self, mixed: Classifier, layer: str
    ) -> None:
        told = filters(mixed, layer)
        wanted, found = filters_of(mixed, layer).weights, weights_of(told)
        of = {"kernel": 2, "rgb": 1, "filter": 1}[told["of"]]
        for picture, read in zip(
            wanted.reshape(-1, *wanted.shape[of:]),
            found.reshape(-1, *wanted.shape[of:]),
            strict=True,
        ):
            least, greatest = min(picture.flat), max(picture.flat)
            for value, back in zip(picture.flat, read.flat, strict=True):
                assert abs(value - back) <= (greatest - least) * 0.502 / 255

    def test_single_weights_are_a_picture_a_filter(
        self, mixed: Classifier
    ) -> None:
        told = filters(mixed, "single")
        pixels, low, high = unpacked(told)
        parameter = mixed.network.get_parameter("single.weight")
        weight = parameter.detach().numpy()[:, :, 0, 0]
        assert told["of"] == "filter" and pixels.shape == (10, 20)
        np.testing.assert_array_equal(low, weight.min(axis=1))
        np.testing.assert_array_equal(high, weight.max(axis=1))

    def test_a_kernel_without_range_is_in_the_middle(self) -> None:
        net = nn.Sequential(nn.Conv2d(2, 3, 3))
        nn.init.constant_(net.get_parameter("0.weight"), 0.25)
        told = filters(wrap(net), "0")
        assert (unpacked(told)[0] == 128 / 255).all() and (
            weights_of(told) == 0.25
        ).all()

    @pytest.mark.parametrize("layer", ["rgb", "transposed", HOSTILE, "single"])
    def test_a_large_layer_is_told_in_parts(
        self, mixed: Classifier, layer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = filters(mixed, layer)
        monkeypatch.setattr(
            filter_contents,
            "DOCUMENT_BYTES",
            3 * len(base64.b64decode(whole["pixels"])) // whole["filters"],
        )
        parts, begin = [], 0
        while begin < whole["filters"]:
            parts.append(filters(mixed, layer, begin))
            assert (
                parts[-1]["begin"] == begin
                and parts[-1]["count"] <= parts[-1]["most"] < whole["filters"]
            )
            begin += parts[-1]["count"]
        for name in ("pixels", "low", "high"):
            assert b"".join(
                base64.b64decode(part[name]) for part in parts
            ) == base64.b64decode(whole[name])
        assert {(part["least"], part["greatest"]) for part in parts} == {
            (whole["least"], whole["greatest"])
        }
        with pytest.raises(UnitError):
            filters(mixed, layer, begin)

    def test_what_cannot_be_drawn_is_refused(self) -> None:
        model = wrap(seeded(Kinds))
        with pytest.raises(
            LayerError, match="'three' has 3-dimensional kernels"
        ):
            filters(model, "three")
        with pytest.raises(
            LayerError, match="'norm' is a BatchNorm2d, not a convolution"
        ):
            filters(model, "norm")
        broken = seeded(Kinds)
        with torch.no_grad():
            broken.get_parameter("grouped.weight")[2] = torch.nan
        with pytest.raises(
            LayerError, match="NaN or infinite weights in 1 filters"
        ):
            filters(wrap(broken), "grouped")

    def test_the_bundled_network(self, scenes: Classifier) -> None:
        for layer in network(scenes)["filters"]:
            wanted, told = (
                filters_of(scenes, layer).weights,
                filters(scenes, layer),
            )
            # Pictures lie in as many bytes as weights, and two numbers each.
            assert (
                len(json.dumps(told))
                < 4
                / 3
                * (wanted.size + 8 * wanted.size / min(wanted[0, 0].size, 9))
                + 2000
            )
            np.testing.assert_allclose(
                weights_of(told), wanted, atol=np.ptp(wanted) * 0.502 / 255
            )


class TestNetworkDocument:
    @pytest.mark.parametrize("make", [Gap, Mixed, SharedConv, Flattened])
    def test_all_layers_are_told_once_in_order(self, make: Any) -> None:
        model = wrap(seeded(make), preprocessing=CROPPED)
        told, facts = network(model), NetworkFacts.of(model)
        json.dumps(told, allow_nan=False)
        rows = [layer for stage in told["stages"] for layer in stage["layers"]]
        assert [row["name"] for row in rows] == [
            layer.name for layer in model.layers()
        ]
        assert told["parameters"] == sum(
            one.numel() for one in model.network.parameters()
        )
        modules = dict(model.network.named_modules())
        known = convolutions(model.network)
        for row, layer in zip(rows, model.layers(), strict=True):
            name = (
                row["name"]
                if row["name"] in modules
                else row["name"].split(":")[0]
            )
            assert row["parameters"] == sum(
                one.numel() for one in modules[name].parameters()
            )
            assert (
                row["shape"] == layer.describe_shape()
                and row["map"] == layer.is_map
            )
            assert (row["filters"] is not None) == (name in known)
            assert row["head"] == (
                facts.head is not None and layer.name == facts.head.layer
            )
        assert told["filters"] == list(
            dict.fromkeys(
                row["filters"]["layer"]
                for row in rows
                if row["filters"] is not None
            )
        )

    def test_stages_hold_their_own_layers(self, scenes: Classifier) -> None:
        told = network(scenes)
        for stage in told["stages"]:
            names = [layer["name"] for layer in stage["layers"]]
            assert {stage["first"], stage["last"]} <= set(names)
        parts = told["diagram"]["plans"][0]["parts"]
        assert [part["kind"] for part in parts] == [
            "input",
            "map",
            "map",
            "map",
            "map",
            "pool",
            "classes",
        ]
        assert [part["stage"] for part in parts] == [None, 0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("across", [8, 5, 3])
    def test_the_diagram_is_that_of_the_reports(
        self, scenes: Classifier, across: int
    ) -> None:
        plan = diagram.plan(NetworkFacts.of(scenes), across)
        told = next(
            one
            for one, of in zip(
                network(scenes)["diagram"]["plans"], (8, 5, 3), strict=True
            )
            if of == across
        )
        assert len(told["arrows"]) == len(plan.arrows) and told[
            "width"
        ] == pytest.approx(plan.width, abs=0.06)
        for part, wanted in zip(told["parts"], plan.parts, strict=True):
            for name, points in wanted.faces():
                flat = [*itertools.chain(*points)]
                assert part["faces"][name] == pytest.approx(flat, abs=0.06)
                assert all(
                    0 <= value <= max(plan.width, plan.height) for value in flat
                )
            assert [line for _, _, line in part["lines"]] == [
                line for line in wanted.lines if line
            ]

    def test_the_head_is_told_in_words(self, mixed: Classifier) -> None:
        told = network(mixed)["head"]
        assert (
            told["exact"]
            and told["layer"] == mixed.head.layer
            and "3 random inputs" in told["checked"]
        )
        local = network(wrap(seeded(Flattened), preprocessing=CROPPED))["head"]
        assert (
            not local["exact"]
            and local["kind"] == "local"
            and local["reason"]
            and "leave out" in local["checked"]
        )
        nothing = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
        refused = network(wrap(nothing, preprocessing=CROPPED))["head"]
        assert refused["kind"] == "none"
        assert "no layer with several cells" in refused["reason"]


@pytest.fixture(scope="module")
def address(
    mixed: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The explorer of that network and of an atlas of one of its convolutions."""
    root = tmp_path_factory.mktemp("explored")
    noise = np.random.default_rng(3)
    for number in range(12):
        path = root / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 40, 3), np.uint8)).save(
            path
        )
    atlas = scan(
        mixed,
        root / "photos",
        root / "atlas",
        engine="torch",
        layers=["grouped"],
        top=4,
        sample=4,
        batch_size=4,
    )
    with served(
        Documents(mixed, atlas, dataset=atlas.photos(), folder=root / "tiles")
    ) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with watched(
        browser, address, viewport={"width": 1280, "height": 900}
    ) as page:
        yield page


def opened(page: Any, address: str, state: str, waiting: str = "h1") -> None:
    page.goto("about:blank")
    page.goto(f"{address}/#/{state}")
    page.wait_for_selector(waiting)
    assert page.evaluate("window.hacked") is None


CANVAS = ".kernel-band canvas"
KERNELS = """async ([layer]) => {
  const { Kernels } = await import("/static/kernels.js");
  const told = await (await fetch(`data/filters/${encodeURIComponent(layer)}.json`)).json();
  const kernels = new Kernels(told, (await (await fetch("data/index.json")).json()).colours.signed);
  const filters = Array.from({ length: kernels.filters }, (_, filter) => filter);
  const channels = Array.from({ length: kernels.of === "kernel" ? kernels.channels : 1 }, (_, channel) => channel);
  return filters.map((filter) => channels.map((channel) => [
    [...kernels.weights(kernels.place(filter, channel))], kernels.input(filter, channel),
    [...kernels.strip([kernels.place(filter, channel)], { scale: "shared", colours: "grey" }).data],
  ]));
}"""


class TestPages:
    def test_the_browser_reads_the_weights_of_the_module(
        self, page: Any, address: str, mixed: Classifier
    ) -> None:
        opened(page, address, "network")
        # One page serves all: a new one takes a second.
        for layer in (
            "rgb",
            "grouped",
            "transposed",
            HOSTILE,
            "depthwise",
            "single",
        ):
            self.assert_read(page, mixed, layer)

    def assert_read(self, page: Any, mixed: Classifier, layer: str) -> None:
        found, shared = (
            filters_of(mixed, layer),
            filters_of(mixed, layer, scale="shared"),
        )
        for filter, channels in enumerate(page.evaluate(KERNELS, [layer])):
            for channel, (weights, read, greys) in enumerate(channels):
                kernel = (
                    found.weights[filter, channel]
                    if len(channels) > 1
                    else found.weights[filter]
                )
                picture = np.moveaxis(kernel, 0, -1) if found.rgb else kernel
                close = np.ptp(found.weights) * 0.502 / 255
                np.testing.assert_allclose(
                    weights, picture.ravel(), atol=close, err_msg=layer
                )
                assert read == found.input_channel(filter, channel)
                if not found.rgb and kernel.size == len(greys) // 4:
                    wanted = (
                        shared.images[filter, channel]
                        if len(channels) > 1
                        else shared.images[filter]
                    )
                    np.testing.assert_allclose(
                        np.array(greys)[::4] / 255,
                        wanted.ravel(),
                        atol=1.01 / 255,
                        err_msg=layer,
                    )

    def test_kernels_are_drawn_as_they_are_told(
        self, page: Any, address: str, mixed: Classifier
    ) -> None:
        opened(page, address, "filters/rgb", CANVAS)
        size = page.eval_on_selector(
            CANVAS, "canvas => [canvas.width, canvas.height]"
        )
        data = page.eval_on_selector(
            CANVAS,
            "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, "
            "canvas.height).data]",
        )
        drawn = np.array(data, np.uint8).reshape(size[1], size[0], 4)
        # Eight kernels of 3 × 5 weights, each weight a square of ten pixels.
        step = size[0] // 8
        images = filters_of(mixed, "rgb").images
        for filter, row, column in itertools.product(
            range(8), range(3), range(5)
        ):
            pixel = drawn[row * 10 + 5, filter * step + column * 10 + 5]
            np.testing.assert_allclose(
                pixel[:3], 255 * images[filter, row, column], atol=1.01
            )

    def test_the_layers_are_found_and_walked_through(
        self, page: Any, address: str, mixed: Classifier
    ) -> None:
        opened(page, address, "network", ".net-stage")
        assert page.locator(".net-layers tbody tr").count() == len(
            mixed.layers()
        )
        assert (
            HOSTILE in page.inner_text(".net-all")
            and page.locator(".net-all img").count() == 0
        )
        marked = page.locator("tr.net-head")
        assert marked.count() == 1 and mixed.head.layer in marked.inner_text()
        linked = page.locator("tr:has-text('grouped') a")
        assert [one.get_attribute("href") for one in linked.all()] == [
            "#/layer/grouped",
            "#/filters/grouped",
        ]
        page.keyboard.press("/")
        page.keyboard.type("conv2d depth")
        assert page.url.endswith("?q=conv2d+depth") or page.url.endswith(
            "?q=conv2d%20depth"
        )
        assert page.locator(".net-layers tbody tr:visible").count() == 1
        assert page.inner_text(".net-all .count").startswith("1 of")
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_selector(CANVAS)
        assert page.url.endswith("#/filters/depthwise")
        page.go_back()
        page.wait_for_selector(".net-all")
        assert page.input_value("input[type=search]") == "conv2d depth"

    def test_stages_that_are_open_are_in_the_address(
        self, page: Any, address: str
    ) -> None:
        opened(page, address, "network?open=1", ".net-stage")
        opens = "all => all.flatMap((one, place) => (one.open ? [place] : []))"
        assert page.eval_on_selector_all(".net-stage", opens) == [1]
        page.locator("svg.network:visible a").first.click()
        assert "stage=0" in page.url and page.eval_on_selector_all(
            ".net-stage", opens
        ) == [0, 1]
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        page.locator(".net-stage summary").nth(1).click()
        page.wait_for_url("**/#/network?open=0")
        page.reload()
        page.wait_for_selector(".net-stage")
        assert page.eval_on_selector_all(".net-stage", opens) == [0]

    def test_a_filter_is_chosen_by_hand_and_by_keys(
        self, page: Any, address: str, mixed: Classifier
    ) -> None:
        opened(page, address, "filters/grouped", CANVAS)
        page.click(".kernels", position={"x": 10, "y": 10})
        assert (
            page.url.endswith("?filter=0")
            and page.inner_text(".kernel-inspector h2") == "Filter 0"
        )
        for _ in range(4):
            page.keyboard.press("j")
        assert page.url.endswith(
            "?filter=4"
        ) and "input channel 2, channel 0 of" in page.inner_text(
            ".kernel-reads"
        )
        weight = mixed.network.get_parameter("grouped.weight")
        kernel = weight[4, 0].detach().numpy()
        texts = [
            text.replace("−", "-")
            for text in page.locator(".kernel-weights text").all_text_contents()
        ]
        # Written with the digits that a 255th of the kernel's range has.
        np.testing.assert_allclose(
            np.array(texts, float),
            kernel.ravel(),
            atol=np.ptp(kernel) / 255 + 6e-4,
        )
        page.focus(".kernels")
        page.keyboard.press("End")
        assert (
            page.url.endswith("?filter=11")
            and page.get_attribute(".kernels", "aria-valuenow") == "11"
        )
        assert (
            page.locator(".kernel-links a").first.get_attribute("href")
            == "#/unit/grouped/11"
        )
        page.fill("input[name=channel]", "1")
        page.keyboard.press("Enter")
        assert (
            "channel=1" in page.url
            and "Input channel 1 of each filter"
            in page.inner_text(".kernel-words")
        )
        page.check("input[value=one]")
        page.wait_for_function(
            "document.querySelector('.kernels').getAttribute('aria-valuemax') === '1'"
        )
        page.check("input[value=shared]")
        weight = mixed.network.get_parameter("grouped.weight")
        assert f"{weight.max().item():.4f}" in page.inner_text(".kernel-words")
        page.go_back()
        page.wait_for_selector("input[value=kernel]:checked")
        page.locator(".steps a[rel=next]").click()
        page.wait_for_selector("h1:has-text('transposed')")

    def test_every_kind_is_looked_at(self, page: Any, address: str) -> None:
        for layer in ("rgb", "transposed", HOSTILE, "depthwise", "single"):
            named = "".join(f"%{byte:02x}" for byte in layer.encode())
            opened(
                page,
                address,
                f"filters/{named}?filter=2&colours=grey&numbers=green",
                CANVAS,
            )
            assert page.inner_text("h1") == f"Filters of {layer}"
            title = page.locator(".kernel-inspector h2")
            assert title.inner_text() == "Filter 2", layer
            drawn = page.locator(
                ".kernel-pictures canvas, .kernel-pictures svg"
            )
            assert drawn.count() == 1, layer
            page.hover(".kernels", position={"x": 8, "y": 8})
            assert title.inner_text() == "Filter 0", layer
            page.hover("h1")
            assert title.inner_text() == "Filter 2", layer

    def test_what_has_no_filters_says_so(self, page: Any, address: str) -> None:
        opened(page, address, "filters/pool", ".lead")
        assert "is a AdaptiveAvgPool2d, not a convolution" in page.inner_text(
            ".lead"
        )
        # The browser itself notes that the answer was 404.
        assert all("404" in text for text in page.wrong)
        page.wrong.clear()

    def test_a_large_layer_is_shown_in_parts(
        self, page: Any, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filter_contents, "DOCUMENT_BYTES", 8 * 6 * (49 + 8))
        named = "".join(f"%{byte:02x}" for byte in HOSTILE.encode())
        opened(page, address, f"filters/{named}?filter=17", CANVAS)
        assert page.inner_text(".kernel-parts").startswith(
            "Filters 16 to 19 of 20 filters."
        )
        for _ in range(2):
            page.keyboard.press("k")
        page.wait_for_selector(".kernel-parts:has-text('Filters 8 to 15')")
        assert page.inner_text(".kernel-inspector h2") == "Filter 15"
        page.click("text=next ones")
        page.wait_for_selector(".kernel-parts:has-text('Filters 16 to 19')")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_a_telephone(
        self, browser: Any, address: str, scheme: str
    ) -> None:
        options = {
            "viewport": {"width": 390, "height": 844},
            "color_scheme": scheme,
            "has_touch": True,
        }
        with watched(browser, address, **options) as page:
            for state, there in [
                ("network", ".net-stage"),
                ("filters/rgb?filter=1", CANVAS),
                ("filters/single", CANVAS),
            ]:
                opened(page, address, state, there)
                assert (
                    page.evaluate("document.documentElement.scrollWidth") <= 390
                )
            assert page.locator("svg.network:visible").count() == 0
            page.tap(".kernels", position={"x": 8, "y": 8})
            assert page.url.endswith("?filter=0")
            page.get_by_role("button", name="Close").click()
            assert page.url.endswith("filters/single")
