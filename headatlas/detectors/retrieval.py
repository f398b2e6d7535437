"""Heads that copy the answer out of a long text, token by token, while it is written."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.methods.sweeps.set_ablation import SetAblation, resampled_at
from headatlas.model import Model
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of
from headatlas.task import HELD_OUT, Batch, Metric
from headatlas.tasks import needle

TASK, *LONGER = (task for task in needle.TASKS if not task.name.endswith(HELD_OUT))


# The paper's own bound: a head is a retrieval head from a score of 0.1 on.
@detector(head_type="retrieval-head", task=TASK, also=tuple(LONGER), version=1, minimum_effect=0.1)
def retrieval(layer: LayerView, batch: Batch) -> Tensor:
    """Share of the needle's tokens that a head copies as they are written: 0 none, 1 all.

    Formula: share of the answer's tokens for which the key that the head attends to most, at the position that produces the
    token, lies in the needle and is the same token (Wu et al. 2024). Chance: the same in a text whose needle says something else, where
    only tokens that both answers share can be hit. Differs: the answer is given rather than generated, so that each of its
    tokens counts once, also where the model would write another.
    """
    wanted, span = batch.positions["answer"], batch.positions["needle"]
    best = layer.rows(batch.positions["predict"].clamp(min=0)).argmax(-1)  # [example, head, token of the answer]
    within = (best[..., None] == span.to(best.device)[:, None, None]).any(-1)
    found = batch.tokens.to(best.device).gather(1, best.flatten(1)).unflatten(1, best.shape[1:])
    token = batch.tokens.gather(1, wanted.clamp(min=0)).to(best.device)
    copied = (within & (found == token[:, None])).float()
    return mean_of(copied.masked_fill((wanted < 0).to(best.device)[:, None], float("nan")))


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """At the positions that produce the answer, heads give what they give where the needle says something else.

    The paper too masks heads while the answer is written and leaves the reading of the text as it is.
    """
    return resampled_at(model, batch, metric, batch.positions["predict"])


def planted(batch: Batch) -> Planted:
    """The position before each token of the answer attends to that token in the needle."""
    length = batch.tokens.shape[1]
    return Planted(aimed((len(batch), length, length), batch.positions["predict"], batch.positions["needle"]))


def look_alike(batch: Batch) -> Planted:
    """A head that attends one token too early: at the one it has just written."""
    length = batch.tokens.shape[1]
    return Planted(aimed((len(batch), length, length), batch.positions["predict"], batch.positions["needle"] - 1))
