"""Heads that attend from the question to the place in a long text where the answer stands."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.detectors._haystack import on_as_many_others
from headatlas.methods.sweeps.set_ablation import SetAblation, resampled_at
from headatlas.model import Model
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed
from headatlas.task import HELD_OUT, Batch, Metric
from headatlas.tasks import needle

TASK, *LONGER = (task for task in needle.TASKS if not task.name.endswith(HELD_OUT))


# A tenth of the row; by chance the few tokens of an answer among hundreds get about a hundredth.
@detector(head_type="retrieval-head", task=TASK, also=tuple(LONGER), version=1, minimum_effect=0.1)
def retrieval_needle(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from the end of the question to the needle in the text: 0 none, 1 all.

    Formula: sum over the tokens j of the answer in the text of A[end, j], end the position that decides the answer (the needle
    test of Wu et al. 2024, as attention mass). Chance: the mean attention from there to as many other tokens of the text, the
    first token and the question left out.
    """
    span = batch.positions["needle"].to(layer.q.device)
    queries = batch.positions["end"].to(layer.q.device)[:, None].expand(span.shape)
    return layer.entries(queries, span).float().nansum(-1)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """Mean attention from the same row to the text's other tokens, times the number of the needle's: [example, head]."""
    return on_as_many_others(layer, batch, batch.positions["end"][:, None])


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """At the positions that produce the answer, heads give what they give where the needle says something else."""
    return resampled_at(model, batch, metric, batch.positions["predict"])


def planted(batch: Batch) -> Planted:
    """The question's end attends to the needle."""
    length, span = batch.tokens.shape[1], batch.positions["needle"]
    return Planted(aimed((len(batch), length, length), batch.positions["end"][:, None].expand(span.shape), span))


def look_alike(batch: Batch) -> Planted:
    """A head that finds the city of the needle's sentence, and not what is said of it."""
    length, city = batch.tokens.shape[1], batch.positions["city"]
    return Planted(aimed((len(batch), length, length), batch.positions["end"][:, None].expand(city.shape), city))
