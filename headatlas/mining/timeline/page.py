"""A timeline as files: a page that opens offline and runs nothing, a picture, a table and data."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from headatlas.mining.timeline.figure import draw
from headatlas.mining.timeline.lives import Life
from headatlas.mining.timeline.result import Timeline, spread
from headatlas.render.numbers import count
from headatlas.render.style import base
from headatlas.render.templates import environment
from headatlas.store import write_json, write_table, write_text

if TYPE_CHECKING:
    from jinja2 import Template

COLUMNS = ("head", "detector", "forms", "dies", "against the loss")
_DIGITS = 6
_STYLE = """
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 1.6rem 0 0.6rem; }
:is(th, td) { padding: 0.25rem 0.7rem; }
img { max-width: 100%; background: #fff; }
"""


def headline(found: Timeline) -> list[str]:
    """What was looked at and what came of it, a sentence or two each."""
    heads = len({life.head for life in found.lives})
    lines = [
        f"{count(len(found.labels), 'checkpoint')}, steps {found.steps[0]:,} to {found.steps[-1]:,}; "
        f"{count(len(found.series), 'detector')} on the same texts (n {found.facts.get('n')}, seed {found.facts.get('seed')}).",
        f"{heads} of {count(len(found.heads), 'head')} pass a detector at some step, at q < 0.01 counted over all heads, "
        "detectors and checkpoints.",
    ]
    if found.facts.get("numbered"):
        lines.append(
            "The names of the checkpoints tell no steps: they are numbered in the order in which they were given."
        )
    for drop in found.drops.values():
        lines.append(f"{drop.task}: the {drop.metric} gets better in steps {drop.begins:,} to {drop.ends:,}.")
    if found.moved:
        told = ", ".join(f"{a} of {label} is {b}" for label, a, b in found.moved[:4])
        lines.append(
            f"Heads that changed places, told by their weights: {told}{' ...' if len(found.moved) > 4 else ''}."
        )
    if found.skipped:
        lines.append(f"Not asked: {'; '.join(f'{name} ({reason})' for name, reason in found.skipped.items())}.")
    return lines


def row_of(life: Life, found: Timeline) -> list[str]:
    """A life in the cells of COLUMNS."""
    died = "" if life.died is None else f"step {life.died:,}"
    return [str(life.head), life.detector, spread(life, found.steps), died, life.against_drop]


def change_rows(found: Timeline) -> list[list[str]]:
    """The role changes in cells: head, what it was, what it became, when."""
    verbs = {"becomes": "→", "adds": "+"}
    return [[str(one.head), one.before, f"{verbs[one.how]} {one.to}", f"by step {one.step:,}"]
            for one in found.role_changes]  # fmt: skip


def html(found: Timeline) -> str:
    """The timeline as one self-contained page without scripts. Raises HeadAtlasError where matplotlib is missing."""
    style = Markup(f"{base()}{_STYLE}")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    picture = base64.b64encode(draw(found).encode()).decode()
    return _template().render(
        title="When heads formed",
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'",
        style=style,
        headline=headline(found),
        picture=f"data:image/svg+xml;base64,{picture}",
        tables={
            "Lives of heads": (COLUMNS, [row_of(life, found) for life in found.lives]),
            "Heads that changed their role": (("head", "was", "became", "when"), change_rows(found)),
        },
    )


@cache
def _template() -> Template:
    return environment("headatlas.mining.timeline").get_template("timeline.html.j2")


def write_timeline(found: Timeline, folder: str | Path) -> None:
    """Write timeline.parquet, timeline.json, timeline.svg and timeline.html. Raises StoreError, HeadAtlasError."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_table(place / "timeline.parquet", found.table)
    write_json(place / "timeline.json", found.data, _DIGITS)
    write_text(place / "timeline.svg", draw(found))
    write_text(place / "timeline.html", html(found))
