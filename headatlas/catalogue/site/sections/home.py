"""The first page: the four stages with every head type, the newest papers, a few circuits; and the page for dead links."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from headatlas.catalogue.schema import PublishedCircuit
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.pictures.stages import figure
from headatlas.catalogue.site.pictures.trends import months
from headatlas.render.style import base as style_base

_NEWEST, _CIRCUITS = 7, 4
_NOT_FOUND_STYLE = Path(__file__).parent.parent / "templates" / "404.css"


def _pages(context: SiteContext) -> Iterator[Page]:
    shows = {
        "figure": figure(context),
        "chart": months(context, root="", linked=False),
        "newest": context.newest[:_NEWEST],
        "circuits": _richest(context),
        "n_seen": sum(any(seen.heads for seen in context.sightings.get(id_, ())) for id_ in context.catalogue.heads),
    }
    yield Page("index.html", "home.html.j2", shows)
    # Hosts show this page at any address, so it leans on no other file unless the site's own address is known.
    base = f"{context.address.rstrip('/')}/" if context.address else ""
    style = f"{style_base()}{_NOT_FOUND_STYLE.read_text('utf-8')}"
    seal = f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"
    yield Page("404.html", "404.html.j2", {"base": base, "style": Markup(style), "style_hash": seal})


def _richest(context: SiteContext) -> list[PublishedCircuit]:
    """The circuits in which most head types work together."""
    circuits = context.catalogue.circuits.values()

    def kinds(circuit: PublishedCircuit) -> int:
        return len({node.head_type for node in circuit.nodes if node.head_type})

    return sorted(circuits, key=lambda circuit: (-kinds(circuit), circuit.id))[:_CIRCUITS]


HOME = Section("home", _pages)
