"""What there is to work with: detectors, tasks, benchmarks, models, head types and methods by name, and a finished run as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean
from headatlas.store import write_text

if TYPE_CHECKING:
    from rich.console import Group

_INDEX = Path(__file__).with_suffix(".json")


def show(run: str | Path = "atlas", *, detector: str | None = None, top: int = 5, width: int | None = None) -> Group:
    """The map and the best heads of a finished run, or of one detector or head type in it, for `rich.print`.

    run: a run folder, or a folder of runs, of which the newest is shown. top: heads per head type. width: columns of text;
    default those of the terminal. Raises StoreError, UnknownName.
    """
    from rich.console import Group

    from headatlas.atlas import Atlas, extras
    from headatlas.report import render

    data = Atlas(run).data
    # A terminal shows no example texts, which are most of what a run holds.
    return Group(render(data, extras(data, {}), detector=detector, top=top, width=width))


def list_known(what: str) -> list[dict[str, Any]]:
    """What headatlas knows of a kind: "detectors", "tasks", "benchmarks", "models", "head-types", "methods" or "interventions", a row each with its name.

    From an index where it is current, which loads neither torch nor transformers. Raises UnknownName.
    """
    if what not in _MAKERS:
        raise UnknownName(
            f"'{what}' cannot be listed.", did_you_mean(what, _MAKERS) or f"Choose one of {', '.join(_MAKERS)}."
        )
    found = _index()
    return found[what] if found is not None else _MAKERS[what]()


def _sources() -> list[Path]:
    """The files that decide what is listed."""
    home = Path(__file__).parent
    folders = [home / name for name in ("detectors", "tasks", "benchmarks", "catalogue", "task", "apply/interventions")]
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".yaml")]
    single = [home / "task.py", home / "detector.py", home / "overview.py", home / "model/sources/builtin.py"]
    return sorted(path for path in (*found, *single) if path.is_file())


def _state() -> str:
    """A sha256 over those files; line ends, which a checkout may change, left out."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.relative_to(Path(__file__).parent).as_posix().encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def _index() -> dict[str, list[dict[str, Any]]] | None:
    """The rows of every kind as they were listed last; None where a file has changed since or another package adds some."""
    if any(
        entry_points(group=group)
        for group in ("headatlas.detectors", "headatlas.tasks", "headatlas.apply.interventions")
    ):
        return None
    try:
        found = json.loads(_INDEX.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(found["rows"]) if found["state"] == _state() else None


def write_index() -> None:
    """List everything anew and keep it beside this file, for `make index`."""
    rows = {what: make() for what, make in _MAKERS.items()}
    write_text(_INDEX, json.dumps({"state": _state(), "rows": rows}, indent=0, ensure_ascii=False) + "\n")


def _detectors() -> list[dict[str, Any]]:
    from headatlas import catalogue
    from headatlas.catalogue.files.citations import cited
    from headatlas.detector import detectors

    rows = []
    for detector in detectors().values():
        words = detector.about
        reads = (("causal", detector.causal), ("bidirectional", detector.encoder), ("cross", detector.cross))
        rows.append(
            {
                "name": detector.name,
                "head_type": detector.head_type,
                "stage": catalogue.head_type(detector.head_type).stage,
                "task": detector.task.name,
                "also": [task.name for task in detector.also],
                "minimum_effect": detector.minimum_effect,
                "reads": " and ".join(kind for kind, fits in reads if fits),
                "what": words["doc"].partition(":")[0],
                "range": words["range"],
                "formula": words["formula"],
                "calibrated": detector.calibrated,
                "papers": list(cited(catalogue.load(), words["formula"], detector.head_type)),
            }
        )
    return rows


def _tasks() -> list[dict[str, Any]]:
    from headatlas.task import HELD_OUT, tasks

    return [
        {
            "name": task.name,
            "version": task.version,
            "metric": task.metric.name if task.metric else None,
            "held_out": task.name + HELD_OUT if task.name + HELD_OUT in tasks() else None,
            "second_family": task.second.doc if task.second is not None else None,
            "what": task.doc.partition("\n\n")[0],
        }
        for task in tasks().values()
        if not task.name.endswith(HELD_OUT)
    ]


def _benchmarks() -> list[dict[str, Any]]:
    from headatlas import catalogue
    from headatlas.catalogue.files.commands import benchmark_commands
    from headatlas.task.benchmark import benchmarks

    return [
        {
            "name": found.name,
            "title": catalogue.load().benchmarks[found.name].name,
            "spec": found.spec,
            "what": found.doc.strip().partition("\n\n")[0],
            "files": found.files or None,
            "hub": found.hub or None,
            "card": found.card or None,
            "licence": found.licence or None,
            "metrics": list(found.metrics),
            "commands": list(benchmark_commands()[found.name]),
        }
        for found in benchmarks().values()
    ]


def _models() -> list[dict[str, Any]]:
    from headatlas.model import builtins

    return builtins()


def _head_types() -> list[dict[str, Any]]:
    from headatlas import catalogue
    from headatlas.detector import detectors

    tested: dict[str, list[str]] = {}
    for detector in detectors().values():
        tested.setdefault(detector.head_type, []).append(detector.name)
    return [
        {
            "name": head.id,
            "title": head.name,
            "stage": head.stage,
            "detectors": ", ".join(tested.get(head.id, [])),
            "aliases": list(head.aliases),
            "reason": head.reason or "",
        }
        for head in catalogue.load().heads.values()
    ]


def _methods() -> list[dict[str, Any]]:
    from headatlas import catalogue
    from headatlas.catalogue.files.commands import method_commands

    return [
        {
            "name": method.id,
            "title": method.name,
            "category": method.category,
            "operation": method.operation,
            "commands": list(method_commands().get(method.id, ())),
        }
        for method in catalogue.load().methods.values()
    ]


def _interventions() -> list[dict[str, Any]]:
    from headatlas.apply.recipe.intervention import interventions

    return [
        {
            "name": one.name,
            "metric": one.metrics[0],
            "what": one.about,
            "options": list(one.takes),
            "control": one.control,
            "papers": list(one.papers),
        }
        for one in interventions().values()
    ]


_MAKERS: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    "detectors": _detectors,
    "tasks": _tasks,
    "benchmarks": _benchmarks,
    "models": _models,
    "head-types": _head_types,
    "methods": _methods,
    "interventions": _interventions,
}
