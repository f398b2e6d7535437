"""The map of heads in a terminal: layers across, heads down; large models are folded so that the map fits a screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from headatlas.render.numbers import count
from headatlas.report.atlas_view import Stack

_MOST_LINES = 45  # of a map; a screen has about as many


class Mark(NamedTuple):
    """One or two characters for a head; where one sign stands for several heads, that of the greatest rank is shown."""

    text: Text
    rank: tuple[float, ...] = ()


def grid(stack: Stack, width: int, marks: Mapping[tuple[int, int], Mark]) -> RenderableType:
    """Layers from left to right where they fit, in several bands where they do not; one or two characters a head.

    Where that would take more lines than a screen has, neighbouring layers and heads share a sign, and a line says so.
    marks: (layer, head) -> its mark; a head without one gets a dash.
    """
    label = max(2, len(str(max(0, stack.n_heads - 1)))) + 2
    room = max(10, width - label)
    cell = 2 if stack.n_layers * 2 <= room or stack.n_heads <= 16 else 1
    per_band = max(1, room // cell)
    starts = range(0, stack.n_layers, per_band)
    if len(starts) * (stack.n_heads + 1) > _MOST_LINES:
        return Group(*_folded(stack, room, label, marks))
    cells = _cells(stack, marks, 1, 1)
    bands = [range(start, min(start + per_band, stack.n_layers)) for start in starts]
    return Group(*(line for band in bands for line in _band(cells, band, cell, label, (1, 1))))


def _folded(stack: Stack, room: int, label: int, marks: Mapping[tuple[int, int], Mark]) -> Iterator[Text]:
    """The map in one band, and the line that says how many layers and heads a sign stands for."""
    across, down = -(-stack.n_layers // room), -(-stack.n_heads // (_MOST_LINES - 1))
    cells = _cells(stack, marks, across, down)
    cell = 2 if len(cells[0]) * 2 <= room else 1
    yield from _band(cells, range(len(cells[0])), cell, label, (across, down))
    block = " x ".join([*([f"{across} layers"] if across > 1 else []), count(down, "head")])
    yield Text(f"folded to fit the screen: each sign is the strongest of {block}", style="dim")


def _cells(stack: Stack, marks: Mapping[tuple[int, int], Mark], across: int, down: int) -> list[list[Text]]:
    """[row, column] of signs, each the strongest of a block of heads; blank where the block has no heads."""
    blocks: dict[tuple[int, int], Mark] = {}
    for layer, row in enumerate(stack.exists):
        for head, there in enumerate(row):
            place = (head // down, layer // across)
            mark = marks.get((layer, head)) or (Mark(Text("-", style="dim")) if there else None)
            if mark is not None and (place not in blocks or mark.rank > blocks[place].rank):
                blocks[place] = mark
    blank = Mark(Text(" ", style="dim"))
    rows, columns = range(-(-stack.n_heads // down)), range(-(-stack.n_layers // across))
    return [[blocks.get((row, column), blank).text for column in columns] for row in rows]


def _band(
    cells: Sequence[Sequence[Text]], columns: range, cell: int, label: int, folds: tuple[int, int]
) -> Iterator[Text]:
    """A ruler with layers, then a line for each row of heads; folds: how many layers and heads a sign stands for."""
    across, down = folds
    step = 5 if cell == 2 else 10
    ticks = (str(i * across).ljust(cell * step) for i in columns if (i - columns.start) % step == 0)
    ruler = " " * label + "".join(ticks)
    yield Text("L" + ruler[1 : label + len(columns) * cell].rstrip(), style="dim", no_wrap=True)
    for row, signs in enumerate(cells):
        line = Text(f"{row * down}".rjust(label - 2) + "  ", style="dim", no_wrap=True)
        for sign in signs[columns.start : columns.stop]:
            sign = sign[:cell] if cell < len(sign) else sign
            line.append_text(sign).append(" " * (cell - len(sign)))
        line.rstrip()
        yield line
