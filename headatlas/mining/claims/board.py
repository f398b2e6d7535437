"""The board of what was replicated: a JSON file that grows by one model at a time, and the page that is made of it."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headatlas import catalogue
from headatlas.catalogue.files.boards import SCHEMA, read_board
from headatlas.catalogue.model_names import identity_key
from headatlas.errors import BadInput
from headatlas.mining.claims.outcomes import RESULTS, Outcome, data_of
from headatlas.reading import Source
from headatlas.render.escape import cell
from headatlas.store import write_json, write_text
from headatlas.version import __version__

_HELP = "Remove the file to begin a new board, or name another with --board."


def write_board(outcomes: Sequence[Outcome], board: str | Path, *, by: str | None = None) -> None:
    """Put the outcomes of one model on the board: `board` (a page, .md) and the JSON file of the same name beside it.

    What the board has of other models stays, and so do this model's other claims. by: who made them, for boards that are handed
    in to the catalogue. Raises BadInput for no outcomes or a name that
    does not end in .md, StoreError for a JSON file that is no board.
    """
    page = Path(board)
    if not outcomes or page.suffix != ".md":
        raise BadInput(
            f"No board is written to {board}.", "Give outcomes of headatlas.replicate, and a name that ends in .md."
        )
    file = page.with_suffix(".json")
    known = _read(file)
    run = {"created": _now(), "versions": versions_here(), **outcomes[0].run}
    # What is a copy on its user's word alone stands beside the model itself, not in its place.
    key = f"{identity_key(run['known_as'])} in {run['model']}" if run.get("known_as") else identity_key(run["model"])
    others = [one for one in known if one["key"] != key]
    mine = next((one for one in known if one["key"] == key), None)
    fresh = {(one.claim, one.detector) for one in outcomes}
    kept = [row for row in mine["outcomes"] if (row["claim"], row["detector"]) not in fresh] if mine else []
    made = {"versions": run["versions"], "created": run["created"], "run_id": run.get("id")}
    rows = [{**row, **made} for row in data_of(outcomes)]
    order = list(catalogue.load().claims)
    whole = sorted([*kept, *rows], key=lambda row: (order.index(row["claim"]), row["detector"] or ""))
    runs = {**(mine["runs"] if mine else {}), **({run["id"]: run} if "id" in run else {})}
    fresh_model = {
        "model": run["model"],
        "key": key,
        "run": run,
        "runs": {id_: runs[id_] for id_ in sorted({row["run_id"] for row in whole} & runs.keys())},
        "by": by or (mine["by"] if mine else None),
        "outcomes": whole,
    }
    models = sorted([*others, fresh_model], key=lambda one: str(one["key"]))
    write_json(file, {"schema": SCHEMA, "models": models})
    write_text(page, page_of(models))


def _read(file: Path) -> list[dict[str, Any]]:
    return read_board(Source(file, _HELP)) if file.exists() else []


def page_of(models: Sequence[Mapping[str, Any]]) -> str:
    """The board as Markdown: for each model what was replicated and what not, why, and by which command."""
    lines = [
        "# What was replicated",
        "",
        "Written by `headatlas replicate MODEL --board FILE.md`; the numbers are in the JSON file beside this page. A claim is",
        "*replicated* where at least half of its heads are observed, more than chance would give, and where at least half of",
        "those that were judged act when they are removed; *weakened* where it is more than chance, but fewer than half;",
        "*not testable* where nothing could be compared, with the reason.",
    ]
    for one in models:
        run = one["run"]
        by = f" By {cell(one['by'])}." if one.get("by") else ""
        said = f", taken to be {run['known_as']} on its user's word" if run.get("known_as") else ""
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        drawn = f"{run['n']} examples a task, seed {run['seed']}; " if run.get("n") is not None else ""
        counts = ", ".join(f"{sum(row['result'] == word for row in one['outcomes'])} {word}" for word in RESULTS)
        lines += [
            "",
            f"## {cell(one['model'])}{cell(said)}",
            "",
            f"{counts}. {drawn}{versions}; {str(run['created'])[:10]}"
            + (f"; weights sha256 `{str(run['sha256'])[:12]}`" if run.get("sha256") else "")
            + f".{by}",
            "",
            "| claim | detector | result | heads found | share found (95%) | why | command |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(row) for row in one["outcomes"]]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    share = "" if row["recall"] is None else f"{row['recall']:.0%} ({row['low']:.0%} to {row['high']:.0%})"
    heads = f"{' '.join(row['found']) or 'none'} of {' '.join(row['claimed'])}" if row["recall"] is not None else ""
    cells = [row["claim"], row["detector"] or "", row["result"], heads, share, row["reason"]]
    command = f"`{row['command']}`" if row["command"] else ""
    return "| " + " | ".join([*map(cell, cells), cell(command)]) + " |"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions_here() -> dict[str, str]:
    """Of what compares, where nothing had to run."""
    return {"headatlas": __version__, "torch": version("torch"), "transformers": version("transformers"),
            "python": platform.python_version()}  # fmt: skip
