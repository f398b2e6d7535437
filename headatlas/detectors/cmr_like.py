"""Heads whose attention by lag is that of a model of human recall."""

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.methods.recall_by_lag import distances, floor, lag_curves
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated

SHARES = {
    1: 16,
    2: 8,
    3: 4,
    4: 2,
    5: 1,
}  # of a planted head, by lag: CMR's own curve for beta_enc = 1/2, gamma = 0, beta_rec = 1


# The paper's own bound: a head is CMR-like from a distance below 0.5 on.
@detector(head_type="cmr-like-head", task=repeated, version=1, minimum_effect=0.5)
def cmr_like(layer: LayerView, batch: Batch) -> Tensor:
    """Likeness of a head's attention by lag to human recall: 0 no more than any curve, 1 the same curve.

    Formula: 1 - min over CMR's curves of mean (curve - attention)^2 / var(attention), over lags -5 to 5 from the current token's
    place in the first copy, both curves from 0 and of one height, not below 0 (Ji-An et al. 2024; `headatlas.recall_by_lag` names the
    nearest curve). 0 for heads whose peak is below five times the attention that every key gets from a head that looks at all alike.
    Chance: the same after the second copy is shuffled, where lags lead to other items. Differs: 360
    curves of simulated recall in place of the paper's 4,620, and a plain induction or duplicate-token head counts as well.
    """
    curves = lag_curves(layer, batch).double().cpu().numpy()
    unseen = np.isnan(curves).any(-1)
    peaked = ~unseen & (np.nan_to_num(curves).max(-1) >= floor(batch))
    likeness = np.zeros(curves.shape[:2])
    likeness[peaked] = np.clip(1 - distances(curves[peaked]).min(-1), 0, 1)
    return torch.from_numpy(likeness).to(layer.q.device, torch.float32)


def planted(batch: Batch) -> Planted:
    """Items behind the earlier copy, each further one half as much."""
    return Planted(_at_lags(batch, SHARES), copies=True)


def look_alike(batch: Batch) -> Planted:
    """A head that attends to the item three before the earlier copy, where no recall has its peak."""
    return Planted(_at_lags(batch, {-3: 1}))


def _at_lags(batch: Batch, shares: dict[int, int]) -> Tensor:
    """A pattern in which tokens of the second copy attend to places at these lags, in proportion to the shares."""
    queries, same = batch.positions["second"], batch.positions["duplicate_key"]
    start, period, length = int(same.min()), batch.facts["period"], batch.tokens.shape[1]
    pairs = [(queries, same + lag) for lag, times in shares.items() for _ in range(times)]
    keys = torch.cat([key for _, key in pairs], 1)
    inside = (keys >= start) & (keys < start + period)
    return aimed(
        (len(batch), length, length), torch.cat([query for query, _ in pairs], 1), keys.masked_fill(~inside, -1)
    )
