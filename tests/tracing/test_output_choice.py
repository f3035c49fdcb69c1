"""Output choice: the tensors in a result, and which of them holds the logits."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unitscope.errors import HeadError, ModelError, UnitscopeWarning
from unitscope.tracing.output_choice import Given, choose_output
from unitscope.tracing.outputs import OutputChoice, leaves_of

Pair = namedtuple("Pair", ["features", "out"])


@dataclass
class Result:
    features: Tensor
    out: Tensor


class Slotted:
    __slots__ = ("features", "out")

    def __init__(self, features: Tensor, out: Tensor) -> None:
        self.features, self.out = features, out


def table(columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, columns), generator=generator)


P, L = table(8), table(4, 1)


def choose(
    make: Callable[[Tensor, Tensor], Any],
    wanted: str | int | None = None,
    labels: int | None = None,
    features: Tensor = P,
    logits: Tensor = L,
) -> OutputChoice:
    """The choice for a network that makes something of features and logits."""
    one = make(features[:1], logits[:1])
    return choose_output(Given(one, make(features, logits), {}), wanted, labels)


@pytest.mark.parametrize(
    ("result", "paths"),
    [
        (L, [""]),
        ((P, L), ["0", "1"]),
        (({"f": P, "out": L},), ["0.f", "0.out"]),
        ({"features": [P], "out": L}, ["features[0]", "out"]),
        (OrderedDict(a={"b": [(P,)]}), ["a.b[0][0]"]),
        (Pair(P, L), ["features", "out"]),
        (Result(P, L), ["features", "out"]),
        (Slotted(P, L), ["features", "out"]),
        (SimpleNamespace(out=L, _hidden=P, name="x"), ["out"]),
        (torch.distributions.Bernoulli(L.sigmoid()), ["probs", "logits"]),
        (L.topk(2), ["0"]),
        ({1: L, "count": 3, "none": None}, ["1"]),
        ("dog", []),
    ],
)
def test_all_tensors_of_every_container_have_a_name(
    result: Any, paths: list[str]
) -> None:
    assert [leaf.path for leaf in leaves_of(result)] == paths


def test_objects_in_a_circle_end() -> None:
    circle = SimpleNamespace(out=L)
    circle.self = circle
    assert leaves_of(circle)[0].path == "out"


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda p, z: z, ""),
        (lambda p, z: (z,), "0"),
        (lambda p, z: (z, z.argmax(1)), "0"),
        (lambda p, z: (z, z.mean()), "0"),
        (lambda p, z: {"logits": z, "hidden": p}, "logits"),
        (lambda p, z: ({"logits": z}, p), "0.logits"),
        (lambda p, z: ({"logits": p}, {"logits": z}, z.softmax(1)), "1.logits"),
        (lambda p, z: (z.softmax(1), z, p), "1"),
        (lambda p, z: (z.sigmoid(), z, p), "1"),
        (lambda p, z: (z.log_softmax(1), z.softmax(1), p, z), "3"),
        (lambda p, z: (z.log_softmax(1), z.softmax(1), p), "0"),
        (lambda p, z: {"main": z, "out": z.clone()}, "main"),
        (lambda p, z: (z[:, :1].sigmoid(), z[:, :1]), "1"),
        (lambda p, z: (p, (z / 50), (z / 50).softmax(1)), "1"),
    ],
)
def test_numbers_and_the_name_say_which_are_the_logits(
    make: Callable[[Tensor, Tensor], Any], path: str
) -> None:
    assert choose(make).path == path


@pytest.mark.parametrize("labels", [4, 8, 1])
def test_labels_say_which_are_the_logits(labels: int) -> None:
    choice = choose(lambda p, z: (p, z, z[:, :1]), labels=labels)
    assert choice.path == {8: "0", 4: "1", 1: "2"}[labels]


def test_one_logit_may_have_two_labels() -> None:
    assert choose(lambda p, z: (p, z[:, 0]), labels=2).path == "1"


@pytest.mark.parametrize(
    ("make", "listing"),
    [
        (lambda p, z: (p, z), "'0' (batch, 8), '1' (batch, 4)"),
        (
            lambda p, z: {"logits": [p, z]},
            "'logits[0]' (batch, 8), 'logits[1]' (batch, 4)",
        ),
        (lambda p, z: (z[:, :1], z[:, 1]), "'0' (batch, 1), '1' (batch)"),
        (lambda p, z: (z, z * 2), "'0' (batch, 4), '1' (batch, 4)"),
        # Small probabilities are all alike, and prove nothing.
        (
            lambda p, z: (z / 1e4, (z.flip(1) / 1e4).softmax(1)),
            "'0' (batch, 4), '1' (batch, 4)",
        ),
    ],
)
def test_what_numbers_do_not_say_is_asked(
    make: Callable[[Tensor, Tensor], Any], listing: str
) -> None:
    with pytest.raises(ModelError) as refusal:
        choose(make)
    text = str(refusal.value)
    assert f"the network gives 2 outputs, {listing}: which" in text
    last = listing.rpartition("'")[0].rpartition("'")[2]
    quoted = f"'{last}'" if "[" in last else last
    assert f'output="{last}" (command line: --output {quoted})' in text


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("out", "0.out"),
        ("0.out", "0.out"),
        (1, "0.out"),
        ("1", "0.out"),
        (-2, "0.f"),
    ],
)
def test_an_output_is_named_or_numbered(wanted: str | int, path: str) -> None:
    choice = choose(lambda p, z: ({"f": p, "out": z},), wanted)
    assert choice == OutputChoice(path, ("0.f", "0.out"), is_wanted=True)


def test_a_name_goes_before_a_number() -> None:
    assert choose(lambda p, z: (z.long(), p, z), 2).path == "2"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "oit",
            "no output called 'oit' (did you mean 'out'?): the network gives",
        ),
        (
            2,
            "no output called 2: the network gives 'f' (batch, 8), 'out' (batch, 4)",
        ),
        (True, "no output called True"),
    ],
)
def test_a_wrong_output_lists_what_there_is(
    wanted: str | int, message: str
) -> None:
    with pytest.raises(ModelError) as refusal:
        choose(lambda p, z: {"f": p, "out": z}, wanted)
    assert message in str(refusal.value)


def test_a_name_that_two_have_is_refused() -> None:
    with pytest.raises(ModelError, match="there are 2 outputs called 'out'"):
        choose(lambda p, z: ({"out": p}, {"out": z}), "out")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, z: [], "gave a list, and no tensor by name or number"),
        (lambda p, z: {z}, "gave a set, and no tensor by name or number"),
        (
            lambda p, z: z[:, None],
            "an axis of length 1 between photos and numbers; .* squeeze",
        ),
        (
            lambda p, z: z.argmax(1),
            "only numbers of type int64, as argmax gives, not logits",
        ),
        (
            lambda p, z: z[:, :, None, None].expand(-1, -1, 6, 6),
            r"shape \(2, 4, 6, 6\) for a batch of 2, .* as a segmenter",
        ),
        (
            lambda p, z: {"logits": z[:, None].expand(-1, 9, -1), "boxes": p},
            r"'logits' of shape \(2, 9, 4\) .* 9 rows for each photo, as a detector",
        ),
        (lambda p, z: z[:1], "it has not one row for each photo"),
        (lambda p, z: z.flatten(), "it has not one row for each photo"),
        (
            lambda p, z: [{"boxes": row[None], "scores": row[:1]} for row in z],
            "and 2 for one: a list with an entry for each photo, as a detector",
        ),
        (lambda p, z: [row[None] for row in z], "an entry for each photo"),
        (
            lambda p, z: z[:, : 2 * len(z)],
            "another number of columns for one photo than for two",
        ),
    ],
)
def test_what_is_no_logits_is_refused_in_fitting_words(
    make: Callable[[Tensor, Tensor], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        choose(make)


def test_logits_further_in_do_not_hide_what_lies_further_out() -> None:
    def with_teacher(p: Tensor, z: Tensor) -> Any:
        return {"out": z, "teacher": {"logits": z.flip(1)}}

    with pytest.raises(ModelError, match=r"'out' .* 'teacher.logits' .* clear"):
        choose(with_teacher)
    assert choose(with_teacher, "out").path == "out"
    inside = choose(lambda p, z: {"loss": p.mean(), "student": {"logits": z}})
    assert inside.path == "student.logits"


def test_a_chosen_output_that_is_no_logits_lists_the_others() -> None:
    with pytest.raises(
        ModelError, match=r"segmenter .* choose one with output=\"1\""
    ):
        choose(lambda p, z: (p[:, :, None, None].expand(-1, -1, 3, 3), z), 0)


def test_a_network_for_one_photo_at_a_time_is_read_from_one() -> None:
    one = (P[:1], L[0], L[0].softmax(0))
    assert choose_output(Given(one, None, {})).path == "1"


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_the_largest_of_many_are_ranks(count: int, seed: int) -> None:
    scores = table(12, seed)
    with pytest.raises(ModelError, match="its columns are ranks, not classes"):
        choose(lambda p, z: z.topk(count), logits=scores)


def test_a_sort_that_nothing_shows_is_found_by_its_numbers() -> None:
    scores = table(8, 1).sort(1).values
    with pytest.raises(ModelError, match="ranks, not classes"):
        choose(lambda p, z: z, logits=scores)
    with pytest.warns(UnitscopeWarning, match="ranks, not classes"):
        assert choose(lambda p, z: z, 0, logits=scores).path == ""


def test_columns_in_order_by_chance_or_by_design_are_classes() -> None:
    two = torch.tensor([[3.0, -1.0], [2.0, -2.0]])
    assert choose(lambda p, z: z, logits=two).path == ""
    # Predictions of 0 and 1 beside them are no ranks.
    assert choose(lambda p, z: (z, (z > 0).long()), logits=two).path == "0"
    # One number with nine thresholds, as ordinal regression gives it.
    ordinal = torch.tensor([[0.3], [1.7]]) + torch.linspace(2, -2, 9)
    assert choose(lambda p, z: z, logits=ordinal).path == ""
    # Classes in order of their number in the training set, on noise.
    biased = table(9) * 0.01 + torch.linspace(2, -2, 9)
    assert choose(lambda p, z: z, logits=biased).path == ""


def test_other_outputs_than_before_are_noticed() -> None:
    choice = choose(lambda p, z: (z,))
    assert choice.logits((L,), 2) is not L
    with pytest.raises(HeadError, match="gave '0', '1', and not '0' as when"):
        choice.logits((P, L), 2)
    wanted = choose(lambda p, z: (p, z), "1")
    assert torch.equal(wanted.logits((P, L, P), 2), L)
