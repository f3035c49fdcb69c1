"""Maps of one class a photo, by several methods: (photo, row, column), larger is more."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from unitscope.model import Classifier
from unitscope.scenes.transformer import SceneTransformer

Maps = Callable[[Classifier, Tensor, Sequence[int]], Tensor]


def residual(model: Classifier, x: Tensor, classes: Sequence[int]) -> Tensor:
    """What the patches give through all heads, by the account of the residual stream."""
    maps = model.explain(x, batch_size=len(x)).cams
    return maps[range(len(x)), list(classes)]


def local(method: str) -> Maps:
    """One of unitscope's local methods, at the layer that it takes by itself."""

    def maps(model: Classifier, x: Tensor, classes: Sequence[int]) -> Tensor:
        explanation = model.explain(x, method=method, batch_size=len(x))
        distinct = sorted(set(classes))
        cams = explanation.cams_of(distinct)
        places = [distinct.index(which) for which in classes]
        return cams[range(len(x)), places]

    return maps


def raw_attention(
    model: Classifier, x: Tensor, classes: Sequence[int]
) -> Tensor:
    """How the class token attends to the patches in the last block, mean of the heads."""
    shares, _ = _attention(_network(model), x, classes)
    return _map_of(shares[-1].mean(dim=1))


def rollout(model: Classifier, x: Tensor, classes: Sequence[int]) -> Tensor:
    """Attention rollout: the product of all blocks' shares, half of it the shortcut.

    Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020.
    """
    shares, _ = _attention(_network(model), x, classes)
    total = torch.eye(shares[0].shape[-1])
    for each in shares:
        mean = each.mean(dim=1)
        total = (mean + torch.eye(mean.shape[-1])) / 2 @ total
    return _map_of(total)


def gradient_attention(
    model: Classifier, x: Tensor, classes: Sequence[int]
) -> Tensor:
    """Gradient × attention: the positive part, rolled out over all blocks.

    Chefer, Gur & Wolf, Generic Attention-model Explainability, ICCV 2021.
    """
    shares, slopes = _attention(_network(model), x, classes)
    total = torch.eye(shares[0].shape[-1])
    for each, slope in zip(shares, slopes, strict=True):
        total = total + (each * slope).clamp(min=0).mean(dim=1) @ total
    return _map_of(total)


def at_random(model: Classifier, x: Tensor, classes: Sequence[int]) -> Tensor:
    """Numbers that know nothing of the photo, of which they are a function all the same."""
    maps = []
    for photo in x:
        seed = int(photo.double().abs().sum() * 1e3) % 2**31
        generator = torch.Generator().manual_seed(seed)
        maps.append(torch.rand(_cells(model), generator=generator))
    return torch.stack(maps)


def centre(model: Classifier, x: Tensor, classes: Sequence[int]) -> Tensor:
    """How near the middle of the photo is."""
    rows, cols = (torch.arange(count) for count in _cells(model))
    squared = (rows - rows.float().mean()).square()[:, None] + (
        cols - cols.float().mean()
    ).square()
    return -squared.sqrt().expand(len(x), -1, -1)


METHODS: Mapping[str, Maps] = {
    "residual": residual,
    "HiResCAM": local("hirescam"),
    "Grad-CAM": local("gradcam"),
    "raw attention": raw_attention,
    "rollout": rollout,
    "gradient × attention": gradient_attention,
    "random": at_random,
    "centre": centre,
}
"""Every method by its name; the first is the one that the others are compared with."""

BASELINES = ("random", "centre")
"""Those that do not look at the network."""


def _network(model: Classifier) -> SceneTransformer:
    network = model.module
    assert isinstance(network, SceneTransformer)
    return network


def _cells(model: Classifier) -> tuple[int, int]:
    side = _network(model).architecture.side
    return side, side


def _map_of(by_token: Tensor) -> Tensor:
    """The class token's row of (photo, token, token), without itself, as a map."""
    patches = by_token[:, 0, 1:]
    side = round(patches.shape[1] ** 0.5)
    return patches.reshape(-1, side, side).detach()


def _attention(
    network: SceneTransformer, x: Tensor, classes: Sequence[int]
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Of every block the shares of attention (photo, head, token, token), and the slopes
    of the classes' logits along them."""
    shares: list[Tensor] = []

    def keep(layer: nn.Module, inputs: object, output: Tensor) -> None:
        shares.append(output)

    layers = [block.attn.shares for block in network.blocks]  # type: ignore[union-attr]
    hooks = [layer.register_forward_hook(keep) for layer in layers]  # type: ignore[union-attr]
    try:
        with torch.enable_grad():
            logits = network(x)
            chosen = logits[range(len(x)), list(classes)].sum()
            slopes = torch.autograd.grad(chosen, shares)
    finally:
        for hook in hooks:
            hook.remove()
    return [each.detach() for each in shares], slopes
