"""The whole catalogue as one object: papers, head types and the rest by id, and how they belong together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from headatlas.catalogue.files.strict_yaml import Document
from headatlas.catalogue.names import Names
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.schema import Benchmark, Claim, HeadType, Method, ModelShape, Paper, PublishedCircuit, Stage


@dataclass(frozen=True)
class Place:
    """Where an entry is written: its file, the file's lines, and the keys that lead to the entry within the file."""

    file: str
    document: Document
    keys: tuple[str | int, ...] = ()

    def problem(self, keys: tuple[str | int, ...], wrong: str, right: str) -> Problem:
        """A fault in the part of the entry that `keys` lead to."""
        return Problem(self.file, self.document.line(*self.keys, *keys), wrong, right)


@dataclass(frozen=True)
class Catalogue:
    """Everything known of the literature, by id; `places` says where (kind, id) is written."""

    papers: Mapping[str, Paper]
    heads: Mapping[str, HeadType]
    methods: Mapping[str, Method]
    benchmarks: Mapping[str, Benchmark]
    stages: Mapping[str, Stage]
    circuits: Mapping[str, PublishedCircuit]
    claims: Mapping[str, Claim]
    shapes: Mapping[str, ModelShape]
    places: Mapping[tuple[str, str], Place] = field(repr=False, compare=False)

    @functools.cached_property
    def head_names(self) -> Names:
        """Finds head types by id, name or alias."""
        return Names("head type", ((h.id, (h.name, *h.aliases)) for h in self.heads.values()))

    def head_type(self, name: str) -> HeadType:
        """The head type with this id, name or alias; raises UnknownName."""
        return self.heads[self.head_names.find(name)]

    def stage_of(self, name: str) -> Stage:
        """The stage of the head type with this id, name or alias."""
        return self.stages[self.head_type(name).stage]

    def dimension_name(self, head: HeadType) -> str:
        """What the head type's group within its stage is called."""
        return next(d.name for d in self.stages[head.stage].dimensions if d.id == head.dimension)

    def papers_for(self, name: str) -> tuple[Paper, ...]:
        """The papers on the head type with this id, name or alias, oldest first: by their own lists or by its list."""
        head = self.head_type(name)
        return self._both_ways(head.papers, lambda paper: head.id in paper.heads)

    def stages_of(self, paper: Paper) -> tuple[str, ...]:
        """The ids of the stages that the paper's head types belong to, in the order of the stages."""
        own = {self.heads[head].stage for head in paper.heads}
        return tuple(stage for stage in self.stages if stage in own)

    def tags_of(self, paper: Paper) -> dict[str, str]:
        """The paper's head types by id, each under the word with which the list tags the paper, else under its name."""
        words = {self.head_names.get(tag): tag for tag in paper.tags}
        return {id_: words.get(id_, self.heads[id_].name) for id_ in paper.heads}

    def papers_with_method(self, id_: str) -> tuple[Paper, ...]:
        """The papers that use a method, oldest first: by their own lists or by its list."""
        return self._both_ways(self.methods[id_].papers, lambda paper: id_ in paper.methods)

    def papers_on_benchmark(self, id_: str) -> tuple[Paper, ...]:
        """The papers that use a benchmark, oldest first: by their own lists or by its list."""
        return self._both_ways(self.benchmarks[id_].papers, lambda paper: id_ in paper.benchmarks)

    def _both_ways(self, listed: Iterable[str], names: Callable[[Paper], bool]) -> tuple[Paper, ...]:
        ids = set(listed)
        about = (paper for paper in self.papers.values() if paper.id in ids or names(paper))
        return tuple(sorted(about, key=lambda paper: (paper.date, paper.id)))

    def claims_for(self, name: str) -> tuple[Claim, ...]:
        """What papers claim of concrete heads of this type."""
        head = self.head_type(name)
        return tuple(claim for claim in self.claims.values() if claim.head_type == head.id)
