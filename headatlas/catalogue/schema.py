"""What a catalogue entry may say: the pydantic models behind every YAML file in `data/`.

One YAML file per paper (`data/papers/<id>.yaml`), head type (`data/heads/<id>.yaml`), circuit
(`data/circuits/<id>.yaml`) and claim list (`data/claims/<paper-id>.yaml`); `data/methods.yaml`,
`data/benchmarks.yaml`, `data/stages.yaml` and `data/models.yaml` are lists. Facts only: no expressions, no code paths.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=600)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s<>\"']+$", max_length=300)]


def _written_as_date(value: object) -> object:
    """Refuse numbers, in quotes or not, which pydantic would read as seconds since 1970."""
    if isinstance(value, datetime.date) or (isinstance(value, str) and "-" in value[1:]):
        return value
    raise ValueError("a date is written year-month-day")


Day = Annotated[datetime.date, BeforeValidator(_written_as_date)]
# A number as written: true and "0.5" are not numbers, and neither is infinity.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]

# How a statement is known: read in the upstream list, in the abstract, in the paper's text, in the authors' code,
# in somebody else's account, in a reference note of ours, measured by us, or recalled and not checked.
Evidence = Literal["upstream", "abstract", "paper", "code", "secondary", "reference", "measured", "recall"]


class Entry(BaseModel):
    """Base: unknown keys are errors, entries cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(Entry):
    """Where something about a paper can be had."""

    kind: Literal["paper", "code", "data", "demo", "project", "poster", "video", "blog"]
    url: Url
    venue: Name | None = None  # as the badge says it: arXiv, ACL, ICLR ...


class Summary(Entry):
    """Our own words, in the list's three parts; at most 60 words together."""

    innovation: Text
    tasks: Text
    result: Text
    evidence: list[Evidence] = Field(min_length=1)


class Paper(Entry):
    """One paper of the list."""

    id: Slug
    title: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=300)]
    authors: list[Name] = Field(default_factory=list)  # "Given Family"; empty where not known
    date: Day  # on which it was first public, wherever that was
    venue: Name | None = None  # arXiv, NeurIPS 2023, ...
    section: str  # heading of the awesome list: "2025", "2024", "2023", "before-2023"
    arxiv: Annotated[str, StringConstraints(pattern=r"^\d{4}\.\d{4,5}$")] | None = None
    doi: Annotated[str, StringConstraints(pattern=r"^10\.\d{4,9}/\S+$")] | None = None
    acl: str | None = None
    openreview: str | None = None
    links: list[Link] = Field(min_length=1)
    heads: list[Slug] = Field(default_factory=list)  # head type ids
    tags: list[str] = Field(default_factory=list)  # head names as upstream's badges print them
    methods: list[Slug] = Field(default_factory=list)
    models: list[Name] = Field(default_factory=list)  # models studied, as commonly written
    benchmarks: list[Slug] = Field(default_factory=list)
    bib_keys: list[str] = Field(default_factory=list)  # upstream BibTeX keys
    summary: Summary | None = None
    corrections: list[Text] = Field(default_factory=list)  # upstream mistakes put right here
    notes: list[Text] = Field(default_factory=list)
    reason: Text | None = None  # why no command of ours gives the paper's own quantity


class HeadType(Entry):
    """One kind of attention head."""

    id: Slug
    name: Name
    aliases: list[Name] = Field(default_factory=list)
    stage: Literal["kr", "ici", "lr", "ep"]
    dimension: Slug
    placed_by: Literal["survey", "ours"]
    scope: str | None = None  # the task it is specific to
    role: Text
    reads: Text
    writes: Text
    # Thirds of the layers; empty: not known.
    depth: list[Literal["shallow", "middle", "deep"]] = Field(default_factory=list)
    models: list[Name] = Field(default_factory=list)
    papers: list[Slug] = Field(default_factory=list)
    tested_by: Text  # how one tests for it, in words
    reason: Text | None = None  # why no detector of ours measures it
    related: list[Slug] = Field(default_factory=list)
    evidence: list[Evidence] = Field(min_length=1)


class Dimension(Entry):
    """A finer group of head types within a stage."""

    id: Slug
    name: Name


class Stage(Entry):
    """One of the survey's four stages."""

    id: Literal["kr", "ici", "lr", "ep"]
    name: Name
    description: Text
    dimensions: list[Dimension]


class Method(Entry):
    """One way in which papers find or test heads."""

    id: Slug
    name: Name
    category: Literal["modeling-free", "modeling-required"]
    group: Slug
    operation: Text
    formula: str | None = None
    papers: list[Slug] = Field(default_factory=list)
    other_works: list[str] = Field(default_factory=list)  # works outside the list: "Title (year, arXiv id)"


class Benchmark(Entry):
    """A data set that papers use."""

    id: Slug
    name: Name
    kind: Literal["mechanism", "common"]
    description: Text
    papers: list[Slug] = Field(default_factory=list)
    url: Url | None = None
    facts: list[Text] = Field(default_factory=list)


class ClaimedHead(Entry):
    """A head that a paper names."""

    head: Annotated[str, StringConstraints(pattern=r"^(?:[a-z]+:)?\d{1,4}\.\d{1,4}$")]
    role: str | None = None
    value: Number | None = None


class Claim(Entry):
    """What a paper says of concrete heads of a concrete model."""

    id: Slug
    paper: Slug
    head_type: Slug
    model: str  # as the paper writes it: GPT-2 small
    hub_id: str | None = None
    revision: str | None = None
    heads: list[ClaimedHead] = Field(default_factory=list)  # empty: the claim is about a count or a share
    statement: Text
    metric: str | None = None
    value: Number | None = None
    unit: str | None = None
    evidence: Evidence
    where: Text  # section, table, file: where it is stated


class ClaimList(Entry):
    """`data/claims/<paper-id>.yaml`."""

    paper: Slug
    claims: list[Claim] = Field(min_length=1)


class CircuitNode(Entry):
    """A head type (or another component) within a published circuit."""

    id: Slug
    label: Name
    head_type: Slug | None = None  # None: an MLP, the input tokens, the logits
    heads: list[str] = Field(default_factory=list)  # "9.6" as published
    positions: str | None = None  # where it acts, as the paper says it: "END", "S2" ...
    at: list[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]] = Field(default_factory=list)


class CircuitEdge(Entry):
    """Information that flows from one node to another, and through which input of the receiver."""

    source: Slug
    target: Slug
    kind: Literal["q", "k", "v", "residual", "logits"]
    note: str | None = None


class PublishedCircuit(Entry):
    """How heads work together in one paper's account of one task."""

    id: Slug
    name: Name
    paper: Slug
    task: Text
    model: str | None = None
    runs_on: Slug | None = None  # the built-in task that is the paper's; `at` of its nodes are that task's positions
    untested: Text | None = None  # why it has none, where it names heads
    nodes: list[CircuitNode] = Field(min_length=2)
    edges: list[CircuitEdge] = Field(min_length=1)
    evidence: list[Evidence] = Field(min_length=1)
    notes: list[Text] = Field(default_factory=list)


class ModelShape(Entry):
    """One checkpoint: what it is called, and how many layers and heads it has, so that a claimed head can be seen not to exist."""

    id: Slug
    names: list[Name] = Field(min_length=1)  # as papers write them
    hub_ids: list[str] = Field(default_factory=list)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)  # query heads in a layer
    # Of the published weight file, so that a copy of it under any name is recognised.
    sha256: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]] = Field(default_factory=list)
