"""Heads that turn the word that ends a line into its place in the rule: the first word come back, or the second."""

from __future__ import annotations

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.abstract_rules import mediated
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks.identity_rules import identity_rules

PROMPTS = 16  # at most: every head's runs compute four fifths of their tokens anew, with each of two sources


@model_detector(
    head_type="symbol-abstraction-head",
    task=identity_rules,
    version=1,
    minimum_effect=0.05,
    verdict_positions="third",
)
def symbol_abstraction(model: Model, batch: Batch) -> Measured:
    """Turn towards the other rule's answer when the head's outputs at the lines' last words are those of the other rule: 0 none, 1 to even, 2 all of it.

    Formula: (clean - patched) / mean clean, of logit(y) - logit(y*), where y completes the last line by the prompt's rule and y* by the
    other rule; patched: z at the third word of every line from a prompt that has the same word there under the other rule, the
    two before it exchanged: only what the word stands for differs (Yang et al. 2025, algorithm 1 and its abstract contexts).
    Chance: z from prompts of the same rule in which all words are exchanged, the third ones as well: what comes over
    from there is words. Prompts count that the model answers right under both rules; NaN for all heads where it does not do the
    task. A twentieth of the logit difference is the least that counts. Differs: as for symbolic-induction; where the paper's script
    names the first two lines for its largest model, all four count here; of the first 16 prompts.
    """
    return mediated(model, batch.rows(slice(0, PROMPTS)), "third")
