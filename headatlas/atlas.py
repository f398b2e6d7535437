"""Run folders and the atlas over them: what was measured, where it is kept, and how to ask for it.

A run is one immutable folder: `run.json` (what decides the numbers), `scores.parquet` (a row per detector and head),
`examples.parquet` (a row per detector, head and example), `atlas.json` (the summary others read), `attention.json`
(example texts with attention) and `report.html`. It is written under a temporary name and renamed when whole; of its files
the report alone is written again, where pages of heads are linked (`Atlas.link_pages`).
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headatlas import catalogue
from headatlas.catalogue.own import own_data
from headatlas.errors import BadInput, StoreError, UnknownName
from headatlas.heads import HeadId
from headatlas.reading import reason
from headatlas.registry import did_you_mean
from headatlas.report.atlas_schema import read_atlas, read_attention
from headatlas.store import give_name, of_run, read_json, short_id, write_json, write_text

KEPT = ("scans", "begun", "verdicts", "twins")  # folders of a run under way
FILES = ("run.json", "scores.parquet", "examples.parquet", "atlas.json", "attention.json", "report.html")
LINKED = "linked_pages.json"  # folders of pages elsewhere that a run's report links to


@dataclass(frozen=True)
class Run:
    """Everything that decides the numbers of a run; equal runs have equal ids."""

    facts: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the facts' hash."""
        return short_id(self.facts)


class Atlas:
    """One finished run folder, or a folder of runs and sweeps (`headatlas ablate --out`, `patch --out`), to be asked."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.exists():
            raise StoreError(f"There is no run at {self.folder}.", "Make one: headatlas mine MODEL")
        self.runs, self.sweeps = self._finished("atlas.json"), self._finished("effects.json")
        if not self.runs and not self.sweeps:
            partial = (
                " (an unfinished one is; run the same command to complete it)"
                if list(self.folder.parent.glob(f"{self.folder.name}*.partial"))
                else ""
            )
            raise StoreError(f"{self.folder} holds no finished run{partial}.", "Make one: headatlas mine MODEL")

    def _finished(self, file: str) -> list[Path]:
        """Folders with this file that are not under way."""
        return sorted(
            path.parent
            for path in self.folder.glob(f"**/{file}")
            if not any(part.endswith(".partial") for part in path.parts)
        )

    @property
    def run(self) -> Path:
        """The newest run folder, by the date in its own records. Raises StoreError where there are sweeps only."""
        if not self.runs:
            raise StoreError(
                f"{self.folder} holds sweeps only, no run of `mine`.", "Ask them with query(...), table effects."
            )
        return max(self.runs, key=_created) if len(self.runs) > 1 else self.runs[0]

    @property
    def data(self) -> dict[str, Any]:
        """`atlas.json` of the newest run; raises StoreError where it is damaged or of another schema."""
        return read_atlas(of_run(self.run / "atlas.json", "mine"))

    @property
    def extras(self) -> dict[str, Any]:
        """What pages show beside the numbers: the catalogue's head types and stages, example texts, detectors' formulas."""
        found = extras(self.data, read_attention(of_run(self.run / "attention.json", "mine")))
        own = self.run / "own" / "head_types.json"
        if own.exists():  # head types of the user who made the run
            found["head_types"] = {**found["head_types"], **read_json(own)}
        return found

    def link_pages(self, *folders: str | Path) -> Path:
        """Write the newest run's report again, with links to pages of heads on text (`headatlas.head_pages`); returns its path.

        Linked are the pages that lie in the run folder, those of `folders`, and those that were linked before and are there
        still. Raises StoreError for what cannot be read or written, BadInput for pages of another model.
        """
        from headatlas import report
        from headatlas.report.text_pages import FILE, linked

        run, data = self.run, self.data
        kept = run / LINKED
        before = read_json(kept).get("folders") if kept.is_file() else []
        if not isinstance(before, list) or not all(isinstance(one, str) for one in before):
            raise StoreError(f"{kept} is no list of folders.", "Remove it.")
        inside = sorted(path.parent for path in run.glob(f"**/{FILE}") if ".partial" not in str(path.relative_to(run)))
        found = {
            path.resolve(): path
            for path in [*inside, *(run / one for one in before if (run / one / FILE).is_file()), *map(Path, folders)]
        }
        shown = [linked(path, run, data) for path in found.values()]
        outside = [os.path.relpath(path, run.resolve()) for path in found if not path.is_relative_to(run.resolve())]
        write_text(run / "report.html", report.html(data, {**self.extras, "pages": shown}))
        if outside:
            write_json(kept, {"folders": outside})
        return run / "report.html"

    def has(self, run: Run) -> bool:
        """Whether a finished run with these facts is here."""
        return any(read_json(folder / "run.json").get("id") == run.id for folder in self.runs)

    def detectors(self, name: str) -> list[dict[str, Any]]:
        """Results of the detector, or of all detectors of the head type, called `name`; raises UnknownName."""
        known = self.data["detectors"]
        found = [d for d in known if name in (d["name"], d["head_type"])]
        if not found:
            names = {d["name"] for d in known} | {d["head_type"] for d in known}
            raise UnknownName(
                f"This atlas has no detector or head type '{name}'.",
                did_you_mean(name, names) or f"It has {', '.join(sorted(names))}.",
            )
        return found

    def top(self, name: str, k: int = 5) -> list[dict[str, Any]]:
        """The best observed heads of a head type or detector: dicts with head, score, chance, verdict ..., best first."""
        best: dict[str, dict[str, Any]] = {}
        for found in self.detectors(name):
            for row in found["heads"]:
                head = str(HeadId(row["layer"], row["head"], row["stack"]))
                if head not in best or row["score"] > best[head]["score"]:
                    best[head] = {"id": head, "detector": found["name"], **row}
        return sorted(best.values(), key=lambda row: -row["score"])[:k]

    def query(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """Ask all runs and sweeps with SQL; every table has a column `run`, its folder's name. Raises BadInput for bad SQL.

        Tables: `scores` and `examples` of runs of `mine`; `effects` and `effect_examples` of sweeps.
        """
        tables = {
            "scores": (self.runs, "scores"),
            "examples": (self.runs, "examples"),
            "effects": (self.sweeps, "effects"),
            "effect_examples": (self.sweeps, "examples"),
        }
        known = {name: table for name, table in tables.items() if table[0]}
        import duckdb  # 40 MB that only SQL needs

        with duckdb.connect() as db:
            for name, (folders, file) in known.items():
                files = [str(folder / f"{file}.parquet") for folder in folders]
                try:
                    relation = db.read_parquet(files, filename=True, union_by_name=True)
                except duckdb.Error as error:
                    raise StoreError(
                        f"A table of {self.folder} is damaged: {reason(error)}.", "Run it again."
                    ) from error
                relation.create_view(f"_{name}")
                db.execute(
                    f"CREATE VIEW {name} AS SELECT * EXCLUDE filename, split_part(filename, '/', -2) AS run FROM _{name}"
                )
            try:
                cursor = db.execute(sql, parameters)
            except duckdb.Error as error:
                raise BadInput(f"The query failed: {reason(error)}.", f"Tables: {', '.join(known)}.") from error
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _repr_html_(self) -> str:
        from headatlas.report import repr_html

        return str(repr_html(self.data, self.extras))

    def __repr__(self) -> str:
        data = self.data
        found = len({(one["stack"], one["layer"], one["head"]) for d in data["detectors"] for one in d["heads"]})
        return f"Atlas({data['model']['name']}: {len(data['detectors'])} detectors, {found} observed heads, {self.run})"


def _created(run: Path) -> datetime.datetime:
    """When a run was finished, as it says itself: files that are copied or unpacked bear other dates. Raises StoreError."""
    told = read_json(run / "run.json").get("created")  # runs of before have it in atlas.json alone
    if told is None:
        told = dict(read_json(run / "atlas.json").get("run") or {}).get("created")
    try:
        found = datetime.datetime.fromisoformat(str(told))
    except ValueError as error:
        raise StoreError(f"{run / 'atlas.json'} does not say when it was made.", "Remove the folder.") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)


def extras(data: Mapping[str, Any], attention: Mapping[str, Any]) -> dict[str, Any]:
    """See Atlas.extras."""
    known = catalogue.extras()
    known["head_types"] |= own_data([d["head_type"] for d in data["detectors"]])
    return {
        **known,
        "examples": attention,
        "detectors": {d["name"]: d["about"] for d in data["detectors"]},
    }


def publish(partial: Path, final: Path) -> None:
    """Give a finished run its name, and remove what it no longer needs. Raises StoreError, and then nothing is lost."""
    missing = [name for name in FILES if not (partial / name).is_file()]
    if missing:
        raise StoreError(f"{partial} lacks {', '.join(missing)}.", "Run the same command again.")
    give_name(partial, final)
    tidy(final)


def tidy(run: Path) -> None:
    """Remove the records of tasks from a finished run: what stays of a program that died while it published."""
    for name in KEPT:
        shutil.rmtree(run / name, ignore_errors=True)
