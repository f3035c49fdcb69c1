"""Fused maps, against the same computed by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Gap, seeded
from tiny_vit import TinyVit
from unitscope.evaluation.fusion import PROMISE, fused_maps
from unitscope.evaluation.pixels import pixel_maps
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
CLASSES = [3, 0]


class Stages(nn.Module):
    """Two stages whose cells tile the input: 16×16 and 8×8."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 2, stride=2), nn.ReLU())
        self.rest = nn.Sequential(
            nn.Flatten(), nn.Linear(384, 9), nn.Tanh(), nn.Linear(9, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.rest(self.two(self.one(x)))
        return logits


def test_every_size_of_maps_gives_gradient_times_activation_on_its_pixels() -> (
    None
):
    net = seeded(Stages).eval()
    model = wrap(net, preprocessing=Preprocessing(32, 32))
    one = net.one(X)
    two = net.two(one)
    own = net.rest(two)[range(2), CLASSES].sum()
    gradients = torch.autograd.grad(own, [one, two])
    formula = torch.zeros(2, 32, 32)
    for maps, gradient in zip((one, two), gradients, strict=True):
        product = (maps * gradient).sum(1, keepdim=True)
        side = 32 // maps.shape[2]
        formula += F.interpolate(product, (32, 32))[:, 0] / side**2 / 2
    ours = fused_maps(model, X, CLASSES)
    assert torch.allclose(ours, formula.double(), atol=1e-6)
    assert float(ours.min()) < 0 < float(ours.max())
    assert "adds up to nothing" in PROMISE


def test_one_size_of_maps_is_the_local_answer() -> None:
    for net in (seeded(Gap).eval(), seeded(TinyVit).eval()):
        model = wrap(net, preprocessing=Preprocessing(32, 32))
        ours = fused_maps(model, X, CLASSES)
        local = model.explain(X, method="hirescam")
        means = local.cams_of([0, 3]).mean((2, 3))[[0, 1], [1, 0]]
        assert torch.allclose(ours.sum((1, 2)).float(), means, atol=1e-5)


def test_pixel_maps_are_those_of_each_photos_class() -> None:
    net = seeded(Gap).eval()
    model = wrap(net, preprocessing=Preprocessing(32, 32))
    maps = pixel_maps(model, X, CLASSES)
    for image, which in enumerate(CLASSES):
        alone = model.fullgrad(X[[image]], which)
        assert torch.allclose(maps[image], alone.combined[0, 0], atol=1e-6)
        total = maps[image].sum() + alone.beside[0, 0]
        assert torch.allclose(total.float(), net(X)[image, which], atol=1e-5)
