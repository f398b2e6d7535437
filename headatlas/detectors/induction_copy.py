"""Heads that attend to what followed the current token last time, and write in favour of that token."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated

COMPARED = 64


@detector(
    head_type="induction-head",
    task=repeated,
    version=1,
    minimum_effect=0.25,
    needs=("unembedding",),
    finds=("induction",),
    # It matches and copies far induction targets.
    undecided=("retrieval",),
)
def induction_copy(layer: LayerView, batch: Batch) -> Tensor:
    """Prefix matching times copying: 0 looks elsewhere or copies nothing, 1 always looks there and always copies.

    Formula: max(0, mean over the second copy of A[i, j] c[j]), j = i - L + 1. c[j] = 2 r - 1 with r the share of the other
    tokens of the sequence (64 of them, evenly spaced, where there are more) whose logit the OV circuit raises less than the
    logit of the attended token (v at j through W_O, the norms' gains and W_U). Olsson et al. 2022 ask for both properties.
    Chance: about 0, also for a head that looks there and writes at random; the same after the second copy is shuffled.
    """
    keys = batch.positions["induction_key"]
    attention = layer.entries(batch.positions["predict"], keys)
    tokens = batch.tokens.gather(1, keys)
    others = tokens[:, :: -(-tokens.shape[1] // COMPARED)]
    own = layer.ov_logits(keys, tokens, paired=True).unsqueeze(-1)
    other = (others[:, None] != tokens[:, :, None]).unsqueeze(1)  # [example, 1, key, compared]
    lower = ((layer.ov_logits(keys, others) < own) & other).float().sum(-1)
    return mean_of(attention * (2 * lower / other.float().sum(-1) - 1)).clamp(min=0)


def planted(batch: Batch) -> Planted:
    """Attends to the successor of the first copy and raises its logit."""
    length = batch.tokens.shape[1]
    return Planted(
        aimed((len(batch), length, length), batch.positions["predict"], batch.positions["induction_key"]), copies=True
    )


def look_alike(batch: Batch) -> Planted:
    """Attends where an induction head does, but writes against the attended token."""
    return Planted(planted(batch).pattern, copies=False)
