"""Small networks of every spelling that people use, to try the library on; all weights
are random but repeatable."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Output = namedtuple("Output", ["logits", "hidden"])
Module = TypeVar("Module", bound=nn.Module)


def seeded(make: Callable[[], Module], seed: int = 0) -> Module:
    """Make a module with repeatable random weights, without disturbing the random
    state of the test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def features(units: int = 6, channels: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, units, 3, padding=1),
        nn.ReLU(),
    )


class Gap(nn.Module):
    """features → pool → flatten → linear: the usual spelling."""

    def __init__(
        self,
        units: int = 6,
        classes: int = 5,
        channels: int = 3,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.features = features(units, channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(units, classes, bias=bias)

    def pooled(self, x: Tensor) -> Tensor:
        return torch.flatten(self.pool(self.features(x)), 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pooled(x))
        return logits


class Spelled(Gap):
    """The same network with its pooling, and the way to its linear layer, spelled in
    another way."""

    def __init__(self, pooled: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._pooled = pooled

    def pooled(self, x: Tensor) -> Tensor:
        return self._pooled(self.features(x))


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean((2, 3))": lambda a: a.mean((2, 3)),
    "mean([-2, -1])": lambda a: a.mean([-2, -1]),
    "mean(3).mean(2)": lambda a: a.mean(3).mean(2),
    "mean(2).mean(2)": lambda a: a.mean(2).mean(2),
    "mean(-1, keepdim).mean(-2, keepdim)": lambda a: (
        a.mean(-1, keepdim=True).mean(-2, keepdim=True).flatten(1)
    ),
    "flatten(2).mean(-1)": lambda a: a.flatten(2).mean(-1),
    "view(b, c, -1).mean(2)": lambda a: a.view(a.shape[0], a.shape[1], -1).mean(
        2
    ),
    "torch.mean(input=…, dim=…)": lambda a: torch.mean(input=a, dim=(2, 3)),
    "avg_pool2d(k)": lambda a: F.avg_pool2d(a, a.shape[2:]).view(
        a.shape[0], -1
    ),
    "adaptive_avg_pool2d, squeeze": lambda a: (
        F.adaptive_avg_pool2d(a, 1).squeeze(3).squeeze(2)
    ),
    "adaptive_avg_pool2d, squeeze()": lambda a: F.adaptive_avg_pool2d(
        a, 1
    ).squeeze(),
    "adaptive_avg_pool2d[:, :, 0, 0]": lambda a: F.adaptive_avg_pool2d(
        a, (1, 1)
    )[:, :, 0, 0],
    "sum((2, 3)) / cells": lambda a: a.sum((2, 3)) / (a.shape[2] * a.shape[3]),
    "sum(-1).sum(-1)": lambda a: a.sum(-1).sum(-1),
    "to NHWC, mean((1, 2))": lambda a: a.permute(0, 2, 3, 1).mean((1, 2)),
}


class Dense(nn.Module):
    """As DenseNet: concatenations, and a functional in-place ReLU behind the last module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x)
        x = self.norm(torch.cat([x, self.conv1(x)], 1))
        x = F.relu(x, inplace=True)
        logits: Tensor = self.classifier(
            torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)
        )
        return logits


class ChannelsLast(nn.Module):
    """As Swin: maps are (batch, row, col, channel) from the stem to the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))
        self.last = nn.LayerNorm(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.mlp(self.norm(x))
        logits: Tensor = self.head(self.last(x).mean((1, 2)))
        return logits


class ConvThenPool(nn.Module):
    """A 1×1 convolution into classes, then the pool: the two commute."""

    def __init__(self, relu: bool = False) -> None:
        super().__init__()
        self.features = features()
        self.conv = nn.Conv2d(6, 5, 1)
        self.relu = nn.ReLU() if relu else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.features(x))
        if self.relu is not None:  # as SqueezeNet
            x = self.relu(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


class WithDropout(Gap):
    """Dropout before the linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.dropout(self.pooled(x), 0.5, self.training))
        return logits


class MaximumBesideAverage(Gap):
    """As fastai: the maximum and the average of every unit, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 5)

    def pooled(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


class ProjectedCosine(Gap):
    """As CLIP: a projection, a unit length, vectors of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        embedded = F.normalize(self.fc(self.pooled(x)))
        return embedded @ F.normalize(self.classes).T


class Matmul(Gap):
    """x @ W, without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = None  # type: ignore[assignment]
        self.weight = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(x) @ self.weight


class Addmm(Gap):
    """torch.addmm with the bias first."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.fc.bias, self.pooled(x), self.fc.weight.T)


class ConvClassifier(Gap):
    """A 1×1 convolution as classifier after the pool (ResNets of Caffe, fully
    convolutional spellings)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(6, 5, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.features(x))).flatten(1)
        return logits


class OneRelu(nn.Module):
    """One ReLU module that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(3, 6, 3),
            nn.Conv2d(6, 6, 3),
            nn.Conv2d(6, 6, 3),
        )
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = self.relu(conv(x))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class SharedConv(nn.Module):
    """One convolution under two names, run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = self.first
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(
            self.second(F.relu(self.first(self.stem(x)))).mean((2, 3))
        )
        return logits


@dataclass
class ModelOutput:
    logits: Tensor
    hidden: Tensor


class Returning(Gap):
    """A network that returns its logits inside something: a tuple, a dict, a named
    tuple, an object with .logits."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> object:  # type: ignore[override]
        hidden = self.pooled(x)
        logits = self.fc(hidden)
        return {
            "tuple": (logits.softmax(1), logits, hidden),
            "list": [hidden, [logits.sigmoid(), logits]],
            "dict": OrderedDict(hidden=hidden, logits=logits),
            "namedtuple": Output(logits, hidden),
            "object": ModelOutput(logits, hidden),
        }[self.shape]


class TupleBlock(nn.Module):
    """A block that returns a tuple, as the modules of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return F.relu(self.conv(x)), "and more"


class ObjectBlock(TupleBlock):
    """A block that returns an object nobody can take apart."""

    def forward(self, x: Tensor) -> ModelOutput:  # type: ignore[override]
        x = F.relu(self.conv(x))
        return ModelOutput(x, x)


class Blocks(nn.Module):
    """A network around a block whose result is not a plain tensor."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = block
        self.last = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        made = self.block(self.stem(x))
        logits: Tensor = self.fc(
            F.relu(
                self.last(
                    made.logits if isinstance(made, ModelOutput) else made[0]
                )
            ).mean((2, 3))
        )
        return logits


class Mlp(nn.Module):
    """As AlexNet and VGG: a hidden layer in the head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()
        self.classifier = nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


class Flattened(nn.Module):
    """A linear layer that reads every cell of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(3)
        )
        self.fc = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x).flatten(1))
        return logits


class Tokens(nn.Module):
    """As ViT: patches become tokens, and the first token is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, stride=8)
        self.first = nn.Parameter(torch.zeros(1, 1, 6))
        self.mix = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        x = x + self.mix(x, x, x, need_weights=False)[0]
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


class ConvNextLike(nn.Module):
    """A layer normalisation between the pool and the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()
        self.norm = nn.LayerNorm(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.norm(self.features(x).mean((2, 3))))
        return logits


class Runs(nn.Module):
    """One convolution that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.mlp = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.mlp(
            self.conv(torch.relu(self.conv(self.stem(x)))).mean((2, 3))
        )
        return logits


class Between(Gap):
    """A network with something affine, or one normalisation, between its pool and its logits."""

    def __init__(self, between: Callable[[Between, Tensor], Tensor]) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(6)
        self.ln, self.rms, self.bare = (
            nn.LayerNorm(6),
            nn.RMSNorm(6, eps=1e-3),
            nn.LayerNorm(6, elementwise_affine=False),
        )
        self.gn, self.other, self.middle = (
            nn.GroupNorm(1, 6),
            nn.Linear(6, 5),
            nn.Linear(6, 6),
        )
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.3, 0.5)
        assert (
            self.bn.running_mean is not None and self.bn.running_var is not None
        )
        nn.init.uniform_(self.bn.running_mean, -1, 1)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)
        self.scale = nn.Parameter(torch.tensor(1.7))
        self.prior = nn.Parameter(torch.linspace(-1, 1, 5))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.between(self, self.pooled(x))


def _layer_norm_2d(net: Between, pooled: Tensor) -> Tensor:
    """As ConvNeXt's: on (batch, unit, 1, 1), by way of channels last."""
    normed: Tensor = (
        net.ln(pooled[:, :, None, None].permute(0, 2, 3, 1))
        .permute(0, 3, 1, 2)
        .flatten(1)
    )
    return normed


# Everything between pool and logits that is exact, with what kind of head it makes.
BETWEEN: dict[str, tuple[Callable[[Between, Tensor], Tensor], str]] = {
    "temperature": (lambda net, p: net.fc(p) / net.scale, "gap-linear"),
    "times a number": (lambda net, p: 0.5 * net.fc(p), "gap-linear"),
    "less a prior": (lambda net, p: net.fc(p) - net.prior, "gap-linear"),
    "a prior less": (lambda net, p: net.prior - net.fc(p), "gap-linear"),
    "one less": (lambda net, p: 1 - net.fc(p), "gap-linear"),
    "scaled by class": (
        lambda net, p: net.fc(p) * net.prior.exp(),
        "gap-linear",
    ),
    "two heads, mean": (
        lambda net, p: (net.fc(p) + net.other(p)) / 2,
        "gap-linear",
    ),
    "two heads, difference": (
        lambda net, p: torch.sub(net.fc(p), net.other(p), alpha=2),
        "gap-linear",
    ),
    "x @ W + b": (
        lambda net, p: p @ net.fc.weight.T + net.fc.bias,
        "gap-linear",
    ),
    "b + x @ W": (
        lambda net, p: net.fc.bias + torch.mm(p, net.fc.weight.T),
        "gap-linear",
    ),
    "two linear layers": (lambda net, p: net.fc(net.middle(p)), "gap-linear"),
    "batch norm": (lambda net, p: net.fc(net.bn(p)), "gap-linear"),
    "batch norm of the logits": (
        lambda net, p: net.fc(net.bn(net.middle(p))),
        "gap-linear",
    ),
    "layer norm": (lambda net, p: net.fc(net.ln(p)), "gap-norm-linear"),
    "layer norm, no scale": (
        lambda net, p: net.fc(net.bare(p)),
        "gap-norm-linear",
    ),
    "layer norm 2d": (
        lambda net, p: net.fc(_layer_norm_2d(net, p)),
        "gap-norm-linear",
    ),
    "layer norm, two heads": (
        lambda net, p: net.fc(net.ln(p)) + net.other(net.ln(p)),
        "gap-norm-linear",
    ),
    "layer norm, batch norm": (
        lambda net, p: net.fc(net.bn(net.ln(p))),
        "gap-norm-linear",
    ),
    "group norm": (
        lambda net, p: net.fc(net.gn(p[:, :, None, None]).flatten(1)),
        "gap-norm-linear",
    ),
    "root mean square norm": (
        lambda net, p: net.fc(net.rms(p)),
        "gap-norm-linear",
    ),
    "unit length": (lambda net, p: net.fc(F.normalize(p)), "gap-norm-linear"),
    "unit length, temperature": (
        lambda net, p: net.fc(F.normalize(p, dim=-1)) * 16.0,
        "gap-norm-linear",
    ),
}


class TokenMean(Tokens):
    """As a ViT that averages its patches, or a Mixer: tokens, a mean over them, a
    normalisation or none, a head."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        x = x + self.mix(x, x, x, need_weights=False)[0]
        logits: Tensor
        if self.spelling == "norm after":
            logits = self.head(self.norm(x[:, 1:].mean(1)))
            return logits
        x = self.norm(x)
        if self.spelling == "pool 1d":
            logits = self.head(
                F.adaptive_avg_pool1d(x[:, 1:].transpose(1, 2), 1).flatten(1)
            )
            return logits
        logits = self.head(x[:, 1:].mean(dim=1))
        return logits


class Ending(Gap):
    """A network with something after, or beside, its head."""

    def __init__(self, end: Callable[[Ending, Tensor], Tensor]) -> None:
        super().__init__()
        self.other = nn.Linear(6, 5)
        self.scale = nn.Parameter(torch.tensor(1.7))
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self, x)


def _written_through_a_view(net: Ending, x: Tensor) -> Tensor:
    logits: Tensor = net.fc(net.pooled(x))
    logits[:, 0].add_(x.mean((1, 2, 3)))
    return logits


# Each looks like pooling and a linear layer to a quick eye, and is not.
IMPOSTORS: dict[str, Callable[[Ending, Tensor], Tensor]] = {
    "bypass": lambda net, x: net.fc(net.pooled(x)) + x.mean((1, 2, 3))[:, None],
    "bypass before the linear layer": lambda net, x: net.fc(
        net.pooled(x) + x.mean((1, 2, 3))[:, None]
    ),
    "temperature": lambda net, x: net.fc(net.pooled(x)) / net.scale,
    "two heads summed": lambda net, x: (
        net.fc(net.pooled(x)) + net.other(net.pooled(x))
    ),
    "written through a view": _written_through_a_view,
    "two pools": lambda net, x: net.fc(
        net.pooled(x) + net.features(x).amax((2, 3))
    ),
    "classes in another order": lambda net, x: net.fc(net.pooled(x))[
        :, [4, 3, 2, 1, 0]
    ],
    "units in another order": lambda net, x: net.fc(
        net.pooled(x)[:, [5, 4, 3, 2, 1, 0]]
    ),
    "dropout that never stops": lambda net, x: net.fc(
        F.dropout(net.pooled(x), 0.5, True)
    ),
    "normalised units": lambda net, x: net.fc(F.normalize(net.pooled(x))),
    "pool that leaves an edge out": lambda net, x: net.fc(
        F.avg_pool2d(net.features(x), 15, 16).flatten(1)
    ),
    "max pool": lambda net, x: net.fc(
        F.adaptive_max_pool2d(net.features(x), 1).flatten(1)
    ),
    "softmax": lambda net, x: net.fc(net.pooled(x)).softmax(1),
    "log-softmax": lambda net, x: F.log_softmax(net.fc(net.pooled(x)), 1),
    "sigmoid": lambda net, x: torch.sigmoid(net.fc(net.pooled(x))),
}


class Fickle(Gap):
    """A network whose path depends on the values of its input: it adds a term to
    bright ones only."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor
        if float(x.mean()) > 10:
            logits = self.fc(self.pooled(x).relu().exp())
        elif (
            float(x.mean()) < -10
        ):  # the same calls as below, one of them to other ends
            logits = self.fc(self.pooled(x * 2))
        else:
            logits = self.fc(self.pooled(x))
        return logits


class Failing(Gap):
    """A network whose forward raises on demand, halfway through."""

    error: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x)
        if self.error is not None:
            raise self.error
        logits: Tensor = self.fc(pooled)
        return logits


class Kinds(nn.Module):
    """One convolution of every kind that can be looked at, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 8, (3, 5))
        self.grouped = nn.Conv2d(8, 12, 3, groups=4)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.transposed = nn.ConvTranspose2d(6, 4, 3, groups=2)
        self.one = nn.Conv1d(4, 5, 7)
        self.three = nn.Conv3d(2, 2, 3)
        self.norm = nn.BatchNorm2d(6)


class SimpleNet(nn.Module):
    """The MiniPlaces network whose weights are in the shared data, from its description there."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(
                nn.Conv2d(64, 64, 1),
                nn.ReLU(),
                nn.Conv2d(64, 64, 3, 1, 1),
                nn.ReLU(),
            ),
            *(nn.Conv2d(64, 256, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(
                nn.Conv2d(256, 128, 1),
                nn.ReLU(),
                nn.Conv2d(128, 128, 3, 1, 1),
                nn.ReLU(),
            ),
            *(nn.Conv2d(128, 512, 1), nn.ReLU()),
        )
        self.fc = nn.Linear(512, 100)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x).mean((2, 3)))
        return logits


class CifarBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.pad = (width - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.pad:  # option A of the paper: a shortcut without parameters
            shortcut = F.pad(
                x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)
            )
        return F.relu(
            self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut
        )


class ResNet20(nn.Module):
    """CIFAR-10's ResNet-20 with parameter-free shortcuts, as its weights in the shared
    data want it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(3, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.layer1 = nn.Sequential(*(CifarBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(
            CifarBlock(16, 32, 2), *(CifarBlock(32, 32, 1) for _ in range(2))
        )
        self.layer3 = nn.Sequential(
            CifarBlock(32, 64, 2), *(CifarBlock(64, 64, 1) for _ in range(2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(
            self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        )
        logits: Tensor = self.linear(
            F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1)
        )
        return logits


# name → how to make it, and the head that must be found in it: kind, layer, whether the
# layer's output is the map.
HEADED: dict[str, tuple[Callable[[], nn.Module], str, str, bool]] = {
    "gap": (Gap, "gap-linear", "features", True),
    "dense": (Dense, "gap-linear", "norm", False),
    "channels last": (ChannelsLast, "gap-linear", "last", True),
    "conv, pool": (ConvThenPool, "conv-gap", "features", True),
    "conv, relu, pool": (lambda: ConvThenPool(relu=True), "gap", "relu", True),
    "dropout": (WithDropout, "gap-linear", "features", True),
    "no bias": (lambda: Gap(bias=False), "gap-linear", "features", True),
    "matmul": (Matmul, "gap-linear", "features", True),
    "addmm": (Addmm, "gap-linear", "features", True),
    "conv classifier": (ConvClassifier, "gap-linear", "features", True),
    "one relu": (OneRelu, "gap-linear", "relu:3", True),
    "shared conv": (SharedConv, "gap-linear", "first:2", True),
    "one channel": (lambda: Gap(channels=1), "gap-linear", "features", True),
    "tuple block": (lambda: Blocks(TupleBlock()), "gap-linear", "last", False),
    **{
        spelling: (partial(Spelled, pooled), "gap-linear", "features", True)
        for spelling, pooled in SPELLINGS.items()
    },
    **{
        name: (partial(Between, end), kind, "features", True)
        for name, (end, kind) in BETWEEN.items()
    },
    "tokens": (lambda: TokenMean("mean"), "gap-linear", "norm", True),
    "tokens, pool 1d": (
        lambda: TokenMean("pool 1d"),
        "gap-linear",
        "norm",
        True,
    ),
    "tokens, norm after the mean": (
        lambda: TokenMean("norm after"),
        "gap-norm-linear",
        "mix",
        False,
    ),
    "layer norm after the pool": (
        ConvNextLike,
        "gap-norm-linear",
        "features",
        True,
    ),
    **{
        f"returns {shape}": (
            partial(Returning, shape),
            "gap-linear",
            "features",
            True,
        )
        for shape in ("tuple", "list", "dict", "namedtuple", "object")
    },
}
