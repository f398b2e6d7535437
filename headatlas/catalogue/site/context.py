"""What pages are made of: the catalogue, what our detectors measure, what runs have seen, and the pages themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.files.boards import Replication
from headatlas.catalogue.filters import newest_first
from headatlas.catalogue.schema import Claim, Paper, PublishedCircuit
from headatlas.catalogue.site.atlases import Sighting


@dataclass(frozen=True)
class SiteContext:
    """Everything a page may show.

    detectors: head type id -> names of detectors. calibrated: names of those that planted models test. sightings: head type
    id -> what runs saw of it, a line a model. commands: paper id -> commands that give its quantity. replications: rows of
    boards that others handed in.
    address: where the site will stand on the web; repository: where its sources stand. Both only where known.
    """

    catalogue: Catalogue
    detectors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sightings: Mapping[str, Sequence[Sighting]] = field(default_factory=dict)
    address: str | None = None
    repository: str | None = None
    calibrated: frozenset[str] = frozenset()
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    replications: Sequence[Replication] = ()

    def badges(self, head: str) -> list[str]:
        """What of ours speaks for a head type: a detector, one that planted models test, a claim that was replicated."""
        detectors = self.detectors.get(head, ())
        replicated = any(one.row["result"] == "replicated" for one in self.replications_of.get(head, ()))
        found = {"detector": detectors, "calibrated": self.calibrated & {*detectors}, "replicated": replicated}
        return [name for name, given in found.items() if given]

    @cached_property
    def replications_of(self) -> Mapping[str, list[Replication]]:
        """Head type id -> the rows on its claims."""
        return _grouped(self.replications, lambda one: [one.row["head_type"]])

    @cached_property
    def newest(self) -> tuple[Paper, ...]:
        """All papers, newest first."""
        return newest_first(self.catalogue.papers.values())

    @cached_property
    def papers_of(self) -> Mapping[str, tuple[Paper, ...]]:
        """Head type id -> its papers, oldest first."""
        return {id_: self.catalogue.papers_for(id_) for id_ in self.catalogue.heads}

    @cached_property
    def heads_of(self) -> Mapping[str, list[str]]:
        """Paper id -> the ids of its head types, in the catalogue's order."""
        return _turned(self.papers_of)

    @cached_property
    def methods_of(self) -> Mapping[str, list[str]]:
        """Paper id -> the ids of its methods, in the catalogue's order."""
        return _turned({id_: self.catalogue.papers_with_method(id_) for id_ in self.catalogue.methods})

    @cached_property
    def benchmarks_of(self) -> Mapping[str, list[str]]:
        """Paper id -> the ids of its benchmarks, in the catalogue's order."""
        return _turned({id_: self.catalogue.papers_on_benchmark(id_) for id_ in self.catalogue.benchmarks})

    @cached_property
    def claims_of(self) -> Mapping[str, list[Claim]]:
        """Head type id -> what papers claim of its heads."""
        return _grouped(self.catalogue.claims.values(), lambda claim: [claim.head_type])

    @cached_property
    def claims_in(self) -> Mapping[str, list[Claim]]:
        """Paper id -> what it claims."""
        return _grouped(self.catalogue.claims.values(), lambda claim: [claim.paper])

    @cached_property
    def circuits_with(self) -> Mapping[str, list[PublishedCircuit]]:
        """Head type id -> the circuits in which it occurs."""
        return _grouped(
            self.catalogue.circuits.values(),
            lambda circuit: dict.fromkeys(node.head_type for node in circuit.nodes if node.head_type),
        )

    @cached_property
    def circuits_in(self) -> Mapping[str, list[PublishedCircuit]]:
        """Paper id -> the circuits that it publishes."""
        return _grouped(self.catalogue.circuits.values(), lambda circuit: [circuit.paper])


def _grouped(things: Iterable[Any], keys: Callable[[Any], Iterable[str]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for thing in things:
        for key in keys(thing):
            found.setdefault(key, []).append(thing)
    return found


def _turned(papers_of: Mapping[str, Sequence[Paper]]) -> dict[str, list[str]]:
    """Paper id -> the keys of the lists in which it stands. Papers are known by id: comparing whole ones is slow."""
    found: dict[str, list[str]] = {}
    for key, papers in papers_of.items():
        for paper in papers:
            found.setdefault(paper.id, []).append(key)
    return found


@dataclass(frozen=True)
class Page:
    """A file of the site: a template and what it shows, or a text as it is."""

    path: str
    template: str | None = None
    shows: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def root(self) -> str:
        """The way from the page to the site's first folder: "" or "../"."""
        return "../" * self.path.count("/")


@dataclass(frozen=True)
class Section:
    """A part of the site: one module of `sections/` that makes its pages.

    title: its name in the navigation, None where it is not there; order: its place there.
    """

    name: str
    pages: Callable[[SiteContext], Iterable[Page]]
    title: str | None = None
    order: int = 0

    @property
    def start(self) -> str:
        """The page that the navigation leads to."""
        return f"{self.name}/index.html"
