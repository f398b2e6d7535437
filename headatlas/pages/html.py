"""Pages as files: one HTML a head that opens offline and runs nothing, an index, and the numbers as JSON and Parquet."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from headatlas.heads import HeadId
from headatlas.pages.clusters import told
from headatlas.pages.kinds import PAIRS
from headatlas.pages.result import HeadPages, page_data, removed_line
from headatlas.render.escape import shown
from headatlas.render.numbers import number, percent, signed
from headatlas.render.style import base
from headatlas.render.templates import environment
from headatlas.report.text_pages import FILE, page_file
from headatlas.store import write_json, write_table, write_text, writing

if TYPE_CHECKING:
    from jinja2 import Environment

SHADES = 8
_STYLE = """
main { max-width: 74rem; margin: 2rem auto; padding: 0 1rem 4rem; }
h2 { margin: 2rem 0 0.6rem; } h3 { margin: 1.2rem 0 0.3rem; }
:is(th, td) { padding: 0.2rem 0.7rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; align-items: start; }
.event { border-top: 1px solid var(--line); padding: 0.5rem 0; }
.event p { margin: 0.2rem 0 0; font-size: 0.85rem; }
.text { font: 0.86rem/1.7 var(--mono); white-space: pre-wrap; overflow-wrap: anywhere; }
.text span { border-radius: 3px; }
.text .asks { outline: 2px solid var(--accent); }
""" + "\n".join(
    f".w{shade} {{ background: color-mix(in srgb, var(--accent) {round(70 * shade / SHADES)}%, transparent); }}"
    for shade in range(1, SHADES + 1)
)


def write_files(found: HeadPages, place: Path) -> None:
    """pages.json, heads.parquet, behaviours.parquet, index.html, and pages/HEAD.html. Raises StoreError."""
    write_json(place / FILE, found.data, 6)
    for name, columns in found.tables().items():
        write_table(place / f"{name}.parquet", columns)
    with writing(place):
        (place / "pages").mkdir(exist_ok=True)
    for head in found.pages:
        write_text(place / "pages" / page_file(head), page_html(found, head))
    write_text(place / "index.html", index_html(found))


def page_html(found: HeadPages, head: HeadId) -> str:
    """One head's page."""
    page, row = found.page(head), found.row(head)
    data = page_data(page)
    for i, one in enumerate(data["behaviours"]):
        one["told"] = told(one["reads"]) or "spread over many parts, none above 10%"
        one["removed"] = removed_line(page.removals.get(i)).removeprefix("; ").capitalize()
    kinds = [(f"{name}: {PAIRS[name]}", one["share"], one["chance"]) for name, one in row["kinds"].items()]
    roles = [
        f"{role.detector} observed it. The text has {role.met:,} events in which it could do the same ({PAIRS[role.kind]}): it does in "
        f"{percent(role.does / max(role.met, 1))}, rests in {percent(role.rests / max(role.met, 1))}, and does something else in "
        f"{percent(role.otherwise / max(role.met, 1))}."
        for role in page.roles
    ]
    lead = (
        f"It rests with {percent(row['resting'])} of its attention ({percent(row['resting_on_start'])} on start tokens). Of the rest, known kinds "
        f"explain {percent(row['explained'])}; by chance they would {percent(row['explained_chance'])}. Entropy {number(row['entropy'])} of "
        f"{number(row['entropy_even'])} nats."
    )
    if found.generated is not None:
        lead += f" {found.generated.of(found.heads.index(head))}"
    return _rendered(
        "page.html.j2", head=str(head), model=found.model, page=data, lead=lead, corpus=_corpus_line(found), roles=roles, shown=events_html,
        kinds=sorted(kinds, key=lambda one: -one[1]), offsets=list(row["offsets"].items()), classes=list(row["classes"].items()),
    )  # fmt: skip


def index_html(
    found: HeadPages,
    tables: Sequence[tuple[str, Sequence[HeadId]]] = (),
    lines: Sequence[str] = (),
    effects: Mapping[HeadId, tuple[float, float, float]] | None = None,
) -> str:
    """All heads of a model, or those of `tables` (heading, heads).

    lines: what stands before them. effects: rise of the loss without each head in nats, low, high: a column of their own.
    """
    explained, chance = found.overall
    default = f"Known kinds explain {percent(explained)} of all heads' attention beside resting places; by chance they would {percent(chance)}."
    written = (
        [] if found.generated is None else [line.strip().capitalize() for line in found.generated.lines(found.heads)]
    )
    rows = [
        (heading, [{**_index_row(found, head), "effect": (effects or {}).get(head)} for head in heads])
        for heading, heads in (tables or [("", found.heads)])
    ]
    return _rendered("index.html.j2", title=f"What the heads of {found.model} do on {found.facts['corpus']}", lines=[default, *lines, *(f"{line}." for line in written), _corpus_line(found)], tables=rows, effects=effects is not None)  # fmt: skip


def _index_row(found: HeadPages, head: HeadId) -> dict[str, Any]:
    page = found.pages.get(head)
    groups = page.behaviours.groups if page is not None else ()
    row = found.row(head)
    said = "; ".join(
        f"{one.name} {percent(one.share)}" + (f" ({told(one.reads, 2)})" if one.name == "unnamed" else "")
        for one in groups
    )
    return {**row, "page": page is not None, "file": page_file(head), "behaviours": said}


def _corpus_line(found: HeadPages) -> str:
    facts = found.facts
    return (
        f"{facts['tokens']:,} tokens of {facts['corpus']} in windows of {facts['length']}; one in {facts['every']} positions sampled, {int(found.counts.n[0]):,} "
        f"events a head; seed {facts['seed']}; start and end tokens: {facts['start_end']}; headatlas {facts['headatlas']}."
    )


def events_html(events: Sequence[Mapping[str, Any]]) -> Markup:
    """Events with the attention drawn in their context."""
    return Markup("").join(_event(one) for one in events)


def _event(one: Mapping[str, Any]) -> Markup:
    spans = []
    for i, (token, weight) in enumerate(zip(one["tokens"], one["weights"], strict=True)):
        shade = min(SHADES, round(weight * SHADES)) or (1 if weight >= 0.03 else 0)
        classes = " ".join(part for part in (f"w{shade}" if shade else "", "asks" if i == one["query"] else "") if part)
        text = escape(shown(token.replace("⏎", "⏎\n")))
        title = f"{weight:.2f}" if weight >= 0.01 else ""
        spans.append(Markup('<span class="{}" title="{}">{}</span>').format(classes, title, text) if classes else text)
    notes = [f"{one['document']}; next comes “{shown(one['following'])}”"]
    if one["far"]:
        notes.append(
            "further away: "
            + ", ".join(
                f"“{shown(token)}” {abs(back)} {'back' if back > 0 else 'ahead'} {weight:.2f}"
                for back, token, weight in one["far"]
            )
        )
    for side, name in (("raised", "raises"), ("lowered", "lowers")):
        if one[side]:
            notes.append(f"{name} " + ", ".join(f"“{shown(token)}” {signed(value)}" for token, value in one[side]))
    return Markup('<div class="event"><div class="text">{}</div><p class="soft">{}</p></div>').format(
        Markup("").join(spans), " · ".join(notes)
    )


def _rendered(name: str, **values: Any) -> str:
    style = Markup(f"{base()}{_STYLE}")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    return _environment().get_template(name).render(style=style, policy=policy, **values)


@cache
def _environment() -> Environment:
    made = environment("headatlas.pages")
    made.filters |= {"number": number, "percent": percent, "signed": signed}
    return made
