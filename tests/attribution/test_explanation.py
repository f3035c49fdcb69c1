"""The identities of the explanation, each against a slow twin, to 1e-5 of the largest
logit in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from narrowed import exactly
from networks import HEADED, Gap, seeded
from unitscope.attribution.classes import class_index, class_indices, ranked
from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.attribution.scores import Scores
from unitscope.errors import ClassError, InputError, UnitError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.tracing.layers import evaluating


class Case:
    """A random network, a batch for it, and its explanation."""

    def __init__(
        self,
        batch: int,
        units: int,
        classes: int,
        rows: int,
        cols: int,
        seed: int,
    ) -> None:
        self.net = seeded(lambda: Gap(units, classes), seed)
        self.x = torch.randn(
            batch, 3, rows, cols, generator=torch.Generator().manual_seed(seed)
        )
        self.model = wrap(
            self.net, preprocessing=Preprocessing(resize=32, crop=32)
        )
        self.explanation = exactly(self.model.explain(self.x, batch_size=3))
        self.seed = seed

    def some_units(self) -> list[int]:
        units = self.net.fc.in_features
        return torch.randperm(
            units, generator=torch.Generator().manual_seed(self.seed)
        )[: 1 + units // 3].tolist()


shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 5),
        "units": st.integers(1, 17),
        "classes": st.integers(1, 9),
        "rows": st.integers(2, 21),
        "cols": st.integers(2, 21),
        "seed": st.integers(0, 1000),
    }
)


def for_any_case(test: Callable[[Case], None]) -> Callable[[], None]:
    """Try a law on networks and batches of many shapes."""

    @pytest.mark.filterwarnings(
        "ignore:.*every unit of the feature map is 0"
    )  # so few units may all be dead
    @pytest.mark.filterwarnings(
        "ignore:Probabilities are a softmax, but"
    )  # some random biases look like those of a sigmoid
    @settings(max_examples=8)
    @given(shapes)
    def law(shape: dict[str, int]) -> None:
        test(Case(**shape))

    law.__name__ = law.__qualname__ = test.__name__
    decorated: Callable[[], None] = law
    return decorated


def close(found: Tensor, expected: Tensor, allowed: float = 1e-5) -> None:
    """Equal to `allowed` of the largest expected number."""
    assert found.shape == expected.shape
    scale = float(expected.abs().max().clamp(min=1e-30))
    assert float((found - expected).abs().max()) <= allowed * scale


def really_without(net: Gap, x: Tensor, units: list[int]) -> Tensor:
    """A real forward pass of the network, with the units' maps zeroed by a hook of our own."""

    def silence(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, units] = 0
        return output

    handle = net.features.register_forward_hook(silence)
    with evaluating(net):
        logits: Tensor = net(x)
    handle.remove()
    return logits


@for_any_case
def test_logits_are_the_networks_own(case: Case) -> None:
    with evaluating(case.net):
        assert torch.equal(
            case.explanation.logits,
            torch.cat([case.net(part) for part in torch.split(case.x, 3)]),
        )


@for_any_case
def test_the_mean_of_a_map_and_the_bias_make_the_logit(case: Case) -> None:
    e = case.explanation
    close(e.cams.mean((2, 3)) + e.head.bias, e.logits)
    assert (
        e.completeness_error.shape == (len(case.x),)
        and float(e.completeness_error.max()) <= 1e-5
    )


@for_any_case
def test_contributions_and_the_bias_make_the_logit(case: Case) -> None:
    e = case.explanation
    close(e.contributions.sum(2) + e.head.bias, e.logits)


@for_any_case
def test_maps_are_the_linear_layer_at_every_position(case: Case) -> None:
    e = case.explanation
    batch, units, rows, cols = e.feature_map.shape
    # The write-up's way: (1, c, h, w) → (h·w, c), through the linear layer, bias
    # included, and back.
    for image in range(batch):
        cells = e.feature_map[image].reshape(units, rows * cols).T
        with torch.no_grad():
            slow = case.net.fc(cells).T.reshape(-1, rows, cols)
        close(e.cams[image] + e.head.bias[:, None, None], slow)


@for_any_case
def test_ablation_is_a_real_forward_pass_without_the_units(case: Case) -> None:
    units = case.some_units()
    ablated = case.explanation.ablate(units)
    scale = case.explanation.logits.abs().max()
    real = really_without(case.net, case.x, units)
    assert float((ablated.logits - real).abs().max()) <= 1e-5 * float(
        max(scale, real.abs().max())
    )
    assert float(
        (case.model.forward_without(case.x, units) - real).abs().max()
    ) == pytest.approx(0, abs=1e-5 * float(scale))
    contributions = case.explanation.contributions[:, :, units].sum(2)
    close(ablated.logits, case.explanation.logits - contributions, 1e-4)
    assert not ablated.feature_map[:, units].any()


@for_any_case
def test_the_ablated_explanation_keeps_every_identity(case: Case) -> None:
    units = case.some_units()
    ablated = case.explanation.ablate(units)
    close(ablated.cams.mean((2, 3)) + ablated.head.bias, ablated.logits)
    close(ablated.contributions.sum(2) + ablated.head.bias, ablated.logits)
    assert ablated.off == tuple(units)
    again = ablated.ablate(units[:1])
    close(again.logits, ablated.logits, 1e-6)
    assert again.off == ablated.off


@for_any_case
def test_ablating_units_one_after_the_other_or_together_is_the_same(
    case: Case,
) -> None:
    units = case.some_units()
    one_by_one = case.explanation
    for unit in units:
        one_by_one = one_by_one.ablate(unit)
    together = case.explanation.ablate(torch.tensor(units))
    assert (
        torch.equal(one_by_one.logits, together.logits)
        and one_by_one.off == together.off
    )


@for_any_case
def test_ablate_each_is_a_loop_over_ablate(case: Case) -> None:
    e = case.explanation
    slow = torch.stack(
        [e.ablate(unit).logits for unit in range(e.feature_map.shape[1])], dim=1
    )
    scale = float(torch.cat([slow.flatten(), e.logits.flatten()]).abs().max())
    assert e.ablate_each().shape == slow.shape
    assert float((e.ablate_each() - slow).abs().max()) <= 1e-5 * scale
    classes = list(range(slow.shape[2]))[::-2]
    assert (
        float((e.ablate_each(classes) - slow[:, :, classes]).abs().max())
        <= 1e-5 * scale
    )
    assert e.ablate_each("class 0").shape == (*slow.shape[:2], 1)
    assert e.ablate_each(classes, units=[]).shape == (len(e), 0, len(classes))


@for_any_case
def test_ablations_told_a_few_at_a_time_are_those_of_each(case: Case) -> None:
    e, units = case.explanation, case.some_units()
    each = e.ablate_each()
    scale = float(torch.cat([each.flatten(), e.logits.flatten()]).abs().max())
    for at_once in (None, 1, 3):
        told = list(e.ablations(units=units, at_once=at_once))
        assert [unit for few, _ in told for unit in few] == list(
            dict.fromkeys(units)
        )
        assert (
            at_once is None
            or max((len(few) for few, _ in told), default=0) <= at_once
        )
        for few, logits in told:
            assert float((logits - each[:, few]).abs().max()) <= 1e-6 * scale
    everything = torch.cat(
        [logits for _, logits in e.ablations([0], at_once=2)], dim=1
    )
    assert float((everything - each[:, :, :1]).abs().max()) <= 1e-6 * scale
    for wrong in (0, -1):
        with pytest.raises(
            InputError,
            match=f"at_once is the number of units per chunk, 1 or more, not {wrong}",
        ):
            e.ablations(at_once=wrong)


@for_any_case
def test_regions_that_tile_the_map_share_the_logit(case: Case) -> None:
    e = case.explanation
    rows, cols = e.feature_map.shape[2:]
    label = torch.randint(
        0, 3, (rows, cols), generator=torch.Generator().manual_seed(case.seed)
    )
    soft = torch.rand(
        rows, cols, generator=torch.Generator().manual_seed(case.seed)
    )
    parts = [e.evidence((label == part).float()) for part in range(3)]
    close(torch.stack(parts).sum(0), e.logits)
    close(e.evidence(soft) + e.evidence(1 - soft), e.logits)
    # The slow way: over the cells of the map of every class.
    inside = label == 0
    slow = (e.cams + e.head.bias[:, None, None])[:, :, inside].sum(2) / (
        rows * cols
    )
    close(parts[0], slow, 1e-4) if float(slow.abs().max()) > 1e-3 else None
    torch.testing.assert_close(e.evidence(inside), parts[0])


@for_any_case
def test_a_batch_is_its_photos(case: Case) -> None:
    whole = case.model.explain(case.x, batch_size=1 + case.seed % 6)
    assert len(whole) == len(case.x) == len(list(whole))
    for image, one in enumerate(whole):
        alone = case.model.explain(case.x[image : image + 1])
        close(one.logits, alone.logits)
        close(one.cams, alone.cams)
        assert one.subjects[0].name == f"input {image}"
    assert torch.equal(whole[-1].logits, whole[len(whole) - 1].logits)
    with pytest.raises(
        IndexError,
        match=f"there is no photo {len(whole)} in an explanation of {len(whole)}",
    ):
        _ = whole[len(whole)]


@pytest.mark.parametrize("name", HEADED)
def test_every_head_obeys_the_identities(name: str) -> None:
    make = HEADED[name][0]
    channels = 1 if name == "one channel" else 3
    model = wrap(
        seeded(make),
        preprocessing=Preprocessing(
            mean=(0.5,) * channels, std=(0.5,) * channels
        ),
    )
    x = torch.randn(
        3, channels, 40, 32, generator=torch.Generator().manual_seed(5)
    )
    e = exactly(model.explain(x))
    close(e.cams.mean((2, 3)) + e.head.bias, e.logits)
    close(e.contributions.sum(2) + e.head.bias, e.logits)
    units = [0, e.feature_map.shape[1] - 1]
    close(e.ablate(units).logits, model.forward_without(x, units))
    close(
        e.ablate(range(e.feature_map.shape[1])).logits,
        e.head.bias.expand_as(e.logits) + 0.0,
    )


def test_batch_and_single_forward_passes_agree_for_photos(
    gap: Classifier, tmp_path: Path
) -> None:
    for index in range(3):
        pixels = np.random.default_rng(index).integers(
            0, 255, (40 + 9 * index, 60, 3), dtype=np.uint8
        )
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    paths = sorted(tmp_path.iterdir())
    together = gap.explain(paths, batch_size=2)
    assert [subject.name for subject in together.subjects] == [
        "0.png",
        "1.png",
        "2.png",
    ]
    for path, one in zip(paths, together, strict=True):
        with Image.open(path) as photo:
            close(gap.explain(str(path)).logits, one.logits)
            close(gap.explain(photo).cams, one.cams)
            assert one.subjects[0].size == photo.size
            assert one.subjects[0].picture().tobytes() == photo.tobytes()


# --- rankings and classes -----------------------------------------------------


SOFTMAX = Scores.SOFTMAX


def labelled(labels: list[str] | None = None) -> ExactExplanation:
    model = wrap(seeded(Gap), labels, Preprocessing(resize=32, crop=32))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return exactly(model.explain(x))


def test_equal_logits_are_ranked_by_index() -> None:
    top = ranked(
        torch.tensor([1.0, 3.0, 3.0, -2.0, 3.0]), list("abcde"), 4, SOFTMAX
    )
    assert [prediction.index for prediction in top] == [1, 2, 4, 0]
    assert top[0].label == "b" and top[0].logit == 3 and top[0][1] == 1
    shares = [
        prediction.probability or 0
        for prediction in ranked(torch.randn(9), list("abcdefghi"), 9, SOFTMAX)
    ]
    assert sum(shares) == pytest.approx(1)


def test_the_top_of_every_photo() -> None:
    e = labelled()
    top = e.top(3)
    assert [len(row) for row in top] == [3, 3]
    assert [prediction.index for prediction in top[1]] == e.logits[1].topk(
        3
    ).indices.tolist()
    assert [prediction.logit for prediction in top[1]] == e.logits[1].topk(
        3
    ).values.tolist()
    probabilities = e.logits[1].double().softmax(0)
    assert top[1][0].probability == pytest.approx(float(probabilities.max()))
    assert len(e.top(99)[0]) == 5 and e.top()[0][0].label.startswith("class ")


@pytest.mark.parametrize("count", [0, -1])
def test_a_top_of_nothing_is_refused(count: int) -> None:
    with pytest.raises(
        ClassError,
        match=f"the number of classes to list is at least 1, not {count}",
    ):
        labelled().top(count)


def test_huge_logits_have_probabilities() -> None:
    top = ranked(torch.tensor([1e30, -1e30, 1e30]), list("abc"), 3, SOFTMAX)
    assert [prediction.probability for prediction in top] == [0.5, 0.5, 0.0]


HOSTILE = ["<script>alert(1)</script>", "", "3", "Ωμέγα", "tench, Tinca tinca"]


def test_classes_are_found_by_label_or_by_index() -> None:
    assert class_index(HOSTILE, "<script>alert(1)</script>") == 0
    assert class_index(HOSTILE, "") == 1
    assert class_index(HOSTILE, "3") == 2  # a label before an index
    assert (
        class_index(HOSTILE, "4") == 4
        and class_index(HOSTILE, 4) == 4
        and class_index(HOSTILE, "Ωμέγα") == 3
    )
    assert class_indices(HOSTILE, ["Ωμέγα", 0]) == [3, 0] and class_indices(
        HOSTILE, 2
    ) == [2]
    assert class_index(HOSTILE, int(np.int64(1))) == 1


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (-1, "there is no class -1: the 5 classes are numbered 0 to 4"),
        (5, "there is no class 5: the 5 classes are numbered 0 to 4"),
        ("5", "there is no class 5: the 5 classes are numbered 0 to 4"),
        (True, "a class is a label or an index, not True"),
        ("-1", "there is no class '-1' among the 5 labels"),
        ("tench, Tinca tinka", "did you mean 'tench, Tinca tinca'"),
        ("²", "there is no class '²' among the 5 labels"),
        (1.5, "a class is a label or an index, not 1.5"),
        (None, "a class is a label or an index, not None"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_class_is_refused(which: Any, message: str) -> None:
    with pytest.raises(ClassError) as refusal:
        class_index(HOSTILE, which)
    assert message in str(refusal.value)


@pytest.mark.usefixtures("unchecked")
def test_an_index_from_numpy_or_torch_is_an_index() -> None:
    assert class_index(HOSTILE, np.int64(3)) == 3  # type: ignore[arg-type]
    several = np.array([1, 2])
    assert class_indices(HOSTILE, several) == [1, 2]  # type: ignore[arg-type]
    assert class_indices(HOSTILE, torch.tensor([4, 0])) == [4, 0]
    assert class_indices(HOSTILE, np.int64(1)) == [1]  # type: ignore[arg-type]


def test_a_label_that_two_classes_share_must_be_named_by_index() -> None:
    with pytest.raises(
        ClassError,
        match="2 classes are called 'crane': name one by its index, 1 or 3",
    ):
        class_index(["dog", "crane", "cat", "crane"], "crane")
    e = labelled(["dog", "crane", "cat", "crane", "owl"])
    assert e.cams_of([1, 3]).shape[1] == 2


def test_maps_of_named_classes_are_those_of_all() -> None:
    e = labelled(["a", "b", "c", "d", "e"])
    assert torch.allclose(e.cams_of(["d", 0]), e.cams[:, [3, 0]], atol=1e-6)
    assert e.cams_on_photo(1, "d").shape == (1, 32, 32)
    assert e.class_index("c") == 2
    with pytest.raises(ClassError):
        e.cams_of("f")


# --- units --------------------------------------------------------------------


def test_the_maximal_unit_is_the_one_with_the_largest_weight() -> None:
    e = labelled()
    for index in range(5):
        assert e.maximal_unit(index) == int(e.head.weight[index].argmax())
    assert e.maximal_unit("class 3") == e.maximal_unit(3)
    with pytest.raises(ClassError):
        e.maximal_unit(-1)


def test_the_units_that_add_most_come_first() -> None:
    e = labelled()
    units = e.top_units(2, count=4, image=1)
    assert [part.unit for part in units] == e.contributions[1, 2].topk(
        4
    ).indices.tolist()
    for part in units:
        assert part.contribution == pytest.approx(
            part.weight * part.mean_activation
        )
        assert part.mean_activation == pytest.approx(
            float(e.feature_map[1, part.unit].mean())
        )
    assert e.classes_of_unit(3, 2) == [
        (f"class {index}", float(e.head.weight[index, 3]))
        for index in e.head.weight[:, 3].topk(2).indices.tolist()
    ]


def generated() -> Iterator[int]:
    yield from (0, 2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "units",
    [
        2,
        [2],
        (2,),
        torch.tensor(2),
        torch.tensor([2]),
        np.int64(2),
        np.array([2]),
        [2, 2],
    ],
)
def test_units_may_be_given_in_any_way(units: Any) -> None:
    assert labelled().ablate(units).off == (2,)
    maps = labelled().unit_maps(generated())  # type: ignore[arg-type]
    assert maps.units == (0, 2)


def test_ablating_nothing_changes_nothing() -> None:
    e = labelled()
    close(e.ablate([]).logits, e.logits, 1e-6)
    assert e.ablate([]).off == ()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("units", "message"),
    [
        (
            6,
            "there is no unit 6 in the last feature map: its 6 units are numbered 0 to "
            "5",
        ),
        ([0, -1], "there is no unit -1 in the last feature map"),
        (True, "unit True is not a number"),
        (torch.tensor([True, False]), "unit True is not a number"),
        (1.0, "unit 1.0 is not a number"),
        ("3", "unit '3' is not a number"),
        ([None], "unit None is not a number"),
        ([[1]], r"unit [1] is not a number"),
    ],
)
def test_what_is_no_unit_is_refused(units: Any, message: str) -> None:
    for verb in ("ablate", "unit_maps"):
        with pytest.raises(UnitError) as refusal:
            getattr(labelled(), verb)(units)
        assert message in str(refusal.value)


def test_unit_maps_are_the_feature_map() -> None:
    e = labelled()
    maps = e.unit_maps([4, 1])
    assert (
        torch.equal(maps.maps, e.feature_map[:, [4, 1]])
        and maps.layer == "features"
    )
    assert maps.on_photo(1, (20, 10)).shape == (2, 10, 20)


@pytest.mark.usefixtures("unchecked")
def test_a_region_of_another_shape_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"a region of this map has its 16×16 cells, not 3×4: give a",
    ):
        labelled().evidence(torch.ones(3, 4))
    with pytest.raises(
        InputError,
        match=r"a region of this map has its 16×16 cells, not 16: give a",
    ):
        labelled().evidence(torch.ones(16))


def test_what_was_explained_can_be_explained_again() -> None:
    e = labelled()
    model = wrap(seeded(Gap), preprocessing=Preprocessing(resize=32, crop=32))
    assert torch.equal(model.explain(e.inputs()).logits, e.logits)


def test_an_explanation_does_not_change_with_the_users_tensor() -> None:
    model = wrap(seeded(Gap), preprocessing=Preprocessing(resize=32, crop=32))
    x = torch.randn(2, 3, 32, 32)
    e = model.explain(x)
    before, picture = e.feature_map.clone(), e.subjects[0].picture().tobytes()
    x.zero_()
    assert (
        torch.equal(e.feature_map, before)
        and e.subjects[0].picture().tobytes() == picture
    )
    assert (
        e.subjects[0].tensor is not None
        and e.subjects[0].tensor.untyped_storage().nbytes() == 3 * 32 * 32 * 4
    )


def test_a_photo_is_found_again_after_the_program_has_gone_elsewhere(
    gap: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    explanation = gap.explain("photo.png")
    monkeypatch.chdir("/")
    assert explanation.subjects[0].picture().size == (40, 30)
    assert (
        repr(explanation)
        == "<Explanation of 1 photo: 6 units of 16×16 cells, 5 classes>"
    )
