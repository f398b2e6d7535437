"""Charts over time: each paper as a square in its month, head types as they were named, and each type's papers."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from headatlas.catalogue.schema import HeadType, Paper
from headatlas.catalogue.site.context import SiteContext
from headatlas.catalogue.site.pictures.timeline import Axis, axis
from headatlas.catalogue.site.words import month
from headatlas.render.numbers import count
from headatlas.render.palette import STAGE
from headatlas.render.svg import joined, linked, picture, short, tag, text, wrap

WIDE, NARROW = 1216.0, 358.0


def months(context: SiteContext, *, root: str, linked: bool = True) -> Markup:
    """A square a paper in the month it came out, coloured by its stages; with links where squares are large enough."""
    return joined([_months(context, WIDE, root if linked else None), _months(context, NARROW, None)])


def _months(context: SiteContext, whole: float, root: str | None) -> Markup:
    along = axis((paper.date for paper in context.newest), left=1, right=whole - 1, widest=35)
    stacks: dict[int, list[Paper]] = {}
    order = list(context.catalogue.stages)
    for paper in reversed(context.newest):
        stacks.setdefault(along.place(paper.date), []).append(paper)
    tallest = max(map(len, stacks.values()), default=0)
    cell = along.cell
    floor = tallest * cell + 18
    parts = []
    for place, papers in sorted(stacks.items()):
        papers.sort(key=lambda paper: [order.index(stage) for stage in context.catalogue.stages_of(paper)])
        for level, paper in enumerate(papers):
            parts.append(_square(context, paper, along.x(place), floor - (level + 1) * cell, cell, root))
        if cell >= 20:
            above = floor - len(papers) * cell - 5
            parts.append(text(along.x(place) + cell / 2, above, str(len(papers)), "tick", anchor="middle"))
    wide = along.right + 1
    return _chart(f"months {_kind(whole)}", "Papers by month", wide, floor + 42, [*parts, *along.ticks(floor)], linked=root is not None)  # fmt: skip


def _square(context: SiteContext, paper: Paper, x: float, y: float, cell: float, root: str | None) -> Markup:
    stages = context.catalogue.stages_of(paper)
    gap = 1.0 if cell < 14 else 2.5
    side = cell - gap
    share = side / max(1, len(stages))
    boxes = [
        tag("rect", x=x + gap / 2 + i * share, y=y + gap / 2, width=share, height=side, class_=f"fill stage-{stage}")
        for i, stage in enumerate(stages)
    ]
    boxes = boxes or [tag("rect", x=x + gap / 2, y=y + gap / 2, width=side, height=side, class_="fill plain")]
    said = f"{paper.title}, {month(paper.date)}"
    if root is None:
        return tag("g", tag("title", said), *boxes)
    return linked(f"{root}papers/{paper.id}.html", said, [tag("title", said), *boxes])


def growth(context: SiteContext) -> Markup:
    """How many head types of each stage had been named until each month, as steps."""
    return joined([_growth(context, WIDE), _growth(context, NARROW)])


def named_first(context: SiteContext) -> dict[str, list[Paper]]:
    """Stage id -> for each of its head types the oldest paper on it, oldest first."""
    found: dict[str, list[Paper]] = {stage: [] for stage in context.catalogue.stages}
    for head in context.catalogue.heads.values():
        papers = context.papers_of[head.id]
        if papers:
            found[head.stage].append(papers[0])
    return {stage: sorted(papers, key=lambda paper: (paper.date, paper.id)) for stage, papers in found.items()}


def _growth(context: SiteContext, whole: float) -> Markup:
    first = named_first(context)
    wide = whole == WIDE
    along = axis((paper.date for paper in context.newest), left=34, right=whole - (230 if wide else 44))
    most = max(map(len, first.values()), default=1) or 1
    tall, top = (300.0 if wide else 220.0), 12.0
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000) if most / s <= 5)

    def y(number: float) -> float:
        return top + tall * (1 - number / (step * -(-most // step)))

    parts = []
    for number in range(0, step * -(-most // step) + 1, step):
        parts.append(tag("path", d=f"M34 {short(y(number))}H{short(along.right)}", class_="grid"))
        parts.append(text(26, y(number) + 4, str(number), "tick", anchor="end"))
    labels = []
    for stage, papers in first.items():
        points, n = [f"M{short(along.left)} {short(y(0))}"], 0
        for paper in papers:
            n += 1
            points.append(f"H{short(along.x(along.place(paper.date)) + along.cell / 2)}V{short(y(n))}")
        points.append(f"H{short(along.right)}")
        parts.append(tag("path", d="".join(points), class_=f"line stage-{stage}"))
        labels.append((y(n), stage, n))
    parts += _labels(context, labels, along.right + 10, named=wide)
    return _chart(f"growth {_kind(whole)}", "Head types named so far, by stage", whole, top + tall + 46, [*parts, *along.ticks(top + tall)])  # fmt: skip


def _labels(context: SiteContext, labels: Sequence[tuple[float, str, int]], x: float, *, named: bool) -> list[Markup]:
    """The lines' names at their ends, moved apart where they would overlap."""
    parts, above = [], -99.0
    for y, stage, n in sorted(labels):
        above = max(y + 4, above + 18)
        words = f"{context.catalogue.stages[stage].name} {n}" if named else str(n)
        parts += [text(x, above, STAGE[stage].filled, f"glyph stage-{stage}"), text(x + 17, above, words, "said")]
    return parts


def often(context: SiteContext, least: int = 3) -> list[HeadType]:
    """The head types with at least so many papers, in the order in which they were first named."""
    heads = [head for head in context.catalogue.heads.values() if len(context.papers_of[head.id]) >= least]
    return sorted(heads, key=lambda head: (context.papers_of[head.id][0].date, head.name))


def lifelines(context: SiteContext, *, root: str) -> Markup:
    """A row a head type with a sign for each of its papers, for the types that several papers are about."""
    return joined([_lifelines(context, WIDE, root), _lifelines(context, NARROW, root)])


def _lifelines(context: SiteContext, whole: float, root: str) -> Markup:
    names, row = (220.0 if whole == WIDE else 128.0), 26.0
    along = axis((paper.date for paper in context.newest), left=names, right=whole - 8)
    parts = []
    heads = often(context)
    for index, head in enumerate(heads):
        y = index * row + row / 2
        papers = context.papers_of[head.id]
        name = wrap(head.name.removesuffix(" Head"), 12.5, names - 30, most=1)[0]
        drawn = [
            tag("rect", x=0, y=y - 12.5, width=names - 6, height=25.0, rx=5.0, class_="hit"),
            text(4, y + 4, STAGE[head.stage].filled, f"glyph stage-{head.stage}"),
            text(21, y + 4, name, "said"),
        ]
        parts.append(
            linked(f"{root}heads/{head.id}.html", f"{name}: {head.name}, {count(len(papers), 'paper')}", drawn)
        )
        parts += _row(along, papers, y, head)
    below = len(heads) * row + 8
    return _chart(f"lifelines {_kind(whole)}", "Papers on each head type", whole, below + 42, [*parts, *along.ticks(below)], linked=True)  # fmt: skip


def _row(along: Axis, papers: Sequence[Paper], y: float, head: HeadType) -> list[Markup]:
    def x(paper: Paper) -> float:
        return along.x(along.place(paper.date)) + along.cell / 2

    parts = [tag("path", d=f"M{short(x(papers[0]))} {short(y)}H{short(x(papers[-1]))}", class_="span")]
    by_place: dict[float, list[Paper]] = {}
    for paper in papers:
        by_place.setdefault(x(paper), []).append(paper)
    most = min(10.0, max(4.0, along.cell / 2 - 1))
    for at, found in by_place.items():
        said = "; ".join(f"{paper.title}, {month(paper.date)}" for paper in found)
        radius = min(most, 3.5 * len(found) ** 0.5 if along.cell < 14 else 5.5 * len(found) ** 0.5)
        parts.append(tag("circle", tag("title", said), cx=at, cy=y, r=radius, class_=f"fill stage-{head.stage}"))
    return parts


def _kind(whole: float) -> str:
    return "wide" if whole == WIDE else "narrow"


def _chart(kind: str, name: str, wide: float, tall: float, parts: Sequence[Markup], *, linked: bool = False) -> Markup:
    """The drawing with its name; without links it is one picture, with links a group of them."""
    return picture(
        tag("title", name),
        joined(parts),
        class_=f"chart {kind}",
        role="group" if linked else "img",
        aria_label=name,
        corner=0,
        size=(wide, tall),
    )
