"""Checks every file of the catalogue and lists what is wrong, where, and what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.files.boards import problems as replicated
from headatlas.catalogue.gather import FOLDERS, LISTS, gather
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.rules.claims import claims
from headatlas.catalogue.rules.heads import heads, orphans
from headatlas.catalogue.rules.integrity import integrity
from headatlas.catalogue.rules.papers import papers
from headatlas.catalogue.rules.texts import texts

SCHEMA_FILE = Path(__file__).parent / "catalogue.schema.json"


def check(folder: Path | None = None) -> tuple[Catalogue, list[Problem]]:
    """What could be read of the catalogue in `folder` (ours by default), and every fault, by file and line.

    A file that cannot be read is one fault; its absence is not counted again wherever others mention it.
    """
    gathered = gather(folder)
    catalogue = gathered.catalogue()
    problems = {*gathered.problems, *integrity(gathered, catalogue)}
    if not problems:  # rows are held to the claims of a catalogue that is in order
        problems.update(replicated(catalogue, folder))
    for rule in (papers, heads, claims, texts) if gathered.problems else (papers, heads, claims, texts, orphans):
        problems.update(rule(catalogue))
    return catalogue, sorted(problems)


def json_schema() -> str:
    """The JSON Schema of every kind of file, for editors that complete and check YAML while it is written."""
    kinds: list[Any] = [kind for kind, _ in FOLDERS.values()]
    kinds += [list[kind] for kind, _ in LISTS.values()]  # type: ignore[valid-type]
    adapters: list[TypeAdapter[Any]] = [TypeAdapter(kind) for kind in kinds]
    roots, schema = TypeAdapter.json_schemas([(n, "validation", adapter) for n, adapter in enumerate(adapters)])
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "headatlas catalogue file"}
    return json.dumps({**named, "anyOf": list(roots.values()), **schema}, indent=1, ensure_ascii=False) + "\n"
