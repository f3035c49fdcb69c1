"""The CAM authors' own network and activations: our maps and scores are theirs.

The files are MATLAB's: the head's weights (unit, class) and, for ten crops of one
photo, the last activations (x, y, unit, crop) and the class probabilities. The bias is
not among them; the probabilities tell it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from narrowed import exactly
from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.model import wrap

scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed")


Reference: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]


class Head(nn.Module):
    """What follows the last convolution of the authors' GoogLeNet-GAP; its input is
    the feature map."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.fc = nn.Linear(
            weight.shape[1], weight.shape[0], bias=bias is not None
        )
        with torch.no_grad():
            self.fc.weight.copy_(weight)
            if bias is not None:
                self.fc.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def reference(data: Path) -> Reference:
    """Weights (unit, class), activations (x, y, unit, crop), probabilities (class,
    crop) and labels."""
    net = scipy_io.loadmat(data / "cam-reference" / "data_net.mat")
    photo = scipy_io.loadmat(data / "cam-reference" / "data_img1.mat")
    labels = [str(row[0]).split(" ", 1)[1] for row in net["categories"][:, 0]]
    return (
        net["weights_LR"],
        photo["activation_lastconv"],
        photo["scores"][0, 0],
        labels,
    )


def explained(
    reference: Reference, bias: np.ndarray | None = None
) -> ExactExplanation:
    weights, activations, _scores, labels = reference
    feature_map = torch.from_numpy(
        np.ascontiguousarray(activations.transpose(3, 2, 1, 0))
    )
    net = Head(
        torch.from_numpy(weights.T.copy()),
        None if bias is None else torch.from_numpy(bias).float(),
    )
    return exactly(wrap(net, labels).explain(feature_map))


def told_bias(reference: Reference) -> np.ndarray:
    """The authors' bias, up to a constant: what their log-probabilities have over
    pooling and weights, on average."""
    weights, activations, scores, _labels = reference
    rest = np.log(scores.astype(np.float64)) - weights.T.astype(
        np.float64
    ) @ activations.mean((0, 1), dtype=np.float64)
    bias: np.ndarray = (rest - rest.mean(0)).mean(1)
    return bias


def test_the_maps_are_the_authors(reference: Reference) -> None:
    weights, activations, _scores, _labels = reference
    explanation = explained(reference)
    for index in (968, 967, 0, 999):
        # returnCAMmap.m: the weights of the class times the activations, position by
        # position.
        theirs = np.einsum(
            "u,xyuc->cyx",
            weights[:, index].astype(np.float64),
            activations.astype(np.float64),
        )
        ours = explanation.cams_of([index])[:, 0].numpy()
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_the_scores_are_the_authors_but_for_their_bias(
    reference: Reference,
) -> None:
    explanation = explained(reference)
    probabilities = explanation.logits.double().softmax(1).numpy()
    assert np.abs(probabilities - reference[2].T).max() < 9e-4
    assert (
        explanation.head.error < 1e-5
        and float(explanation.completeness_error.max()) < 1e-5
    )


def test_with_their_bias_the_scores_agree_to_the_last_digits(
    reference: Reference,
) -> None:
    explanation = explained(reference, told_bias(reference))
    probabilities = explanation.logits.double().softmax(1).numpy()
    assert np.abs(probabilities - reference[2].T).max() < 5e-6
    top = explanation.top(3)[0]
    assert top[0].index == int(reference[2][:, 0].argmax()) and top[
        0
    ].label in (
        "cup",
        "espresso",
    )


def test_the_identities_hold_on_real_activations(reference: Reference) -> None:
    explanation = explained(reference, told_bias(reference))
    scale = explanation.logits.abs().max()
    rebuilt = (
        explanation.cams_of(range(0, 1000, 37)).mean((2, 3))
        + explanation.head.bias[::37]
    )
    assert (rebuilt - explanation.logits[:, ::37]).abs().max() <= 1e-5 * scale
    summed = explanation.contributions.sum(2) + explanation.head.bias
    assert (summed - explanation.logits).abs().max() <= 1e-5 * scale
    assert explanation.maximal_unit("cup") == int(reference[0][:, 968].argmax())
