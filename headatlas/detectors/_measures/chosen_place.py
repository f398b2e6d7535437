"""Scores of the head's own best choice, such as an offset, without the bias of a maximum."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Measured


def chosen_elsewhere(found: Tensor, *, apart: int = 1) -> Measured:
    """The number of the choice that is best on one half of the examples, and of the best rival there, on the other half.

    found: [example, head, choice], NaN where undefined. The largest of many numbers exceeds the second largest of the same
    numbers whatever they measure. So examples at even places choose and are not scored (NaN), those at odd places are scored.
    (Letting each half choose for the other would score all, but ties the halves: twice as many p-values below .01 as there
    should be.) apart: how many places a rival must lie from the best choice; 2 where neighbouring choices, such as offsets,
    share what they measure. A single example leaves nothing to score.
    """
    values, control = (torch.full(found.shape[:2], torch.nan, dtype=found.dtype) for _ in range(2))
    means = found[::2].nanmean(0)  # [head, choice]
    known = ~means.isnan().all(-1)
    means = means.nan_to_num(-torch.inf)
    best = means.argmax(-1, keepdim=True)
    places = torch.arange(found.shape[2])
    rival = means.masked_fill((places - best).abs() < apart, -torch.inf).argmax(-1, keepdim=True)
    scored = found[1::2]
    for target, choice in ((values, best), (control, rival)):
        taken = scored.gather(2, choice.expand(len(scored), -1, 1))[..., 0]
        target[1::2] = taken.masked_fill(~known, torch.nan)
    return Measured(values, control)
