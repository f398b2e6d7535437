"""A campaign as a page that opens offline and runs nothing, and as data."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup

from headatlas import catalogue
from headatlas.mining.campaign.result import Campaign, Mined
from headatlas.render.numbers import count, seconds
from headatlas.render.style import base
from headatlas.render.templates import environment
from headatlas.store import write_json, write_text

if TYPE_CHECKING:
    from jinja2 import Template

COLUMNS = ("model", "architecture", "layers x heads", "observed", "causal", "time")
_STEPS = 5  # shades of a cell
_STYLE = """
main { max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 1.6rem 0 0.6rem; }
:is(th, td) { padding: 0.25rem 0.7rem; }
tbody th { white-space: nowrap; }
.failed td { color: var(--soft); white-space: normal; }
""" + "".join(
    f".share{step} {{ background: color-mix(in srgb, var(--accent) {step * 9}%, transparent); }}\n"
    for step in range(_STEPS)
)


def headline(found: Campaign) -> list[str]:
    """What was mined and what came of it, a sentence each."""
    mined = [one for one in found.models if not one.error]
    lines = [
        f"{count(len(mined), 'model')} of {found.asked} mined"
        + (f", {len(found.failed)} failed" if found.failed else "")
        + (f", {left} to come" if (left := found.asked - len(found.models)) else "")
        + ".",
        "A head counts once for each kind that it shows: observed above chance, and in brackets causal, where its removal alone "
        "does harm on held-out prompts; (–) where no verdict could be given.",
    ]
    settings = {(tuple(sorted(one.kinds)), one.facts.get("dtype")) for one in mined}
    if len(settings) > 1:
        lines.append("Models were not all asked for the same kinds in the same dtype: a lone dash: not asked.")
    return lines


def row_of(one: Mined) -> list[str]:
    """A model in the cells of COLUMNS, behind its name."""
    facts = one.facts
    return [
        str(facts["architecture"]),
        f"{facts['n_layers']} x {facts['n_heads']}",
        str(one.observed),
        "–" if one.observed and not one.judged else str(one.causal),
        seconds(one.seconds),
    ]


def _cells(found: Campaign, kind: str) -> list[tuple[str, int]]:
    """For each mined model the text of a cell and its shade, by the share of the model's heads."""
    cells = []
    for one in found.models:
        if one.error:
            continue
        counts = one.kinds.get(kind)
        if counts is None:
            cells.append(("–", 0))
            continue
        seen = sum(counts.values())
        heads = max(1, int(one.facts["n_layers"] or 1) * int(one.facts["n_heads"] or 1))
        shade = 0 if not seen else min(_STEPS - 1, 1 + int(seen / heads * 4 * (_STEPS - 1)))
        told = "–" if counts["untested"] == seen else counts["causal"]
        cells.append((f"{seen} ({told})" if seen else "0", shade))
    return cells


def html(found: Campaign) -> str:
    """The campaign as one self-contained page without scripts; it links to the runs' reports beside it."""
    style = Markup(f"{base()}{_STYLE}")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    names = catalogue.extras()["head_types"]
    mined = [one for one in found.models if not one.error]
    return _template().render(
        title=f"Heads of {count(len(mined), 'model')}",
        policy=f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'",
        style=style,
        headline=headline(found),
        columns=COLUMNS,
        models=[(one, _link(one), [] if one.error else row_of(one)) for one in found.models],
        mined=[(one.label, _link(one)) for one in mined],
        kinds=[(_name(names, kind), _cells(found, kind)) for kind in found.kinds],
    )


def _name(known: dict[str, Any], kind: str) -> str:
    return str(known.get(kind, {}).get("name", kind))


def _link(one: Mined) -> str:
    return quote(str(PurePath(one.run, "report.html").as_posix())) if one.run else ""


@cache
def _template() -> Template:
    return environment("headatlas.mining.campaign").get_template("campaign.html.j2")


def write_campaign(found: Campaign) -> None:
    """Write index.html and campaign.json into the campaign's folder. Raises StoreError."""
    write_json(found.folder / "campaign.json", found.data)
    write_text(found.folder / "index.html", html(found))
