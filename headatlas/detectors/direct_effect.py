"""Heads that write the mood of a text straight to the answer."""

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.from_end import share_of
from headatlas.detectors._measures.sentiment import MINIMUM_ATTENTION, same_kind
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.methods.path_patching.direct_effect import DirectPath
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.movie_review import movie_review


# Two percent of what exchanging the review does: what the papers on circuits ask of a head that is to count as writing the answer.
@model_detector(
    head_type="direct-effect-head",
    task=movie_review,
    version=1,
    minimum_effect=0.02,
    needs=("unembedding",),
)
def direct_effect(model: Model, batch: Batch) -> Measured:
    """Share of a review's effect that a head writes straight to the logits: 0 none, 1 all of it.

    Formula: fall of the head's direct effect on the logit difference between the review and the opposite one, over the mean fall of the
    logit difference itself; 0 for heads that give adjective, verb and summary word together less than a fifth of the attention that they
    spend from the last token beyond the first (Tigges et al. 2023, who patch the path from each head to the logits; here as direct
    logit attribution, with the final norm's scale as it is in either run). Chance: the same fall to another review of the
    same wording and mood. The verdict takes away the direct path alone.
    """
    assert batch.counterfactual is not None
    demand_aligned(batch, batch.counterfactual)
    toward = Toward.answer(batch)
    own, opposite = (direct_effects(model, part, toward=toward) for part in (batch, batch.counterfactual))
    order = same_kind(batch)
    other = own.values[order.clamp(min=0).numpy()]
    other[(order < 0).numpy()] = np.nan
    places = torch.stack([batch.positions[name] for name in ("adjective", "verb", "summary")], 1)
    attends = share_of(model, batch, places).mean(0) >= MINIMUM_ATTENTION
    unit = float(np.abs(own.total - opposite.total).mean())
    return Measured(*(torch.from_numpy((own.values - one) / unit) * attends for one in (opposite.values, other)))


def removal(model: Model, batch: Batch, metric: Metric) -> DirectPath:
    """The direct path of the heads replaced by that on the opposite review."""
    return DirectPath(model, batch, metric)
