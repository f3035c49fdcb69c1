"""Agreement with captum, torchcam and pytorch-grad-cam, wherever they are installed,
in the terms they measure in."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Dense, Gap, seeded
from unitscope.attribution.explanation import Explanation
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap

X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
CLASSES = [3, 0]


Network: TypeAlias = tuple[nn.Module, nn.Module]


@pytest.fixture(scope="module", params=["small", "resnet18"])
def network(request: pytest.FixtureRequest) -> Network:
    """A network, and the layer that the peers must be told."""
    if request.param == "small":
        net = seeded(Gap).eval()
        return net, net.features
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    net = seeded(lambda: models.resnet18(num_classes=5)).eval()
    return net, net.get_submodule("layer4")


def explained(net: nn.Module) -> Explanation:
    return wrap(net, preprocessing=Preprocessing(32, 32)).explain(
        X if not hasattr(net, "layer4") else photo()
    )


def photo() -> Tensor:
    return F.interpolate(X, (96, 96), mode="bilinear", align_corners=False)


def stretched(maps: Tensor) -> Tensor:
    return (maps - maps.min()) / (1e-7 + (maps - maps.min()).max())


def agree(ours: Tensor, theirs: Tensor, allowed: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= allowed * float(
        theirs.abs().max()
    )


def test_captums_layer_grad_cam_times_the_cells_is_our_map(
    network: Network,
) -> None:
    captum = pytest.importorskip(
        "captum.attr", reason="captum is not installed"
    )
    net, layer = network
    explanation = explained(net)
    x = X if isinstance(net, Gap) else photo()
    for index in CLASSES:
        theirs = (
            captum.LayerGradCam(net, layer).attribute(x, target=index).detach()
        )
        agree(
            explanation.cams[:, index],
            theirs[:, 0] * explanation.cams[0, 0].numel(),
        )


def test_torchcams_cam_is_our_map_and_its_grad_cam_our_map_above_zero(
    network: Network,
) -> None:
    torchcam = pytest.importorskip(
        "torchcam.methods", reason="torchcam is not installed"
    )
    net, layer = network
    explanation = explained(net)
    x = X if isinstance(net, Gap) else photo()
    with torchcam.CAM(net, target_layer=layer, fc_layer=net.fc) as extractor:
        for index in CLASSES:
            with torch.no_grad():
                net(x)
            (theirs,) = extractor(index, normalized=False)
            agree(explanation.cams[:, index], theirs)
    with torchcam.GradCAM(net, target_layer=layer) as extractor:
        for index in CLASSES:
            (theirs,) = extractor(index, net(x), normalized=False)
            agree(
                explanation.cams[:, index].relu(),
                theirs.detach() * explanation.cams[0, 0].numel(),
            )


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of its own dependencies, when it is imported
def test_grad_cam_of_pytorch_grad_cam_is_our_map_above_zero_stretched(
    network: Network,
) -> None:
    grad_cam = pytest.importorskip(
        "pytorch_grad_cam", reason="grad-cam is not installed"
    )
    targets = pytest.importorskip(
        "pytorch_grad_cam.utils.model_targets",
        reason="grad-cam is not installed",
    )
    net, layer = network
    explanation = explained(net)
    x = X if isinstance(net, Gap) else photo()
    with grad_cam.GradCAM(model=net, target_layers=[layer]) as extractor:
        for index in CLASSES:
            theirs = torch.from_numpy(
                extractor(
                    input_tensor=x,
                    targets=[targets.ClassifierOutputTarget(index)],
                )
            )
            small = stretched(explanation.cams[:, index].relu())
            large = F.interpolate(
                small[:, None],
                x.shape[2:],
                mode="bilinear",
                align_corners=False,
            )[:, 0]
            # It stretches once more after enlarging.
            assert float((stretched(large) - theirs).abs().max()) <= 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_weights_of_ablation_cam_are_our_contributions_over_the_logit() -> (
    None
):
    grad_cam = pytest.importorskip(
        "pytorch_grad_cam", reason="grad-cam is not installed"
    )
    targets = pytest.importorskip(
        "pytorch_grad_cam.utils.model_targets",
        reason="grad-cam is not installed",
    )
    net = seeded(Gap).eval()
    explanation = explained(net)
    with grad_cam.AblationCAM(
        model=net, target_layers=[net.features], batch_size=6
    ) as extractor:
        for index in CLASSES:
            extractor.batch_size = 6
            activations = explanation.feature_map.numpy()
            chosen = [targets.ClassifierOutputTarget(index)]
            with torch.no_grad():
                theirs = extractor.get_cam_weights(
                    X, net.features, chosen, activations, None
                )
            ours = (
                explanation.contributions[:, index]
                / explanation.logits[:, index, None]
            )
            np.testing.assert_allclose(
                ours.numpy(), theirs, rtol=1e-4, atol=1e-5
            )


def test_we_are_right_where_a_peer_is_overwritten_in_place() -> None:
    """DenseNet's functional in-place ReLU: the hooked tensor is not what the pool reads."""
    captum = pytest.importorskip(
        "captum.attr", reason="captum is not installed"
    )
    net = seeded(Dense).eval()
    explanation = wrap(net, preprocessing=Preprocessing(32, 32)).explain(X)
    assert explanation.completeness_error.max() < 1e-6
    with torch.no_grad():
        before_relu = net.norm(
            torch.cat([net.conv0(X), net.conv1(net.conv0(X))], 1)
        )
    torch.testing.assert_close(explanation.feature_map, before_relu.relu())
    assert captum is not None and (before_relu < 0).any()


class FourCells(nn.Module):
    """Two units of four cells, whose ablation is worked out by hand: with x = 0 … 15 the
    units are [4, 13, 40, 49] and [0, 0, 15, 24]; the logit is the sum of the first five
    numbers, less the other three."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(8, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(1)
            assert self.conv.bias is not None
            self.conv.bias.copy_(torch.tensor([-50.0, -75.0]) + 9)
            self.fc.weight.copy_(
                torch.tensor([1.0] * 5 + [-1.0] * 3).repeat(2, 1)
            )
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = F.relu(self.fc(self.act(self.conv(x)).flatten(1)))
        return logits


# Captum's own tests expect these of its LayerFeatureAblation: of single cells, and of the
# rows of a unit.
CELLS = [[[4.0, 13.0], [40.0, 49.0]], [[0.0, 0.0], [-15.0, -24.0]]]
ROWS = [[17.0, 67.0], [0.0, -39.0]]


def test_single_cells_and_rows_are_switched_off_as_worked_out_by_hand() -> None:
    model = wrap(FourCells(), labels=["a", "b"])
    x = torch.arange(16.0).view(1, 1, 4, 4)

    def lost(unit: int, region: tuple[int, int | slice]) -> float:
        found = model.ablate(x, "act", unit, region=region)
        return float((found.before - found.after)[0, 0])

    for unit, cells in enumerate(CELLS):
        for row, values in enumerate(cells):
            for col, value in enumerate(values):
                assert lost(unit, (row, col)) == value
            assert lost(unit, (row, slice(None))) == ROWS[unit][row]


def test_captums_layer_feature_ablation_of_every_unit_is_ours(
    network: Network,
) -> None:
    captum = pytest.importorskip(
        "captum.attr", reason="captum is not installed"
    )
    net, _ = network
    name = "features.0" if isinstance(net, Gap) else "layer2"
    x = X if isinstance(net, Gap) else photo()
    ours = wrap(net, preprocessing=Preprocessing(32, 32)).ablations(
        x, name, range(8)
    )
    layer = net.get_submodule(name)
    method = captum.LayerFeatureAblation(net, layer)
    count = 8 if isinstance(net, Gap) else 128
    mask = torch.arange(count).clamp(max=8)[:, None, None][None]
    for index in CLASSES:
        theirs = method.attribute(x, target=index, layer_mask=mask)
        by_unit = theirs[0, :8, 0, 0]
        lost = ours.before[0, index] - ours.after[0, :, index]
        agree(lost, by_unit, 1e-4)
