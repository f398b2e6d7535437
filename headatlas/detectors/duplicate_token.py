"""Heads that attend to the earlier copy of the current token."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, at_offset, mean_of
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated


@detector(
    head_type="duplicate-head",
    task=repeated,
    version=1,
    minimum_effect=0.2,
    attention="both",
    finds=("duplicate", "repeat-suppression"),
)
def duplicate_token(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from a repeated token to its first copy: 0 never, 1 always.

    Formula: mean over the second copy of A[i, i - L], L the period (Wang et al. 2022). Chance: the same places after the
    second copy is shuffled, about 1 / (number of keys).
    """
    return mean_of(layer.entries(batch.positions["second"], batch.positions["duplicate_key"]))


def planted(batch: Batch) -> Planted:
    """Every token of the second copy attends to its first copy."""
    length = batch.tokens.shape[1]
    return Planted(aimed((len(batch), length, length), batch.positions["second"], batch.positions["duplicate_key"]))


def look_alike(batch: Batch) -> Planted:
    """A current-token head: it attends to the same token, but at its own position."""
    length = batch.tokens.shape[1]
    return Planted(at_offset((len(batch), length, length), 0))
