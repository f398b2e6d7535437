"""Draws how often papers use each method, by the survey's two categories; bars, as many shares of a pie do not compare by eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from headatlas.catalogue.schema import Method
from headatlas.render.numbers import count
from headatlas.render.svg import joined, linked, picture, tag, text

CATEGORIES = {"modeling-free": "Modeling-Free", "modeling-required": "Modeling-Required"}
_ROW, _BAR, _HEADING = 44.0, 12.0, 46.0


def methods_chart(methods: Sequence[Method], uses: Mapping[str, int], *, root: str) -> Markup:
    """Two drawings of the same, wide and narrow: the share of each category, then a linked bar a method, longest first.

    uses: method id -> number of papers.
    """
    return joined([_chart(methods, uses, 760.0, "wide", root), _chart(methods, uses, 358.0, "narrow", root)])


def _chart(methods: Sequence[Method], uses: Mapping[str, int], whole: float, kind: str, root: str) -> Markup:
    groups = {
        category: sorted(
            (m for m in methods if m.category == category), key=lambda method: (-uses[method.id], method.id)
        )
        for category in CATEGORIES
    }
    sums = {category: sum(uses[method.id] for method in own) for category, own in groups.items()}
    total, most = max(1, sum(sums.values())), max([1, *uses.values()])
    parts, left = [], 0.0
    for category, n in sums.items():
        wide = whole * n / total
        parts.append(tag("rect", x=left, y=0.0, width=wide, height=18.0, class_=f"bar {category}"))
        left += wide
    y = 18.0
    for category, own in groups.items():
        share = f"{CATEGORIES[category]}: {sums[category]} of {total} uses ({sums[category] / total:.0%})"
        parts.append(text(0, y + 32, share, "category"))
        y += _HEADING
        for method in own:
            n = uses[method.id]
            drawn = [
                tag("rect", x=0.0, y=y, width=whole, height=_ROW - 6, rx=5.0, class_="hit"),
                text(4, y + 16, method.name, "said"),
                text(whole - 4, y + 16, str(n), "said", anchor="end"),
                tag("rect", x=4.0, y=y + 22, width=(whole - 8) * n / most, height=_BAR, class_=f"bar {category}"),
            ]
            said = f"{method.name}: {count(n, 'paper')}"
            parts.append(linked(f"{root}methods/{method.id}.html", said, [tag("title", said), *drawn]))
            y += _ROW
    return picture(
        tag("title", "Papers by method"), joined(parts), class_=f"chart methods {kind}", role="group",
        aria_label="Papers by method", corner=0, size=(whole, y + 4),
    )  # fmt: skip
