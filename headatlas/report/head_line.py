"""One line on a head: what it looks like, how much, whether it matters, and what the checks made of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headatlas.heads import HeadId
from headatlas.render.numbers import count, finite, number, percent, seconds, signed

TWINS = {"twin": "untrained twin", "shuffled": "shuffled weights"}
TASKS = 4  # named in a receipt
# What is said of a check's outcome; what is not here says nothing in a line ("does not apply").
_WORDS = {
    ("removals", "passed"): "removals agree",
    ("removals", "weakened"): "removals near the bar",
    ("removals", "failed"): "depends on the removal",
    ("same answer", "passed"): "carries the answer",
    ("same answer", "weakened"): "answer unclear",
    ("same answer", "failed"): "trajectory, no carrier of the answer",
    ("transfer", "passed"): "transfers",
    ("transfer", "weakened"): "transfers in part",
    ("transfer", "failed"): "does not transfer",
    ("relation", "passed"): "matters at its relation",
    ("relation", "weakened"): "at its relation as random heads do",
    ("relation", "failed"): "no more at its relation",
}


def words_of(check: Mapping[str, Any]) -> str:
    """A check's outcome in two or three words; "" where there is nothing to say."""
    if check.get("name") == "prompts":
        return "" if finite(check.get("value")) is None else f"top ten on {percent(check['value'])} of prompts"
    return _WORDS.get((str(check.get("name")), str(check.get("outcome"))), "")


def checks_of(row: Mapping[str, Any]) -> str:
    """The outcomes of an observed head's checks, two blanks between them."""
    return "  ".join(words for check in row.get("checks") or () if (words := words_of(check)))


def line_of(detector: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """An observed head of a detector of atlas.json in one line.

    Such as: induction 18.6  0.89 (chance 0.004)  causal +1.52  removals agree  transfers  top ten on 94% of prompts.
    """
    head = HeadId(row["layer"], row["head"], row.get("stack") or "decoder")
    verdict = str(row.get("verdict") or "untested")
    if row.get("works") == "against":
        verdict += ", works against"
    if row.get("carries"):
        verdict += f", {row['carries']}"
    if row.get("marginal"):
        verdict += ", marginal"
    if finite(row.get("effect")) is not None:
        verdict += f" {signed(row['effect'])}"
    score = f"{number(row.get('score'))} (chance {number(row.get('chance'))})"
    parts = (f"{detector['name']} {head}", score, str(row.get("told") or ""), verdict, checks_of(row))
    return "  ".join(part for part in parts if part)


def twins_of(detector: Mapping[str, Any]) -> str:
    """What a detector of atlas.json found in models that have learned nothing; "" where none was asked."""
    parts = []
    for one in detector.get("twins") or ():
        name = TWINS.get(one["kind"], one["kind"])
        if one.get("reason"):
            parts.append(f"{name}: not asked, {one['reason']}")
        else:
            parts.append(
                f"{name}: {one.get('observed')} of {count(one.get('heads') or 0, 'head')} (best {number(one.get('best'))})"
            )
    return "; ".join(parts)


def _span(numbers: Sequence[int]) -> str:
    """The least and the largest of some numbers, or the one that all are."""
    return " to ".join(str(n) for n in sorted({min(numbers), max(numbers)})) if numbers else ""


def receipt_of(atlas: Mapping[str, Any], detectors: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers of these detectors rest on: weights, tasks, examples, seed, versions, and how long the run took."""
    model, run = atlas.get("model") or {}, atlas.get("run") or {}
    tasks = dict.fromkeys(
        f"{one['task']} v{one['task_version']}" if one.get("task_version") else str(one["task"]) for one in detectors
    )
    shown = [*list(tasks)[:TASKS], *([f"{len(tasks) - TASKS} more tasks"] if len(tasks) > TASKS else [])]
    examples = _span([n for one in detectors if (n := (one.get("group") or {}).get("examples"))])
    verdicts = f", verdicts on {examples} or more" if examples else ""
    took = [value for name, value in (run.get("seconds") or {}).items() if not name.startswith("check ")]
    parts = [
        f"weights {str(model.get('sha256') or 'unknown')[:12]}",
        ", ".join(shown),
        f"n {_span([n for one in detectors if (n := one.get('n_examples'))]) or run.get('n', '–')}{verdicts}",
        f"seed {run.get('seed', '–')}",
        ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items()),
        seconds(sum(value for value in took if finite(value) is not None)) if took else "",
    ]
    return "; ".join(part for part in parts if part)
