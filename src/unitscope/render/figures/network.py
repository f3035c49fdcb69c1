"""The network as a diagram of its stages."""

from __future__ import annotations

from matplotlib.figure import Figure

from unitscope.network_facts import NetworkFacts
from unitscope.render import diagram
from unitscope.render.diagram import Plan, Point
from unitscope.render.figures.blocks import (
    INNER,
    MARGIN,
    Block,
    heading,
    note,
    page,
)
from unitscope.render.sheets import Sheet

_ARROW = "#626a75"
_COLOURED = {"top": "#f5dccd", "side": "#dba587", "front": "#e9bfa5"}
_PLAIN = {"top": "#eef0f3", "side": "#c3cad3", "front": "#dce0e6"}


def network_figure(network: NetworkFacts) -> Figure:
    """The network as a diagram of its stages."""
    return page(network_blocks(network))


def network_blocks(network: NetworkFacts) -> list[Block]:
    """The diagram over the width of a page, with a heading and a key."""
    plan = diagram.plan(network)
    factor = INNER / plan.width

    def draw(sheet: Sheet, y: float) -> None:
        _draw(plan, sheet, y, factor)

    return [
        heading(f"{network.architecture}: {diagram.summary(network)}"),
        Block(plan.height * factor, draw),
        note(diagram.KEY),
    ]


def _draw(plan: Plan, sheet: Sheet, y: float, factor: float) -> None:
    """Draw the diagram with its top at `y`, `factor` inches a pixel."""

    def inches(point: Point) -> Point:
        across, down = point
        return MARGIN + across * factor, y + down * factor

    for begin, end in plan.arrows:
        _draw_arrow(sheet, inches(begin), inches(end))

    for part in plan.parts:
        colours = _COLOURED if part.is_coloured else _PLAIN
        for face, corners in part.faces():
            points = [inches(corner) for corner in corners]
            sheet.polygon(points, fill=colours[face])

        for row, (foot, line) in enumerate(part.texts()):
            pixels = 12 if row == 0 else 11
            sheet.text(
                *inches(foot),
                line,
                size=pixels * factor * 72,
                bold=row == 0,
                align="center",
                room=(diagram.COLUMN - 6) * factor,
            )


def _draw_arrow(sheet: Sheet, begin: Point, end: Point) -> None:
    sheet.rule(
        *begin,
        *end,
        colour=_ARROW,
        line=0.9,
    )
    x, y = end
    head = [(x, y), (x - 0.06, y - 0.035), (x - 0.06, y + 0.035)]
    sheet.polygon(head, fill=_ARROW, edge="none")
