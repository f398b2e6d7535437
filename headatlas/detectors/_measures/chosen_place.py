"""Scores of the head's own best choice, such as an offset, without the bias of a maximum."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Measured


def chosen_elsewhere(found: Tensor, *, apart: int = 1) -> Measured:
    """The number of the choice that is best on the other half of the examples, and of the best rival there.

    found: [example, head, choice], NaN where undefined. The largest of many numbers exceeds the second largest of the same
    numbers whatever they measure; so the examples are parted in two halves (even and odd places), and each half is scored at
    the two choices that the other half puts first. apart: how many places a rival must lie from the best choice; 2 where
    neighbouring choices, such as offsets, share what they measure. Fewer than two examples leave nothing to choose on: NaN.
    """
    values, control = (torch.full(found.shape[:2], torch.nan, dtype=found.dtype) for _ in range(2))
    places = torch.arange(found.shape[2])
    for scored, asked in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        if len(found[asked]) == 0 or len(found[scored]) == 0:
            continue
        means = found[asked].nanmean(0)  # [head, choice]
        known = ~means.isnan().all(-1)
        means = means.nan_to_num(-torch.inf)
        best = means.argmax(-1, keepdim=True)
        rival = means.masked_fill((places - best).abs() < apart, -torch.inf).argmax(-1, keepdim=True)
        for target, choice in ((values, best), (control, rival)):
            taken = found[scored].gather(2, choice.expand(len(found[scored]), -1, 1))[..., 0]
            target[scored] = taken.masked_fill(~known, torch.nan)
    return Measured(values, control)
