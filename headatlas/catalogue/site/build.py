"""Builds the site: every section's pages, the styles and scripts, the feed and the data, as a set of files."""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment

from headatlas.catalogue.describe import claim_value
from headatlas.catalogue.export.atom_feed import as_atom
from headatlas.catalogue.export.bibtex import bibtex
from headatlas.catalogue.export.records import as_csv, as_json
from headatlas.catalogue.extras import paper_url
from headatlas.catalogue.filters import has_code
from headatlas.catalogue.site import words, write
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.pictures.circuit import miniature
from headatlas.errors import BadInput
from headatlas.registry import discover
from headatlas.render.numbers import count
from headatlas.render.palette import STAGE, STAGES
from headatlas.render.style import base, joined
from headatlas.render.svg import tag
from headatlas.render.templates import environment

SEARCH_LIBRARY = "minisearch-7.2.0"  # in static/vendor/, with its licence; docs/site.md says how it is renewed


def build(context: SiteContext, out: Path) -> int:
    """Write the site into the folder `out` and return the number of pages. Raises StoreError, BadInput."""
    for what, url in (("address", context.address), ("repository", context.repository)):
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
            raise BadInput(f"'{url}' is not a web {what}.", "Write it with https://.")
    write.output_folder(out)  # what is wrong with the folder is said before the work
    made = render(context)
    write.write_site(out, made)
    return sum(path.endswith(".html") for path in made)


def render(context: SiteContext) -> dict[str, str]:
    """All files of the site, by their path in it; the same context always gives the same bytes."""
    sections = sorted(
        discover("headatlas.catalogue.site.sections", Section).values(), key=lambda part: (part.order, part.name)
    )
    pages = {section: list(section.pages(context)) for section in sections}
    shown = [section for section in sections if section.title and pages[section]]
    made: dict[str, str] = {}
    for section, own in pages.items():
        for page in own:
            if page.path in made:
                raise BadInput(f"Two pages want the address '{page.path}'.", "Give one of the entries another id.")
            made[page.path] = _text(context, page, section, shown)
    catalogue = context.catalogue
    start = f"{context.address.rstrip('/')}/" if context.address else None
    return made | {
        "feed.xml": as_atom(catalogue, address=f"{start}feed.xml" if start else None),
        "papers.bib": bibtex(context.newest),
        "papers.csv": as_csv(catalogue),
        "catalogue.json": as_json(catalogue, context.replications),
        "static/site.css": f"{base()}{joined(__package__, '.css')}",
        **{f"static/{name}": text for name, text in _scripts().items()},
        "static/favicon.svg": _favicon(),
    }


def _text(context: SiteContext, page: Page, section: Section, sections: list[Section]) -> str:
    if page.template is None:
        return page.text
    shown: dict[str, Any] = {
        "context": context,
        "catalogue": context.catalogue,
        "page": page,
        "root": page.root,
        "section": section,
        "sections": sections,
    }
    return _environment().get_template(page.template).render(shown | dict(page.shows)).rstrip() + "\n"


@functools.cache
def _environment() -> Environment:
    made = environment("headatlas.catalogue.site")
    made.globals |= {
        "style_of": STAGE,
        "evidence_words": words.EVIDENCE,
        "paper_url": paper_url,
        "has_code": has_code,
        "miniature": miniature,
    }
    made.filters |= {
        "month": words.month,
        "authors": words.authors,
        "family": words.family,
        "slug": words.slug,
        "cited": words.cited,
        "claim_value": claim_value,
        "known_from": words.known_from,
        "of": count,
    }
    return made


def _favicon() -> str:
    """Four cells in the colours of the stages."""
    places = ((1.0, 1.0), (8.6, 1.0), (1.0, 8.6), (8.6, 8.6))
    stages = [stage for stage in STAGES if stage.id != "none"]
    cells = [
        tag("rect", x=x, y=y, width=6.4, height=6.4, rx=1.4, fill=stage.tone.light)
        for (x, y), stage in zip(places, stages, strict=True)
    ]
    return str(tag("svg", *cells, xmlns="http://www.w3.org/2000/svg", viewBox="0 0 16 16")) + "\n"


@functools.cache
def _scripts() -> dict[str, str]:
    """The scripts by name; the search library stands, with its licence, before the script that uses it."""
    folder = files(__package__) / "static"
    scripts = {item.name: item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(".js")}
    library = (folder / "vendor" / f"{SEARCH_LIBRARY}.min.js").read_text("utf-8")
    licence = (folder / "vendor" / f"{SEARCH_LIBRARY}.LICENSE.txt").read_text("utf-8")
    heading = f"/*! {SEARCH_LIBRARY}\n\n{licence.strip()}\n*/"
    scripts["search.js"] = "\n".join([heading, library.strip(), scripts["search.js"]])
    return scripts
