"""What a head brings from a prompt of one rule into a prompt of the other, beside what it brings of words alone.

Yang et al. 2025, algorithm 1: two prompts whose lines end in the same words under two rules; a head's output in the one is
replaced by that in the other, and what counts is how far the logits move from this rule's answer to the other's.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from headatlas.detector import Measured
from headatlas.detectors._measures.name_movers import chance_at_least_zero, effect_unit
from headatlas.detectors._measures.swapped import swapped
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.model import Model
from headatlas.task import Batch, logit_difference


def mediated(model: Model, batch: Batch, place: str) -> Measured:
    """Shares of the logit difference that each head's output at `place` takes over, and of chance, [example, head] each.

    place: a name of `batch.positions`. Values are from the counterfactual prompts, chance, at least 0 on average, from
    `exchanged` ones. NaN where the model prefers the wrong word in the prompt or in its counterfactual, and everywhere
    where it does not do the task.
    """
    assert batch.counterfactual is not None
    where = batch.positions[place].reshape(len(batch), -1)
    bench = CachedRuns(model, batch, logit_difference, within=where)
    # The right word is the same under both rules, so that the batch says what is scored of its counterfactual, too.
    other = CachedRuns(model, batch, logit_difference, run_on=batch.counterfactual).clean

    unit = effect_unit(bench.clean)
    values, chance = (-swapped(bench, source, where) / unit for source in (batch.counterfactual, exchanged(batch)))
    wrong = (bench.clean <= 0) | (other <= 0)
    values[wrong] = chance[wrong] = float("nan")
    return Measured(torch.from_numpy(values), torch.from_numpy(chance_at_least_zero(chance)))


def exchanged(batch: Batch) -> Batch:
    """Prompts of `identity-rules` in which the two words of each line, and the last two, have changed places everywhere.

    The rule stays and no word does: what is brought over from there is words, not the rule.
    """
    tokens = batch.tokens.clone()
    pairs = [[batch.positions[name].reshape(len(batch), -1) for name in names] for names in (("first", "second"), ("left", "right"))]  # fmt: skip
    for a, b in pairs:
        tokens.scatter_(1, a, batch.tokens.gather(1, b)).scatter_(1, b, batch.tokens.gather(1, a))
    (first, second), _ = pairs
    third = batch.positions["third"]
    own = [batch.tokens.gather(1, at) for at in (first, second, third)]
    tokens.scatter_(1, third, torch.where(own[2] == own[0], own[1], own[0]))
    return replace(batch, tokens=tokens, control=None, counterfactual=None)
