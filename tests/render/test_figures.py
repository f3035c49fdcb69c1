"""Figures: real numbers, readable whatever the labels, no global state."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import nn

from networks import Gap, seeded
from readable import assert_readable
from unitscope.accounts.account import Account
from unitscope.attribution.ablation import Ablation
from unitscope.attribution.explanation import Explanation
from unitscope.errors import OutputError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.kernels import filters
from unitscope.model import Classifier, wrap
from unitscope.network_facts import NetworkFacts
from unitscope.plurals import plural
from unitscope.render import diagram, figure, save
from unitscope.render.diagram_svg import svg
from unitscope.render.figures import FIGURES
from unitscope.render.figures.cams import (
    MapScale,
    cam_panels,
    cam_scale,
    cams_figure,
)
from unitscope.render.figures.units import UnitScale, unit_scale, units_figure
from unitscope.render.fonts import text_width, wrapped, writable
from unitscope.render.words import (
    clean,
    listing,
    number,
    percent,
    place,
    power,
    shorten,
    slug,
)

HOSTILE = (
    "swimming_pool/outdoor",
    "$\\frac{1}{0}$ and $x_1^",
    "<script>alert(1)</script>",
    "湖 بحر \u202egnp.exe\nline\ttab",
    "a very long label, " * 30 + "W" * 300,
)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 60, 90, 3), np.uint8)
    return [Image.fromarray(one) for one in pixels]


@pytest.fixture(scope="module")
def model() -> Classifier:
    return wrap(seeded(Gap), list(HOSTILE), Preprocessing(resize=36, crop=32))


@pytest.fixture(scope="module")
def explanation(model: Classifier, photos: list[Image.Image]) -> Explanation:
    return model.explain(photos)


@pytest.fixture(scope="module")
def account(model: Classifier, explanation: Explanation) -> Account:
    return Account.of(model, explanation[0])


def texts(drawn: Figure) -> list[str]:
    return [
        artist.get_text() for artist in drawn.findobj(Text) if artist.get_text()
    ]


class TestReadable:
    @pytest.mark.parametrize("show", FIGURES[Account])
    def test_every_piece_of_an_account_with_hostile_labels(
        self, account: Account, show: str
    ) -> None:
        assert_readable(figure(account, show=show))

    def test_labels_are_never_mathematics_and_long_ones_are_cut(
        self, account: Account
    ) -> None:
        drawn = figure(account, show="cams")
        assert all(
            not artist.get_parse_math()
            for artist in drawn.findobj(Text)
            if artist.get_text()
        )
        assert any("$" in text for text in texts(drawn)) and any(
            text.endswith("…") for text in texts(drawn)
        )

    def test_the_users_settings_change_nothing_and_are_not_changed(
        self, account: Account
    ) -> None:
        with matplotlib.rc_context(
            {
                "text.usetex": True,
                "axes.unicode_minus": False,
                "figure.constrained_layout.use": True,
            }
        ):
            before = dict(matplotlib.rcParams)
            assert_readable(figure(account, show="ablation"))
            assert dict(matplotlib.rcParams) == before

    def test_pyplot_is_never_imported(self, tmp_path: Path) -> None:
        code = (
            "import sys, torch; from torch import nn; from unitscope.model import "
            "wrap\n"
            "from unitscope.render import figure, html\n"
            "net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), "
            "nn.Flatten(), nn.Linear(4, 3))\n"
            "e = wrap(net).explain(torch.randn(1, 3, 32, 32)); figure(e); html(e)\n"
            "assert 'matplotlib.pyplot' not in sys.modules"
        )
        subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120
        )


class TestMaps:
    def test_titles_bar_and_completeness_error(
        self, explanation: Explanation
    ) -> None:
        said = texts(cams_figure(explanation, image=0))
        first = explanation.top(1)[0][0]
        assert (
            f"logit {number(first.logit)} · {percent(first.probability)}"
            in said
        )
        note = " ".join(said)
        assert (
            "shared over these 5 maps" in note
            and "The mean of each map + its bias = its logit" in note
        )
        assert power(float(explanation.completeness_error[0])) in note

    def test_a_shared_scale_is_shared(self, explanation: Explanation) -> None:
        classes = [0, 1, 2]
        scale = cam_scale(explanation, [0, 1], [classes, classes])
        expected = max(
            float(explanation[i].cams_of(classes).abs().max()) for i in (0, 1)
        )
        assert (scale.low, scale.high, scale.over) == (
            -expected,
            expected,
            "shared over these 6 maps",
        )
        panels = cam_panels(explanation, 0, classes, scale)
        assert [panel.bar for panel in panels] == [None] * 3
        assert all(
            panel.bar is not None
            for panel in cam_panels(explanation, 0, classes, None)
        )

    @pytest.mark.parametrize(
        "style", ["heat", "signed", "contour", "write-up", "plain"]
    )
    @pytest.mark.parametrize("scale", ["shared", "photo", "map"])
    def test_every_style_on_every_scale(
        self, explanation: Explanation, style: str, scale: MapScale
    ) -> None:
        drawn = cams_figure(
            explanation, image=1, classes=[0, 3], style=style, scale=scale
        )
        said = " ".join(texts(drawn))
        assert {
            "shared": "these 2 maps",
            "photo": "this photo's 2 maps",
            "map": "each map alone",
        }[scale] in said

    def test_one_class_of_a_hundred(self, photos: list[Image.Image]) -> None:
        model = wrap(
            seeded(lambda: Gap(classes=100)),
            preprocessing=Preprocessing(resize=36, crop=32),
        )
        drawn = cams_figure(model.explain(photos[0]), classes="class 77")
        assert "class 77" in texts(drawn) and "class 3" not in texts(drawn)
        assert_readable(drawn)

    def test_a_batch_has_a_row_for_every_photo(
        self, explanation: Explanation
    ) -> None:
        drawn = cams_figure(explanation, top=2)
        assert sum(text.startswith("logit") for text in texts(drawn)) == 6
        assert_readable(drawn)
        with pytest.raises(IndexError, match="no photo 3 in a batch of 3"):
            cams_figure(explanation, image=3)

    def test_units_say_their_scale_and_what_is_zero(
        self, explanation: Explanation
    ) -> None:
        maps = explanation.unit_maps([0, 1, 2])
        maps.maps[0, 1] = 0
        drawn = units_figure(maps, image=0)
        said = texts(drawn)
        assert "no activation (all 0)" in said and any(
            "each map has its own scale" in text for text in said
        )
        assert_readable(drawn)
        told: dict[UnitScale, str] = {
            "shared": "shared over these 9 maps",
            "unit": "each unit has its own",
            "photo": "3 maps",
        }
        for scale, words in told.items():
            assert any(
                words in text for text in texts(units_figure(maps, scale=scale))
            ), scale

    def test_negative_activations_get_a_signed_scale_or_are_said_to_be_left_out(
        self, explanation: Explanation
    ) -> None:
        maps = explanation.unit_maps([0, 1])
        maps.maps[:, 0] -= 1.0
        assert unit_scale(maps).signed
        assert any(
            "values below 0 are left out" in text
            for text in texts(units_figure(maps, image=0, style="heat"))
        )


class TestAblation:
    def test_ranks_and_logits_before_and_after(
        self, model: Classifier, photos: list[Image.Image]
    ) -> None:
        explanation = model.explain(photos[0])
        unit = explanation.top_units(explanation.top(1)[0][0].index, 1)[0].unit
        ablation = Ablation.of(explanation, [unit])
        drawn = figure(ablation)
        said = texts(drawn)
        for change in ablation.changes():
            assert f"{change.rank_before} → {change.rank_after}" in said
            assert (
                number(change.logit_before) in said
                and number(change.logit_after) in said
            )
        assert f"unit {unit}" in said
        assert_readable(drawn)

    def test_many_units(self, explanation: Explanation) -> None:
        drawn = figure(Ablation.of(explanation, [0, 1, 2, 3, 4, 5]), image=1)
        assert_readable(drawn)
        assert any("without units" in text.lower() for text in texts(drawn))


class TestFilters:
    def test_colour_grey_and_a_grid_of_channels(
        self, model: Classifier
    ) -> None:
        for shown, words in (
            (filters(model, 0), "input channels as red, green, blue"),
            (filters(model, 1, channels=2), "input channel 2"),
            (
                filters(
                    model, 1, channels=[1, 2, 3], filters=[0, 4], scale="shared"
                ),
                "input channels 1–3, a column each",
            ),
        ):
            drawn = figure(shown, interpolation="bilinear")
            said = " ".join(texts(drawn))
            assert words in said and "bilinear" in said
            assert {str(number_) for number_ in shown.filters} <= set(
                texts(drawn)
            )
            assert_readable(drawn)

    def test_a_kernel_without_range(self) -> None:
        layer = nn.Conv2d(3, 4, 3)
        nn.init.zeros_(layer.weight)
        assert_readable(figure(filters(nn.Sequential(layer))))


def deep(stages: int) -> nn.Module:
    blocks = [
        nn.Sequential(
            nn.Conv2d(3 if i == 0 else 4 * i, 4 * i + 4, 3, 2, 1), nn.ReLU()
        )
        for i in range(stages)
    ]
    return nn.Sequential(
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * stages, 3)
    )


class TestNetwork:
    @pytest.mark.parametrize("stages", [1, 3, 7])
    def test_the_diagram_holds_every_stage(self, stages: int) -> None:
        facts = NetworkFacts.of(
            wrap(
                deep(stages), preprocessing=Preprocessing(resize=512, crop=512)
            )
        )
        plan = diagram.plan(facts)
        assert [part.kind for part in plan.parts] == [
            "input",
            *["map"] * stages,
            "pool",
            "classes",
        ]
        for part in plan.parts:
            assert all(
                0 <= x <= plan.width and 0 <= y <= plan.height
                for _, face in part.faces()
                for x, y in face
            )
        tree = ET.fromstring(str(svg(facts, alone=True)))
        names = {child.tag.rpartition("}")[2]: child.text for child in tree}
        assert f"{stages} convolution" in (
            names["title"] or ""
        ) and "256 × 256" in (names["desc"] or "")
        assert_readable(figure(facts))

    def test_networks_without_an_exact_head(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5))
        net(torch.zeros(1, 3, 32, 32))
        facts = NetworkFacts.of(
            wrap(net, preprocessing=Preprocessing(resize=32, crop=32))
        )
        assert facts.head is not None and facts.head.kind == "local"
        assert diagram.plan(facts).parts[-1].lines[0] == "5 classes"
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
        facts = NetworkFacts.of(
            wrap(net, preprocessing=Preprocessing(resize=32, crop=32))
        )
        assert facts.head is None
        assert diagram.plan(facts).parts[-1].lines[0] == "5 classes"


class TestSave:
    @pytest.mark.parametrize("suffix", ["png", "pdf", "svg", "JPG", "webp"])
    def test_pictures_of_every_kind(
        self, explanation: Explanation, tmp_path: Path, suffix: str
    ) -> None:
        path = save(explanation, tmp_path / f"cams.{suffix}", image=0, top=1)
        assert path.stat().st_size > 1000 and list(tmp_path.iterdir()) == [path]

    def test_failures_leave_nothing_behind(
        self, explanation: Explanation, tmp_path: Path
    ) -> None:
        with pytest.raises(OutputError, match=r"ends in one of \.png"):
            save(explanation, tmp_path / "cams.txt")
        with pytest.raises(OutputError, match="there is no folder"):
            save(explanation, tmp_path / "missing" / "cams.png", top=1, image=0)
        (tmp_path / "taken.png").mkdir()
        with pytest.raises(OutputError, match="there is a folder of that name"):
            save(explanation, tmp_path / "taken.png", top=1, image=0)
        with pytest.raises(ValueError, match="style is one of"):
            save(explanation, tmp_path / "cams.png", style="rainbow")
        assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]

    def test_what_cannot_be_drawn_is_said(
        self, account: Account, explanation: Explanation
    ) -> None:
        with pytest.raises(TypeError, match="no figure of a str"):
            figure("harbor")
        with pytest.raises(ValueError, match="show is one of 'overview'"):
            figure(account, show="everything")
        with pytest.raises(ValueError, match="show is one of 'cams'"):
            figure(explanation, show="everything")


class TestWords:
    def test_numbers(self) -> None:
        assert [
            number(-1.234),
            number(2.5, 1, sign=True),
            number(0.0),
            number(3e-7),
        ] == [
            "−1.23",
            "+2.5",
            "0.00",
            "3.0 × 10⁻⁷",
        ]
        assert [
            percent(0.3124),
            percent(1e-9),
            percent(0.99999),
            percent(1.0),
            percent(0.0),
        ] == [
            "31.2%",
            "<0.1%",
            ">99.9%",
            "100.0%",
            "0.0%",
        ]
        assert [
            power(0),
            power(3.32e-7),
            plural(1, "class"),
            plural(2048, "unit"),
        ] == [
            "0",
            "3.3 × 10⁻⁷",
            "1 class",
            "2 048 units",
        ]

    def test_labels(self) -> None:
        assert (
            clean("a\nb\t\u202ec\x00d") == "a b c d"
            and shorten("abcdef", 4) == "abc…"
        )
        assert (
            listing([]) == "none"
            and listing(["a", "b", "c"]) == "a, b and c"
            and listing(["a", "b"], 1) == "a and 1 more"
        )
        assert (
            slug("../../etc/<passwd>") == "etc-passwd"
            and slug("\n") == "photo"
            and slug("swimming_pool/outdoor") == "swimming_pool-outdoor"
        )

    def test_places(self) -> None:
        laid = np.full((30, 30), np.nan)
        assert place(laid) == (0.0, "nowhere")
        laid[10:20, 10:20] = 1.0
        laid[12, 12] = 7.0
        assert place(laid) == (7.0, "in the centre")
        laid[2, 28] = -9.0
        assert place(laid, -1) == (-9.0, "at the upper right")

    def test_text_fits_where_it_is_put(self) -> None:
        for line in wrapped("word " * 60 + "W" * 500, 3.0, 9):
            assert text_width(line, 9) <= 3.0
        assert "\U000f1234" not in writable("\U000f1234 private")
