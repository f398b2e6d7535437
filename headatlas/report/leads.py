"""Heads in which no detector observed anything and that matter for a task as much as causal ones do: leads, not errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headatlas.heads import HeadId
from headatlas.render.numbers import count, finite, percent, signed

SHOWN = 5  # of a task, in one line


@dataclass(frozen=True)
class Leads:
    """Of one task: heads with their effect, the largest first, and how many heads without a known kind there are."""

    task: str
    heads: tuple[tuple[str, float], ...]
    free: int

    def __str__(self) -> str:
        """One line, with the largest of them."""
        told = ", ".join(f"{head} {signed(effect)}" for head, effect in self.heads[:SHOWN])
        told += ", ..." if len(self.heads) > SHOWN else ""
        share = f" ({percent(len(self.heads) / self.free)})" if self.heads else ""
        return (
            f"{self.task}: {len(self.heads)} of {count(self.free, 'head')} of no known kind{share}{told and ': '}{told}"
        )


def leads_of(detectors: Sequence[Mapping[str, Any]]) -> list[Leads]:
    """The leads of an atlas' detectors by task; tasks without verdicts, and those of runs before there were leads, are missing.

    A head that any of the detectors observed is of a known kind, on whatever task.
    """
    known = {
        str(HeadId(row["layer"], row["head"], row.get("stack") or "decoder"))
        for one in detectors
        for row in one["heads"]
    }
    heads: dict[str, dict[str, float]] = {}
    free: dict[str, int] = {}
    for one in detectors:
        group = one.get("group") or {}
        if group.get("leads") is None:
            continue
        mine = heads.setdefault(one["task"], {})
        mine |= {head: effect for head, value in group["leads"].items() if (effect := finite(value)) is not None}
        free[one["task"]] = max(free.get(one["task"], 0), group.get("free_heads") or 0)
    return [
        Leads(
            task,
            tuple(
                sorted(((head, x) for head, x in found.items() if head not in known), key=lambda pair: -abs(pair[1]))
            ),
            free[task],
        )
        for task, found in sorted(heads.items())
    ]
