"""What atlas.json and attention.json hold, as schemas that are checked before either is used.

`required` are the keys that were always there and that pages rest on; all others have defaults, so that a key which a
later version adds is one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from headatlas.reading import (
    Count,
    Head,
    Layer,
    Name,
    Number,
    Open,
    Record,
    Source,
    Text,
    checked,
    demand_schema,
    read_json,
)
from headatlas.reading.schema import HEADS, LAYERS

SCHEMA = "headatlas/atlas/1"
VERDICTS = ("causal", "group", "refuted", "untested")
_ALL_HEADS = 1_000_000  # of a model

Grid = Annotated[list[Annotated[list[Number], Field(max_length=HEADS)] | None], Field(max_length=LAYERS)]


class Model(Record):
    """The key "model"."""

    name: Name
    source: str | None = None
    revision: str | None = None
    sha256: str | None = None
    architecture: str | None = None
    n_layers: Annotated[int, Field(ge=0, le=LAYERS)] | None = None
    n_heads: Annotated[int, Field(ge=0, le=HEADS)] | None = None
    n_kv_heads: Count | None = None
    d_model: Count | None = None
    d_head: Count | None = None
    dtype: str | None = None
    attention_path: str | None = None
    stacks: Annotated[list[Name], Field(max_length=16)] = Field(default_factory=list)
    # By stack the number of heads of each layer, where there are several stacks.
    stack_heads: dict[str, Annotated[list[Annotated[int, Field(ge=0, le=HEADS)]], Field(max_length=LAYERS)]] | None = (
        None
    )
    adapters: Annotated[list[Open], Field(max_length=1000)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _small_enough(self) -> Model:
        if (self.n_layers or 0) * (self.n_heads or 0) > _ALL_HEADS:
            raise ValueError(f"at most {_ALL_HEADS:,} heads")
        return self


class Baseline(Record):
    """The model's metric on a detector's task."""

    metric: str | None = ""
    value: Number = None
    floor: Number = None
    margin: Number = None
    unit: str = ""
    accuracy: Number = None
    chance: Number = None
    able: bool | None = None


class Effects(Record):
    """What removing heads does."""

    effect: Number = None
    effect_low: Number = None
    effect_high: Number = None
    random_effect: Number = None
    random_median: Number = None
    random_p: Number = None
    random_effect_low: Number = None
    random_effect_high: Number = None
    random_ordinary: Number = None
    effect_p: Number = None
    effect_examples: Count | None = None
    too_few_events: bool | None = None


class Group(Effects):
    """The effect of removing all observed heads of a detector, and (rest) of those that are not causal alone (heads)."""

    heads: Annotated[list[Name], Field(max_length=_ALL_HEADS)] | None = (
        None  # null: groups of before, of another meaning
    )
    rest: Effects | None = None
    smallest: Number = None
    free_heads: Count | None = None
    measured_heads: Count | None = None
    p: Number = None
    draws: Count | None = None
    examples: Count | None = None
    metric: str | None = None
    unit: str | None = None
    leads: dict[str, Number] | None = None


class Line(Record):
    """A head with its numbers."""

    layer: Layer
    head: Head
    stack: Name = "decoder"
    score: Number = None
    low: Number = None
    high: Number = None
    chance: Number = None
    p: Number = None
    q: Number = None


class Check(Record):
    """One test of an observed head, as `mining.checks.records.Check` has it."""

    name: Name
    outcome: str
    value: Number = None
    low: Number = None
    high: Number = None
    note: str = ""
    parts: dict[str, Annotated[list[Number], Field(min_length=3, max_length=3)]] = Field(default_factory=dict)


class Judged(Effects):
    """The verdict on an observed head."""

    verdict: Literal["causal", "group", "refuted", "untested"] = "untested"
    marginal: bool = False
    works: str = ""
    carries: str = ""
    effect_q: Number = None
    beside_others: Effects | None = None
    checks: Annotated[list[Check], Field(max_length=100)] = Field(default_factory=list)


class Observed(Line, Judged):
    """An observed head with its verdict, and all of it in one line; told: what its detector says of it in words."""

    line: str = ""
    told: Annotated[str, Field(max_length=10_000)] = ""


class Twin(Record):
    """What a detector found in a model that has learned nothing."""

    kind: Name
    observed: Count | None = None
    heads: Count | None = None
    best: Number = None
    reason: str = ""


class Detector(Record):
    """One of "detectors"."""

    name: Name
    head_type: Name
    stage: str | None = None
    task: Name
    version: int | None = None
    n_examples: Count | None = None
    minimum_effect: Number = None
    baseline: Baseline | None = None
    untested: str = ""
    stack: Name | None = None  # of scores and chance; None: the model's first
    scores: Grid = Field(default_factory=list)
    chance: Grid = Field(default_factory=list)
    heads: list[Observed]
    group: Group | None = None
    about: dict[str, Any] = Field(default_factory=dict)
    task_version: int | None = None
    twins: list[Twin] = Field(default_factory=list)


class SkippedDetector(Record):
    """One of "skipped"."""

    detector: Name
    reason: Text


class AtlasFile(Record):
    """atlas.json."""

    schema_: str = Field(alias="schema")
    model: Model
    run: Open = Open()
    detectors: Annotated[list[Detector], Field(max_length=10_000)]
    skipped: Annotated[list[SkippedDetector], Field(max_length=10_000)] = Field(default_factory=list)


class Attention(Record):
    """Of attention.json, where a detector's heads look in one text: rows of query, key, attention by head."""

    tokens: Annotated[list[str], Field(max_length=1_000_000)]
    task: str = ""
    heads: dict[str, list[Annotated[list[int | float], Field(min_length=3, max_length=3)]]]
    left_out: Annotated[int, Field(ge=0)] = 0  # observed heads without rows

    @model_validator(mode="after")
    def _inside_the_text(self) -> Attention:
        n = len(self.tokens)
        for rows in self.heads.values():
            for query, key, _ in rows:
                if not (isinstance(query, int) and isinstance(key, int) and 0 <= query < n and 0 <= key < n):
                    raise ValueError(f"positions of its {n} tokens, got {query} and {key}")
        return self


def read_atlas(source: Source) -> dict[str, Any]:
    """The content of an atlas.json. Raises source.error naming place and fault."""
    value = read_json(source)
    demand_schema(value, SCHEMA, source)
    found: dict[str, Any] = checked(value, AtlasFile, source)
    return found


def read_attention(source: Source) -> Mapping[str, Any]:
    """The content of an attention.json. Raises source.error naming place and fault."""
    found: Mapping[str, Any] = checked(read_json(source), dict[str, Attention], source)
    return found
