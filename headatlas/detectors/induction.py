"""Heads that attend to what followed the current token last time."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated


@detector(
    head_type="induction-head",
    task=repeated,
    version=1,
    minimum_effect=0.2,
    finds=("induction", "fake-induction", "copy-suppression"),
    # It matches far induction targets.
    undecided=("retrieval",),
)
def induction(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from a repeated token to the successor of its first copy: 0 never, 1 always.

    Formula: mean over the second copy of A[i, i - L + 1], L the period (prefix matching; Olsson et al. 2022,
    Elhage et al. 2021). Chance: the same places after the second copy is shuffled, about 1 / (number of keys).
    """
    return mean_of(layer.entries(batch.positions["predict"], batch.positions["induction_key"]))


def planted(batch: Batch) -> Planted:
    """Every token of the second copy attends to the successor of its first copy."""
    length = batch.tokens.shape[1]
    return Planted(
        aimed((len(batch), length, length), batch.positions["predict"], batch.positions["induction_key"]), copies=True
    )


def look_alike(batch: Batch) -> Planted:
    """A duplicate-token head: it finds the first copy of the token itself, not its successor."""
    length = batch.tokens.shape[1]
    return Planted(
        aimed((len(batch), length, length), batch.positions["second"], batch.positions["duplicate_key"]), copies=True
    )
