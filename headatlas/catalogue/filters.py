"""Chooses papers by stage, head type, method, benchmark, year, model, venue and whether there is code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.names import Names, normal, starts_a_word
from headatlas.catalogue.schema import Paper
from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean


@dataclass(frozen=True)
class Filters:
    """What papers must have; None and False ask for nothing."""

    stage: str | None = None  # id or name
    head: str | None = None  # id, name or alias
    method: str | None = None  # id or name
    benchmark: str | None = None  # id or name
    year: int | None = None
    model: str | None = None  # how a model's name begins: gpt2 finds GPT-2 small
    venue: str | None = None  # how the venue's name begins
    has_code: bool = False


def newest_first(papers: Iterable[Paper]) -> tuple[Paper, ...]:
    """The order of the list: by date, and by id within a day."""
    return tuple(sorted(sorted(papers, key=lambda paper: paper.id), key=lambda paper: paper.date, reverse=True))


def select(catalogue: Catalogue, filters: Filters) -> tuple[Paper, ...]:
    """The papers that pass every filter, newest first. Raises UnknownName for a value that nothing goes by."""
    papers: Iterable[Paper] = catalogue.papers.values()
    for wanted in _conditions(catalogue, filters):
        papers = [paper for paper in papers if wanted(paper)]
    return newest_first(papers)


def _conditions(catalogue: Catalogue, filters: Filters) -> list[Callable[[Paper], bool]]:
    wanted: list[Callable[[Paper], bool]] = []
    if filters.stage is not None:
        stage = Names("stage", ((s.id, (s.name,)) for s in catalogue.stages.values())).find(filters.stage)
        wanted.append(lambda paper: stage in catalogue.stages_of(paper))
    if filters.head is not None:
        about = {paper.id for paper in catalogue.papers_for(filters.head)}
        wanted.append(lambda paper: paper.id in about)
    if filters.method is not None:
        method = Names("method", ((m.id, (m.name,)) for m in catalogue.methods.values())).find(filters.method)
        using = {paper.id for paper in catalogue.papers_with_method(method)}
        wanted.append(lambda paper: paper.id in using)
    if filters.benchmark is not None:
        names = Names("benchmark", ((b.id, (b.name,)) for b in catalogue.benchmarks.values()))
        on = {paper.id for paper in catalogue.papers_on_benchmark(names.find(filters.benchmark))}
        wanted.append(lambda paper: paper.id in on)
    if filters.year is not None:
        year = filters.year
        years = sorted({paper.date.year for paper in catalogue.papers.values()})
        if year not in years:
            raise UnknownName(f"There is no paper of {year}.", f"Years are: {', '.join(map(str, years))}.")
        wanted.append(lambda paper: paper.date.year == year)
    if filters.model is not None:
        wanted.append(_named("model", filters.model, catalogue, lambda paper: paper.models))
    if filters.venue is not None:
        wanted.append(_named("venue", filters.venue, catalogue, venues))
    if filters.has_code:
        wanted.append(has_code)
    return wanted


def venues(paper: Paper) -> list[str]:
    """Where the paper appeared: its own venue and those on its links to papers."""
    found = [paper.venue, *(link.venue for link in paper.links if link.kind == "paper")]
    return list(dict.fromkeys(venue for venue in found if venue))


def has_code(paper: Paper) -> bool:
    """Whether a link leads to the authors' code."""
    return any(link.kind == "code" for link in paper.links)


def _named(
    what: str, query: str, catalogue: Catalogue, names_of: Callable[[Paper], Iterable[str]]
) -> Callable[[Paper], bool]:
    """The condition that one of the paper's names begins like the query at a word; UnknownName where none ever does."""
    known = sorted({name for paper in catalogue.papers.values() for name in names_of(paper)}, key=str.lower)
    hits = {name for name in known if starts_a_word(query, name)}
    if not hits:
        plain = {normal(name): name for name in known}
        near = did_you_mean(normal(query), plain)
        key = near.removeprefix("Did you mean '").removesuffix("'?")
        hint = f"Did you mean '{plain[key]}'?" if near else ""
        raise UnknownName(f"No paper names a {what} like '{query}'.", hint)
    return lambda paper: any(name in hits for name in names_of(paper))
