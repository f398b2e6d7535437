"""Is a mean that of all prompts, or of one? Median and quartiles of a head's score, and how often it is among the top ten."""

from __future__ import annotations

import numpy as np

from headatlas.mining.checks.records import Check, Outcome
from headatlas.ops.stats import share_interval
from headatlas.ops.types import Array
from headatlas.render.numbers import count

NAME = "prompts"
TOP = 10


def check(values: Array, head: int) -> Check:
    """How often column `head` of scores [example, head] is among the TOP largest of its row, with a Wilson interval.

    Passed where that is certainly more than half of the examples, failed where certainly less. The part "score" is the median
    with both quartiles. Examples in which the head has no score do not count.
    """
    own = values[:, head]
    known = ~np.isnan(own)
    n, heads = int(known.sum()), int((~np.isnan(values)).any(0).sum())
    if n == 0:
        return Check(NAME, "does not apply", note="it has no score on any prompt")
    low, median, high = (float(x) for x in np.quantile(own[known], [0.25, 0.5, 0.75]))
    parts = {"score": (median, low, high)}
    if heads <= TOP:
        return Check(NAME, "does not apply", note=f"the model has {count(heads, 'head')}", parts=parts)
    top = int((np.nan_to_num(values[known], nan=-np.inf) > own[known, None]).sum(1).__lt__(TOP).sum())
    low, high = share_interval(top, n)
    outcome: Outcome = "passed" if low > 0.5 else "failed" if high < 0.5 else "weakened"
    return Check(NAME, outcome, top / n, low, high, f"top ten on {top} of {n} prompts", parts)
