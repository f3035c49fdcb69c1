"""Networks whose logits change from pass to pass, or with the company of a photo."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from networks import Gap, seeded
from unitscope.errors import HeadError, ModelError, UnitscopeWarning
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap

SMALL = Preprocessing(resize=32, crop=32)


class Fickle(Gap):
    """A network, and a function of its logits and its input."""

    def __init__(self, function: Callable[[Gap, Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(self, x)


def plain(net: Gap, x: Tensor) -> Tensor:
    logits: Tensor = net.fc(net.pooled(x))
    return logits


COMPANY: dict[str, Callable[[Gap, Tensor], Tensor]] = {
    "the batch's mean": lambda net, x: (
        plain(net, x) - plain(net, x).mean(0, keepdim=True)
    ),
    "the first photo": lambda net, x: plain(net, x[:1]).expand(len(x), -1),
    "a softmax over the batch": lambda net, x: plain(net, x).softmax(0),
}


@pytest.mark.parametrize("name", COMPANY)
def test_photos_that_change_each_other_are_warned_of(name: str) -> None:
    net = seeded(lambda: Fickle(COMPANY[name]))
    model = wrap(net, scores="none", preprocessing=SMALL)
    with pytest.warns(UnitscopeWarning, match="depend on the photos beside"):
        model.layers()


def test_a_small_dependence_is_not_told_as_0_percent() -> None:
    def mixed(net: Gap, x: Tensor) -> Tensor:
        return plain(net, x) * (1 + 0.004 * (len(x) - 1))

    model = wrap(seeded(lambda: Fickle(mixed)), preprocessing=SMALL)
    with pytest.warns(UnitscopeWarning, match="here by less than 1% of the"):
        model.layers()


def test_a_batch_normalisation_of_the_batch_is_warned_of() -> None:
    net = seeded(Gap)
    net.features.append(nn.BatchNorm2d(6, track_running_stats=False))
    with pytest.warns(UnitscopeWarning, match="one at a time"):
        wrap(net).explain(torch.randn(2, 3, 32, 32))


def test_a_little_noise_is_warned_of() -> None:
    net = seeded(
        lambda: Fickle(lambda net, x: plain(net, x + torch.randn_like(x)))
    )
    with pytest.warns(UnitscopeWarning, match="other logits each time"):
        wrap(net).explain(torch.randn(2, 3, 32, 32))


def test_sparse_outputs_are_refused() -> None:
    net = seeded(lambda: Fickle(lambda net, x: plain(net, x).to_sparse()))
    with pytest.raises(ModelError, match="only a tensor of the layout sparse"):
        wrap(net).explain(torch.randn(2, 3, 32, 32))


def test_a_loop_over_photos_is_explained_one_at_a_time() -> None:
    def looping(net: Gap, x: Tensor) -> Tensor:
        return torch.cat(
            [plain(net, photo).softmax(1) for photo in torch.split(x, 1)]
        )

    model = wrap(seeded(lambda: Fickle(looping)), preprocessing=SMALL)
    x = torch.randn(2, 3, 32, 32)
    for photo in torch.split(x, 1):
        explanation = model.explain(photo)
        assert explanation.exact
        assert float(explanation.completeness_error) < 1e-5
    with pytest.raises(HeadError, match="one at a time"):
        model.explain(x)
