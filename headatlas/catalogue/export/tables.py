"""The catalogue as a data set: a Parquet table for each kind of entry, and the card that says what their columns hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.export.records import paper_record, replication_record
from headatlas.catalogue.extras import paper_url
from headatlas.catalogue.files.boards import Replication
from headatlas.catalogue.filters import newest_first
from headatlas.store import new_folder, write_text
from headatlas.version import __version__

CARD = "README.md"
_ABOUT = {  # kind -> what a row is
    "papers": "a paper, newest first; `stages` follow from its head types, `url` is where it is read",
    "head_types": "a kind of attention head, with its stage and dimension in the survey's order",
    "claims": "what a paper says of concrete heads of a concrete model",
    "circuits": "how heads work together in one paper's account of one task",
    "methods": "a way in which papers find or test heads",
    "benchmarks": "a data set that papers measure on",
    "replications": "a claim that somebody ran again on its model, with what came out and the run's hashes and versions",
}


def tables(catalogue: Catalogue, replications: Sequence[Replication] = ()) -> dict[str, list[dict[str, Any]]]:
    """The rows of each kind, every row with every column of its kind; what has parts of its own (links, nodes) is JSON text."""

    def rows(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{name: _flat(value) for name, value in entry.items()} for entry in entries]

    papers = newest_first(catalogue.papers.values())
    found = {"papers": rows({**paper_record(catalogue, one), "url": paper_url(one)} for one in papers)}
    for kind, entries in (
        ("head_types", catalogue.heads),
        ("claims", catalogue.claims),
        ("circuits", catalogue.circuits),
        ("methods", catalogue.methods),
        ("benchmarks", catalogue.benchmarks),
    ):
        found[kind] = rows(one.model_dump(mode="json") for one in entries.values())
    if replications:
        found["replications"] = rows(replication_record(one) for one in replications)
    return found


def _flat(value: Any) -> Any:
    """Text, a number or a list of texts as it is; an object, or a list of objects, as JSON text."""
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value))
    return json.dumps(value, ensure_ascii=False) if nested else value


def write_tables(catalogue: Catalogue, folder: str | Path, replications: Sequence[Replication] = ()) -> None:
    """Write a new folder with KIND.parquet for each kind and README.md, whole or not at all. Raises StoreError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = tables(catalogue, replications)
    with new_folder(Path(folder)) as partial:
        for kind, rows in found.items():
            pq.write_table(pa.table(_columns(rows)), partial / f"{kind}.parquet")
        write_text(partial / CARD, card(found))


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Columns of one type each: lists of texts, numbers or text; a column without a value is text."""
    import pyarrow as pa

    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        listed = any(isinstance(one, list) for one in values)
        # A list is empty where an object, which is text, stands elsewhere.
        mixed = listed and any(isinstance(one, str) for one in values)
        if mixed:
            values = ["[]" if one == [] else one for one in values]
        numbers = any(isinstance(one, int | float) for one in values)
        kind = pa.float64() if numbers else pa.list_(pa.string()) if listed and not mixed else pa.string()
        columns[name] = pa.array(values, type=kind)
    return columns


def card(found: Mapping[str, list[dict[str, Any]]]) -> str:
    """The data card: front matter as the Hub reads it, then what each table and column is."""
    configs = "".join(
        f"- config_name: {kind}\n  data_files: {kind}.parquet\n  default: {str(kind == 'papers').lower()}\n"
        for kind in found
    )
    parts = [
        f"---\nlanguage: en\nlicense: apache-2.0\npretty_name: Attention heads of transformers, catalogue\nconfigs:\n{configs}---\n",
        "# Attention heads of transformers: papers, head types, claims and circuits\n",
        f"Written by `headatlas papers export --format parquet` of headatlas {__version__}. Summaries are in our own words; the "
        "papers themselves are their authors'.\n",
        "**How it is known**: `evidence` says what each entry rests on: `upstream` (the survey's list), `abstract`, `paper` or "
        "`code` (read there), `secondary` (somebody else's account), `reference` (a note of ours), `measured` (by us), `recall` "
        "(from memory, not checked). An entry with `recall` alone is to be checked before it is relied on.\n",
        "Lists hold text; columns marked JSON hold objects written as JSON.\n",
    ]
    for kind, rows in found.items():
        names = dict.fromkeys(name for row in rows for name in row)
        written = {
            name for row in rows for name, value in row.items() if isinstance(value, str) and value[:2] in ('{"', "[{")
        }
        listed = ", ".join(f"`{name}` (JSON)" if name in written else f"`{name}`" for name in names)
        parts.append(f"## {kind}\n\n{len(rows)} rows: {_ABOUT[kind]}.\n\nColumns: {listed}.\n")
    return "\n".join(parts)
