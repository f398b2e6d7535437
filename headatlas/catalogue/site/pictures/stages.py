"""Draws the four stages of the survey with every head type in them; each box is a link."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from headatlas.catalogue.schema import Dimension, HeadType, Stage
from headatlas.catalogue.site.context import SiteContext
from headatlas.catalogue.site.pictures.graph_layout import Point
from headatlas.render.numbers import count
from headatlas.render.palette import STAGE
from headatlas.render.svg import joined, linked, picture, short, tag, text, width, wrap

_PAD, _CHIP, _ROW, _HEADING, _GAP = 10.0, 24.0, 28.0, 34.0, 22.0
_TITLE, _LINE = 34.0, 16.5
_COLUMNS = 6
_SHADES = 5


def figure(context: SiteContext, *, root: str = "") -> Markup:
    """Two drawings of the same: stages beside each other, and below each other for narrow screens."""
    return joined([_beside(context, root, 1216.0), _below(context, root, 358.0)])


@dataclass(frozen=True)
class _Group:
    dimension: Dimension
    heads: Sequence[HeadType]

    @property
    def height(self) -> float:
        return _HEADING + _ROW * len(self.heads)


def _groups(context: SiteContext, stage: Stage) -> list[_Group]:
    heads = sorted(
        context.catalogue.heads.values(), key=lambda head: (-len(context.papers_of[head.id]), head.name, head.id)
    )
    found = [_Group(d, [head for head in heads if head.dimension == d.id]) for d in stage.dimensions]
    return [group for group in found if group.heads]


def _beside(context: SiteContext, root: str, whole: float) -> Markup:
    stages = list(context.catalogue.stages.values())
    columns = _fitted([_groups(context, stage) for stage in stages])
    n_columns = sum(map(len, columns))
    inner = whole - 2 * _PAD * len(stages) - _GAP * (len(stages) - 1) - 8 * (n_columns - len(stages))
    column = inner / max(1, n_columns)
    widths = [2 * _PAD + len(own) * column + 8 * (len(own) - 1) for own in columns]
    names = [wrap(s.name, 15.5, room - 2 * _PAD - 18, most=2) for s, room in zip(stages, widths, strict=True)]
    told = [wrap(s.description, 12, room - 2 * _PAD, most=10) for s, room in zip(stages, widths, strict=True)]
    title = _TITLE + 19 * (max(map(len, names), default=1) - 1)
    start = title + _LINE * max((len(lines) for lines in told), default=0) + 4
    height = start + max((sum(g.height for g in own) for groups in columns for own in groups), default=0) + 8
    parts, x = [], 0.0
    for index, (stage, own, room) in enumerate(zip(stages, columns, widths, strict=True)):
        parts.append(_panel(stage, (x, 0), (room, height), names[index], title, root))
        parts.append(_told(told[index], x, title, stage))
        for place, groups in enumerate(own):
            y = start
            for group in groups:
                left = x + _PAD + place * (column + 8)
                parts.append(_heading(group, left, y, root))
                parts += [
                    _chip(context, head, left, y + _HEADING + _ROW * row, column, root)
                    for row, head in enumerate(group.heads)
                ]
                y += group.height
        x += room + _GAP
        if index < len(stages) - 1:
            parts.append(_chevron(x - _GAP / 2, 20, "right"))
    return _svg("wide", whole, height, parts)


def _fitted(stages: Sequence[Sequence[_Group]]) -> list[list[list[_Group]]]:
    """Each stage's groups in columns: as low as possible with few columns in all."""
    low = max((group.height for groups in stages for group in groups), default=0)
    high = max((sum(group.height for group in groups) for groups in stages), default=0)
    for room in range(math.ceil(low), math.ceil(high) + 1):
        packed = [_packed(groups, room) for groups in stages]
        if sum(map(len, packed)) <= _COLUMNS:
            return packed
    return [[list(groups)] for groups in stages]


def _packed(groups: Sequence[_Group], room: float) -> list[list[_Group]]:
    columns: list[list[_Group]] = [[]]
    for group in groups:
        if columns[-1] and sum(g.height for g in columns[-1]) + group.height > room:
            columns.append([])
        columns[-1].append(group)
    return columns


def _below(context: SiteContext, root: str, whole: float) -> Markup:
    parts: list[Markup] = []
    y = 0.0
    stages = list(context.catalogue.stages.values())
    for index, stage in enumerate(stages):
        top, lines = y, wrap(stage.description, 12, whole - 2 * _PAD, most=6)
        y += _TITLE + _LINE * len(lines) + 4
        inside = [_told(lines, 0, top + _TITLE, stage)]
        for group in _groups(context, stage):
            inside.append(_heading(group, _PAD, y, root))
            y += _HEADING
            for head, x, row, room in _flow(context, group.heads, whole - 2 * _PAD):
                inside.append(_chip(context, head, _PAD + x, y + row * 32, room, root))
            y += 32 * (row + 1)
        y += 8
        parts += [_panel(stage, (0, top), (whole, y - top), [stage.name], _TITLE, root), *inside]
        y += _GAP
        if index < len(stages) - 1:
            parts.append(_chevron(whole / 2, y - _GAP / 2, "down"))
    return _svg("narrow", whole, y - _GAP, parts)


def _flow(context: SiteContext, heads: Sequence[HeadType], room: float) -> Iterator[tuple[HeadType, float, int, float]]:
    """Chips of the width of their names, in rows: head type, x, row, width."""
    x, row = 0.0, 0
    for head in heads:
        needed = min(room, width(_short_name(head), 12) + 26 + width(f" {len(context.papers_of[head.id])}", 11) + 8)
        if x and x + needed > room:
            x, row = 0.0, row + 1
        yield head, x, row, needed
        x += needed + 6


def _svg(kind: str, wide: float, tall: float, parts: Sequence[Markup]) -> Markup:
    name = "The four stages and their head types"
    return picture(
        tag("title", name),
        joined(parts),
        class_=f"stages {kind}",
        role="group",
        aria_label=name,
        corner=-1,
        size=(wide + 2, tall + 2),
    )


def _panel(
    stage: Stage, corner: Point, size: tuple[float, float], names: Sequence[str], title: float, root: str
) -> Markup:
    (x, y), (wide, tall) = corner, size
    lines = [text(x + _PAD + 18, y + 24 + 19 * index, line, "stage-name") for index, line in enumerate(names)]
    drawn = [
        tag("rect", x=x + 6, y=y + 6, width=wide - 12, height=title - 8, rx=6.0, class_="hit"),
        text(x + _PAD, y + 23, STAGE[stage.id].filled, "glyph"),
        *lines,
    ]
    link = linked(f"{root}heads/index.html#{stage.id}", f"{stage.name}: all head types of this stage", drawn)
    box = tag("rect", x=x, y=y, width=wide, height=tall, rx=14.0, class_="panel-box")
    return tag("g", box, link, class_=f"stage-{stage.id}")


def _told(lines: Sequence[str], x: float, y: float, stage: Stage) -> Markup:
    """The stage's description, shortened where it does not fit."""
    rows = [text(x + _PAD, y + 12 + _LINE * index, line, "told") for index, line in enumerate(lines)]
    return tag("g", tag("title", stage.description), *rows)


def _heading(group: _Group, x: float, y: float, root: str) -> Markup:
    words = group.dimension.name
    drawn = [
        tag("rect", x=x - 3, y=y + 5, width=width(words, 11.5) + 12, height=24.0, rx=5.0, class_="hit"),
        text(x + 1, y + 22, words, "dimension"),
    ]
    return linked(f"{root}heads/index.html#{group.dimension.id}", f"{words}: all head types of this group", drawn)


def _short_name(head: HeadType) -> str:
    return head.name.removesuffix(" Head")


def _chip(context: SiteContext, head: HeadType, x: float, y: float, room: float, root: str) -> Markup:
    n = len(context.papers_of[head.id])
    most = max(map(len, context.papers_of.values()), default=1)
    shade = max(1, math.ceil(_SHADES * math.sqrt(n / most))) if n else 0
    glyph = STAGE[head.stage].filled if head.placed_by == "survey" else STAGE[head.stage].hollow
    number = str(n)
    name = wrap(_short_name(head), 12, room - 30 - width(number, 11), most=1)[0]
    middle = y + _CHIP / 2
    drawn = [
        tag("title", f"{head.name} ({count(n, 'paper')}): {head.role}"),
        tag("rect", x=x, y=y, width=room, height=_CHIP, rx=6.0, class_=f"shade-{shade}"),
        text(x + 6, middle + 4, glyph, "glyph"),
        text(x + 20, middle + 4.2, name, "name"),
        text(x + room - 6, middle + 4, number, "number", anchor="end"),
    ]
    return linked(
        f"{root}heads/{head.id}.html",
        f"{name}, {count(n, 'paper')}: {head.name}",
        drawn,
        class_=f"chip stage-{head.stage}",
        data_detector="" if context.detectors.get(head.id) else None,
        data_claims="" if context.claims_of.get(head.id) else None,
        data_circuits="" if context.circuits_with.get(head.id) else None,
        data_models="" if any(seen.heads for seen in context.sightings.get(head.id, ())) else None,
    )


def _chevron(x: float, y: float, way: str) -> Markup:
    steps = f"M{short(x - 4)} {short(y - 7)}l8 7l-8 7" if way == "right" else f"M{short(x - 7)} {short(y - 4)}l7 8l7 -8"
    return tag("path", d=steps, class_="chevron")
