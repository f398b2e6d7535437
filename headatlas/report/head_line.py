"""One line on a head: what it looks like, how much, whether it matters, and what the checks made of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headatlas.heads import HeadId
from headatlas.render.numbers import finite, number, percent, signed

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
    if finite(row.get("effect")) is not None:
        verdict += f" {signed(row['effect'])}"
    score = f"{number(row.get('score'))} (chance {number(row.get('chance'))})"
    return "  ".join(part for part in (f"{detector['name']} {head}", score, verdict, checks_of(row)) if part)
