"""The bundled scene network: a small ResNet whose last feature map stays fine enough to look at."""

import json
from collections.abc import Mapping
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
    """Everything that tells one scene network from another, as written into its weights file."""

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
        stem, stages, classes = fields["stem"], fields["stages"], fields["classes"]
        if not (
            isinstance(stem, int)
            and isinstance(stages, list)
            and isinstance(classes, int)
        ):
            raise ValueError(
                f"architecture {text!r} is not one of a scene network: expected a JSON "
                "object with "
                "stem (number), stages (list) and classes (number), as "
                "`Architecture.to_json` writes it"
            )
        return cls(
            stem=stem, stages=tuple(Stage(**stage) for stage in stages), classes=classes
        )


BUNDLED = Architecture(
    stem=48,
    # The strides end at 16 in all, not ResNet's 32: 128 pixels leave an 8×8 map. The
    # last stage widens to 512 units by bottlenecks, which give the head more to choose
    # from than 256 for few parameters.
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
        self.conv1 = nn.Conv2d(inputs, units, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(units)
        self.conv2 = nn.Conv2d(units, units, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(units)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, units, stride)

    def forward(
        self, x: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch unit2 row2 col2"]:
        """One feature map from another."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        # Not in place: whoever captures bn2's or the shortcut's output keeps what it
        # captured.
        output: Tensor = self.relu(y + shortcut)
        return output


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up, beside a shortcut."""

    def __init__(self, inputs: int, inner: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, units, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(units)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, units, stride)

    def forward(
        self, x: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch unit2 row2 col2"]:
        """One feature map from another."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        output: Tensor = self.relu(y + shortcut)
        return output


class SceneNetwork(nn.Module):
    """Normalised photos → logits: feature map, global average pool, one linear layer.

    Layers are named as torchvision names a ResNet's: `conv1`, `layer1` … `layerN`,
    `avgpool`, `fc`.
    """

    avgpool: nn.Module
    fc: nn.Linear

    def __init__(self, architecture: Architecture = BUNDLED) -> None:
        super().__init__()
        self.architecture = architecture
        self.conv1 = nn.Conv2d(3, architecture.stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(architecture.stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = architecture.stem
        self.stage_names = tuple(
            f"layer{number}" for number in range(1, len(architecture.stages) + 1)
        )
        for name, stage in zip(self.stage_names, architecture.stages, strict=True):
            self.add_module(name, _stage(inputs, stage))
            inputs = stage.units
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, architecture.classes)
        self._initialise()

    def _initialise(self) -> None:
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
    ) -> Float[Tensor, "batch class"]:
        """Logits, not probabilities."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _shortcut(inputs: int, units: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == units:
        return None
    return nn.Sequential(
        nn.Conv2d(inputs, units, 1, stride, bias=False), nn.BatchNorm2d(units)
    )


def _stage(inputs: int, stage: Stage) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for position in range(stage.blocks):
        stride = stage.stride if position == 0 else 1
        if stage.bottleneck is None:
            blocks.append(BasicBlock(inputs, stage.units, stride))
        else:
            blocks.append(Bottleneck(inputs, stage.bottleneck, stage.units, stride))
        inputs = stage.units
    return nn.Sequential(*blocks)
