"""Of all tests of a run some pass by luck: p adjusted so that of the effects that pass few do (Benjamini-Hochberg)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headatlas.mining.checks.records import Check, HeadVerdict, RemovalEffect
from headatlas.ops import stats

LEVEL = 0.05  # share of the effects that pass which are none


def adjusted(effects: Sequence[RemovalEffect | None]) -> list[float]:
    """q of each effect over all of them; NaN where there was nothing to test, and so no test to count."""
    p = np.array([float("nan") if one is None else one.p for one in effects])
    return [float(q) for q in stats.false_discovery(p)]


def check(found: HeadVerdict) -> Check:
    """Whether the effect that decides stands when all tests of the run are counted."""
    if np.isnan(found.q):
        return Check("false discoveries", "does not apply")
    return Check("false discoveries", "passed" if found.q <= LEVEL else "failed", found.q)
