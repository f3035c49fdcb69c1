"""Muon for the convolutions inside the network, AdamW for everything else, as two
optimizers behind one."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest thing to a (semi-)orthogonal matrix that a few Newton–Schulz steps reach.

    Coefficients and form from Keller Jordan's Muon
    (https://kellerjordan.github.io/posts/muon/).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrix.dtype)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is orthogonalised (Jordan et al. 2024), for weights of
    two or more axes."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        super().__init__(
            parameters,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                gradient, velocity = parameter.grad, state["momentum"]
                velocity.mul_(group["momentum"]).add_(gradient)
                update = gradient.add(
                    velocity, alpha=group["momentum"]
                ).flatten(1)
                # The step's size per weight must not depend on the matrix's shape.
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(
                    orthogonalise(update).view_as(parameter),
                    alpha=-group["lr"] * scale,
                )


def make_optimizers(
    network: nn.Module,
    kind: str,
    lr: float,
    small_lr: float,
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """`muon`: Muon for convolutions after the first and for a transformer's blocks, AdamW
    for the rest. `sgd`:
    Nesterov momentum for all."""
    inner, first, plain = [], [], []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_convolution = parameter.ndim == 4 and "conv1.weight" != name
        is_of_block = parameter.ndim == 2 and name.startswith("blocks.")
        if is_convolution or is_of_block:
            inner.append(parameter)
        elif parameter.ndim > 1:
            first.append(parameter)
        else:
            plain.append(parameter)
    if kind == "sgd":
        decayed = [
            {"params": inner + first, "weight_decay": weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return [torch.optim.SGD(decayed, lr=lr, momentum=0.9, nesterov=True)]
    rest = [
        {"params": first, "weight_decay": 0.05},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [
        Muon(inner, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=small_lr, betas=(0.9, 0.95)),
    ]
