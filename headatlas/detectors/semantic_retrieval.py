"""Heads that attend to the whole passage which holds the answer while it is written, whichever of its tokens comes next."""

from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.detectors._haystack import on_as_many_others
from headatlas.methods.sweeps.set_ablation import SetAblation, resampled_at
from headatlas.model import Model
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, every_pair
from headatlas.task import HELD_OUT, Batch, Metric
from headatlas.tasks import needle

TASK, *LONGER = (task for task in needle.TASKS if not task.name.endswith(HELD_OUT))


# A tenth of the row, as for heads that attend from the question's end to the needle.
@detector(head_type="semantic-retrieval-head", task=TASK, also=tuple(LONGER), version=1, minimum_effect=0.1)
def semantic_retrieval(layer: LayerView, batch: Batch) -> Tensor:
    """Attention to all of the needle as each of its tokens is written: 0 none, 1 all.

    Formula: mean over the tokens t of the answer of the sum over the needle's tokens j of A[p_t, j], p_t the position that produces t
    (Lin et al. 2025, CompressKV, as their code has it, where `retrieval` asks for the one copied token and the highest weight). Chance: the mean attention
    from there to as many other tokens of the text, the first token and the question left out. Differs: the answer is given rather than generated, so that
    each of its tokens counts once; the authors sum over what the model writes, in runs that name more than half of the answer. Answers
    here have one to five words.
    """
    queries = batch.positions["predict"]
    pairs = every_pair(queries, batch.positions["needle"])
    found = layer.entries(*(one.to(layer.q.device) for one in pairs)).float().nansum(-1)
    return found / (queries >= 0).sum(1, keepdim=True).to(found.device)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """Mean attention from the same rows to the text's other tokens, times the number of the needle's: [example, head]."""
    return on_as_many_others(layer, batch, batch.positions["predict"])


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """At the positions that produce the answer, heads give what they give where the needle says something else."""
    return resampled_at(model, batch, metric, batch.positions["predict"])


def planted(batch: Batch) -> Planted:
    """The position before each token of the answer attends to the needle's tokens alike."""
    return _from_answer(batch, batch.positions["needle"])


def look_alike(batch: Batch) -> Planted:
    """A head that finds the city of the needle's sentence, and not what is said of it."""
    return _from_answer(batch, batch.positions["city"])


def _from_answer(batch: Batch, keys: Tensor) -> Planted:
    """Every position that produces a token of the answer attends to keys [example, n]."""
    length = batch.tokens.shape[1]
    return Planted(aimed((len(batch), length, length), *every_pair(batch.positions["predict"], keys)))
