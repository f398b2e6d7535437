"""How much a task's metric owes to what heads write straight to the logits, with all other heads held as they were."""

from __future__ import annotations

from collections.abc import Iterable

from headatlas.edits import OnHeads, Resample, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.path_patching.frozen_run import Frozen, demand_tokenwise
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric


class DirectPath:
    """The effect of any set of heads on a metric through their direct path alone, measured.

    The heads give what they give on the counterfactual prompts at the positions that the metric reads, all other heads
    what they give on the prompts, MLPs are recomputed: path patching into the logits, Wang et al. 2022, section 3.1. No
    other head can stand in for them, as some do when a name mover is ablated. Raises BadInput without counterfactual
    prompts, UnsupportedModel where paths cannot be followed.
    """

    def __init__(self, model: Model, batch: Batch, metric: Metric) -> None:
        other = batch.counterfactual
        if other is None:
            raise BadInput("A direct path is measured against counterfactual prompts.", "Choose a task that has them.")
        demand_aligned(batch, other)
        self.model, self.batch, self.metric = model, batch, metric
        self._positions = metric.positions(batch).expand(len(batch), -1)
        demand_tokenwise(model, batch, self._positions)
        self._frozen = Frozen.of(model, batch, self._positions)
        self._values = collect(model, other, OnHeads(model.heads))
        self.clean = self._score([])

    def metric_drop(self, heads: Iterable[HeadId]) -> Array:
        """How much the metric worsens [example] without what `heads` write directly."""
        found: Array = self.metric.worse(self._score(sorted(set(heads))) - self.clean)
        return found

    def _score(self, heads: list[HeadId]) -> Array:
        edits = [Resample(heads, self._values, positions=self._positions)] if heads else []
        first = min((head.layer for head in heads), default=self.model.layers[-1].index)
        _, logits = self._frozen.run([edits], first, logit_positions=self._positions)
        assert logits is not None
        score: Array = self.metric.score(logits[0].cpu(), self.batch).double().numpy()
        return score
