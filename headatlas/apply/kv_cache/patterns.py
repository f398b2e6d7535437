"""Cache plans as files: our own JSON, which is a plain list that any server can read, and DuoAttention's pattern, which kvpress reads.

A DuoAttention pattern is a folder with `full_attention_heads.tsv`, a row of gates from 0 to 1 for each layer, and `config.json` with
`sink_size` and `recent_size`. Whoever reads it makes the lowest gates streaming heads, a share that is chosen then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from headatlas.apply.kv_cache.plan import CachePlan, plan_of
from headatlas.errors import BadInput, StoreError
from headatlas.methods.protected_groups import Group
from headatlas.model import Model
from headatlas.model.holding.cache import cache_shapes
from headatlas.model.holding.span import LayerShape, Span
from headatlas.reading import Name, Open, Source, Written, checked, demand_schema, read_json, read_text
from headatlas.store import new_folder, write_json
from headatlas.version import __version__

SCHEMA = "headatlas/cache-plan/1"
GATES, CONFIG = "full_attention_heads.tsv", "config.json"
_HINT = "Make it again: headatlas cache plan."


class _Shape(Written):
    n_groups: Annotated[int, Field(ge=1, le=100_000)]
    d_key: Annotated[int, Field(ge=1)]
    d_value: Annotated[int, Field(ge=1)]
    window: Annotated[int, Field(ge=1)] | None


class _Span(Written):
    sinks: Annotated[int, Field(ge=0)]
    recent: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(ge=0, le=1)]
    compensate: bool


class _Group(Written):
    group: Name
    keeps: _Span | Literal["all"]
    score: Annotated[float, Field(allow_inf_nan=False)] | None
    low: Annotated[float, Field(allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(allow_inf_nan=False)] | None = None


class _File(Written):
    schema_: str = Field(alias="schema")
    headatlas: Name
    model: str
    weights: str
    method: Name
    layers: Annotated[list[_Shape], Field(min_length=1, max_length=10_000)]
    groups: Annotated[list[_Group], Field(max_length=1_000_000)]
    facts: Open


def save_cache_plan(plan: CachePlan, path: str | Path) -> None:
    """Write a plan as JSON: model, sha256 of its weights, and for each key-value group what it keeps, by what score. Raises StoreError."""
    intervals = plan.facts.get("intervals", {})
    ends = [intervals.get(row["group"], (None, None)) for row in plan.rows]
    rows = [{**row, "low": low, "high": high} for row, (low, high) in zip(plan.rows, ends, strict=True)]
    facts = {name: value for name, value in plan.facts.items() if name != "intervals"}
    write_json(Path(path), {
        "schema": SCHEMA, "headatlas": __version__, "model": plan.model, "weights": plan.weights, "method": plan.method,
        "layers": [shape._asdict() for shape in plan.shapes], "groups": rows, "facts": facts,
    })  # fmt: skip


def read_cache_plan(path: str | Path) -> CachePlan:
    """Read what `save_cache_plan` wrote. Raises StoreError naming what is missing or damaged."""
    source = Source(Path(path), _HINT)
    data = read_json(source)
    demand_schema(data, SCHEMA, source)
    known = checked(data, _File, source)
    shapes = tuple(LayerShape(**shape) for shape in known["layers"])
    wanted = [f"{layer}.{group}" for layer, shape in enumerate(shapes) for group in range(shape.n_groups)]
    if [row["group"] for row in known["groups"]] != wanted:
        raise source.bad(f"does not list the {len(wanted)} groups of its layers in order")
    rows = iter(known["groups"])
    spans, scores, intervals = [], {}, {}
    for layer, shape in enumerate(shapes):
        found: list[Span | None] = []
        for group in range(shape.n_groups):
            row = next(rows)
            found.append(None if row["keeps"] == "all" else Span(**row["keeps"]))
            if row["score"] is not None:
                scores[Group(layer, group)] = row["score"]
            if row.get("low") is not None and row.get("high") is not None:
                intervals[row["group"]] = [row["low"], row["high"]]
        spans.append(tuple(found))
    facts = {**known["facts"], **({"intervals": intervals} if intervals else {})}
    return CachePlan(shapes, tuple(spans), known["method"], scores, known["model"], known["weights"], facts)


def export_duo_attention(plan: CachePlan, out: str | Path) -> float:
    """Write a plan as a DuoAttention pattern to a new folder; the share of groups that its reader must make streaming. Raises BadInput, StoreError.

    Gates are the plan's scores where they lie from 0 to 1 and say which groups keep everything; else 1 for those and 0 for the others.
    """
    spans = plan.shortened or {Span()}
    if len(spans) > 1 or any(span.compensate or span.share for span in spans):
        raise BadInput(
            "A DuoAttention pattern knows one length of span, and no mean of what is dropped.",
            "Make the plan by razor, retrieval or gates, without --compensate.",
        )
    if len({shape.n_groups for shape in plan.shapes}) > 1 or any(shape.window for shape in plan.shapes):
        raise BadInput(
            "A DuoAttention pattern has as many groups in every layer, none with a window of its own.",
            "Write the plan as JSON, which any server can read.",
        )
    (span,) = spans
    whole = set(plan.whole)
    told = {group: plan.scores.get(group, float("nan")) for group in plan.groups}
    inside = [told[group] for group in whole]
    outside = [told[group] for group in plan.groups if group not in whole]
    if not all(0 <= score <= 1 for score in told.values()) or (inside and outside and min(inside) <= max(outside)):
        told = {group: float(group in whole) for group in plan.groups}
    with new_folder(Path(out)) as half:
        rows = [[told[Group(layer, i)] for i in range(shape.n_groups)] for layer, shape in enumerate(plan.shapes)]
        (half / GATES).write_text(
            "".join("\t".join(f"{one:.6f}" for one in row) + "\n" for row in rows), encoding="utf-8"
        )
        write_json(half / CONFIG, {
            "sink_size": span.sinks, "recent_size": span.recent, "model": plan.model, "weights": plan.weights,
        })  # fmt: skip
    return 1 - len(whole) / len(plan.groups)


class _Pattern(Open):
    sink_size: Annotated[int, Field(ge=0)]
    recent_size: Annotated[int, Field(ge=1)]


def import_duo_attention(model: Model, folder: str | Path, *, keep: float = 0.5) -> CachePlan:
    """The plan of a DuoAttention pattern (`full_attention_heads.tsv`, `config.json`): the highest `keep` of its gates keep everything.

    The paper takes 0.25 for models without grouped queries and 0.5 with them. Raises BadInput, StoreError.
    """
    if not 0 <= keep <= 1:
        raise BadInput(f"The share of groups that keep everything is {keep}.", "Give a share from 0 to 1.")
    place = Path(folder)
    for name in (GATES, CONFIG):
        if not (place / name).is_file():
            raise StoreError(
                f"{place} holds no DuoAttention pattern: it has no {name}.", "Give a folder with both files."
            )
    config = Source(place / CONFIG, "Take it from the pattern's repository again.")
    known: dict[str, Any] = checked(read_json(config), _Pattern, config)
    gates = _table(Source(place / GATES, "Take it from the pattern's repository again."))
    shapes = cache_shapes(model)
    if gates.shape != (len(shapes), shapes[0].n_groups) or len({shape.n_groups for shape in shapes}) > 1:
        raise BadInput(
            f"The pattern has {gates.shape[0]} layers of {gates.shape[1]} groups; {model.name} has {len(shapes)} of {shapes[0].n_groups}.",
            "Take a pattern of this model.",
        )
    score = {Group(layer, i): float(value) for layer, row in enumerate(gates.clip(0, 1)) for i, value in enumerate(row)}
    order = sorted(score, key=lambda group: (-score[group], group))
    streaming = round(len(order) * (1 - keep))
    span = Span(known["sink_size"], known["recent_size"])
    return plan_of(
        shapes, order[: len(order) - streaming], span, method="duo-attention pattern", scores=score, model=model.name,
        facts={"keep_groups": keep},
    )  # fmt: skip


def _table(source: Source) -> np.ndarray[Any, Any]:
    """Numbers in rows of equal length. Raises StoreError naming the line."""
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(source).splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append([float(one) for one in line.split("\t")])
        except ValueError:
            raise source.bad(f"line {number} is no row of numbers") from None
        if len(rows[-1]) != len(rows[0]) or not np.isfinite(rows[-1]).all():
            raise source.bad(f"line {number} has {len(rows[-1])} finite numbers at most, the first has {len(rows[0])}")
    if not rows:
        raise source.bad("is empty")
    return np.asarray(rows)
