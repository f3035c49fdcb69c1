"""Kinds of scores: the last function is looked through, and what is left is guessed."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Gap, Mlp, seeded
from unitscope import Classifier, Preprocessing, wrap
from unitscope.accounts.account import Account
from unitscope.attribution.scores import Scores
from unitscope.errors import LabelsError, ModelError, UnitscopeWarning
from unitscope.tracing.layers import evaluating

SMALL = Preprocessing(resize=32, crop=32)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


class Last(nn.Module):
    """A network, and a function of its logits."""

    def __init__(
        self, net: nn.Module, function: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.net, self._function = net, function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(self.net(x))


def loud(classes: int = 5) -> Gap:
    """A network whose probabilities are far from even."""
    net = seeded(lambda: Gap(classes=classes))
    with torch.no_grad():
        net.fc.weight *= 20
    return net


def small(module: nn.Module, **options: object) -> Classifier:
    return wrap(module, preprocessing=SMALL, **options)  # type: ignore[arg-type]


def real(module: nn.Module, x: Tensor) -> Tensor:
    with evaluating(module):
        output: Tensor = module(x.clone())
    return output


SOFTMAXES: dict[str, Callable[[Tensor], Tensor]] = {
    "t.softmax": lambda t: t.softmax(1),
    "F.softmax": lambda t: F.softmax(t, dim=-1),
    "module": nn.Softmax(dim=1),
    "torch.special": lambda t: torch.special.softmax(t, 1),
    "exp(log_softmax)": lambda t: t.log_softmax(1).exp(),
    "softmax * 1.0": lambda t: t.softmax(1) * 1.0,
    "clamp": lambda t: t.softmax(1).clamp(1e-7, 1),
    "exp / sum": lambda t: t.exp() / t.exp().sum(1, keepdim=True),
    "stable": lambda t: (
        (e := (t - t.max(1, keepdim=True).values).exp())
        / e.sum(1, keepdim=True)
    ),
    "in place": lambda t: (e := t.sub_(t.amax(1, True)).exp_()).div_(
        e.sum(1, True)
    ),
    "exp(t - logsumexp)": lambda t: (t - t.logsumexp(1, keepdim=True)).exp(),
    "after another layer": lambda t: (
        (t + 0.5).flatten(1).softmax(1).view(-1, 5)
    ),
}
LOG_SOFTMAXES: dict[str, Callable[[Tensor], Tensor]] = {
    "log_softmax": lambda t: F.log_softmax(t, 1),
    "log(softmax)": lambda t: t.softmax(1).log(),
    "t - logsumexp": lambda t: t - t.logsumexp(1, keepdim=True),
}
SIGMOIDS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid_": lambda t: t.sigmoid_(),
    "torch.special.expit": torch.special.expit,
    "module": nn.Sigmoid(),
    "1 / (1 + exp)": lambda t: 1 / (1 + torch.exp(-t)),
}


@pytest.mark.parametrize(
    ("function", "scores", "is_log"),
    [
        *((each, "softmax", False) for each in SOFTMAXES.values()),
        *((each, "softmax", True) for each in LOG_SOFTMAXES.values()),
        *((each, "sigmoid", False) for each in SIGMOIDS.values()),
        (F.logsigmoid, "sigmoid", True),
    ],
)
def test_a_last_function_is_looked_through(
    function: Callable[[Tensor], Tensor], scores: str, is_log: bool
) -> None:
    net = Last(loud(), function)
    model = small(net)
    explanation = model.explain(X)

    assert model.scores == explanation.scores == scores
    assert explanation.exact and "which is looked through" in model.scores_note
    output = real(net, X)
    told = explanation.probabilities
    assert told is not None
    expected = output.exp() if is_log else output
    torch.testing.assert_close(told.float(), expected, atol=1e-6, rtol=1e-4)
    # The logits are those of the linear layer, up to a constant for a softmax.
    difference = explanation.logits - real(net.net, X)
    torch.testing.assert_close(
        difference, difference[:, :1].expand(-1, 5), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        explanation.ablate([1, 3]).logits,
        model.forward_without(X, [1, 3]),
        atol=1e-4,
        rtol=1e-5,
    )
    changes = model.ablate(X, layer="net.features.0", units=[0, 2]).changes(5)
    assert sum(change.probability_after or 0 for change in changes) > 0


def test_local_answers_are_in_logits_behind_a_softmax() -> None:
    net = seeded(Mlp)
    plain, soft = small(net), small(Last(net, lambda t: t.softmax(1)))
    of_plain, of_soft = plain.explain(X), soft.explain(X)
    assert not of_soft.exact and soft.scores == "softmax"
    torch.testing.assert_close(of_soft.logits, of_plain.logits)
    torch.testing.assert_close(of_soft.cams, of_plain.cams)
    torch.testing.assert_close(
        of_soft.ablate([0]).logits, of_plain.ablate([0]).logits
    )


class Mean(nn.Module):
    """The mean of two networks' probabilities."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], classes: int
    ) -> None:
        super().__init__()
        self.a = seeded(lambda: Gap(classes=classes))
        self.b = seeded(lambda: Gap(classes=classes), seed=1)
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return (self._function(self.a(x)) + self._function(self.b(x))) / 2


@pytest.mark.parametrize(
    "net",
    [
        Mean(lambda t: t.softmax(1), 4),
        Mean(torch.sigmoid, 4),
        Mean(torch.sigmoid, 1),
        Last(loud(), lambda t: 0.9 * t.softmax(1) + 0.02),
    ],
)
def test_probabilities_without_logits_stay_as_they_are(net: nn.Module) -> None:
    with pytest.warns(UnitscopeWarning, match="they are shown as they are"):
        explanation = small(net).explain(X)
    assert explanation.scores == "probabilities" and not explanation.exact
    told = explanation.probabilities
    assert told is not None
    torch.testing.assert_close(told.float(), real(net, X))
    best = explanation.top(1)[0][0]
    assert best.probability == best.logit


@pytest.mark.parametrize("asked", ["softmax", "sigmoid"])
def test_no_softmax_is_taken_of_probabilities_that_are_asked_for(
    asked: str,
) -> None:
    net = Mean(lambda t: t.softmax(1), 4)
    with pytest.warns(UnitscopeWarning, match=f"asked to be {asked}, but the"):
        explanation = small(net, scores=asked).explain(X)
    assert explanation.scores == "probabilities"
    told = explanation.probabilities
    assert told is not None
    torch.testing.assert_close(told.float(), real(net, X))


def test_what_leaves_0_to_1_is_no_probability() -> None:
    with pytest.raises(ModelError, match="no probabilities: they go from -"):
        small(loud(), scores="probabilities").explain(X)


@pytest.mark.parametrize(
    "function",
    [
        lambda t: 100 * t.sigmoid(),
        lambda t: t.sigmoid() * 90 + 10,
        lambda t: (2 * t.sigmoid() - 1) / 4 + 2,
        torch.tanh,
    ],
)
@pytest.mark.parametrize("classes", [1, 5])
def test_values_between_bounds_are_no_logits(
    function: Callable[[Tensor], Tensor], classes: int
) -> None:
    net = Last(loud(classes), function)
    with pytest.warns(UnitscopeWarning, match="ends in a bounded function"):
        explanation = small(net).explain(X)
    assert explanation.scores == "none" and explanation.probabilities is None


def test_capped_logits_are_logits() -> None:
    net = Last(loud(), lambda t: 30 * torch.tanh(t / 30))
    assert small(net).scores == "softmax"


def test_logarithms_of_mean_probabilities_keep_their_shares() -> None:
    net = Last(Mean(lambda t: t.softmax(1), 4), torch.log)
    explanation = small(net).explain(X)
    told = explanation.probabilities
    assert told is not None and explanation.scores == "softmax"
    torch.testing.assert_close(told.float(), real(net, X).exp())


def test_bounded_features_are_no_probabilities() -> None:
    """Small activations lie between 0 and 1 as well."""
    net = nn.Sequential(seeded(Gap), nn.ReLU(), nn.Dropout())
    with torch.no_grad():
        net[0].fc.weight.mul_(1e-3)  # type: ignore[operator, union-attr]
    assert small(net, labels=list("abcde")).scores == "softmax"


def test_a_temperature_belongs_to_the_logits() -> None:
    net = Last(loud(), lambda t: (t / 7).softmax(1))
    explanation = small(net).explain(X)
    assert explanation.exact
    torch.testing.assert_close(explanation.logits, real(net.net, X) / 7)


def test_one_logit_is_a_yes_or_no() -> None:
    net = loud(1)
    model = small(net)
    (best,) = model.explain(X).top()[0]
    assert best.probability == pytest.approx(float(real(net, X)[0].sigmoid()))
    assert "scores='none' if it is a regression" in model.scores_note

    number = small(net, scores="none").explain(X).top()[0][0]
    assert number.probability is None and number.label == "output 0"
    with pytest.raises(
        ModelError, match="the softmax of one logit is always 1"
    ):
        small(net, scores="softmax").explain(X)


@pytest.mark.parametrize("function", [lambda t: t, torch.sigmoid])
def test_one_logit_with_two_labels_is_two_classes(
    function: Callable[[Tensor], Tensor],
) -> None:
    net = loud(1)
    model = small(Last(net, function), labels=["cat", "dog"])
    explanation = model.explain(X)
    share = float(real(net, X)[0].sigmoid())
    shown = {each.label: each for each in explanation.top()[0]}
    assert shown["dog"].probability == pytest.approx(share, abs=1e-6)
    assert shown["cat"].probability == pytest.approx(1 - share, abs=1e-6)

    # The one logit is evidence for the second class, and as much against the first.
    assert explanation.exact
    cats, dogs = explanation.cams[:, 0], explanation.cams[:, 1]
    torch.testing.assert_close(cats, -dogs)
    assert shown["dog"].logit == pytest.approx(float(real(net, X)[0]), rel=1e-5)
    without = explanation.ablate([2]).logits
    torch.testing.assert_close(without, model.forward_without(X, [2]))
    measured = model.ablate(X, layer="net.features.0", units=[1]).after
    torch.testing.assert_close(measured[:, 0], -measured[:, 1])
    assert "'cat' has that logit negated" in model.scores_note


def test_one_probability_with_two_labels_is_two_classes() -> None:
    with pytest.warns(UnitscopeWarning, match="shown as they are"):
        explanation = small(
            Mean(torch.sigmoid, 1), labels={"cat": 0, "dog": 1}
        ).explain(X)
    assert sum(each.probability or 0 for each in explanation.top()[0]) == 1


@pytest.mark.parametrize("classes", [2, 3, 5, 14, 40])
def test_random_networks_stay_softmax(classes: int) -> None:
    for seed in range(6):
        net = seeded(lambda: Gap(classes=classes), seed)
        model = small(net)
        assert model.scores == "softmax" and "a guess" in model.scores_note


def test_independent_classes_are_recognised_by_their_numbers() -> None:
    net = seeded(lambda: Gap(classes=14))
    nn.init.constant_(net.fc.bias, 3.0)
    model = small(net)
    assert model.scores == "sigmoid" and "above one half" in model.scores_note
    # With labels, too; and the user's word counts more.
    assert small(net, labels=list("abcdefghijklmn")).scores == "sigmoid"
    assert small(net, scores="softmax").scores == "softmax"

    nn.init.constant_(net.fc.bias, -4.0)
    with pytest.warns(UnitscopeWarning, match="may also be independent"):
        assert small(net).scores == "softmax"


class Features(Gap):
    """A network without a layer of classes."""

    def __init__(self) -> None:
        super().__init__(units=12)

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(x).clone()


FEATURES: dict[str, Callable[[], nn.Module]] = {
    "hidden layer": lambda: nn.Sequential(Gap(classes=12), nn.ReLU()),
    "normalised": lambda: Last(loud(12), lambda t: F.normalize(t)),
    "by hand": lambda: Last(
        loud(12), lambda t: t / t.norm(dim=1, keepdim=True)
    ),
    "layer norm": lambda: nn.Sequential(Gap(classes=12), nn.LayerNorm(12)),
    "normalised map": lambda: nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
}


@pytest.mark.parametrize("make", FEATURES.values(), ids=FEATURES)
def test_features_are_no_classes(make: Callable[[], nn.Module]) -> None:
    net = seeded(make)
    with pytest.warns(UnitscopeWarning, match="The network has no classes"):
        explanation = small(net).explain(X)
    best = explanation.top(1)[0][0]
    assert best.probability is None and best.label.startswith("output ")
    assert explanation.probabilities is None

    # Never for a network with labels.
    assert small(net, labels=list("abcdefghijkl")).scores == "softmax"


def test_a_regression_predicts_no_class() -> None:
    several = small(loud(2), scores="none", labels=["age", "weight"])
    told = Account.of(several, several.explain(X)).sentence()
    assert re.match(r"the largest output is \w+ \(-?[\d.]+\), ahead of", told)
    one = small(loud(1), scores="none", labels=["age"])
    told = Account.of(one, one.explain(X), units=[]).sentence()
    assert re.fullmatch(r"age is -?[\d.]+\.", told)


def test_a_map_of_classes_is_no_feature_map() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert small(seeded(lambda: net)).scores == "softmax"


def test_a_configuration_of_transformers_names_the_scores() -> None:
    net = seeded(Gap)
    net.config = SimpleNamespace(problem_type="multi_label_classification")  # type: ignore[assignment]
    assert small(net).scores == "sigmoid"
    assert small(net, scores="none").scores == "none"


def test_costs_of_classes_are_refused() -> None:
    """The largest negative log-probability is the least likely class."""
    costs = Last(loud(), lambda t: -t.log_softmax(1))
    with pytest.raises(ModelError, match="largest number is the least likely"):
        small(costs).explain(X)
    explanation = small(costs, scores="none").explain(X)
    assert explanation.probabilities is None


def test_thresholds_of_an_ordinal_regression_are_no_classes() -> None:
    """A softmax of them would give the same probabilities for every photo."""
    shifts = torch.tensor([2.0, 1, 0, -1])
    thresholds = Last(seeded(lambda: Gap(classes=1)), lambda t: t + shifts)
    with pytest.warns(UnitscopeWarning, match="ordinal"):
        explanation = small(thresholds).explain(X)
    assert explanation.scores is Scores.SIGMOID
    torch.testing.assert_close(
        explanation.probabilities, real(thresholds, X).double().sigmoid()
    )


def test_the_users_word_counts() -> None:
    net = Last(loud(), lambda t: t.softmax(1))
    kept = small(net, scores="probabilities")
    explanation = kept.explain(X)
    torch.testing.assert_close(explanation.logits, real(net, X))
    asked = small(net, scores="sigmoid")
    assert asked.scores is Scores.SIGMOID
    assert "the network itself ends in a softmax" in asked.scores_note
    with pytest.raises(
        ModelError,
        match=re.escape(
            "there are no scores 'sigmod' (did you mean 'sigmoid'?)"
        ),
    ):
        small(net, scores="sigmod")


def test_labels_must_fit_unless_they_are_yes_and_no() -> None:
    with pytest.raises(LabelsError, match="3 labels were given for 1 classes"):
        small(loud(1), labels=["a", "b", "c"]).explain(X)
