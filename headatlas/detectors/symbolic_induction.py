"""Heads that do induction over the places of a rule: at the end of a prompt they say which place's word comes next."""

from __future__ import annotations

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.abstract_rules import mediated
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks.identity_rules import identity_rules


@model_detector(
    head_type="symbolic-induction-head",
    task=identity_rules,
    version=1,
    minimum_effect=0.05,
    verdict_positions="end",
)
def symbolic_induction(model: Model, batch: Batch) -> Measured:
    """Turn towards the other rule's answer when the head's output at the end is that of the other rule: 0 none, 1 to even, 2 all of it.

    Formula: (clean - patched) / mean clean, of logit(y) - logit(y*), where y completes the line by the prompt's rule and y* by the other
    rule; patched: z at the last token from a prompt whose lines end in the same words under the other rule, with both words of each
    line, and of the last one, exchanged, so that y is its answer, too: a head that carries a word brings nothing, one that carries the
    rule's next place brings y* (Yang et al. 2025, algorithm 1 and its abstract contexts). Chance: z from prompts of the
    same rule in which all words are exchanged, the third ones as well: what comes over from there is words. Prompts count that
    the model answers right under both rules; NaN for all heads where it does not do the task. A twentieth of the logit difference is the
    least that counts. Differs: the paper gives logits, here shares of the mean difference; it tests heads by permutation and has 2 or 10
    lines of words without spaces, of one rule a run; here four lines, and both rules in turn.
    """
    return mediated(model, batch, "end")
