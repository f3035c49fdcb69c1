"""Methods: how gradients become maps and contributions, for answers that are local.

Torch is imported only where it computes: the command line reads the names from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Attribution(NamedTuple):
    """What a method makes of the gradient of one class's logit.

    `cam` (batch, row, col) is in logits; `contributions` (batch, unit) add up to its mean;
    `weights` (batch, unit) are what the logit gains when a unit's mean activation grows
    by one, everywhere alike.
    """

    cam: Tensor
    contributions: Tensor
    weights: Tensor


class Method(ABC):
    """How the gradient of a logit at a feature map becomes a map and contributions.

    `name` is what users write, `title` the field's name for it, `summary` one line for
    help texts. `needs_direction` says that the answer is 0 wherever the gradient is
    perpendicular to the activation, as behind a normalisation of every cell.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    needs_direction: ClassVar[bool] = False

    @abstractmethod
    def attribute(
        self, gradient: Tensor, feature_map: Tensor, pooled: Tensor
    ) -> Attribution:
        """Map, contributions and weights of one class.

        `gradient` = ∂logit/∂A and `feature_map` A are (batch, unit, row, col); `pooled`
        (batch, unit) is the mean of A over its cells.
        """


class HiResCam(Method):
    """Gradient · activation, cell by cell (Draelos & Carin 2020).

    cam = cells · Σ_u ∂logit/∂A[u] · A[u], so that mean(cam) = Σ ∂logit/∂A · A: all that a
    first-order account of the rest of the network can say.
    """

    name = "hirescam"
    title = "HiResCAM"
    summary = "gradient · activation in each cell, so that cells add up"
    needs_direction = True

    def attribute(
        self, gradient: Tensor, feature_map: Tensor, pooled: Tensor
    ) -> Attribution:
        """See Method."""
        product = gradient * feature_map
        cells = product.shape[2] * product.shape[3]
        cam = product.sum(dim=1) * cells
        return Attribution(
            cam, product.sum(dim=(2, 3)), gradient.sum(dim=(2, 3))
        )


class GradCam(Method):
    """Gradients averaged over the cells first (Selvaraju et al. 2017), signed.

    cam = Σ_u (Σ_cells ∂logit/∂A[u]) · A[u]. Where pooling follows at once it is HiResCAM;
    elsewhere its cells do not add up to anything.
    """

    name = "gradcam"
    title = "Grad-CAM"
    summary = "gradients averaged over the cells first, as most tools do"

    def attribute(
        self, gradient: Tensor, feature_map: Tensor, pooled: Tensor
    ) -> Attribution:
        """See Method."""
        import torch

        from unitscope.attribution.arrays import without_autocast

        weights = gradient.sum(dim=(2, 3))
        with without_autocast(weights):
            cam = torch.einsum("bu,buyx->byx", weights, feature_map)
        return Attribution(cam, weights * pooled, weights)


# The first is the default.
METHODS: dict[str, Method] = {
    method.name: method for method in (HiResCam(), GradCam())
}
DEFAULT_METHOD = next(iter(METHODS))
