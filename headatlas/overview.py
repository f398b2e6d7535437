"""What there is to work with: detectors, tasks, models, head types and methods by name, and a finished run as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean

if TYPE_CHECKING:
    from rich.console import Group


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
    """What headatlas knows of a kind: "detectors", "tasks", "models", "head-types" or "methods", a row each with its name.

    Raises UnknownName.
    """
    if what not in _MAKERS:
        raise UnknownName(
            f"'{what}' cannot be listed.", did_you_mean(what, _MAKERS) or f"Choose one of {', '.join(_MAKERS)}."
        )
    return _MAKERS[what]()


def _detectors() -> list[dict[str, Any]]:
    from headatlas import catalogue
    from headatlas.detector import detectors

    rows = []
    for detector in detectors().values():
        words = detector.about
        reads = (("causal", detector.causal), ("bidirectional", detector.encoder))
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
                "papers": [paper.id for paper in catalogue.papers_for(detector.head_type)],
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
        }
        for head in catalogue.load().heads.values()
    ]


def _methods() -> list[dict[str, Any]]:
    from headatlas import catalogue

    return [
        {"name": method.id, "title": method.name, "category": method.category, "operation": method.operation}
        for method in catalogue.load().methods.values()
    ]


_MAKERS: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    "detectors": _detectors,
    "tasks": _tasks,
    "models": _models,
    "head-types": _head_types,
    "methods": _methods,
}
