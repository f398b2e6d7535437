"""`headatlas list WHAT`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headatlas.cli import _options as option
from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean

# What fits a terminal; --json has everything.
SHOWN = {
    "detectors": ("name", "head_type", "task", "calibrated", "what"),
    "tasks": ("name", "metric", "what"),
    "models": ("name", "what"),
    "head-types": ("name", "stage", "detectors", "title"),
    "methods": ("name", "category", "operation"),
}


def list_(
    what: Annotated[str, typer.Argument(help="detectors, tasks, models, head-types or methods.")],
    as_json: option.Json = False,
) -> None:
    """List what headatlas knows: detectors, tasks, models, head types, methods.

    Example: headatlas list detectors
    """
    makers = {
        "detectors": _detectors,
        "tasks": _tasks,
        "models": _models,
        "head-types": _head_types,
        "methods": _methods,
    }
    if what not in makers:
        raise UnknownName(
            f"'{what}' cannot be listed.", did_you_mean(what, makers) or f"Choose one of {', '.join(makers)}."
        )
    rows = makers[what]()
    if as_json:
        print(json.dumps({what.replace("-", "_"): rows}, ensure_ascii=False))
        return
    shown = SHOWN[what]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(name, no_wrap=name == "name", overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if row[name] is None else str(row[name])) for name in shown))
    Console().print(table)


def _detectors() -> list[dict[str, Any]]:
    from headatlas import catalogue
    from headatlas.detector import detectors

    rows = []
    for detector in detectors().values():
        words = detector.about
        rows.append(
            {
                "name": detector.name,
                "head_type": detector.head_type,
                "stage": catalogue.head_type(detector.head_type).stage,
                "task": detector.task.name,
                "also": [task.name for task in detector.also],
                "minimum_effect": detector.minimum_effect,
                "reads": " and ".join(
                    kind for kind, fits in (("one way", detector.causal), ("both ways", detector.encoder)) if fits
                ),
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
