"""Methods of other libraries: each against its formula, written out once more."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Gap, seeded
from tiny_vit import TinyVit
from unitscope.errors import InputError, MissingExtraError
from unitscope.evaluation.peers import PEERS, peer
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

for package in ("captum", "pytorch_grad_cam", "torchcam"):
    pytest.importorskip(package, reason=f"{package} is not installed")

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
CLASSES = [3, 0]


class Deep(nn.Module):
    """A hidden layer behind the pool, so that gradients differ from photo to photo."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=4, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
        )
        self.rest = nn.Sequential(
            nn.Flatten(), nn.Linear(6 * 64, 12), nn.Tanh(), nn.Linear(12, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.rest(self.stem(x))
        return logits


def small(module: nn.Module) -> Classifier:
    return wrap(module, preprocessing=Preprocessing(resize=32, crop=32))


def deep() -> Deep:
    """A network of which every unit is silent somewhere and active elsewhere."""
    return seeded(Deep, 1).eval()


def state(net: nn.Module) -> list[Any]:
    """All that a library may change on a module."""
    found: list[Any] = [list(dict(net.named_modules()))]
    for part in net.modules():
        found.append((id(part), part.training, len(part._forward_hooks)))
        found.append((len(part._forward_pre_hooks), len(part._backward_hooks)))
    for each in (*net.parameters(), *net.buffers()):
        found.append((id(each), each.requires_grad, each.tolist()))
        grad = each.grad
        found.append(None if grad is None else (id(grad), grad.tolist()))
    return found


def differentiated(
    net: Deep, classes: Sequence[int] = CLASSES
) -> tuple[Tensor, Tensor, Tensor]:
    """Activations of the layer, gradients of each photo's logit, and these logits."""
    maps = net.stem(X).detach().requires_grad_()
    logits = net.rest(maps)
    own = logits[range(len(classes)), list(classes)]
    (gradient,) = torch.autograd.grad(own.sum(), maps)
    return maps.detach().double(), gradient.double(), own.detach().double()


def agree(ours: Tensor, formula: Tensor) -> None:
    assert ours.shape == formula.shape and ours.dtype is torch.float64
    scale = float(formula.abs().max())
    assert scale > 0
    assert torch.allclose(ours, formula, rtol=0, atol=2e-5 * scale)


def made(name: str, net: nn.Module) -> Tensor:
    return peer(name).maps(small(net), X, CLASSES)


def weighted(weights: Tensor, maps: Tensor) -> Tensor:
    return (weights[:, :, None, None] * maps).sum(1)


def plus_plus(maps: Tensor, gradient: Tensor, floor: float) -> Tensor:
    total = maps.sum((2, 3), keepdim=True)
    alpha = gradient**2 / (2 * gradient**2 + total * gradient**3 + floor)
    alpha = torch.where(gradient != 0, alpha, 0)
    return weighted((alpha * gradient.clamp(min=0)).sum((2, 3)), maps)


def test_grad_cam_plus_plus() -> None:
    maps, gradient, _ = differentiated(deep())
    agree(made("gradcam++", deep()), plus_plus(maps, gradient, 1e-6))


def test_layer_cam() -> None:
    maps, gradient, _ = differentiated(deep())
    formula = (gradient.clamp(min=0) * maps).sum(1)
    agree(made("layercam", deep()), formula)
    agree(made("torchcam-layercam", deep()), formula.clamp(min=0))


def test_xgrad_cam_speaks_against_too() -> None:
    maps, gradient, _ = differentiated(deep())
    weights = (gradient * maps).sum((2, 3)) / (maps.sum((2, 3)) + 1e-7)
    formula = weighted(weights, maps)
    assert float(formula.min()) < 0
    agree(made("xgradcam", deep()), formula)
    clipped = made("torchcam-xgradcam", deep())
    agree(clipped, formula.clamp(min=0))


def test_score_cam_weighs_by_masked_photos() -> None:
    net = deep()
    maps, _, _ = differentiated(net)
    weights = []
    for image, which in enumerate(CLASSES):
        masks = F.interpolate(
            maps[image][:, None].float(),
            (32, 32),
            mode="bilinear",
            align_corners=True,
        )
        low = masks.amin((2, 3), keepdim=True)
        high = masks.amax((2, 3), keepdim=True)
        masked = X[image] * (masks - low) / (high - low + 1e-8)
        weights.append(net(masked)[:, which].softmax(0).detach().double())
    agree(made("scorecam", net), weighted(torch.stack(weights), maps))


def test_ablation_cam_weighs_by_real_ablations() -> None:
    net = deep()
    maps, _, logits = differentiated(net)
    without = small(net).ablate_each(X, "stem")
    own = torch.stack([without[row, :, c] for row, c in enumerate(CLASSES)])
    agree(
        made("ablationcam", net),
        weighted(logits[:, None] - own.double(), maps),
    )


def test_ablation_cam_switches_units_to_zero_where_others_are_below_it() -> (
    None
):
    net = deep()
    net.stem[2] = nn.LeakyReLU(0.3)
    maps, _, logits = differentiated(net)
    assert float(maps.min()) < 0
    without = small(net).ablate_each(X, "stem")
    own = torch.stack([without[row, :, c] for row, c in enumerate(CLASSES)])
    agree(
        made("ablationcam", net),
        weighted(logits[:, None] - own.double(), maps),
    )


def test_eigen_cam_is_the_first_component_and_follows_the_mean() -> None:
    maps, _, _ = differentiated(deep())
    ours = made("eigencam", deep())
    for image, each in enumerate(maps):
        cells = each.flatten(1).T
        cells = cells - cells.mean(0)
        values, vectors = np.linalg.eigh((cells.T @ cells).numpy())
        first = cells @ torch.from_numpy(vectors[:, values.argmax()])
        if float(first @ cells.mean(1)) < 0:
            first = -first
        agree(ours[image], first.reshape(8, 8))


def test_finer_cam_compares_with_the_nearest_classes() -> None:
    net = deep()
    maps = net.stem(X).detach().requires_grad_()
    logits = net.rest(maps)
    total = torch.zeros(())
    for image, which in enumerate(CLASSES):
        own = logits[image, which]
        distance = (logits[image] - own).abs().tolist()
        others = sorted(
            (c for c in range(5) if c != which), key=distance.__getitem__
        )[:3]
        shares = logits[image].softmax(0)[others]
        gaps = own - logits[image][others]
        total = total + (shares * gaps).sum() / (shares.sum() + 1e-9)
    (gradient,) = torch.autograd.grad(total, maps)
    weights = gradient.mean((2, 3)).double()
    agree(made("finercam", net), weighted(weights, maps.detach().double()))


def test_integrated_gradients_add_up_from_the_input_of_zeros() -> None:
    net = deep()
    nodes, weights = np.polynomial.legendre.leggauss(50)
    total = torch.zeros_like(X)
    for node, weight in zip(nodes, weights, strict=True):
        x = (X * (1 + node) / 2).float().requires_grad_()
        own = net(x)[range(2), CLASSES]
        (gradient,) = torch.autograd.grad(own.sum(), x)
        total = total + gradient * weight / 2
    ours = made("integrated-gradients", net)
    agree(ours, (total * X).double().sum(1))
    gap = net(X)[range(2), CLASSES] - net(X * 0)[range(2), CLASSES]
    assert torch.allclose(ours.sum((1, 2)).float(), gap, atol=1e-2)


def test_occlusion_is_the_mean_drop_over_squares() -> None:
    net = deep()
    drops, counts = torch.zeros(2, 32, 32), torch.zeros(32, 32)
    before = net(X)[range(2), CLASSES]
    for top in range(0, 31, 2):
        for left in range(0, 31, 2):
            square = slice(top, top + 4), slice(left, left + 4)
            x = X.clone()
            x[:, :, *square] = 0
            drop = before - net(x)[range(2), CLASSES]
            drops[:, *square] += drop.detach()[:, None, None]
            counts[square] += 1
            if left + 4 >= 32:
                break
        if top + 4 >= 32:
            break
    agree(made("occlusion", net), (drops / counts).double())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("torchcam-gradcam++", "GradCAMpp"),
        ("torchcam-smoothgradcam++", "SmoothGradCAMpp"),
        ("torchcam-scorecam", "ScoreCAM"),
    ],
)
def test_torchcams_maps_are_its_own_before_stretching(
    name: str, kind: str
) -> None:
    import torchcam.methods

    net = deep()
    with (
        torch.random.fork_rng(devices=[]),
        getattr(torchcam.methods, kind)(
            copy.deepcopy(net), "stem", input_shape=(3, 32, 32)
        ) as extractor,
    ):
        torch.manual_seed(0)
        scores = extractor.model(X)
        (theirs,) = extractor(CLASSES, scores)
    ours = made(name, net)
    assert float(ours.min()) >= 0
    low = ours.amin((1, 2), keepdim=True)
    high = (ours - low).amax((1, 2), keepdim=True)
    agree((ours - low) / (high + 1e-8), theirs.detach().double())


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_users_module_is_left_alone(
    name: str, frozen: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    net = seeded(Gap)
    net(X).sum().backward()
    net.train()
    net.features[1].eval()
    if frozen:
        net.requires_grad_(False)
    model = small(net)
    before, random = state(net), torch.get_rng_state()
    with torch.no_grad():
        maps = peer(name).maps(model, X, CLASSES)
    assert state(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert bool(torch.isfinite(maps).all()) and bool((maps != 0).any())
    size = 32 if peer(name).place == "pixels" else 16
    assert maps.shape == (2, size, size)
    grid = peer(name).grid(model, X)
    assert grid.rows.step == 32 / size
    assert not capfd.readouterr().err


@pytest.mark.parametrize("name", PEERS)
def test_tokens_are_laid_out_in_rows_and_columns(name: str) -> None:
    model = small(seeded(TinyVit).eval())
    if name == "ablationcam":
        with pytest.raises(InputError, match="choose another method"):
            peer(name).maps(model, X, CLASSES)
        return
    maps = peer(name).maps(model, X, CLASSES)
    size = 32 if peer(name).place == "pixels" else 4
    assert maps.shape == (2, size, size)
    assert bool(torch.isfinite(maps).all())


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_library_is_named_with_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str) -> Any:
        raise ImportError(module)

    model = small(seeded(Gap))
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"unitscope\[peers\]"):
        peer(name).maps(model, X, CLASSES)


def test_what_peers_cannot_explain_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'layercam'"):
        peer("layer-cam")
    assert all(each.promise and each.library for each in PEERS.values())
    assert len(PEERS) >= 12


class Ending(Gap):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


def test_a_network_that_ends_in_a_softmax_is_not_explained_by_probabilities() -> (
    None
):
    model = small(seeded(Ending).eval())
    with pytest.raises(Exception, match="wrap the network without it"):
        peer("layercam").maps(model, X, CLASSES)
    plain = small(seeded(Gap).eval())
    assert torch.allclose(
        peer("integrated-gradients").maps(model, X, CLASSES),
        peer("integrated-gradients").maps(plain, X, CLASSES),
        atol=1e-6,
    )
