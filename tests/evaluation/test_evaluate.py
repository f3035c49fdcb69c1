"""evaluate(): over a data set, with baselines and intervals, stopped and resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from torch import Tensor

import unitscope
from coloured import LABELS, SIDE, colours, write
from readable import assert_readable
from unitscope.cli import main
from unitscope.cli.evaluate import MEASURES as MEASURES_IN_HELP
from unitscope.cli.evaluate import METHODS as METHODS_IN_HELP
from unitscope.datasets import open_masks
from unitscope.errors import (
    DatasetError,
    HeadError,
    InputError,
    NonFiniteError,
    OutputError,
)
from unitscope.evaluation.bootstrap import mean_with_interval
from unitscope.evaluation.evaluation import Evaluation
from unitscope.evaluation.measures import MEASURES
from unitscope.evaluation.methods import METHODS
from unitscope.model import Classifier, wrap

ROOT = Path(__file__).parents[2]
NULLS = ["random", "centre", "other photo"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("coloured"), photos=36)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return colours()


@pytest.fixture(scope="module")
def evaluation(source: Path, model: Classifier) -> Evaluation:
    return unitscope.evaluate(model, open_masks(source), None, list(MEASURES))


def backwards(model: Classifier, photo: Tensor, which: int) -> Tensor:
    """A map that is wrong: what speaks against the class."""
    return -model.explain(photo).cams_of(which)[0, 0]


def names_of(evaluation: Evaluation) -> list[str]:
    return [method.name for method in evaluation.methods]


def test_the_exact_map_beats_every_baseline_where_only_the_square_counts(
    evaluation: Evaluation,
) -> None:
    assert names_of(evaluation) == ["exact", *NULLS]
    for measure in ("deletion", "insertion", "energy inside", "IoU"):
        for null in NULLS:
            assert evaluation.verdict(measure, null) == "better", measure
    assert evaluation.mean("pointing game", "exact").value == 1
    explained = evaluation.about["class explained"]
    assert explained == "predicted; of measures with masks the label"
    deletion = next(
        text for text in evaluation.statements() if text.startswith("deletion")
    )
    assert deletion == (
        "deletion: exact is better than random, centre, other photo"
    )


def test_functions_are_methods_and_a_wrong_map_is_found_out(
    source: Path, model: Classifier
) -> None:
    found = unitscope.evaluate(
        model, source, ["exact", backwards], ["deletion", "insertion"]
    )
    assert names_of(found)[:2] == ["exact", "backwards"]
    assert found.verdict("deletion", "backwards") == "better"
    named = unitscope.evaluate(
        model, source, {"mine": backwards, "ours": "exact"}, "insertion"
    )
    assert names_of(named)[0] == "mine"
    assert named.verdict("insertion", "exact") == "worse"


def test_the_same_maps_under_two_names_are_the_same(
    source: Path, model: Classifier
) -> None:
    found = unitscope.evaluate(
        model, source, ["exact", "hirescam", "gradcam"], count=8
    )
    assert found.verdict("deletion", "hirescam") == "as good"
    assert "the same as hirescam, gradcam" in found.statements()[0]


def test_nothing_is_said_where_the_interval_allows_nothing(
    source: Path, model: Classifier
) -> None:
    def noise(model: Classifier, photo: Tensor, which: int) -> np.ndarray:
        seed = int(photo.double().sum() * 1e4) % 2**31
        return np.random.default_rng(seed).random((8, 8))

    found = unitscope.evaluate(model, source, noise, "deletion")
    assert found.verdict("deletion", "random") == "open"
    assert "not told apart from random" in found.statements()[0]
    low, high = found.difference("deletion", "random")[1:]
    assert low < 0 < high


def test_one_photo_gives_means_without_intervals_and_no_statement(
    source: Path, model: Classifier
) -> None:
    found = unitscope.evaluate(model, source, count=1)
    assert np.isnan(found.mean("deletion", "exact").low)
    assert found.count("deletion", "other photo") == 0
    assert found.statements() == []
    document = found.as_json()
    assert document["results"][0]["low"] is None
    json.dumps(document, allow_nan=False)
    found.figure()


def test_labels_are_explained_where_they_are_asked_for(
    source: Path, model: Classifier
) -> None:
    found = unitscope.evaluate(model, source, explained="label", count=6)
    for photo in found.photos:
        assert LABELS[photo.explained] == photo.id.split("/")[-2]
        assert photo.label == photo.explained


def test_photos_and_random_maps_depend_on_the_seed_alone(
    source: Path, model: Classifier
) -> None:
    def run(seed: int) -> Evaluation:
        return unitscope.evaluate(model, source, count=6, seed=seed)

    first, again, other = run(1), run(1), run(2)
    assert first.photos == again.photos != other.photos
    assert np.array_equal(first.values["deletion"], again.values["deletion"])


def test_a_stopped_evaluation_goes_on_with_the_same_result(
    source: Path, model: Classifier, tmp_path: Path
) -> None:
    asked: list[int] = []

    def counted(model: Classifier, photo: Tensor, which: int) -> Tensor:
        asked.append(which)
        return model.explain(photo).cams_of(which)[0, 0]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def run(**options: Any) -> Evaluation:
        return unitscope.evaluate(model, source, counted, "deletion", **options)

    whole = run()
    in_whole = len(asked)
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path / "out", progress=stop)
    asked.clear()
    resumed = run(out=tmp_path / "out")
    assert 0 < len(asked) < in_whole
    assert np.array_equal(resumed.values["deletion"], whole.values["deletion"])
    asked.clear()
    run(out=tmp_path / "out")
    assert not asked


def test_the_folder_of_another_evaluation_is_refused(
    source: Path, model: Classifier, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    unitscope.evaluate(model, source, count=4, out=out)
    with pytest.raises(
        OutputError, match=r"another seed \(0, not 1\): name another folder"
    ):
        unitscope.evaluate(model, source, count=4, seed=1, out=out)
    changed = colours()
    with torch.no_grad():
        changed.module.get_parameter("head.bias").add_(1)
    with pytest.raises(OutputError, match="another model"):
        unitscope.evaluate(changed, source, count=4, out=out)


def test_rows_of_an_unknown_evaluation_are_refused(
    source: Path, model: Classifier, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    unitscope.evaluate(model, source, count=4, out=out)
    (out / "rows" / "identity.json").unlink()
    with pytest.raises(OutputError, match=r"identity\.json is missing"):
        unitscope.evaluate(model, source, count=4, out=out)


def test_what_is_left_out_is_said(model: Classifier, tmp_path: Path) -> None:
    root = write(tmp_path / "partly", photos=12)
    (root / "images/train/red").rename(root / "images/train/purple")
    found = unitscope.evaluate(model, root, explained="label", count=5)
    assert found.about["photos"] == (
        "5 of 8, drawn by seed 0; 4 without a label were left out"
    )
    assert {LABELS[photo.explained] for photo in found.photos} == {
        "green",
        "blue",
    }


def test_outputs_that_are_no_probabilities_are_scores_themselves(
    source: Path,
) -> None:
    model = wrap(
        colours().module, LABELS, colours().preprocessing, scores="none"
    )
    found = unitscope.evaluate(
        model, source, measures=["deletion", "average drop"], hide="zero"
    )
    assert found.about["score"] == "the network's output"
    # The output of a photo is 8 · the mean of a colour, and falls to 0.
    whole = found.of("deletion", "random")
    assert (whole > 0.3).all() and (whole < 4).all()
    assert found.verdict("deletion", "random") == "better"


def test_unreadable_photos_are_skipped_with_the_reason(
    model: Classifier, tmp_path: Path
) -> None:
    root = write(tmp_path / "damaged", photos=9)
    broken = root / "images/train/red/000.png"
    broken.write_bytes(b"no picture")
    found = unitscope.evaluate(model, root)
    assert len(found.photos) == 8
    (reason,) = found.skipped.values()
    assert "000.png" in reason


def test_the_users_module_is_left_as_it_was(
    source: Path, model: Classifier
) -> None:
    module = model.module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    unitscope.evaluate(model, source, ["exact", "gradcam"], count=4)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
    module.eval()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"methods": ["exakt"]}, InputError, "did you mean 'exact'"),
        ({"methods": []}, InputError, "there is no method to evaluate"),
        ({"methods": ["random"]}, InputError, "there is no method 'random'"),
        ({"methods": [3]}, InputError, "not a int"),
        (
            {"methods": {"centre": backwards}},
            InputError,
            "in every table, as a baseline",
        ),
        (
            {"methods": [backwards, backwards]},
            InputError,
            "two methods are called 'backwards'",
        ),
        ({"methods": ["residual"]}, HeadError, "are exact, not residual"),
        ({"count": 0}, InputError, "count must be a number from 1 on"),
        ({"explained": "true"}, InputError, "'predicted' or 'label'"),
        (
            {"methods": lambda m, p, c: np.zeros((3, 4, 4))},
            InputError,
            r"shape \(3, 4, 4\): expected \(row, col\)",
        ),
        (
            {"methods": lambda m, p, c: np.full((4, 4), np.nan)},
            NonFiniteError,
            "NaN or infinite",
        ),
        (
            {"methods": lambda m, p, c: "map"},
            InputError,
            "gave a str: expected an array",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refusals(
    source: Path,
    model: Classifier,
    options: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        unitscope.evaluate(model, source, **options)


def test_masks_are_asked_for_where_there_are_none(
    model: Classifier, source: Path
) -> None:
    with pytest.raises(DatasetError, match="has no annotations"):
        unitscope.evaluate(model, source / "images", None, ["IoU"])


def test_the_bootstrap_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean, low, high = mean_with_interval(values)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(mean - half, abs=0.03)
    assert high == pytest.approx(mean + half, abs=0.03)
    with_gaps = np.append(values, [np.nan] * 5)
    assert mean_with_interval(with_gaps) == (mean, low, high)
    assert np.isnan(mean_with_interval(np.array([np.nan])).value)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Sequence[Any]:
    status = main(["evaluate", *map(str, words)])
    return (status, *capsys.readouterr())


@pytest.fixture
def spec(tmp_path: Path) -> list[str]:
    path = tmp_path / "net.py"
    path.write_text((ROOT / "tests" / "coloured.py").read_text())
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    crop = f"resize={SIDE},crop={SIDE},mean=0/0/0,std=1/1/1"
    return [
        "--model",
        f"python:{path}:Colours",
        "--preprocessing",
        crop,
        "--labels",
        str(labels),
    ]


def test_the_verb_prints_a_table_and_writes_json_and_a_picture(
    capsys: pytest.CaptureFixture[str],
    source: Path,
    spec: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    words = [source, *spec, "--measure", "pointing-game", "--count", 9]
    status, printed, _ = run(capsys, *words, "--out", out)
    assert status == 0
    lines = printed.splitlines()
    assert lines[0].split("  ")[0] == "method"
    assert "pointing game ↑" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:5]] == ["exact", *NULLS]
    assert "means over 9 photos with 95 % bootstrap intervals" in printed
    assert (out / "evaluation.png").stat().st_size > 10_000

    schema = json.loads((ROOT / "docs/unitscope.schema.json").read_text())
    document = json.loads((out / "evaluation.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["kind"] == "evaluation"
    status, printed, _ = run(capsys, *words, "--out", out, "--json")
    assert status == 0
    assert json.loads(printed) == document


def test_the_verb_names_what_is_wrong_in_one_line(
    capsys: pytest.CaptureFixture[str], source: Path, spec: list[str]
) -> None:
    status, _, err = run(capsys, source, *spec, "--method", "gradcamm")
    assert status == 1
    assert err.startswith("unitscope: there is no method 'gradcamm'")
    assert err.count("\n") == 1


def test_the_picture_is_readable_and_says_which_direction_is_better(
    evaluation: Evaluation,
) -> None:
    drawn = evaluation.figure(measures=["deletion", "IoU"])
    assert_readable(drawn)
    texts = [artist.get_text() for artist in drawn.findobj(Text)]
    assert "deletion: less is better" in texts
    assert "IoU: more is better" in texts
    assert not any(text.startswith("insertion") for text in texts)
    with pytest.raises(InputError, match="did you mean 'IoU'"):
        evaluation.figure(measures=["iou"])


def test_the_page_names_every_method_and_measure() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name in (*METHODS, *MEASURES):
        assert f"`{name}`" in page


def test_the_help_names_every_method_and_measure() -> None:
    for name in METHODS:
        assert name in METHODS_IN_HELP
    for name in MEASURES:
        assert name in MEASURES_IN_HELP
