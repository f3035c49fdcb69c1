"""Several outputs: every way to answer reads the same one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import Gap, seeded
from unitscope.attribution.local_explanation import LocalExplanation
from unitscope.engine.compiled import is_installed
from unitscope.errors import ModelError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.sources import load

SMALL = Preprocessing(resize=32, crop=32)
X = torch.randn((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))


class Several(Gap):
    """A network that returns its pooled units beside its logits."""

    def __init__(self, local: bool = False) -> None:
        super().__init__()
        self.local = local

    def forward(self, x: Tensor) -> object:  # type: ignore[override]
        pooled = self.pooled(x)
        logits = self.fc(pooled)
        if self.local:
            logits = logits.tanh()
        return {"features": [pooled], "out": logits}


def several(local: bool = False, **options: Any) -> Classifier:
    net = seeded(lambda: Several(local)).eval()
    # The local one ends in a tanh, which gives no logits.
    scores = "none" if local else None
    return wrap(net, preprocessing=SMALL, scores=scores, **options)


def expected(model: Classifier) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.module(X)["out"]
    return out


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    "options", [{"output": "out"}, {"output": -1}, {"labels": list("abcde")}]
)
def test_explanations_read_the_chosen_output(
    local: bool, options: dict[str, Any]
) -> None:
    model = several(local, **options)
    explanation = model.explain(X)
    torch.testing.assert_close(explanation.logits, expected(model))
    assert model.output == "out" and explanation.exact is not local

    real = model.forward_without(X, [1, 2])
    torch.testing.assert_close(
        explanation.ablate([1, 2]).logits, real, rtol=1e-5, atol=1e-6
    )
    inner = model.ablate(X, "features.0", [0])
    torch.testing.assert_close(inner.before, expected(model))
    if local:
        assert isinstance(explanation, LocalExplanation)
        assert explanation.ablate_each()[:, 1].shape == (3, 5)


def test_without_a_choice_nothing_is_told() -> None:
    model = several()
    for ask in (lambda: model.explain(X), lambda: model.labels, model.layers):
        with pytest.raises(ModelError, match="which of them are the logits"):
            ask()
    model.output = "out"
    assert model.explain(X).logits.shape == (3, 5)
    model.output = 0
    assert model.explain(X).logits.shape == (3, 6)
    assert model.output == "features[0]" and len(model.labels) == 6


def test_a_choice_goes_along_to_other_processes() -> None:
    for used in (False, True):
        model = several(output="out")
        if used:
            model.explain(X)
        copied = pickle.loads(pickle.dumps(model))
        torch.testing.assert_close(copied.explain(X).logits, expected(model))
        assert copied.output == "out"


def test_one_tensor_has_no_name() -> None:
    assert wrap(seeded(Gap), preprocessing=SMALL).output is None
    named = wrap(seeded(Gap), preprocessing=SMALL, output=0)
    assert named.output is None and named.head.exact


@pytest.mark.skipif(not is_installed(), reason="the extra 'fast' is missing")
@pytest.mark.parametrize("local", [False, True])
def test_compiled_networks_read_the_chosen_output(local: bool) -> None:
    model = several(local, output="out")
    with model.frozen(required=True):
        assert model.engine() == "onnxruntime"
        logits = model.explain(X).logits
    torch.testing.assert_close(logits, expected(model), rtol=1e-4, atol=1e-5)


class Changing(Gap):
    """A network whose results a flag changes."""

    more = False

    def forward(self, x: Tensor) -> object:  # type: ignore[override]
        pooled = self.pooled(x)
        logits = self.fc(pooled)
        return (pooled, logits) if self.more else (logits,)


def test_a_network_that_gives_more_than_before_is_asked_about_anew() -> None:
    net = seeded(Changing).eval()
    model = wrap(net, preprocessing=SMALL)
    assert model.explain(X).logits.shape == (3, 5)
    net.more = True
    with pytest.raises(ModelError, match="which of them are the logits"):
        model.explain(X)
    model.output = 1
    assert model.explain(X).logits.shape == (3, 5)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.function = seeded(Gap), function

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return self.function(logits)


@pytest.mark.parametrize(
    ("function", "classes"),
    [
        (lambda logits: logits.squeeze(), 5),
        (lambda logits: logits[:, 0], 1),
        (lambda logits: logits[:, :1].squeeze(), 1),
        (lambda logits: logits[:, :, None, None], 5),
    ],
)
def test_squeezed_logits(
    function: Callable[[Tensor], Tensor], classes: int
) -> None:
    model = wrap(Function(function).eval(), preprocessing=SMALL)
    for batch in (X, X[:1]):
        logits = model.explain(batch).logits
        assert logits.shape == (len(batch), classes)


def test_a_network_for_one_photo_at_a_time() -> None:
    model = wrap(
        Function(lambda logits: logits.view(1, 5)).eval(), preprocessing=SMALL
    )
    assert model.explain(X[:1]).head.exact
    ignoring = wrap(
        Function(lambda logits: logits[:1]).eval(), preprocessing=SMALL
    )
    with pytest.raises(ModelError, match="it has not one row for each photo"):
        ignoring.explain(X[:1])


class Routed(Gap):
    """Two experts, and a router that weighs them."""

    def __init__(self, more: Callable[..., object]) -> None:
        super().__init__()
        self.other, self.route = nn.Linear(6, 5), nn.Linear(6, 2)
        self.more = more

    def forward(self, x: Tensor) -> object:  # type: ignore[override]
        pooled = self.pooled(x)
        route = self.route(pooled)
        first, second = route.softmax(1).split(1, dim=1)
        logits = first * self.fc(pooled) + second * self.other(pooled)
        return self.more(logits, route)


def test_the_weights_of_experts_are_no_classes() -> None:
    def routed(logits: Tensor, route: Tensor) -> object:
        return logits, route, route.softmax(1)

    def confident(logits: Tensor, route: Tensor) -> object:
        scores = logits.softmax(1)
        return logits, scores, scores.max(1).values

    net = seeded(lambda: Routed(routed)).eval()
    with pytest.raises(ModelError, match="which of them are the logits"):
        wrap(net, preprocessing=SMALL).explain(X)
    net = seeded(lambda: Routed(confident)).eval()
    assert wrap(net, preprocessing=SMALL).output == "0"


def ranked(function: Callable[[Tensor], object]) -> Classifier:
    net = Function(function).eval()  # type: ignore[arg-type]
    return wrap(net, preprocessing=SMALL)


@pytest.mark.parametrize(
    "function",
    [
        lambda logits: logits.topk(2),
        lambda logits: logits.topk(3).values,
        lambda logits: logits.softmax(1).topk(2)[0],
        lambda logits: logits.topk(2)[0].softmax(1) * 100,
        lambda logits: logits.sort(dim=1)[0],
        lambda logits: logits.gather(1, logits.argsort(dim=1)),
        lambda logits: logits.max(dim=1),
    ],
)
def test_ranks_are_seen_in_the_trace(
    function: Callable[[Tensor], object],
) -> None:
    with pytest.raises(ModelError, match="its columns are ranks, not classes"):
        ranked(function).explain(X)


def test_a_sort_elsewhere_makes_no_ranks() -> None:
    def weighted(logits: Tensor) -> Tensor:
        bias = torch.tensor([9.0, -9.0])
        return nn.functional.linear(logits.topk(2)[0], torch.eye(2), bias)

    assert ranked(weighted).explain(X).logits.shape == (3, 2)


NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        pooled = self.conv(x).relu().mean((2, 3))
        return pooled, self.fc(pooled)
"""


def test_load_takes_an_output(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    spec = f"python:{path}:Net"
    model = load(spec, output="1", preprocessing=SMALL)
    assert model.output == "1" and len(model.labels) == 4
    with pytest.raises(ModelError, match="gives 2 outputs"):
        _ = load(spec, preprocessing=SMALL).labels
    with pytest.raises(ModelError, match="'miniplaces' takes no output"):
        load("miniplaces", output="1")
