"""Question: what kind of answer is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from unitscope.attribution.methods import METHODS
from unitscope.errors import InputError
from unitscope.residual.head import HEADS


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

    def check_heads_alone(self) -> None:
        """Raise InputError where more is asked of attention heads than their account."""
        if self.layer != HEADS:
            return
        local = f"layer='{HEADS}' (--layer) for a local answer"
        if self.differentiable:
            raise InputError(
                f"the account of {HEADS} carries no gradients: leave out "
                f"differentiable=True, or {local}, which carries them"
            )
        if self.method is not None:
            raise InputError(
                f"the account of {HEADS} is exact, and no method makes it: leave out "
                f"method (--method), or {local} by '{self.method}'"
            )

    @property
    def bfloat16(self) -> bool:
        """Whether exact answers are computed in bfloat16."""
        return self.precision == "bfloat16"
