"""Shows an atlas in a notebook cell: the map as a picture and its strongest heads in a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from headatlas.render.numbers import count, number, signed
from headatlas.render.palette import PAGE, PICTURE, STAGE
from headatlas.report.atlas_view import VERDICTS, Observation, read, summary
from headatlas.report.figure import svg

# Notebooks bring their own colours and may be dark; a light sheet of our own stays readable in all of them.
_INK, _SOFT = PICTURE["ink"].light, PICTURE["soft"].light
_PAPER, _LINE = PICTURE["paper"].light, PAGE["line"].light
_SHEET = (
    f"background:{_PAPER};color:{_INK};padding:12px 16px;border:1px solid {_LINE};border-radius:8px;"
    "max-width:1000px;overflow-x:auto;font-family:system-ui,sans-serif;font-size:13px;line-height:1.5"
)
_CELL = f"padding:3px 14px 3px 0;text-align:{{align}};border-top:1px solid {_LINE};background:{_PAPER};color:{_INK}"


def repr_html(atlas: Mapping[str, Any], extras: Mapping[str, Any] | None = None, *, top: int = 12) -> str:
    """Map and table as an HTML fragment with inline styles and no scripts; for `_repr_html_`. Raises BadInput."""
    view = read(atlas, extras)
    best = sorted(view.observations, key=lambda seen: (VERDICTS.index(seen.verdict), -(seen.numbers["score"] or 0)))
    rows = "".join(_row(seen, multiple=len(view.stacks) > 1) for seen in best[:top])
    head = "".join(
        f'<th style="{_CELL.format(align=align)};border-top:0;font-weight:600">{name}</th>'
        for name, align in (
            ("Head", "left"),
            ("Head type", "left"),
            ("Score", "right"),
            ("Chance", "right"),
            ("Verdict", "left"),
            ("Effect", "right"),
        )
    )
    body = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    table = f'<table style="border-collapse:collapse;margin-top:8px">{body}</table>'
    left = len(best) - top
    more = f'<div style="color:{_SOFT}">and {count(left, "more observation")}</div>' if left > 0 else ""
    return (
        f'<div style="{_SHEET}">{svg(atlas, extras, theme="light")}<div>{escape(summary(view))}</div>'
        f"{table if best else ''}{more}</div>"
    )


def _row(seen: Observation, *, multiple: bool) -> str:
    stage = STAGE[seen.stage]
    glyph = f'<span style="color:{stage.tone.light}">{stage.filled}</span>'
    address = seen.address if multiple else f"{seen.layer}.{seen.head}"
    cells = (
        (escape(address), "left"),
        (f"{glyph} {escape(seen.type_name)}", "left"),
        (number(seen.numbers["score"]), "right"),
        (number(seen.numbers["chance"]), "right"),
        (seen.shown, "left"),
        (signed(seen.numbers["effect"]), "right"),
    )
    return "<tr>" + "".join(f'<td style="{_CELL.format(align=align)}">{text}</td>' for text, align in cells) + "</tr>"
