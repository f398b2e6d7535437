"""The survey that stages and methods follow, beside our data: its figure and methods, what it misses in the field and calls for."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.export import bibtex
from headatlas.catalogue.extras import SURVEY
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.pictures.methods import CATEGORIES, methods_chart
from headatlas.catalogue.site.pictures.stages import figure
from headatlas.catalogue.site.words import family


def _pages(context: SiteContext) -> Iterator[Page]:
    survey = context.catalogue.papers.get(SURVEY)
    if survey is None:  # a catalogue of somebody's own
        return
    methods = list(context.catalogue.methods.values())
    using = {m.id: {p.id for p in context.catalogue.papers_with_method(m.id)} - {SURVEY} for m in methods}
    papers_of = {
        name: len(set().union(*(using[m.id] for m in methods if m.category == category)))
        for category, name in CATEGORIES.items()
    }
    yield Page(
        "survey/index.html",
        "survey.html.j2",
        {
            "survey": survey,
            "figure": figure(context, root="../"),
            "chart": methods_chart(methods, {id_: len(ids) for id_, ids in using.items()}, root="../"),
            "papers_of": papers_of,
            "bibtex": bibtex.entry(survey),
        },
    )
    yield Page("survey/limitations.html", "limitations.html.j2", {"survey": survey, **_counts(context)})
    yield Page("survey/directions.html", "directions.html.j2", {"survey": survey})


def _counts(context: SiteContext) -> dict[str, int]:
    """What our data say of the limits that the survey names."""
    catalogue = context.catalogue
    named: dict[str, set[str]] = {}
    for claim in catalogue.claims.values():
        if claim.heads:
            named.setdefault(claim.head_type, set()).add(family(claim.model))
    return {
        "n_heads": len(catalogue.heads),
        "n_one_paper": sum(len(papers) == 1 for papers in context.papers_of.values()),
        "n_named": len(named),
        "n_one_family": sum(len(families) == 1 for families in named.values()),
        "n_in_circuits": len(context.circuits_with),
        "n_circuits": len(catalogue.circuits),
        "n_claims": len(catalogue.claims),
        "n_numbers": sum(claim.value is not None for claim in catalogue.claims.values()),
    }


SURVEY_PAGES = Section("survey", _pages, "Survey", 7)
