"""Heads that attend to all earlier copies of the current token."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.detectors._measures.earlier_copies import last_copy
from headatlas.methods.protected_groups import on_earlier_copies
from headatlas.model.core.view import LayerView
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated_four


@detector(
    head_type="global-retrieval-head",
    task=repeated_four,
    version=1,
    minimum_effect=0.2,
    finds=("duplicate", "repeat-suppression"),
)
def echo(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from a repeated token to all its earlier copies: 0 none, 1 all.

    Formula: mean over the second to fourth copy of sum over m = 1, 2 ... of A[i, i - m L], L the period (Tang et al. 2024,
    RazorAttention: echo heads; `headatlas.protected_groups` takes their share of heads). Chance: the same places after the later copies are shuffled.
    Differs: sequences of 50 tokens, where the paper repeats 2,500.
    """
    return on_earlier_copies(layer, batch, "echo_key")


def planted(batch: Batch) -> Planted:
    """Every token of a later copy attends to the same token of the copy before."""
    return Planted(last_copy(batch, "echo_key"))


def look_alike(batch: Batch) -> Planted:
    """An induction head: it attends to the token behind the earlier copy."""
    return Planted(last_copy(batch, "follow_key"), copies=True)
