"""Question: what kind of answer is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from unitscope.attribution.methods import METHODS
from unitscope.errors import InputError


@dataclass(frozen=True)
class Question:
    """What is asked: the best answer, or a local one at a `layer`, or by a `method`.

    What is `differentiable` carries gradients.

    Raises InputError for a method or a precision that does not exist, or that carries no
    gradients.
    """

    layer: str | None = None
    method: str | None = None
    precision: str | None = None
    differentiable: bool = False

    def __post_init__(self) -> None:
        if self.precision not in (None, "float32", "bfloat16"):
            raise InputError(
                f"there is no precision '{self.precision}': choose 'float32' or "
                "'bfloat16'"
            )
        if self.method is not None and self.method not in METHODS:
            choices = " or ".join(map(repr, METHODS))
            raise InputError(
                f"there is no method '{self.method}': choose {choices}"
            )
        if self.differentiable and self.bfloat16:
            raise InputError(
                "bfloat16 answers carry no gradients: leave out precision or "
                "differentiable"
            )

    @property
    def bfloat16(self) -> bool:
        """Whether exact answers are computed in bfloat16."""
        return self.precision == "bfloat16"
