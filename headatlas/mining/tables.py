"""The tables of a run as columns: a row per detector and head, and a row per detector, example and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headatlas.heads import HeadId
from headatlas.mining.task_scan import NUMBERS, TaskScan, line_json
from headatlas.mining.task_verdict import TaskVerdict, head_json, verdict_on
from headatlas.store import clean

Columns = dict[str, list[Any]]
VERDICT = (
    "verdict",
    "marginal",
    "works",
    "carries",
    "effect",
    "effect_low",
    "effect_high",
    "random_effect",
    "effect_q",
)


def score_table(
    scans: Sequence[TaskScan],
    verdicts: Mapping[str, TaskVerdict] | None,
    lines: Mapping[tuple[str, HeadId], str] | None = None,
) -> Columns:
    """The columns of scores.parquet, detectors by name; the verdict is null for heads that were not observed.

    lines: all that is known of an observed head in one line, by detector and head.
    """
    columns: Columns = {name: [] for name in ("detector", "stack", "layer", "head", *NUMBERS, *VERDICT, "line")}
    found = [(one, verdict_on(verdicts, scan.task, one.name)) for scan in scans for one in scan.detectors]
    for one, verdict in sorted(found, key=lambda pair: pair[0].name):
        observed = set(one.observed)
        for line in one.lines:
            judged = head_json(line.head, verdict) if line.head in observed else {}
            told = (lines or {}).get((one.name, line.head))
            row = {"detector": one.name, **line_json(line), **judged, "line": told}
            for name, column in columns.items():
                column.append(clean(row.get(name)))
    return columns


def example_table(scans: Sequence[TaskScan]) -> Columns:
    """The columns of examples.parquet, in the order of the tasks; null where a score is not defined for an example."""
    columns: Columns = {name: [] for name in ("detector", "example", "stack", "layer", "head", "score", "control")}
    for one in (one for scan in scans for one in scan.detectors):
        heads = [line.head for line in one.lines]
        for example, (values, control) in enumerate(zip(one.values.tolist(), one.control.tolist(), strict=True)):
            for head, score, chance in zip(heads, clean(values), clean(control), strict=True):
                row = (one.name, example, head.stack, head.layer, head.head, score, chance)
                for column, item in zip(columns.values(), row, strict=True):
                    column.append(item)
    return columns
