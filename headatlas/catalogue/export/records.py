"""The catalogue for other programs: JSON with everything, CSV with a paper a row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.extras import paper_url
from headatlas.catalogue.files.boards import Replication
from headatlas.catalogue.filters import newest_first
from headatlas.catalogue.schema import Paper

SCHEMA = "headatlas/catalogue/1"
_COLUMNS = (
    "id", "title", "authors", "date", "section", "venue", "arxiv", "doi", "url", "code", "heads", "stages", "methods",
    "models", "benchmarks", "innovation", "tasks", "result", "evidence",
)  # fmt: skip


def paper_record(catalogue: Catalogue, paper: Paper) -> dict[str, Any]:
    """A paper as plain data, with its stages."""
    return {**paper.model_dump(mode="json"), "stages": list(catalogue.stages_of(paper))}


def replication_record(one: Replication) -> dict[str, Any]:
    """A row that somebody handed in as plain data, with who made it and the facts of its run."""
    return {"by": one.by, "model": one.shown, **one.row, "run": dict(one.run)}


def as_json(catalogue: Catalogue, replications: Sequence[Replication] = ()) -> str:
    """Every entry of every kind, and the rows of boards that others handed in."""

    def dump(entries: Iterable[Any]) -> list[Any]:
        return [entry.model_dump(mode="json") for entry in entries]

    whole = {
        "schema": SCHEMA,
        "papers": [paper_record(catalogue, paper) for paper in newest_first(catalogue.papers.values())],
        "head_types": dump(catalogue.heads.values()),
        "stages": dump(catalogue.stages.values()),
        "methods": dump(catalogue.methods.values()),
        "benchmarks": dump(catalogue.benchmarks.values()),
        "circuits": dump(catalogue.circuits.values()),
        "claims": dump(catalogue.claims.values()),
        "replications": [replication_record(one) for one in replications],
    }
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def as_csv(catalogue: Catalogue) -> str:
    """A paper a row, newest first; what is a list elsewhere is joined by '; '."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for paper in newest_first(catalogue.papers.values()):
        record = paper_record(catalogue, paper)
        summary = record["summary"] or {}
        code = [link.url for link in paper.links if link.kind == "code"]
        values = {**record, **summary, "url": paper_url(paper), "code": code}
        writer.writerow([_cell(values.get(column)) for column in _COLUMNS])
    return out.getvalue()


def _cell(value: object) -> str:
    text = "; ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    # A spreadsheet would run a cell that starts like a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
