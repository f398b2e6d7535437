"""Heads that attend to what followed the current token in any of its earlier copies."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.detectors._measures.earlier_copies import last_copy
from headatlas.methods.protected_groups import on_earlier_copies
from headatlas.model.core.view import LayerView
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated_four


@detector(
    head_type="induction-head",
    task=repeated_four,
    version=1,
    minimum_effect=0.2,
    finds=("induction", "fake-induction", "copy-suppression"),
    # It matches far induction targets.
    undecided=("retrieval",),
)
def prefix_matching(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from a repeated token to the successors of all its earlier copies: 0 none, 1 all.

    Formula: mean over the second to fourth copy of sum over m = 1, 2 ... of A[i, i - m L + 1], L the period (Crosbie &
    Shutova 2024, prefix-matching score on four copies of 50 distinct tokens; Tang et al. 2024, RazorAttention: induction heads).
    Chance: the same places after the later copies are shuffled.
    Differs: RazorAttention repeats 2,500 tokens; the ablations of Crosbie and Shutova are `headatlas ablate --edit input` and
    `headatlas.pattern_knockout`.
    """
    return on_earlier_copies(layer, batch, "follow_key")


def planted(batch: Batch) -> Planted:
    """Every token of a later copy attends to the successor of the copy before."""
    return Planted(last_copy(batch, "follow_key"), copies=True)


def look_alike(batch: Batch) -> Planted:
    """A duplicate-token head: it finds the earlier copies of the token itself."""
    return Planted(last_copy(batch, "echo_key"))
