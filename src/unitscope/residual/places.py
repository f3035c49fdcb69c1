"""Places: where the tokens that a call attends to lie, by a pass with one photo."""

from __future__ import annotations

from unitscope.attribution.pooling import Pool, pool_at
from unitscope.errors import HeadError
from unitscope.geometry import Grid
from unitscope.residual.attention import FUSED, WHOLE, AttentionCall
from unitscope.residual.grounds import Attention, Tokens
from unitscope.residual.mixing import EINSUM
from unitscope.residual.token_axis import AxisOfUnits, tokens_along
from unitscope.tracing.calls import Call
from unitscope.tracing.roles import Tokens as TokenRole
from unitscope.tracing.trace import Trace

_HOW_TO_CUT = "cut the photo by a convolution, by unfold, or by reshape and permute, all at once"


class Places:
    """Finds which tokens are patches; `single` traced one photo, whose cells were followed."""

    def __init__(self, single: Trace) -> None:
        self._calls = {(call.index, call.place): call for call in single.calls}
        self._input_size = single.input_size
        # Whether patches were tokens in known places, at least for a while.
        self._has_patches = any(
            isinstance(role, TokenRole)
            for call in single.calls
            for role in call.layout or ()
        )
        self._grids: dict[int, Grid] = {}
        self._assumed: set[int] = set()

    def of(self, call: Call) -> Call | None:
        """The same call in the pass with one photo; None where it took another path."""
        single = self._calls.get((call.index, call.place))
        same = single is not None and single.name == call.name
        return single if same else None

    def tokens(self, call: Call, found: AttentionCall) -> Tokens | None:
        """Which of the tokens that are attended to are patches.

        None where the call mixes units, not tokens. Raises HeadError where that cannot be
        told.
        """
        single = self.of(call)
        if single is None:
            raise HeadError(
                "it takes another path with two photos than with one"
            )
        values = found.values_of(single)
        axis = found.value_axis
        count = values.shape[axis]
        try:
            role = tokens_along(values, axis)
        except AxisOfUnits:
            return None
        if role is None:
            remedy = "" if self._has_patches else f": {_HOW_TO_CUT}"
            raise HeadError(
                f"which of the {count} tokens that are attended to are patches, and "
                f"where these lie, cannot be told{remedy}"
            )
        self._grids[call.index] = self._grid(role)
        if role.row_axis is None or role.col_axis is None:
            self._assumed.add(call.index)
        queries = call.shape[found.query_axis]
        own = found.query if queries == count else None
        if own is None and role.before == 1:
            own = 0
        if own is not None and 0 <= own - role.before < role.cells:
            own = None  # It is a patch itself.
        return Tokens(role.before, role.rows, role.cols, own)

    def mixes_units(self, call: Call) -> bool:
        """Whether attention mixes units with each other, not tokens."""
        single = self.of(call)
        if single is None or single.name in (EINSUM, WHOLE):
            return False
        values = single.inputs[2 if single.name == FUSED else 1]
        try:
            tokens_along(values, len(values.shape) - 2)
        except AxisOfUnits:
            return True
        return False

    def grid(self, step: Attention) -> Grid:
        """Where the patches lie, or may be taken to lie, that a step attends to."""
        return self._grids[step.index]

    def is_known(self, step: Attention) -> bool:
        """Whether the places of a step's patches could be followed."""
        return step.index not in self._assumed

    def pool(self, call: Call) -> Pool | None:
        """The mean of all patches that a call is; None where it is none."""
        single = self.of(call)
        if single is None or single.name == "sum":
            return None
        pool = pool_at(single, self._input_size)
        return None if pool is None or len(pool.calls) != 1 else pool

    def _grid(self, role: TokenRole) -> Grid:
        if role.row_axis is None or role.col_axis is None:
            return Grid.tiling(self._input_size, (role.rows, role.cols))
        return Grid(role.row_axis, role.col_axis)


def check_same_order(one: Grid, other: Grid) -> None:
    """Raise HeadError unless the patches of two blocks are in the same known order."""
    if one.traced != other.traced:
        raise HeadError(
            "which token is which patch can be told in some blocks only: what others "
            "compute was sorted or chosen by what the photo shows"
        )
    if one != other:
        raise HeadError("blocks attend to the patches in several orders")
