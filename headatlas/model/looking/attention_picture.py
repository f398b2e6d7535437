"""Draws attention as lines from each token to those that it attends to: SVG, a page, a fragment for notebooks, PNG.

Of a long text not every weight can be drawn: the strongest are, and the picture says how many of how many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headatlas.ops.types import Array
from headatlas.render import plots
from headatlas.render.escape import shown
from headatlas.render.palette import PICTURE, SERIES
from headatlas.render.svg import joined, short, tag, text, width
from headatlas.store import writing

ARCS = 2000  # of all heads together: a page with this many lines stays smooth
NAMED = 300  # up to so many arcs each says its tokens and weight when it is pointed at
LEAST = 0.01  # weight, as a share of the largest, below which an arc cannot be seen
SHADES = 8  # of the lines of one head
_LINE, _SMALL = 16.0, 11.0  # height of a token, and of letters, in pixels
_TALL = 1600.0  # of the tokens of one head
_FONT = "font-family:ui-monospace,'DejaVu Sans Mono',Menlo,monospace"
_INK, _SOFT, _PAPER = PICTURE["ink"].light, PICTURE["soft"].light, PICTURE["paper"].light


@dataclass(frozen=True)
class Drawing:
    """What is drawn: for each caption a panel with weights [panel, query, key]."""

    title: str
    captions: tuple[str, ...]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    weights: Array

    @property
    def said(self) -> str:
        """How many of all weights are drawn, and how much of the attention they are."""
        drawn = sum(len(chosen) for chosen in self.chosen)
        there = int((self.weights > 0).sum())
        total = float(self.weights.sum())
        share = sum(float(w.ravel()[c].sum()) for w, c in zip(self.weights, self.chosen, strict=True)) / (total or 1.0)
        return f"{drawn:,} of {there:,} arcs drawn, the strongest; they hold {share:.0%} of the weight"

    @cached_property
    def chosen(self) -> list[NDArray[np.int_]]:
        """For each panel the numbers of the weights that are drawn, in [query x key], weakest first."""
        most = max(1, ARCS // len(self.captions))
        found = []
        for w in self.weights:
            flat = w.ravel()
            best = np.argpartition(-flat, most - 1)[:most] if len(flat) > most else np.arange(len(flat))
            best = best[flat[best] > LEAST * float(flat.max(initial=0.0))]
            found.append(best[np.argsort(flat[best], kind="stable")])
        return found


@dataclass(frozen=True)
class _Layout:
    """Where things stand in a panel: the queries on the left, the keys on the right."""

    step: float
    left: float
    right: float
    wide: float
    tall: float

    def y(self, position: int | Array) -> Any:
        """The middle of a token."""
        return (np.asarray(position) + 0.5) * self.step + 24


def _layout(drawing: Drawing) -> _Layout:
    n = max(len(drawing.queries), len(drawing.keys))
    step = min(_LINE, _TALL / n)
    widest = max(width(_label(token), _SMALL) for token in (*drawing.queries, *drawing.keys)) + 10
    column = min(widest, 130.0)
    gap = 150.0 if len(drawing.captions) == 1 else 90.0
    return _Layout(step, column, column + gap, 2 * column + gap, n * step + 32)


def _label(token: str) -> str:
    found = shown(token, lines=False)
    return found if len(found) <= 14 else f"{found[:13]}…"


def svg(drawing: Drawing) -> str:
    """The picture as an SVG file of its own, with the number of arcs drawn."""
    place = _layout(drawing)
    columns = min(len(drawing.captions), 4)
    rows = -(-len(drawing.captions) // columns)
    words = max(width(caption, 13.0) for caption in drawing.captions) + 32
    wide = max(columns * (place.wide + 24) + 16, words, 560.0)
    tall = rows * (place.tall + 12) + 60
    panels = joined(
        tag(
            "g",
            *_panel(drawing, place, i, chosen),
            transform=f"translate({short(16 + (i % columns) * (place.wide + 24))} {short(52 + (i // columns) * (place.tall + 12))})",
        )
        for i, chosen in enumerate(drawing.chosen)
    )
    head = joined(
        (
            tag("title", f"{drawing.title}. {drawing.said}"),
            tag("rect", width=wide, height=tall, fill=_PAPER),
            tag("text", drawing.title, x=16, y=22, fill=_INK, style="font:600 14px system-ui,sans-serif"),
            tag("text", drawing.said, x=16, y=40, fill=_SOFT, style="font:12px system-ui,sans-serif"),
        )
    )
    return str(
        tag(
            "svg", head, panels, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {short(wide)} {short(tall)}",
            width=wide, height=tall, role="img", style=_FONT,
        )
    )  # fmt: skip


def _panel(drawing: Drawing, place: _Layout, i: int, chosen: NDArray[np.int_]) -> Iterator[Markup]:
    """One head: its caption, the tokens twice, and the lines between them."""
    tone = SERIES[i % len(SERIES)]
    yield tag("text", drawing.captions[i], x=0, y=12, fill=tone, style="font:600 12px system-ui,sans-serif")
    every = max(1, int(np.ceil(11 / place.step)))  # of tokens closer than letters are high, some are written
    for names, x, anchor in ((drawing.queries, place.left - 5, "end"), (drawing.keys, place.right + 5, "start")):
        yield tag(
            "g",
            *(text(x, float(place.y(p)) + 3.5, _label(names[p]), anchor=anchor) for p in range(0, len(names), every)),
            fill=_INK, font_size=_SMALL, style="white-space:pre",
        )  # fmt: skip
    weights = drawing.weights[i].ravel()
    top = float(weights.max(initial=0.0)) or 1.0
    queries, keys = np.divmod(chosen, len(drawing.keys))
    named = sum(map(len, drawing.chosen)) <= NAMED if len(chosen) <= NAMED else False
    shade = np.minimum((weights[chosen] / top * SHADES).astype(int), SHADES - 1)
    for level in range(SHADES):
        inside = np.flatnonzero(shade == level)
        if not len(inside):
            continue
        lines = [_arc(place, int(queries[j]), int(keys[j])) for j in inside]
        look = {
            "fill": "none",
            "stroke": tone,
            "stroke_width": 0.6 + 2.2 * (level + 1) / SHADES,
            "stroke_opacity": str(round((level + 1) / SHADES, 3)),
        }
        if not named:  # as one element, which browsers draw fast
            yield tag("path", d="".join(lines), **look)
            continue
        yield tag(
            "g",
            *(
                tag(
                    "path",
                    tag("title", f"{_said(drawing, int(queries[j]), int(keys[j]))} {weights[chosen[j]]:.3f}"),
                    d=line,
                )
                for j, line in zip(inside, lines, strict=True)
            ),
            **look,
        )


def _said(drawing: Drawing, query: int, key: int) -> str:
    return f"{_label(drawing.queries[query])} ({query}) → {_label(drawing.keys[key])} ({key})"


def _arc(place: _Layout, query: int, key: int) -> str:
    """A curve from a token on the left to one on the right, as a piece of a path."""
    y, z, bend = float(place.y(query)), float(place.y(key)), (place.right - place.left) / 2
    x = place.left
    return f"M{short(x)} {short(y)}C{short(x + bend)} {short(y)} {short(x + bend)} {short(z)} {short(place.right)} {short(z)}"


def fragment(drawing: Drawing) -> str:
    """The picture for a notebook cell: it scrolls where it is large."""
    return f'<div style="overflow:auto;max-height:720px;background:{_PAPER}">{svg(drawing)}</div>'


def page(drawing: Drawing) -> str:
    """A page of its own with the picture; it needs nothing from elsewhere and runs no scripts."""
    title = tag("title", drawing.title)
    return f'<!doctype html><html lang="en"><head><meta charset="utf-8">{title}</head><body style="margin:0">{svg(drawing)}</body></html>\n'


def write_png(drawing: Drawing, path: Path) -> None:
    """The picture as PNG, drawn with matplotlib. Raises HeadAtlasError without it, StoreError."""
    plots.require()
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    place = _layout(drawing)
    n = len(drawing.captions)
    columns = min(n, 4)
    rows = -(-n // columns)
    figure = Figure(figsize=(max(columns * (place.wide + 24), 560) / 72, (rows * (place.tall + 24) + 50) / 72), dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(f"{drawing.title}\n{drawing.said}", fontsize=9, color=_INK)
    every = max(1, int(np.ceil(11 / place.step)))
    for i, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if i >= n:
            continue
        chosen = drawing.chosen[i]
        weights = drawing.weights[i].ravel()[chosen]
        queries, keys = np.divmod(chosen, len(drawing.keys))
        tone = to_rgba(SERIES[i % len(SERIES)])[:3]
        strength = np.clip(weights / (weights.max(initial=0.0) or 1.0), 0, 1)
        bend = np.linspace(0, 1, 24)
        eased = bend * bend * (3 - 2 * bend)
        lines = [np.column_stack([bend, q + (k - q) * eased]) for q, k in zip(queries, keys, strict=True)]
        axis.add_collection(LineCollection(lines, colors=[(*tone, s) for s in strength], linewidths=0.5 + 2 * strength))
        axis.set_xlim(-1, 2)
        axis.set_ylim(max(len(drawing.queries), len(drawing.keys)) - 0.5, -0.5)
        axis.set_title(drawing.captions[i], fontsize=8, color=tone, loc="left")
        for names, x, side in ((drawing.queries, -0.04, "right"), (drawing.keys, 1.04, "left")):
            for p in range(0, len(names), every):
                label = _label(names[p]).replace("$", "\\$")  # which would begin a formula
                axis.text(x, p, label, ha=side, va="center", fontsize=7, color=_INK)
    figure.tight_layout()
    with writing(path):
        figure.savefig(path, format="png", facecolor=_PAPER)
