"""The bundled scene network: a small ResNet with a last feature map of 8×8 cells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

CLASS_COUNT = 100
"""MiniPlaces has 100 scene classes."""


@dataclass(frozen=True)
class Stage:
    """One `layerN`: how many residual blocks it has, and how wide they are."""

    blocks: int
    units: int
    stride: int
    bottleneck: int | None = None
    """Units inside each block; `None` for the basic block of two 3×3 convolutions."""


@dataclass(frozen=True)
class Architecture:
    """The architecture of a scene network, as it is written into its weights file."""

    stem: int
    stages: tuple[Stage, ...]
    classes: int = field(default=CLASS_COUNT)

    def to_json(self) -> str:
        """Write the text that a weights file's metadata holds under `architecture`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """Read what `to_json` wrote."""
        fields: Mapping[str, object] = json.loads(text)
        stem = fields["stem"]
        stages = fields["stages"]
        classes = fields["classes"]
        if not (
            isinstance(stem, int)
            and isinstance(stages, list)
            and isinstance(classes, int)
        ):
            raise ValueError(
                f"architecture {text!r} is not one of a scene network: expected a JSON "
                "object with stem (number), stages (list) and classes (number), as "
                "`Architecture.to_json` writes it"
            )
        return cls(
            stem=stem,
            stages=tuple(Stage(**stage) for stage in stages),
            classes=classes,
        )


BUNDLED = Architecture(
    stem=48,
    # The strides multiply to 16, not ResNet's 32: 128 pixels leave an 8×8 map. The last
    # stage widens to 512 units by bottlenecks, which give the head more to choose from
    # than 256 for few parameters.
    stages=(
        Stage(blocks=1, units=48, stride=1),
        Stage(blocks=1, units=96, stride=2),
        Stage(blocks=2, units=256, stride=2),
        Stage(blocks=2, units=512, stride=1, bottleneck=128),
    ),
)
"""The network in the box."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(3, inputs, units, stride)
        self.bn1 = nn.BatchNorm2d(units)
        self.conv2 = _convolution(3, units, units)
        self.bn2 = nn.BatchNorm2d(units)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, units, stride)

    def forward(
        self, x: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch unit2 row2 col2"]:
        """The block's feature map for the one before it."""
        y = self.conv1(x)
        y = self.bn1(y)
        y = self.relu(y)

        y = self.conv2(y)
        y = self.bn2(y)

        shortcut = x if self.downsample is None else self.downsample(x)
        # Not in place, so that a captured output of bn2 or of the shortcut stays as it
        # is.
        output: Tensor = self.relu(y + shortcut)
        return output


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up, beside a shortcut."""

    def __init__(
        self, inputs: int, inner: int, units: int, stride: int
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(1, inputs, inner)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _convolution(3, inner, inner, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _convolution(1, inner, units)
        self.bn3 = nn.BatchNorm2d(units)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, units, stride)

    def forward(
        self, x: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch unit2 row2 col2"]:
        """The block's feature map for the one before it."""
        y = self.conv1(x)
        y = self.bn1(y)
        y = self.relu(y)

        y = self.conv2(y)
        y = self.bn2(y)
        y = self.relu(y)

        y = self.conv3(y)
        y = self.bn3(y)

        shortcut = x if self.downsample is None else self.downsample(x)
        output: Tensor = self.relu(y + shortcut)
        return output


class Stages(nn.Module):
    """Normalised photos → feature map: a first convolution, a pool, and stages of blocks.

    Layers are named as torchvision names a ResNet's: `conv1`, `layer1` … `layerN`.
    """

    def __init__(self, stem: int, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.conv1 = _convolution(7, 3, stem, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)

        inputs = stem
        names = []
        for number, stage in enumerate(stages, start=1):
            name = f"layer{number}"
            names.append(name)
            self.add_module(name, _stage(inputs, stage))
            inputs = stage.units
        self.stage_names = tuple(names)

    def initialise(self) -> None:
        """Set the convolutions at random, every block as its shortcut."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu"
                )
        for module in self.modules():
            # Every block starts as its shortcut (Goyal et al. 2017), which makes a
            # short training steadier.
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch unit row col"]:
        """The last stage's feature map."""
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.relu(x)
        x = self.maxpool(x)
        for name in self.stage_names:
            stage = self.get_submodule(name)
            x = stage(x)
        return x


class SceneNetwork(Stages):
    """Normalised photos → logits: feature map, global average pool, one linear layer.

    Layers are named as torchvision names a ResNet's: `conv1`, `layer1` … `layerN`,
    `avgpool`, `fc`.
    """

    avgpool: nn.Module
    fc: nn.Linear

    def __init__(self, architecture: Architecture = BUNDLED) -> None:
        super().__init__(architecture.stem, architecture.stages)
        self.architecture = architecture
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        units = architecture.stages[-1].units
        self.fc = nn.Linear(units, architecture.classes)
        self.initialise()

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class"]:
        """Logits, not probabilities."""
        x = super().forward(x)
        pooled = self.avgpool(x).flatten(1)
        logits: Tensor = self.fc(pooled)
        return logits


def _convolution(
    size: int, inputs: int, units: int, stride: int = 1
) -> nn.Conv2d:
    """A size × size convolution without bias; at stride 1 the map keeps its size."""
    return nn.Conv2d(
        inputs,
        units,
        kernel_size=size,
        stride=stride,
        padding=size // 2,
        bias=False,
    )


def _shortcut(inputs: int, units: int, stride: int) -> nn.Sequential | None:
    """What fits a block's input to its output; None where they fit already."""
    if stride == 1 and inputs == units:
        return None
    return nn.Sequential(
        _convolution(1, inputs, units, stride),
        nn.BatchNorm2d(units),
    )


def _stage(inputs: int, stage: Stage) -> nn.Sequential:
    """The blocks of a stage; only the first has the stride."""
    blocks: list[nn.Module] = []
    stride = stage.stride
    for _ in range(stage.blocks):
        block: nn.Module
        if stage.bottleneck is None:
            block = BasicBlock(inputs, stage.units, stride)
        else:
            block = Bottleneck(inputs, stage.bottleneck, stage.units, stride)
        blocks.append(block)
        inputs = stage.units
        stride = 1
    return nn.Sequential(*blocks)
