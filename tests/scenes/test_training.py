"""The training script: both layouts of photos, resuming, what it writes, and how it scores."""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from unitscope.atlas.intervals import wilson
from unitscope.scenes.network import Architecture, SceneNetwork, Stage
from unitscope.scenes.transformer import (
    SceneTransformer,
    TransformerArchitecture,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = pytest.mark.skipif(
    not SCRIPTS.is_dir(), reason="scripts/ is not part of an installed package"
)
sys.path.insert(0, str(SCRIPTS))

import train_miniplaces  # noqa: E402
from miniplaces import (  # noqa: E402
    augmentation,
    card,
    evaluation,
    loss,
    optimizers,
    options,
    photos,
    recipe,
    teacher,
    weights,
)

CLASSES = ["abbey", "bakery/shop", "coast"]
FOLDERS = ["a/abbey", "b/bakery/shop", "c/coast"]


def jpeg(label: int, number: int, size: int = 48) -> bytes:
    """A noisy picture whose colour gives its class away."""
    noise = np.random.default_rng((label, number)).integers(
        0, 80, (size, size, 3)
    )
    noise[:, :, label] += 150
    buffer = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the official MiniPlaces layout.

    It has 3 classes, with 12 training and 4 validation photos of each.
    """
    root = tmp_path_factory.mktemp("miniplaces")
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for label, folder in enumerate(FOLDERS):
        for number in range(12):
            path = root / "images" / "train" / folder / f"{number:08d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(label, number))
            lines["train"].append(f"train/{folder}/{number:08d}.jpg {label}")
        for number in range(4):
            # The official validation photos lie in one folder, without their classes'
            # names.
            path = root / "images" / "val" / f"{label * 4 + number + 1:08d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(label, 100 + number))
            lines["val"].append(f"val/{path.name} {label}")
    for split, content in lines.items():
        (root / f"{split}.txt").write_text("\n".join(content) + "\n")
    return root


@pytest.fixture(scope="module")
def shards(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training photos as two parquet shards."""
    pyarrow = pytest.importorskip(
        "pyarrow", reason="parquet shards take pyarrow"
    )
    parquet = pytest.importorskip("pyarrow.parquet")
    root = tmp_path_factory.mktemp("shards")
    rows = [
        line.rsplit(" ", 1)
        for line in (archive / "train.txt").read_text().splitlines()
    ]
    for shard, part in enumerate((rows[::2], rows[1::2])):
        table = pyarrow.table(
            {
                "path": [path.removeprefix("train/") for path, _ in part],
                "label": pyarrow.array(
                    [int(label) for _, label in part], pyarrow.int16()
                ),
                "image": [
                    (archive / "images" / path).read_bytes() for path, _ in part
                ],
            }
        )
        parquet.write_table(table, root / f"train-{shard}-of-2.parquet")
    return root


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """As many threads of torch as the test's parameter says."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def by_name(dataset: photos.Photos) -> dict[str, tuple[int, bytes]]:
    return {
        name: (int(label), pixels.tobytes())
        for name, label, pixels in zip(
            dataset.names, dataset.labels, dataset.pixels, strict=True
        )
    }


def test_folder_tar_and_parquet_give_the_same_photos(
    archive: Path, shards: Path, tmp_path: Path
) -> None:
    tar = tmp_path / "data.tar"
    with tarfile.open(tar, "w") as file:
        file.add(archive, arcname=".")
    folder = photos.read_photos(archive, "train")
    assert len(folder) == 36
    assert photos.class_names(folder) == CLASSES
    assert by_name(photos.read_photos(tar, "train")) == by_name(folder)
    assert by_name(photos.read_photos(shards, "train")) == by_name(folder)
    assert (
        sorted(photos.read_photos(tar, "val").labels.tolist())
        == [0] * 4 + [1] * 4 + [2] * 4
    )


def test_cache_gives_back_the_same_photos_without_decoding(
    archive: Path, tmp_path: Path
) -> None:
    fresh = photos.read_photos(archive, "train", size=40, cache=tmp_path)
    again = photos.read_photos(archive, "train", size=40, cache=tmp_path)
    assert isinstance(again.pixels, np.memmap)
    assert (
        by_name(again)
        == by_name(fresh)
        == by_name(photos.read_photos(archive, "train", size=40))
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "nowhere",
            "does not exist: give a MiniPlaces folder or tar, or parquet shards",
        ),
        ("empty", "neither images/train nor train"),
        ("text.tar", "neither a folder, nor parquet, nor a tar"),
    ],
)
def test_photos_that_are_none_are_refused_in_words(
    tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("not an archive")
    with pytest.raises(photos.PhotosError, match=message):
        photos.read_photos(tmp_path / source, "train")


def test_holding_out_by_number_and_by_archive(
    archive: Path, tmp_path: Path
) -> None:
    dataset = photos.read_photos(archive, "train")
    chosen, held = photos.split_off(dataset, "6", seed=3)
    assert len(held) == 6
    assert sorted([*chosen, *held]) == list(range(36))
    some = tmp_path / "annotated" / "images" / "train" / "a" / "abbey"
    some.mkdir(parents=True)
    (some / "00000002.jpg").write_bytes(jpeg(0, 2))
    chosen, held = photos.split_off(
        dataset, str(tmp_path / "annotated"), seed=3
    )
    assert [dataset.names[index] for index in held] == ["a/abbey/00000002.jpg"]
    assert len(chosen) == 35


def test_crop_and_resize_agree_with_pillow() -> None:
    """The batched matrix products are Pillow's antialiased bilinear resize of a box.

    Pillow rounds afterwards.
    """
    picture = np.random.default_rng(0).integers(
        0, 255, (96, 96, 3), dtype=np.uint8
    )
    rows = augmentation._resampling(
        torch.tensor([10 / 96]), torch.tensor([80 / 96]), 96, 64
    )[0]
    columns = augmentation._resampling(
        torch.tensor([5 / 96]), torch.tensor([40 / 96]), 96, 64
    )[0]
    ours = torch.einsum(
        "is,stc,jt->ijc", rows, torch.from_numpy(picture).float(), columns
    )
    theirs = Image.fromarray(picture).resize(
        (64, 64), Image.Resampling.BILINEAR, box=(5, 10, 45, 90)
    )
    assert np.abs(ours.numpy() - np.asarray(theirs)).max() <= 1.5


def test_augmentation_without_variation_is_normalisation_up_to_a_flip() -> None:
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    still = augmentation.Augmentation(
        smallest_crop=1.0, aspect=1.0, colour=0.0, cast=0.0
    )
    crops = augmentation.augment(
        pixels, 32, still, torch.Generator().manual_seed(0)
    )
    plain = augmentation.normalise(pixels)
    for crop, photo in zip(crops, plain, strict=True):
        assert (
            min((crop - photo).abs().max(), (crop.flip(2) - photo).abs().max())
            < 1e-4
        )


def test_erasing_blanks_a_rectangle() -> None:
    pixels = torch.full((16, 40, 40, 3), 255, dtype=torch.uint8)
    crops = augmentation.augment(
        pixels,
        40,
        augmentation.Augmentation(erase=1.0),
        torch.Generator().manual_seed(0),
    )
    blank = (crops == 0).all(1)
    assert ((blank.sum((1, 2)) >= 49) & (blank.sum((1, 2)) <= 441)).all()


def test_muon_steps_are_nearly_orthogonal() -> None:
    step = optimizers.orthogonalise(
        torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    )
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.5
    assert singular.max() < 1.5


def arguments(source: Path, out: Path, *more: str) -> list[str]:
    words = [
        "train",
        "--data",
        str(source),
        "--out",
        str(out),
        "--architecture",
        "tiny",
        "--schedule",
        "32:2,40:2",
    ]
    words += [
        "--batch",
        "8",
        "--device",
        "cpu",
        "--eval-size",
        "48",
        "--checkpoint-seconds",
        "0",
        "--warmup",
        "4",
        # Processors without bfloat16 take five times as long over it.
        "--precision",
        "float32",
    ]
    return [*words, *more]


def test_training_learns_and_writes_what_it_learned(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(
        archive,
        tmp_path,
        "--val",
        str(archive),
        "--lr",
        "0.02",
        "--epochs",
        "16",
        "--averaging",
        "0.8",
    )
    assert train_miniplaces.main(words) == 0
    assert "95 % Wilson intervals" in capsys.readouterr().out
    trained = weights.read_weights(tmp_path / "weights.safetensors")
    assert trained.labels == CLASSES
    assert trained.preprocessing["crop"] == 48
    accuracy = trained.card["accuracy"]
    assert accuracy["top1"]["accuracy"] >= 10 / 12
    assert set(accuracy["classes"]) == set(CLASSES)
    assert json.loads((tmp_path / "scores.json").read_text()) == trained.card
    # The card's command holds no path of this machine.
    assert str(tmp_path) not in json.dumps(trained.card)
    page = card.render(trained, 1234)
    assert f"{100 * accuracy['top1']['accuracy']:.1f}" in page
    assert all(f"| {name} |" in page for name in CLASSES)
    # The file scores what its card says.
    again = evaluation.evaluate(
        trained.network,
        photos.read_photos(archive, "val", 48),
        torch.device("cpu"),
    )
    assert again.to_json(CLASSES) == accuracy


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("optimizer", "precision", "threads"),
    [
        # It failed three times in hundreds of runs, beside other tests; the cause is not
        # known yet.
        pytest.param("muon", "bfloat16", 1, marks=pytest.mark.slow),
        ("muon", "float32", 1),
        ("sgd", "float32", 1),
        pytest.param("muon", "bfloat16", 2, marks=pytest.mark.slow),
        pytest.param("sgd", "bfloat16", 2, marks=pytest.mark.slow),
    ],
    indirect=["threads"],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    archive: Path, shards: Path, tmp_path: Path, optimizer: str, precision: str
) -> None:
    more = ["--hold-out", "4", "--optimizer", optimizer, "--lr", "0.02"]
    more += ["--precision", precision]
    assert (
        train_miniplaces.main(arguments(archive, tmp_path / "whole", *more))
        == 0
    )
    # Killed in the middle of the second epoch: 4 steps each.
    assert (
        train_miniplaces.main(
            arguments(archive, tmp_path / "killed", *more, "--stop-after", "6")
        )
        == 0
    )
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    assert (
        train_miniplaces.main(arguments(archive, tmp_path / "killed", *more))
        == 0
    )
    whole, killed = (
        tmp_path / name / "weights.safetensors" for name in ("whole", "killed")
    )
    first, second = (
        weights.read_weights(path).network.state_dict()
        for path in (whole, killed)
    )
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, rtol=0, atol=0, msg=name
        )


def test_a_checkpoint_of_another_recipe_is_refused(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        train_miniplaces.main(arguments(archive, tmp_path, "--stop-after", "2"))
        == 0
    )
    assert (
        train_miniplaces.main(arguments(archive, tmp_path, "--seed", "1")) == 1
    )
    assert "belongs to another recipe" in capsys.readouterr().err


def test_a_plateau_may_be_made_longer_but_not_what_is_done(
    archive: Path, tmp_path: Path
) -> None:
    """4 steps an epoch; the learning rate falls over the last 45 % of them."""
    short, long = (
        ["--schedule", "32:4", "--warmup", "2"],
        ["--schedule", "32:4,40:2", "--warmup", "2"],
    )
    assert (
        train_miniplaces.main(arguments(archive, tmp_path / "whole", *long))
        == 0
    )
    assert (
        train_miniplaces.main(
            arguments(archive, tmp_path / "grown", *short, "--stop-after", "9")
        )
        == 0
    )
    assert (
        train_miniplaces.main(arguments(archive, tmp_path / "grown", *long))
        == 0
    )
    files = [
        tmp_path / name / "weights.safetensors" for name in ("whole", "grown")
    ]
    whole, grown = (
        weights.read_weights(path).network.state_dict() for path in files
    )
    for name, value in whole.items():
        torch.testing.assert_close(grown[name], value, rtol=0, atol=0, msg=name)
    # Its last checkpoint is after step 11, in which the shorter schedule's rate fell,
    # and the longer one's does not.
    assert (
        train_miniplaces.main(
            arguments(archive, tmp_path / "late", *short, "--stop-after", "12")
        )
        == 0
    )
    assert (
        train_miniplaces.main(arguments(archive, tmp_path / "late", *long)) == 1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", [(), ("--architecture", "tiny-transformer", "--dense", "1")]
)
def test_a_student_trains_on_parquet_beside_its_teacher(
    archive: Path, shards: Path, tmp_path: Path, architecture: tuple[str, ...]
) -> None:
    assert (
        train_miniplaces.main(
            arguments(archive, tmp_path / "teacher", "--hold-out", "6")
        )
        == 0
    )
    file = tmp_path / "teacher" / "weights.safetensors"
    words = arguments(
        shards,
        tmp_path / "student",
        "--teacher",
        str(file),
        "--val",
        str(archive),
        *architecture,
    )
    assert train_miniplaces.main(words) == 0
    assert (
        "teacher"
        in weights.read_weights(
            tmp_path / "student" / "weights.safetensors"
        ).card["recipe"]
    )
    assert (
        train_miniplaces.main(
            ["score", str(file), "--val", str(archive), "--json"]
        )
        == 0
    )
    student = tmp_path / "student" / "weights.safetensors"
    assert train_miniplaces.main(["card", str(student)]) == 0


def test_distillation_alone_pulls_towards_the_teacher() -> None:
    """A student that answers as its teacher does has no distillation loss."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    inputs, labels = torch.randn(5, 3, 2, 2), torch.zeros(5, dtype=torch.long)
    settings = recipe.Recipe(distil=1.0, dense=1.0)
    said = network(inputs)
    lesson = teacher.Lesson(said, said[:, :, None, None], None)
    batch = loss.Batch(inputs, labels, lesson)
    alike = loss.Answers(said, said)
    assert loss.answers_to(network, batch).logits.equal(said)
    assert loss.loss_of(alike, batch, settings).abs() < 1e-6
    other = torch.randn(5, 3)
    for unlike in (loss.Answers(other, said), loss.Answers(said, other)):
        assert loss.loss_of(unlike, batch, settings) > 0.01


def test_a_transformer_keeps_its_teachers_first_layers() -> None:
    """What they make of photos is computed once, and is what its own stem would make."""
    torch.manual_seed(0)
    bundled = TransformerArchitecture(
        8, (Stage(1, 8, 1), Stage(1, 16, 2)), 8, 1, 2, 8, side=2, classes=3
    )
    student = SceneTransformer(bundled).eval()
    stages = (Stage(1, 8, 1), Stage(2, 16, 2), Stage(1, 32, 2))
    network = SceneNetwork(Architecture(8, stages, classes=3))
    lender = teacher.Teacher(network, student)
    assert lender.lends
    photos_ = torch.randn(2, 3, 32, 32)
    lesson = lender.teach(photos_)
    assert lesson.stem is not None
    torch.testing.assert_close(student.stem(photos_), lesson.stem)
    torch.testing.assert_close(lesson.maps.mean((2, 3)), lesson.logits)
    batch = loss.Batch(photos_, torch.zeros(2, dtype=torch.long), lesson)
    answers = loss.answers_to(student, batch)
    torch.testing.assert_close(answers.logits, student(photos_))
    trained = [
        name
        for optimizer in optimizers.make_optimizers(
            student, "muon", 0.1, 0.1, 0.0
        )
        for group in optimizer.param_groups
        for name in group["params"]
    ]
    own = [p for n, p in student.named_parameters() if "stem." not in n]
    assert {id(p) for p in trained} == {id(p) for p in own}

    other = SceneNetwork(Architecture(4, stages, classes=3))
    assert not teacher.Teacher(other, SceneTransformer(bundled)).lends


def test_schedule_is_parsed_spread_and_checked() -> None:
    phases = options.parse_schedule("64:12,96:4")
    assert phases == (recipe.Phase(64, 12), recipe.Phase(96, 4))
    assert options.spread(phases, 4) == (
        recipe.Phase(64, 3),
        recipe.Phase(96, 1),
    )
    settings = recipe.Recipe(phases=phases, decay=0.4)
    assert [settings.size_at(epoch) for epoch in (0, 11, 12, 15)] == [
        64,
        64,
        96,
        96,
    ]
    assert settings.rate_at(0, 5000) == pytest.approx(1 / 300)
    assert [
        settings.rate_at(step, 5000) for step in (299, 2000, 3000)
    ] == pytest.approx([1, 1, 1])
    assert settings.rate_at(4000, 5000) == pytest.approx(0.5)
    assert settings.rate_at(4999, 5000) == pytest.approx(1 / 2000)
    for text in ("64", "16:3", "64:0", "64:x"):
        with pytest.raises(
            Exception, match="is no schedule: expected SIZE:EPOCHS"
        ):
            options.parse_schedule(text)


@given(st.data())
def test_wilson_intervals_agree_with_scipy(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5000))
    hits = data.draw(st.integers(0, count))
    low, high = wilson(hits, count)
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= low <= hits / count <= high <= 1


def test_evaluation_counts_by_hand() -> None:
    logits = np.array(
        [[3, 2, 1], [1, 2, 3], [0, 5, 1], [2, 1, 0]], dtype=np.float32
    )
    scores = evaluation.Evaluation(logits, np.array([0, 0, 1, 1]))
    assert (scores.top(1).hits, scores.top(2).hits, scores.top(1).count) == (
        2,
        3,
        4,
    )
    assert (scores.top(1, of=1).hits, scores.top(1, of=1).count) == (1, 2)
    assert scores.confusions(5) == [(0, 2, 1), (1, 0, 1)]
    # A classifier that says the same of everything is right by no tie.
    assert (
        evaluation.Evaluation(
            np.zeros((4, 3), np.float32), np.array([0, 0, 1, 2])
        )
        .top(1)
        .hits
        == 0
    )


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    architecture = options.ARCHITECTURES["tiny"]
    with pytest.raises(
        ValueError,
        match="w does not fit half precision: its largest value is 1e\\+06",
    ):
        weights.write_weights(
            tmp_path / "w",
            {"w": torch.tensor([1e6])},
            architecture,
            [],
            {},
            128,
        )
