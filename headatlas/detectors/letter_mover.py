"""Heads that copy the first letter of a word when an acronym is spelled out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import MINIMUM_EFFECT, chance_at_least_zero, effect_unit
from headatlas.methods.direct_logit_attribution import Toward, direct_effects, effects_along
from headatlas.methods.path_patching.direct_effect import DirectPath
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric
from headatlas.tasks.acronyms import SLOTS, acronyms


@model_detector(
    head_type="letter-mover-head",
    task=acronyms,
    version=1,
    minimum_effect=MINIMUM_EFFECT,
    needs=("unembedding",),
)
def letter_mover(model: Model, batch: Batch) -> Measured:
    """Direct effect of copying the letter asked for from its word: 0 none, 1 all that the model knows of the letter.

    Formula: d(word asked for) / (mean of D - mean of D on the control prompts), D = logit of the word's first letter minus
    the mean logit of the other 25 at the last token, d(w) the part of D that a head writes when it attends to the tokens
    of w (direct logit attribution split by source; after Garcia-Carrasco et al. 2024, who find letter movers by patching and
    then show that they attend to the word and copy its letter). Chance: the mean of the same for the other two words, each
    with its own letter: a head that copies initials of any word moves no answer; not below 0. NaN where the model's D is no
    larger than on prompts whose words start with other letters. Minimum effect: 2% of what the model knows, as for name
    movers. The verdict takes away the direct path alone, since others stand in for ablated movers.
    """
    assert batch.control is not None
    letters = torch.cat([batch.answer.reshape(len(batch), -1), batch.wrong], 1)
    asked = batch.labels["letter"].reshape(-1)
    taken, known = [], []
    towards = [_toward(batch, letters, _initials(model, batch, slot, letters)) for slot in SLOTS]
    for slot, found in zip(SLOTS, effects_along(model, batch, towards, by_source=True), strict=True):
        assert found.by_source is not None
        words = _columns(batch, slot)
        taken.append(np.einsum("ehk,ek->eh", found.by_source, words.double().numpy()))
        known.append(found.total)
    rows, which = np.arange(len(batch)), asked.numpy()
    effects, totals = np.stack(taken), np.stack(known)  # [slot, example, head], [slot, example]
    unasked = direct_effects(model, batch.control, toward=_toward(batch, letters, letters[:, 0])).total
    unit = effect_unit(totals[which, rows] - unasked)
    own = effects[which, rows]
    others: Array = (effects.sum(0) - own) / (len(SLOTS) - 1)
    return Measured(torch.from_numpy(own / unit), torch.from_numpy(chance_at_least_zero(others) / unit))


def _initials(model: Model, batch: Batch, slot: str, letters: Tensor) -> Tensor:
    """[example] the id, among the letters [example, 26], of the first letter of the word at `slot`."""
    named = {model.tokenizer.decode(one).strip(): one for one in letters[0].tolist()}
    places = batch.positions[slot].reshape(len(batch), -1).tolist()
    words = [
        [row[place] for place in spots if place >= 0] for row, spots in zip(batch.tokens.tolist(), places, strict=True)
    ]
    # Of the whole word: its first token may be nothing but its space.
    return torch.tensor([named[model.tokenizer.decode(word).strip()[0]] for word in words])


def _toward(batch: Batch, letters: Tensor, chosen: Tensor) -> Toward:
    """The logit of the chosen letter [example] minus the mean of the other letters', at the last token."""
    own = letters == chosen[:, None]
    weights = torch.where(own, 1.0, -1.0 / (letters.shape[1] - 1))
    return Toward(batch.positions["end"].reshape(-1), letters, weights)


def _columns(batch: Batch, slot: str) -> Tensor:
    """[example, pos] whether a token belongs to the word at `slot`."""
    places = batch.positions[slot].reshape(len(batch), -1)
    return (torch.arange(batch.tokens.shape[1]) == places[:, :, None]).any(1)


def removal(model: Model, batch: Batch, metric: Metric) -> DirectPath:
    """The direct path of the heads replaced by that on prompts with another word in the place asked for."""
    return DirectPath(model, batch, metric)
