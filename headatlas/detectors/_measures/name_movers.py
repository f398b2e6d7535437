"""Name movers, negative and backup ones: direct logit effects of heads when they attend to the names of an IOI prompt.

Wang et al. 2022 (IOI): a name mover at the end of the prompt attends to the indirect object IO, who is named once, and
copies it; a negative one lowers the logit of the name it attends to. Both are measured by direct logit attribution, split by
source token: d(x) = A[END, x] v_x W_O through the final norm at its scale in the run, on logit(IO) - logit(S).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.methods.direct_logit_attribution import DirectEffects, Toward, effects_along
from headatlas.model import Edit, Model
from headatlas.ops import stats
from headatlas.ops.memo import once
from headatlas.ops.types import Array, LayerKey
from headatlas.scores import HeadScores
from headatlas.task import Batch
from headatlas.tasks.ioi import ioi

# The share of the clean logit difference that a head must account for: circuits keep heads of one or two percent.
MINIMUM_EFFECT = 0.02
REFERENCE_PROMPTS = 64  # prompts from which the name movers of a model are taken when other heads are defined by them


def effect_unit(values: Array) -> float:
    """The mean of a metric [example], by which effects are divided; NaN unless its 95% interval lies above zero.

    Where the model does not do the task there is nothing that a head could account for.
    """
    low, _ = stats.interval(values[:, None])
    return float(values.mean()) if low[0] > 0 else float("nan")


def chance_at_least_zero(chance: Array) -> Array:
    """Chance levels [example, head], raised so that no head's mean is negative: harm on control prompts must not count for it."""
    return chance - np.minimum(stats.mean(chance), 0.0)


@dataclass(frozen=True)
class EffectsByName:
    """Direct effects at the last token on logit(IO) - logit(S) by the name that is attended to, in logits.

    io, s: [example, head] by way of the token of IO, and of both tokens of S. total: [example] the model's logit difference.
    """

    heads: tuple[HeadId, ...]
    io: Array
    s: Array
    total: Array

    @property
    def copying(self) -> Array:
        """[example, head] d(IO) + min(0, d(S)): copying of IO that does not copy S as well, in logits."""
        return self.io + np.minimum(self.s, 0.0)

    @property
    def suppression(self) -> Array:
        """[example, head] d(S) - d(IO): how far a head lowers the logits of the names that it attends to, in logits."""
        return self.s - self.io


def effects_by_name(model: Model, batch: Batch, *, edits: Sequence[Edit] = ()) -> EffectsByName:
    """Direct effects by name on a batch with positions io, s1, s2 and end.

    edits: interventions under which the model is run. Raises UnsupportedModel where direct effects cannot be told apart.
    """
    return _by_name(batch, effects_along(model, batch, [Toward.answer(batch)], by_source=True, edits=edits)[0])


def _by_name(batch: Batch, found: DirectEffects) -> EffectsByName:
    sources = found.by_source
    assert sources is not None
    rows = np.arange(len(batch))
    io, s1, s2 = (sources[rows, :, batch.positions[name].numpy()] for name in ("io", "s1", "s2"))
    return EffectsByName(found.heads, io, s1 + s2, found.total)


def clean_effects(model: Model, batch: Batch) -> EffectsByName:
    """Direct effects by name without interventions, computed once for a batch."""
    return _own_and_others(model, batch)[0]


def _own_and_others(model: Model, batch: Batch) -> tuple[EffectsByName, EffectsByName]:
    """Direct effects on the own two names, and on those of the next prompt, from one run without interventions."""

    def make() -> tuple[EffectsByName, EffectsByName]:
        own = Toward.answer(batch)
        towards = [own, Toward(own.positions, own.ids.roll(1, 0), own.weights)]
        found = effects_along(model, batch, towards, by_source=True)
        return _by_name(batch, found[0]), _by_name(batch, found[1])

    return once(model, batch, "direct effects by name", make)


def name_mover_scores(model: Model, batch: Batch) -> HeadScores:
    """Copying of IO by each head as a share of the mean logit difference; control: the same on the control prompts, at least 0.

    In the control prompts the second S is a third name: a head that copies any name scores as much there as here.
    """

    def make() -> HeadScores:
        assert batch.control is not None
        found, control = clean_effects(model, batch), effects_by_name(model, batch.control)
        unit = effect_unit(found.total)
        return HeadScores(found.heads, found.copying / unit, chance_at_least_zero(control.copying) / unit)

    return once(model, batch, "name movers", make)


def negative_name_mover_scores(model: Model, batch: Batch) -> HeadScores:
    """Suppression of the attended names as a share of the mean logit difference; control: of other names.

    The other names are those of the next prompt; NaN where they are among this prompt's own.
    """

    def make() -> HeadScores:
        found, other = _own_and_others(model, batch)
        own = torch.stack([batch.answer.reshape(-1), batch.wrong.reshape(-1)], 1)
        others, control = own.roll(1, 0), other.suppression
        control[(own[:, :, None] == others[:, None]).flatten(1).any(1).numpy()] = np.nan
        unit = effect_unit(found.total)
        return HeadScores(found.heads, found.suppression / unit, control / unit)

    return once(model, batch, "negative name movers", make)


def find_name_movers(model: Model) -> tuple[HeadId, ...]:
    """The observed name movers of a model, best first, which other head types are defined by; empty where there are none.

    Always from the same prompts of the task's finding half, so that every detector gets the same heads.
    """
    return _reference_heads(model)[0]


def find_name_heads(model: Model) -> tuple[HeadId, ...]:
    """The observed name movers and negative name movers of a model."""
    return tuple(dict.fromkeys(head for group in _reference_heads(model) for head in group))


def _reference_heads(model: Model) -> tuple[tuple[HeadId, ...], tuple[HeadId, ...]]:
    def make() -> tuple[tuple[HeadId, ...], tuple[HeadId, ...]]:
        batch = ioi(model.tokenizer, REFERENCE_PROMPTS, 0)
        return _observed(name_mover_scores(model, batch)), _observed(negative_name_mover_scores(model, batch))

    return once(model, None, "reference name movers", make)


def _observed(scores: HeadScores) -> tuple[HeadId, ...]:
    return tuple(line.head for line in scores.observed(MINIMUM_EFFECT))


def attention_to(model: Model, batch: Batch, names: Sequence[str], query: str = "end") -> Tensor:
    """[example, head, name] attention from the named query position to named key positions, heads in model order."""
    keys = torch.stack([batch.positions[name].reshape(-1) for name in names], 1).to(model.device)
    queries = batch.positions[query].reshape(-1, 1).expand(-1, len(names)).to(model.device)
    seen: dict[LayerKey, Tensor] = {}
    model.forward(
        batch,
        watch=lambda layer: seen.update({(layer.stack, layer.index): layer.entries(queries, keys)}),
        logit_positions=torch.zeros(1, dtype=torch.long),
    )
    return torch.cat([seen[layer.stack, layer.index] for layer in model.layers], 1)
