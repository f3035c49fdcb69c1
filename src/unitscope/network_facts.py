"""Network facts: what identifies a network and its numbers, whatever the photo."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version

from unitscope.attribution.head import Head
from unitscope.attribution.scores import Scores
from unitscope.model import Classifier, Provenance
from unitscope.tracing.layers import Layer
from unitscope.tracing.stages import Stage

_PACKAGES = ("unitscope", "torch", "numpy", "pillow")


@dataclass(frozen=True)
class NetworkFacts:
    """What a reader needs to know about a network to reproduce its numbers.

    Without an exact head, `refusal` says why. `head` is then the local answer, or None
    where no local answer exists. `output` is the one of several outputs that is read as
    logits, None where the network gives one. `notes` are those of the provenance, and why
    its scores are what they are.
    """

    provenance: Provenance
    architecture: str
    parameters: int
    classes: int
    preprocessing: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    stages: tuple[Stage, ...]
    head: Head | None
    refusal: str
    dtype: str
    device: str
    versions: dict[str, str]
    scores: Scores
    notes: tuple[str, ...]
    output: str | None = None

    @classmethod
    def of(cls, model: Classifier) -> NetworkFacts:
        """The facts of a classifier."""
        layers, stages = model.layers(), model.stages()
        head, refusal = model.head_or_refusal()
        like = model.like
        parameters = model.network.parameters()

        return cls(
            provenance=model.provenance,
            architecture=type(model.network).__name__,
            parameters=sum(parameter.numel() for parameter in parameters),
            classes=len(model.labels),
            preprocessing=model.preprocessing.describe(),
            input_shape=model.input_shape,
            layers=tuple(layers),
            stages=tuple(stages),
            head=head,
            refusal=refusal,
            dtype=str(like.dtype).removeprefix("torch."),
            device=str(like.device),
            versions=_versions(),
            scores=model.scores,
            notes=tuple(
                filter(None, (*model.provenance.notes, model.scores_note))
            ),
            output=model.output,
        )

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights are random: predictions and maps then mean nothing."""
        if "random" in self.provenance.weights.lower():
            return True
        notes = (note.lower() for note in self.provenance.notes)
        return any("weights are random" in note for note in notes)


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages}
