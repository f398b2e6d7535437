"""A comparison as a page (HTML that opens offline and runs nothing, or Markdown) or as data (JSON)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from headatlas.choices import COMPARISON_FILE
from headatlas.heads import HeadId
from headatlas.mining.comparison.changes import OUTCOMES, Change, Comparison
from headatlas.render.escape import cell
from headatlas.render.numbers import count, number, probability, signed
from headatlas.render.style import base
from headatlas.render.templates import environment
from headatlas.store import write_json, write_text

if TYPE_CHECKING:
    from jinja2 import Template

COLUMNS = ("head", "detector", "outcome", "score", "change (95%)", "q", "verdict")
_STYLE = """
main { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 1.6rem 0 0.6rem; }
:is(th, td) { padding: 0.25rem 0.7rem; }
.map table { width: auto !important; }
.map td { padding: 0; width: 1.1rem; min-width: 1.1rem; height: 1.1rem; border: 1px solid var(--paper); background: var(--cell); }
.lost { background: #b3362b !important; } .weakened { background: #e59b94 !important; }
.gained { background: #1f5fb4 !important; } .strengthened { background: #8ab8f5 !important; }
.key { display: inline-block; width: 0.9rem; height: 0.9rem; margin: 0 0.3rem 0 0.8rem; }
"""


def headline(found: Comparison) -> list[str]:
    """What was compared and what came of it, a sentence or two each."""
    a, b = found.a, found.b
    data = found.data
    counts = ", ".join(f"{how_many} {outcome}" for outcome, how_many in found.counts.items())
    lines = [
        f"A: {a.model['name']} ({a.folder}); B: {b.model['name']} ({b.folder}).",
        f"{count(len(found.heads), 'head')} changed from A to B (a head once for each detector: {counts}), of "
        f"{data['tests']:,} tests of {count(len(found.detectors), 'detector')}, at q < {data['level']} over all of them; "
        f"n {data['n']}, seed {data['seed']}.",
    ]
    if data["models_differ_in"]:
        lines.append(f"The models differ in {', '.join(data['models_differ_in'])}.")
    else:
        lines.append("The models are the same in all that decides their numbers.")
    if found.left_out:
        told = "; ".join(f"{name} ({reason})" for name, reason in found.left_out.items())
        lines.append(f"Left out: {told}.")
    if data["undefined"]:
        lines.append(f"{data['undefined']:,} more could not be tested: a score is not defined in both runs.")
    if data["changed_but_not_observed"]:
        lines.append(
            f"{count(len(data['changed_but_not_observed']), 'change')} of heads that neither run observes are left to the JSON."
        )
    return lines


def row_of(row: Change) -> list[str]:
    """A change in the cells of COLUMNS; scores and verdicts of A → B, – where a head is not observed."""
    verdicts = " → ".join(verdict or "–" for verdict in (row.verdict_a, row.verdict_b))
    return [
        str(row.head),
        row.detector,
        row.outcome or "no change shown",
        f"{number(row.score_a)} → {number(row.score_b)}",
        f"{signed(row.change)} ({signed(row.low)} to {signed(row.high)})",
        probability(row.q),
        verdicts,
    ]


def markdown(found: Comparison) -> str:
    """The comparison as Markdown."""
    lines = [f"# {cell(_title(found))}", "", *(f"{cell(line)}\n" for line in headline(found))]
    for title, rows in _tables(found).items():
        lines += [f"## {title}", "", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join(map(cell, row_of(row))) + " |" for row in rows] + [""]
    return "\n".join(lines).rstrip() + "\n"


def html(found: Comparison) -> str:
    """The comparison as one self-contained page without scripts: what changed on the map of heads, and in numbers."""
    style = Markup(f"{base()}{_STYLE}")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        title=_title(found),
        policy=f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'",
        style=style,
        headline=headline(found),
        outcomes=OUTCOMES,
        maps=_maps(found),
        columns=COLUMNS,
        tables={title: [row_of(row) for row in rows] for title, rows in _tables(found).items()},
    )


def _title(found: Comparison) -> str:
    return f"Heads of {found.b.model['name']} beside {found.a.model['name']}"


def _tables(found: Comparison) -> dict[str, Sequence[Change]]:
    told = {"What changed": found.changes, "Verdicts that differ (not tested)": found.other_verdicts}
    return {title: rows for title, rows in told.items() if rows}


def _maps(found: Comparison) -> dict[str, list[list[tuple[str, str]]]]:
    """Stack -> layer -> (address, gravest outcome or "") of each head."""
    gravest: dict[HeadId, str] = {}
    for row in found.changes:  # the gravest first
        gravest.setdefault(row.head, row.outcome)
    maps: dict[str, dict[int, list[tuple[str, str]]]] = {}
    for head in dict.fromkeys(row.head for row in found.rows):
        maps.setdefault(head.stack, {}).setdefault(head.layer, []).append((str(head), gravest.get(head, "")))
    return {stack: list(layers.values()) for stack, layers in maps.items()}


@cache
def _template() -> Template:
    return environment("headatlas.mining.comparison").get_template("comparison.html.j2")


_WRITERS: Mapping[str, Callable[[Comparison], str]] = {".html": html, ".md": markdown}


def write_comparison(found: Comparison, out: str | Path) -> None:
    """Write a comparison as a page (.html, .md) or as data (.json). Raises BadInput for another ending, StoreError."""
    path = Path(out)
    COMPARISON_FILE.demand(path.suffix)
    if path.suffix == ".json":
        write_json(path, found.data)
    else:
        write_text(path, _WRITERS[path.suffix](found))
