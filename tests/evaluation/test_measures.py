"""Measures: values worked out by hand, slow twins, and the peers' own metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from coloured import SIDE, colours, photo, square
from networks import Gap, seeded
from unitscope.errors import InputError
from unitscope.evaluation.ablations import (
    PatchCorrelation,
    UnitCorrelation,
    patches,
)
from unitscope.evaluation.batch import Batch
from unitscope.evaluation.boxes import (
    box_overlap,
    components,
    hottest_box,
)
from unitscope.evaluation.completeness import LeftOut
from unitscope.evaluation.confidence import AverageDrop, Increase, shares
from unitscope.evaluation.deletion import Deletion, Insertion, areas
from unitscope.evaluation.hiding import HIDINGS, blurred, hiding_of
from unitscope.evaluation.inside import (
    average_precision,
    energy_inside,
    iou_of_equal_area,
)
from unitscope.evaluation.likeness import likeness
from unitscope.evaluation.maps import Maps, ranks
from unitscope.evaluation.measures import MEASURES, chosen_measures
from unitscope.evaluation.methods import (
    METHODS,
    Method,
    without_gradients,
)
from unitscope.evaluation.pointing import points_at
from unitscope.evaluation.randomisation import (
    RandomisedAll,
    RandomisedHead,
    randomised,
)
from unitscope.evaluation.stability import Stability
from unitscope.model import Classifier, wrap


def mean_score(inputs: Tensor, owners: Sequence[int]) -> np.ndarray:
    return inputs.mean(dim=(1, 2, 3)).double().numpy()


def corner_score(inputs: Tensor, owners: Sequence[int]) -> np.ndarray:
    return inputs[:, 0, 0, 0].double().numpy()


class TestDeletion:
    begin, end = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)

    def test_the_area_of_a_mean_is_one_half_in_any_order(self) -> None:
        places = np.random.default_rng(0).permutation(16).reshape(1, 1, 4, 4)
        found = areas(mean_score, self.begin, self.end, places, steps=4)
        assert found == pytest.approx(np.array([[0.5]]))

    def test_what_is_deleted_first_counts_most(self) -> None:
        first = np.arange(16).reshape(4, 4)
        places = np.stack([first, 15 - first])[None]
        found = areas(corner_score, self.begin, self.end, places, steps=4)
        # 1, 0, 0, 0, 0 and 1, 1, 1, 1, 0 at steps of a quarter, by trapezoids.
        assert found == pytest.approx(np.array([[0.125, 0.875]]))

    @given(st.integers(0, 1000), st.integers(1, 9))
    def test_it_equals_a_loop_of_single_passes(
        self, seed: int, steps: int
    ) -> None:
        random = np.random.default_rng(seed)
        begin = torch.from_numpy(random.random((2, 3, 5, 4)))
        end = torch.from_numpy(random.random((2, 3, 5, 4)))
        places = np.stack(
            [random.permutation(20).reshape(5, 4) for _ in range(6)]
        ).reshape(2, 3, 5, 4)

        def score(inputs: Tensor, owners: Sequence[int]) -> np.ndarray:
            weights = torch.arange(60.0).double().reshape(3, 5, 4)
            return ((inputs * weights).sum((1, 2, 3)) ** 2).numpy()

        found = areas(score, begin, end, places, steps)
        for image in range(2):
            for one in range(3):
                values = []
                counts = [round(20 * step / steps) for step in range(steps + 1)]
                counts = np.linspace(0, 20, steps + 1).round().tolist()
                for count in counts:
                    mixed = begin[image].clone()
                    changed = torch.from_numpy(places[image, one] < count)
                    mixed[:, changed] = end[image][:, changed]
                    values.append(float(score(mixed[None], [0])[0]))
                slow = np.trapezoid(values, np.array(counts) / 20)
                assert found[image, one] == pytest.approx(slow)

    def test_insertion_is_deletion_from_the_other_end(self) -> None:
        batch, maps = coloured_batch()
        deletion = Deletion().of(batch, maps)["exact"]
        insertion = Insertion().of(batch, maps)["exact"]
        turned = {
            "exact": Maps(
                -maps["exact"].values, maps["exact"].grid, (SIDE, SIDE)
            )
        }
        # Deleting the smallest first is inserting the largest first, run backwards, but for
        # ties.
        backwards = Deletion().of(batch, turned)["exact"]
        assert insertion == pytest.approx(backwards, abs=1e-3)
        assert (deletion < insertion).all()

    def test_equal_values_are_ordered_like_a_random_map(self) -> None:
        constant = ranks(np.zeros((SIDE, SIDE)), 3)
        assert sorted(constant.ravel()) == list(range(SIDE * SIDE))
        assert not np.array_equal(constant, ranks(np.zeros((SIDE, SIDE)), 4))
        assert np.array_equal(constant, ranks(np.ones((SIDE, SIDE)), 3))
        rising = np.arange(12.0).reshape(3, 4)
        assert np.array_equal(ranks(rising, 0), 11 - rising)


def coloured_batch(hide: str = "zero") -> tuple[Batch, dict[str, Maps]]:
    model = colours()
    pixels = np.stack([photo(seed, seed % 3) for seed in range(4)])
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    masks = np.zeros((4, SIDE, SIDE), dtype=bool)
    for seed in range(4):
        masks[(seed, *square(seed))] = True
    batch = Batch(
        model,
        inputs,
        ("a", "b", "c", "d"),
        (0, 1, 2, 0),
        hiding_of(hide),
        masks,
    )
    maps = without_gradients(METHODS["exact"], model, inputs, batch.classes)
    return batch, {"exact": maps}


def whole_size() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


class TestConfidence:
    def test_the_positive_part_is_scaled_to_its_largest(self) -> None:
        maps = np.array([[[-2.0, 1.0], [4.0, 0.0]], [[-1.0, 0.0], [-3.0, 0.0]]])
        assert shares(maps).tolist() == [
            [[0.0, 0.25], [1.0, 0.0]],
            [[0.0, 0.0], [0.0, 0.0]],
        ]

    def test_what_all_of_the_photo_keeps_is_no_loss(self) -> None:
        batch, _ = coloured_batch()
        whole = {"whole": Maps.tiling(np.ones((4, 2, 2)), (SIDE, SIDE))}
        assert AverageDrop().of(batch, whole)["whole"] == pytest.approx(0)
        assert Increase().of(batch, whole)["whole"].tolist() == [0, 0, 0, 0]

    def test_a_map_without_a_positive_part_leaves_the_hidden_photo(
        self,
    ) -> None:
        batch, _ = coloured_batch()
        none = {"none": Maps.tiling(-np.ones((4, 2, 2)), (SIDE, SIDE))}
        before = batch.scores(batch.inputs, range(4))
        # With nothing to see all three logits are 0.
        expected = (before - 1 / 3).clip(min=0) / before
        found = AverageDrop().of(batch, none)["none"]
        assert found == pytest.approx(expected, rel=1e-5)

    def test_torchcams_metric_of_the_same_maps_agrees(self) -> None:
        metrics = pytest.importorskip(
            "torchcam.metrics", reason="torchcam is not installed"
        )
        methods = pytest.importorskip("torchcam.methods")
        # Maps of the input's size: theirs are scaled before they are resized.
        net = seeded(whole_size).eval()
        model = wrap(net)
        inputs = torch.randn(
            6, 3, 16, 16, generator=torch.Generator().manual_seed(0)
        )
        classes = [0, 1, 2, 3, 4, 0]
        with methods.GradCAM(net, net[1]) as extractor:
            metric = metrics.ClassificationMetric(
                extractor, lambda logits: logits.softmax(dim=1)
            )
            metric.update(inputs, class_idx=classes)
            theirs = metric.summary()
            # Theirs are gradients of the probability.
            scores = net(inputs).softmax(dim=1)
            cams = extractor(classes, scores)[0].detach()
        batch = Batch(
            model, inputs, tuple("abcdef"), tuple(classes), hiding_of("zero")
        )
        maps = {"cam": Maps.tiling(cams.numpy(), (16, 16))}
        ours = AverageDrop().of(batch, maps)["cam"].mean()
        assert ours == pytest.approx(theirs["avg_drop"], abs=1e-5)
        increase = Increase().of(batch, maps)["cam"].mean()
        assert increase == pytest.approx(theirs["conf_increase"])

    def test_pytorch_grad_cams_metrics_of_the_same_maps_agree(self) -> None:
        name = "pytorch_grad_cam.metrics.cam_mult_image"
        metrics = pytest.importorskip(name, reason="grad-cam is not installed")
        targets = pytest.importorskip(
            "pytorch_grad_cam.utils.model_targets"
        ).ClassifierOutputSoftmaxTarget
        net = seeded(Gap).eval()
        inputs = torch.randn(
            5, 3, 32, 32, generator=torch.Generator().manual_seed(0)
        )
        classes = (0, 1, 2, 3, 4)
        values = np.random.default_rng(0).random((5, 32, 32))
        values /= values.max(axis=(1, 2), keepdims=True)
        asked = [targets(which) for which in classes]
        given = inputs, values.astype(np.float32), asked, net
        batch = Batch(
            wrap(net), inputs, tuple("abcde"), classes, hiding_of("zero")
        )
        maps = {"map": Maps.tiling(values, (32, 32))}
        with torch.no_grad():
            drop = metrics.DropInConfidence()(*given)
            increase = metrics.IncreaseInConfidence()(*given)
        # Their drop is p − p′, not a share of p as in the paper.
        before = batch.scores(inputs, range(5))
        ours = AverageDrop().of(batch, maps)["map"]
        assert ours * before == pytest.approx(np.asarray(drop), abs=1e-5)
        assert ours.max() > 0
        found = Increase().of(batch, maps)["map"]
        assert found.tolist() == np.asarray(increase).tolist()


class TestDeletionOracle:
    def test_torchcams_deletion_and_insertion_agree(self) -> None:
        metrics = pytest.importorskip(
            "torchcam.metrics", reason="torchcam is not installed"
        )
        methods = pytest.importorskip("torchcam.methods")
        net = seeded(Gap).eval()
        model = wrap(net)
        inputs = torch.randn(
            4, 3, 32, 32, generator=torch.Generator().manual_seed(0)
        )
        classes = [0, 1, 2, 3]
        with methods.CAM(net, net.features, fc_layer=net.fc) as extractor:
            metric = metrics.DeletionInsertionMetric(
                extractor, lambda logits: logits.softmax(dim=1), steps=8
            )
            metric.update(inputs, class_idx=classes)
            theirs = metric.summary()
            cams = extractor(classes, net(inputs))[0].detach()
        resized = torch.nn.functional.interpolate(
            cams[:, None], (32, 32), mode="bilinear"
        )[:, 0].numpy()
        batch = Batch(
            model, inputs, tuple("abcd"), tuple(classes), hiding_of("zero")
        )
        places = np.stack([[ranks(each, 0)] for each in resized])
        hidden = batch.hidden()
        deletion = areas(batch.scores, inputs, hidden, places, 8).mean()
        insertion = areas(batch.scores, hidden, inputs, places, 8).mean()
        values = {key: float(value) for key, value in theirs.items()}
        assert deletion == pytest.approx(values["deletion_auc"], abs=1e-5)
        assert insertion == pytest.approx(values["insertion_auc"], abs=1e-5)


class TestPointing:
    mask = np.zeros((40, 40), dtype=bool)
    mask[0, 0] = True

    @pytest.mark.parametrize(
        ("row", "col", "hit"), [(15, 0, 1), (16, 0, 0), (9, 12, 1), (10, 12, 0)]
    )
    def test_the_tolerance_is_fifteen_pixels_between_centres(
        self, row: int, col: int, hit: int
    ) -> None:
        values = np.zeros((40, 40))
        values[row, col] = 1
        centres = np.arange(40) + 0.5
        assert points_at(values, centres, centres, self.mask) == hit

    def test_equal_cells_share_and_an_empty_mask_has_no_answer(self) -> None:
        centres = np.arange(40) + 0.5
        values = np.zeros((40, 40))
        values[0, 0] = values[39, 39] = 1
        assert points_at(values, centres, centres, self.mask) == 0.5
        empty = np.zeros((40, 40), dtype=bool)
        assert np.isnan(points_at(values, centres, centres, empty))


class TestInside:
    values = np.array([[4.0, 1.0], [-3.0, 1.0]])
    mask = np.array([[True, False], [True, False]])

    def test_by_hand(self) -> None:
        assert energy_inside(self.values, self.mask) == pytest.approx(4 / 6)
        # 1 of 2 at the first threshold, then 1 of 3 (two equal), then 2 of 4.
        assert average_precision(self.values, self.mask) == pytest.approx(
            0.5 * 1 + 0.5 * 0.5
        )
        # The largest pixel, and half of two equal ones that lie outside.
        assert iou_of_equal_area(self.values, self.mask) == pytest.approx(1 / 3)

    def test_nothing_positive_or_nothing_marked_has_no_answer(self) -> None:
        assert np.isnan(energy_inside(-np.ones((2, 2)), self.mask))
        nothing = np.zeros((2, 2), dtype=bool)
        assert np.isnan(average_precision(self.values, nothing))
        assert np.isnan(iou_of_equal_area(self.values, nothing))

    @given(st.integers(0, 1000))
    def test_scikit_learns_average_precision_agrees(self, seed: int) -> None:
        metrics = pytest.importorskip(
            "sklearn.metrics", reason="scikit-learn is not installed"
        )
        random = np.random.default_rng(seed)
        values = random.integers(0, 9, (6, 7)).astype(float)
        mask = random.random((6, 7)) < 0.4
        mask[0, 0] = True
        theirs = metrics.average_precision_score(mask.ravel(), values.ravel())
        assert average_precision(values, mask) == pytest.approx(theirs)

    def test_every_measure_of_masks_knows_a_perfect_map(self) -> None:
        batch, _ = coloured_batch()
        assert batch.masks is not None
        perfect = {"mask": Maps.tiling(batch.masks.astype(float), (SIDE, SIDE))}
        for measure in MEASURES.values():
            if measure.needs_masks:
                assert measure.of(batch, perfect)["mask"] == pytest.approx(1)


def fixed(model: Classifier, photo: Tensor, which: int) -> np.ndarray:
    """A map that looks at nothing."""
    return np.arange(64.0).reshape(8, 8)


class TestAblations:
    @given(st.integers(7, 40), st.integers(7, 40))
    def test_patches_tile_the_input(self, rows: int, cols: int) -> None:
        masks = patches((rows, cols))
        assert masks.shape == (49, rows, cols)
        assert (masks.sum(axis=0) == 1).all()
        assert masks.any(axis=(1, 2)).all()

    def test_what_a_patch_costs_is_a_real_pass_without_it(self) -> None:
        batch, _ = coloured_batch("mean")
        # A map whose every patch holds what a pass without the patch shows.
        hidden = batch.hidden()
        masks = patches((SIDE, SIDE))
        truth = np.zeros((4, SIDE, SIDE))
        for place, which in enumerate(batch.classes):
            before = batch.model.module(batch.inputs[place : place + 1])
            for mask in masks:
                mixed = batch.inputs[place].clone()
                there = torch.from_numpy(mask)
                mixed[:, there] = hidden[place][:, there]
                after = batch.model.module(mixed[None])
                loss = float((before - after)[0, which].detach())
                truth[place][mask] = loss / mask.sum()
        maps = {"truth": Maps.tiling(truth, (SIDE, SIDE))}
        found = PatchCorrelation().of(batch, maps)["truth"]
        # Patches that cost the same but for rounding may change their order.
        assert found == pytest.approx(1, abs=1e-3)
        wrong = {"wrong": Maps.tiling(-truth, (SIDE, SIDE))}
        assert PatchCorrelation().of(batch, wrong)["wrong"] == pytest.approx(
            -1, abs=1e-3
        )

    def test_contributions_of_an_exact_head_are_what_ablation_costs(
        self,
    ) -> None:
        net = seeded(Gap).eval()
        inputs = torch.rand(3, 3, 32, 32)
        batch = Batch(
            wrap(net), inputs, tuple("abc"), (0, 1, 2), hiding_of("blur")
        )
        maps = METHODS["exact"].maps(batch.model, inputs, batch.classes)
        found = UnitCorrelation().of(batch, {"exact": maps})["exact"]
        assert found == pytest.approx(1)
        without = Maps.tiling(maps.values, (32, 32))
        assert np.isnan(UnitCorrelation().of(batch, {"x": without})["x"]).all()


class TestLeftOut:
    def test_an_exact_map_leaves_out_the_bias(self) -> None:
        batch, maps = coloured_batch()
        assert LeftOut().of(batch, maps)["exact"] == pytest.approx(0, abs=1e-6)
        with torch.no_grad():
            batch.model.module.get_parameter("head.bias").add_(2)
        maps = {
            "exact": METHODS["exact"].maps(
                batch.model, batch.inputs, batch.classes
            )
        }
        logits = batch.logits(batch.inputs, range(4))
        found = LeftOut().of(batch, maps)["exact"]
        assert found == pytest.approx(2 / logits, rel=1e-5)


class TestSanity:
    def maps(self, batch: Batch) -> dict[str, Maps]:
        blind = Method.of_function("blind", fixed)
        return {
            method.name: without_gradients(
                method, batch.model, batch.inputs, batch.classes
            )
            for method in (METHODS["exact"], blind)
        }

    def test_maps_that_look_at_nothing_never_change(self) -> None:
        batch, _ = coloured_batch()
        maps = self.maps(batch)
        for measure in (RandomisedHead(), RandomisedAll(), Stability()):
            found = measure.of(batch, maps)
            assert found["blind"] == pytest.approx(1)
            assert (found["exact"] < 1).all()

    def test_the_users_weights_stay_and_later_layers_go_first(self) -> None:
        net = seeded(Gap).eval()
        model = wrap(net)
        before = {key: each.clone() for key, each in net.state_dict().items()}
        for share, names in (
            (0.0, {"fc"}),
            (0.5, {"fc", "features.3"}),
            (1.0, {"fc", "features.0", "features.1", "features.3"}),
        ):
            other = randomised(model, share).module.state_dict()
            changed = {
                key.rpartition(".")[0]
                for key, value in other.items()
                if not torch.equal(value, before[key])
            }
            # A weight of one value (a new batch normalisation's) has no deviation.
            assert changed | {"features.1"} == names | {"features.1"}
        for key, value in net.state_dict().items():
            assert torch.equal(value, before[key])

    def test_likeness_is_scipys_and_0_for_equal_values(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        one, other = np.random.default_rng(0).integers(0, 5, (2, 3, 4, 4))
        found = likeness(one.astype(float), other.astype(float))
        for place in range(3):
            slow = stats.spearmanr(one[place].ravel(), other[place].ravel())
            assert found[place] == pytest.approx(slow.statistic)
        assert likeness(np.zeros((1, 2, 2)), np.ones((1, 2, 2))) == 0


class TestBoxes:
    def test_by_hand(self) -> None:
        values = np.zeros((6, 8))
        values[1:4, 2:5] = 1  # the largest hot part
        values[5, 7] = 2  # the hottest, and small
        values[0, 0:2] = 0.3  # below 20 % of the range
        assert hottest_box(values) == (1, 2, 4, 5)
        assert hottest_box(np.zeros((6, 8))) == (0, 0, 6, 8)
        assert box_overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
        assert box_overlap((0, 0, 2, 2), (0, 1, 2, 3)) == pytest.approx(2 / 6)
        assert box_overlap((0, 0, 2, 2), (2, 2, 3, 3)) == 0

    @given(st.integers(0, 1000))
    def test_parts_that_hang_together_are_scipys(self, seed: int) -> None:
        ndimage = pytest.importorskip("scipy.ndimage")
        mask = np.random.default_rng(seed).random((9, 11)) < 0.6
        theirs, count = ndimage.label(mask)
        ours = components(mask)
        assert len(np.unique(ours[mask])) == count
        for number in range(1, count + 1):
            assert len(np.unique(ours[theirs == number])) == 1
        assert (ours[~mask] == -1).all()


class TestHiding:
    def test_a_blur_keeps_a_constant_photo_and_spreads_a_point(self) -> None:
        constant = torch.full((1, 3, 20, 20), 0.7)
        assert torch.allclose(blurred(constant, 2.0), constant, atol=1e-6)
        point = torch.zeros(1, 1, 21, 21)
        point[0, 0, 10, 10] = 1
        spread = blurred(point, 2.0)
        assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
        # A Gaussian in two axes, cut at three deviations.
        middle = 1 / sum(np.exp(-(k**2) / 8) for k in range(-6, 7))
        assert float(spread.max()) == pytest.approx(middle**2, rel=1e-5)

    def test_the_mean_is_the_photos_own(self) -> None:
        photos = torch.rand(2, 3, 8, 8)
        hidden = HIDINGS["mean"].hidden(photos)
        assert torch.allclose(hidden[1, 2], photos[1, 2].mean().expand(8, 8))

    def test_an_unknown_way_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(InputError, match="hide is one of 'blur', 'mean'"):
            hiding_of("blurr")


def test_maps_of_every_measure_lie_in_their_range() -> None:
    batch, maps = coloured_batch("blur")
    for measure in MEASURES.values():
        values = measure.of(batch, maps)["exact"]
        assert values.shape == (4,)
        assert measure.low is None or (values >= measure.low - 1e-9).all()
        assert measure.high is None or (values <= measure.high + 1e-9).all()


def test_measures_are_chosen_by_names_in_any_spelling() -> None:
    names = ["Pointing-Game", "iou", "deletion"]
    chosen = [measure.name for measure in chosen_measures(names, False)]
    assert chosen == ["pointing game", "IoU", "deletion"]
    with pytest.raises(InputError, match=r"did you mean 'deletion'"):
        chosen_measures(["deletions"], False)
