"""The report: complete in one file, safe whatever the labels, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from networks import ConvClassifier, Gap, MaximumBesideAverage, seeded
from report_page import check
from unitscope.accounts.account import Account
from unitscope.attribution.exact_heads import ExactHead
from unitscope.errors import InputError, OutputError, UnitscopeWarning
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.kernels import filters
from unitscope.model import Classifier, Provenance, wrap
from unitscope.network_facts import NetworkFacts
from unitscope.render import html, write_report
from unitscope.render.report import FolderNames
from unitscope.render.words import number, percent

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "</title></style>{{ 7 * 7 }}&amp;",
    "line\nbreak and 'quote'",
    "https://example.org/a_very/" + "long_label" * 40,
)
SMALL = Preprocessing(resize=36, crop=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / "rio.png", folder / "a" / "A.png", folder / "b" / "a.png"]
    for seed, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        small = np.random.default_rng(seed).integers(
            0, 256, (9, 13, 3), np.uint8
        )
        Image.fromarray(small).resize(
            (260, 180), Image.Resampling.BICUBIC
        ).save(path)
    return paths


@pytest.fixture(scope="module")
def model() -> Classifier:
    provenance = Provenance(
        "test:gap",
        "random initialisation, seed 0",
        "0" * 64,
        ("a note <b>with</b> markup",),
    )
    return Classifier(
        seeded(Gap),
        [f"scene_{index}/outdoor" for index in range(5)],
        SMALL,
        provenance,
    )


@pytest.fixture(scope="module")
def account(model: Classifier, photos: list[Path]) -> Account:
    return Account.of(model, model.explain(photos[0]))


@pytest.fixture(scope="module")
def written(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    assert write_report([account], out) == [out / "report.html"]
    return out


class TestReport:
    def test_it_is_complete_in_one_file(self, written: Path) -> None:
        text = (written / "report.html").read_text("utf-8")
        page = check(text)
        assert "http" not in re.sub(r"http-equiv", "", text)
        assert (
            "default-src &#39;none&#39;" in text or "default-src 'none'" in text
        )
        assert (
            page.tags["h1"] == 1
            and page.tags["h2"] >= 6
            and page.tags["figure"] >= 8
        )
        assert len(text) < 1_500_000

    def test_it_holds_the_account_with_its_numbers(
        self, written: Path, account: Account
    ) -> None:
        text = check((written / "report.html").read_text("utf-8")).text
        assert account.sentence() in text and account.subject.name in text
        for prediction in account.predictions:
            assert (
                number(prediction.logit) in text
                and percent(prediction.probability) in text
            )
        for story in account.units:
            assert (
                number(story.contribution.contribution, 3, sign=True) in text
                and number(story.logit_without) in text
            )
        for change in account.ablation.changes():
            assert f"{change.rank_before} → {change.rank_after}" in text
        head = account.explanation.head
        assert isinstance(head, ExactHead)
        for index in account.classes:
            mean = float(account.explanation.cams_of([index]).mean())
            assert (
                number(mean, 4) in text
                and number(float(head.bias[index]), 4, sign=True) in text
            )
        for check_ in account.checks:
            assert check_.statement in text
        assert (
            account.network.preprocessing in text
            and "SHA-256 " + "0" * 64 in text
            and "a note <b>with</b> markup" in text
        )
        assert (
            "shared over these 5 maps" in text
            and "enlarged without smoothing" in text
        )

    def test_the_top_says_that_the_weights_are_random(
        self, written: Path, account: Account
    ) -> None:
        text = check((written / "report.html").read_text("utf-8")).text
        assert (
            0
            < text.index("The weights are random.")
            < text.index(account.sentence())
        )
        trained = dataclasses.replace(
            account.network, provenance=Provenance("test:gap", "IMAGENET1K_V2")
        )
        assert "weights are random" not in html(
            dataclasses.replace(account, network=trained)
        )
        assert "weights are random" in html(account)

    def test_alternative_texts_describe_the_maps(self, written: Path) -> None:
        labels = [
            values.get("aria-label", "")
            for _, values in check(
                (written / "report.html").read_text("utf-8")
            ).pictures
        ]
        assert any(
            re.search(
                r"Evidence for scene_\d/outdoor: greatest .* \(.\d+\.\d+ logits\)",
                label,
            )
            for label in labels
        )
        assert any(
            re.search(r"Unit \d: strongest .* \(activation \d+\.\d+\)", label)
            for label in labels
        )

    def test_the_pieces_lie_beside_it(
        self, written: Path, account: Account
    ) -> None:
        names = {path.name for path in written.iterdir()}
        assert names == {
            "report.html",
            "explanation.json",
            *(
                f"{name}.png"
                for name in (
                    "predictions",
                    "cams",
                    "units",
                    "contributions",
                    "contrast",
                    "ablation",
                    "network",
                )
            ),
            *(
                f"cam-{rank}-scene_{index}-outdoor.png"
                for rank, index in enumerate(account.classes, 1)
            ),
            *(f"filters-{shown.layer}.png" for shown in account.filters),
            "network.svg",
        }
        for path in written.glob("*.png"):
            with Image.open(path) as picture:
                assert picture.width > 1000
        assert oct((written / "cams.png").stat().st_mode & 0o777) == oct(
            0o666 & ~umask()
        )

    def test_a_single_class_named(
        self, model: Classifier, photos: list[Path], tmp_path: Path
    ) -> None:
        wide = wrap(seeded(lambda: Gap(classes=100)), preprocessing=SMALL)
        account = Account.of(
            wide,
            wide.explain(photos[0]),
            classes=["class 42"],
            units=[1, 2, 3, 4, 5],
            top=1,
        )
        (path,) = write_report([account], tmp_path, pieces=False)
        assert "this map alone" in check(path.read_text("utf-8")).text
        assert {entry.name for entry in tmp_path.iterdir()} == {
            "report.html",
            "explanation.json",
        }

    def test_networks_whose_units_are_classes(self, photos: list[Path]) -> None:
        for make in (
            ConvClassifier,
            lambda: nn.Sequential(
                nn.Conv2d(3, 4, 3, 2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ),
        ):
            model = wrap(seeded(make), preprocessing=SMALL)
            check(html(Account.of(model, model.explain(photos[0]))))

    def test_dead_units_and_maps_of_zeros(
        self, photos: list[Path], tmp_path: Path
    ) -> None:
        net = seeded(Gap)
        for parameter in net.parameters():
            nn.init.zeros_(parameter)
        model = wrap(net, preprocessing=SMALL)
        with pytest.warns(
            UnitscopeWarning,
            match="every unit of the feature map is 0 everywhere",
        ):
            explanation = model.explain(photos[0])
        (path,) = write_report(
            [Account.of(model, explanation)], tmp_path, pieces=False
        )
        text = check(path.read_text("utf-8")).text
        assert (
            "no evidence (all 0)" in text
            and "no activation (all 0)" in text
            and "hardly fires" not in text[:200]
        )

    def test_a_tensor_has_a_report_too(
        self, model: Classifier, x: object, tmp_path: Path
    ) -> None:
        account = Account.of(model, model.explain(x)[0])  # type: ignore[arg-type]
        (path,) = write_report([account], tmp_path, pieces=False)
        assert (
            "The network saw all of it" in check(path.read_text("utf-8")).text
        )


class TestHostile:
    def test_labels_and_names_never_become_markup(
        self, photos: list[Path], tmp_path: Path
    ) -> None:
        name = tmp_path / "<img src=x onerror=alert(3)>.png"
        name.write_bytes(photos[0].read_bytes())
        provenance = Provenance(
            "<i>spec</i>",
            "<u>weights</u>",
            None,
            ("<script>alert(4)</script>",),
        )
        model = Classifier(seeded(Gap), HOSTILE, SMALL, provenance)
        explanation = model.explain([name, photos[1]])
        accounts = [Account.of(model, photo) for photo in explanation]
        pages = [
            path.read_text("utf-8")
            for path in write_report(accounts, tmp_path / "out", pieces=False)
        ]
        fragments = [
            html(result)
            for result in (
                explanation,
                accounts[0],
                accounts[0].ablation,
                explanation.unit_maps([0]),
            )
        ]
        for text in (*pages, *fragments):
            page = check(text)
            assert (
                page.tags["script"] <= 1
                and page.tags["i"] == page.tags["u"] == page.tags["b"] == 0
            )
            assert "onerror" not in " ".join(
                page.open
            ) and "49" not in re.findall(r"style>(\d+)", text)
        assert "<script>alert(1)</script>" in check(pages[0]).text
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "img-src-x-onerror-alert-3",
            "A",
            "index.html",
        }

    def test_names_are_unique_on_any_file_system(self) -> None:
        names = [
            "a.jpg",
            "A.png",
            "b/a.jpg",
            "../..",
            "\n",
            "photo",
            "x" * 500 + ".jpg",
            "a-2.jpg",
            "index.html",
        ]
        folders = FolderNames()
        unique = [folders.new(name) for name in names]
        assert len({name.casefold() for name in unique}) == len(names)
        assert all(
            re.fullmatch(r"\w[\w.-]*", name) and len(name) < 80
            for name in unique
        ), unique


class TestSeveral:
    def test_every_photo_has_a_folder_and_the_index_links_them(
        self, model: Classifier, photos: list[Path], tmp_path: Path
    ) -> None:
        accounts = [Account.of(model, photo) for photo in model.explain(photos)]
        written = write_report(accounts, tmp_path, pieces=False)
        assert [str(path.relative_to(tmp_path)) for path in written] == [
            "rio/report.html",
            "A/report.html",
            "a-2/report.html",
            "index.html",
        ]
        index = check(written[-1].read_text("utf-8"))
        links = [
            reference
            for reference in index.references
            if reference.endswith(".html")
        ]
        assert {tmp_path / link for link in links} == set(written[:-1])
        assert (
            "../index.html" in check(written[0].read_text("utf-8")).references
        )


class TestWriting:
    def test_other_files_in_the_folder_stay(
        self, account: Account, tmp_path: Path
    ) -> None:
        (tmp_path / "mine.txt").write_text("kept")
        (tmp_path / "report.html").write_text("old")
        write_report([account], tmp_path, pieces=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "explanation.json",
            "mine.txt",
            "report.html",
        ]
        assert (
            (tmp_path / "report.html")
            .read_text("utf-8")
            .startswith("<!doctype html>")
        )

    def test_a_file_where_the_folder_should_be(
        self, account: Account, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("kept")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(OutputError, match=r"cannot write .*: [^\n]+$"):
                write_report([account], out)
        assert (tmp_path / "file").read_text() == "kept"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_may_not_be_written(
        self, account: Account, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="permission denied"):
            write_report([account], tmp_path / "out")
        tmp_path.chmod(0o700)

    def test_a_name_that_is_too_long(
        self, account: Account, tmp_path: Path
    ) -> None:
        with pytest.raises(OutputError, match="the name is too long"):
            write_report([account], tmp_path / "made" / ("x" * 300))
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_left_behind_when_drawing_fails(
        self, model: Classifier, photos: list[Path], tmp_path: Path
    ) -> None:
        gone = tmp_path / "gone.png"
        gone.write_bytes(photos[0].read_bytes())
        accounts = [
            Account.of(model, photo)
            for photo in model.explain([photos[0], gone])
        ]
        gone.unlink()
        with pytest.raises(ValueError, match="no photo"):
            write_report(accounts, tmp_path / "new" / "out", pieces=False)
        (tmp_path / "old").mkdir()
        with pytest.raises(ValueError, match="no photo"):
            write_report(accounts, tmp_path / "old", pieces=False)
        assert [path.name for path in tmp_path.rglob("*")] == ["old"]

    def test_nothing_to_report(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nothing to report"):
            write_report([], tmp_path)


class TestFragments:
    def test_everything_can_be_shown_in_a_notebook(
        self, model: Classifier, account: Account, photos: list[Path]
    ) -> None:
        explanation = model.explain(photos)
        parts = [
            html(explanation),
            html(explanation.unit_maps([0, 1])),
            html(account.ablation),
            html(filters(model, 1, channels=[0, 1])),
            html(NetworkFacts.of(model)),
            html(account),
        ]
        page = check("".join(parts))
        assert page.tags[
            "script"
        ] == 0 and "prefers-color-scheme" not in "".join(parts)
        assert explanation.labels[0] in page.text and "rio.png" in page.text

    def test_it_says_what_is_left_out(
        self, model: Classifier, photos: list[Path]
    ) -> None:
        assert "2 more photos are not shown here" in html(
            model.explain([photos[0]] * 6)
        )
        with pytest.raises(TypeError, match="no HTML of a str"):
            html("harbor")


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def test_maps_that_hold_no_activations_are_not_called_so(
    photos: list[Path], tmp_path: Path
) -> None:
    model = wrap(seeded(MaximumBesideAverage), preprocessing=SMALL)
    explanation = model.explain(photos[0])
    assert explanation.unit_maps([0, 7]).are_shares
    assert not explanation.unit_maps([7]).are_shares
    words = explanation.unit_maps([0])._repr_html_()
    assert "What every cell gives of the pooled unit" in words
    assert "Activations as the network" not in words

    (page,) = write_report([Account.of(model, explanation)], tmp_path)
    text = check(page.read_text(encoding="utf-8")).text
    assert (
        "reads 12 units: 0–5 from the maximum pool of 'features' (6×16×16), 6–11 from "
        "the average pool" in text
    )
    assert "share × cells; shared over" in text
    assert "pooled activation" in text and "mean activation" not in text
