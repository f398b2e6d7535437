"""Name movers and their relatives: what heads write directly when they attend to the names of a prompt.

Wang et al. 2022 (IOI): a name mover at the end of the prompt attends to the indirect object IO, who is named once, and
copies it; a negative one writes against the name it attends to. Both are read off direct effects split by source token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.detectors._measures.memo import once
from headatlas.heads import HeadId
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.model import Edit, Model
from headatlas.ops import stats
from headatlas.scores import HeadScores
from headatlas.task import Batch
from headatlas.tasks.ioi import ioi

Array = NDArray[np.float64]
# The share of the clean logit difference that a head must account for: circuits keep heads of one or two percent.
SMALLEST = 0.02
FINDING = 64  # prompts from which the name movers of a model are taken when other heads are defined by them


def worth(values: Array) -> float:
    """The mean of a metric [example], as the unit of effects; NaN unless its 95% interval lies above zero.

    A model that does not do the task has no ability of which heads could have a share.
    """
    low, _ = stats.bootstrap(values[:, None])
    return float(values.mean()) if low[0] > 0 else float("nan")


def not_below_zero(chance: Array) -> Array:
    """Chance levels [example, head] moved up where a head's mean is negative: doing harm elsewhere is no merit here."""
    return chance - np.minimum(stats.mean(chance), 0.0)


@dataclass(frozen=True)
class FromNames:
    """Direct effects at the end of the prompt on the logit of IO minus that of S, by the name they were taken from, in logits.

    io, s: [example, head] from the token of IO, and from both tokens of S. total: [example] the model's logit difference.
    """

    heads: tuple[HeadId, ...]
    io: Array
    s: Array
    total: Array

    @property
    def moved(self) -> Array:
        """[example, head] IO copied from its own token, less S copied from its: what moves IO and not just any name."""
        return self.io + np.minimum(self.s, 0.0)

    @property
    def opposed(self) -> Array:
        """[example, head] how much a head writes against the names that it attends to, each at its own token."""
        return self.s - self.io


def from_names(model: Model, batch: Batch, *, toward: Toward | None = None, edits: Sequence[Edit] = ()) -> FromNames:
    """Direct effects by name on IOI prompts (positions io, s1, s2 and end); toward: other logits than IO's minus S's.

    edits: changes that the run is made under. Raises UnsupportedModel where direct effects cannot be told apart.
    """
    found = direct_effects(model, batch, toward=toward, by_source=True, edits=edits)
    sources = found.by_source
    assert sources is not None
    rows = np.arange(len(batch))
    io, s1, s2 = (sources[rows, :, batch.positions[name].numpy()] for name in ("io", "s1", "s2"))
    return FromNames(found.heads, io, s1 + s2, found.total)


def clean(model: Model, batch: Batch) -> FromNames:
    """Direct effects by name in the unchanged run, worked out once for a batch."""
    return once(model, batch, "direct effects by name", lambda: from_names(model, batch))


def name_mover_scores(model: Model, batch: Batch) -> HeadScores:
    """Share of the logit difference that each head moves from IO; control: the same where no name is S, and not below 0.

    In the control prompts the second S is a third name: a head that copies any name gets as much there as here. Heads that
    do harm on the control prompts are no better than chance where they do less of it.
    """

    def make() -> HeadScores:
        assert batch.control is not None
        found, control = clean(model, batch), from_names(model, batch.control)
        unit = worth(found.total)
        return HeadScores(found.heads, found.moved / unit, not_below_zero(control.moved) / unit)

    return once(model, batch, "name movers", make)


def negative_scores(model: Model, batch: Batch) -> HeadScores:
    """Share of the logit difference that each head writes against the names it attends to; control: against other names.

    The other names are those of the next prompt; NaN where they are among this prompt's own.
    """

    def make() -> HeadScores:
        found = clean(model, batch)
        own = torch.stack([batch.answer.reshape(-1), batch.wrong.reshape(-1)], 1)
        others = own.roll(1, 0)
        signs = torch.tensor([1.0, -1.0]).expand(len(batch), 2)
        toward = Toward(batch.positions["end"].reshape(-1), others, signs)
        control = from_names(model, batch, toward=toward).opposed
        control[(own[:, :, None] == others[:, None]).flatten(1).any(1).numpy()] = np.nan
        unit = worth(found.total)
        return HeadScores(found.heads, found.opposed / unit, control / unit)

    return once(model, batch, "negative name movers", make)


def movers(model: Model) -> tuple[HeadId, ...]:
    """The name movers of a model, best first: what other heads are defined by; empty where there are none.

    Always from the same prompts of the task's finding half, so that whoever asks gets the same heads.
    """
    return _standing(model)[0]


def name_heads(model: Model) -> tuple[HeadId, ...]:
    """Name movers and negative name movers of a model."""
    return tuple(dict.fromkeys(head for group in _standing(model) for head in group))


def _standing(model: Model) -> tuple[tuple[HeadId, ...], tuple[HeadId, ...]]:
    def make() -> tuple[tuple[HeadId, ...], tuple[HeadId, ...]]:
        batch = ioi(model.tokenizer, FINDING, 0)
        return _observed(name_mover_scores(model, batch)), _observed(negative_scores(model, batch))

    return once(model, None, "standing name movers", make)


def _observed(scores: HeadScores) -> tuple[HeadId, ...]:
    return tuple(line.head for line in scores.observed(SMALLEST))


def attention_to(model: Model, batch: Batch, names: Sequence[str], query: str = "end") -> Tensor:
    """[example, head, name] attention from the named query position to named key positions, heads in model order."""
    keys = torch.stack([batch.positions[name].reshape(-1) for name in names], 1).to(model.device)
    queries = batch.positions[query].reshape(-1, 1).expand(-1, len(names)).to(model.device)
    seen: dict[tuple[str, int], Tensor] = {}
    model.forward(
        batch,
        watch=lambda layer: seen.update({(layer.stack, layer.index): layer.entries(queries, keys)}),
        logit_positions=torch.zeros(1, dtype=torch.long),
    )
    return torch.cat([seen[layer.stack, layer.index] for layer in model.layers], 1)
