"""Multiple-choice questions: where heads attend from the end, and what they write in favour of each option's label.

Lieberum et al. 2023 sort the heads of large direct or total effect by what they attend to from the last token: the label of
the right option, all labels, one label, the right option's text, or the last tokens. Effects are direct logit attribution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.methods.direct_logit_attribution import DirectEffects, Toward, effects_along
from headatlas.model import Model
from headatlas.ops.memo import once
from headatlas.ops.types import Array
from headatlas.task import HELD_OUT, Batch, find_task
from headatlas.tasks import mcqa

TASK = find_task("mcqa-4")
# Other numbers of options, and answered questions before the one that is asked.
OTHERS = tuple(task for task in mcqa.TASKS if task != TASK and not task.name.endswith(HELD_OUT))
NEGLIGIBLE = 0.01  # share of the largest mean effect of a head below which a head counts as writing nothing


def label_places(batch: Batch) -> tuple[Tensor, Tensor]:
    """Positions [example, option] of the labels, and whether each is the right one's."""
    names = sorted(name for name in batch.positions if name.startswith("label"))
    # A label of several tokens is read where it is complete.
    places = torch.stack([batch.positions[name].amax(1) for name in names], 1)
    return places, torch.arange(len(names)) == batch.labels["right"][:, None]


def option_tokens(batch: Batch) -> Tensor:
    """[example, option, key] whether a token belongs to an option's text."""
    names = sorted(name for name in batch.positions if name.startswith("option"))
    keys = torch.arange(batch.tokens.shape[1])
    return torch.stack([(batch.positions[name][..., None] == keys).any(1) for name in names], 1)


def letters(batch: Batch) -> Tensor:
    """[example, option] token ids of the labels as answers."""
    right = label_places(batch)[1]
    found = torch.empty(right.shape, dtype=torch.long)
    found[right] = batch.answer.reshape(-1)
    found[~right] = batch.wrong.flatten()  # the labels of the other options in their order
    return found


def over_others(values: Tensor, right: Tensor) -> Tensor:
    """[example, head] of values [example, head, option]: that of the right option [example, option] minus the others' mean."""
    weight = torch.where(right, 1.0, -1.0 / (right.shape[1] - 1))
    return (values * weight[:, None].to(values)).sum(-1)


def raises(effect: Tensor) -> Tensor:
    """[head] whether effects [example, head] are positive on average and not negligible: a hundredth of the largest or more.

    What cancels leaves rounding behind, which is as often positive as not.
    """
    size = float(effect.abs().mean(0).max())
    return effect.mean(0) > NEGLIGIBLE * size


class LetterEffects(NamedTuple):
    """Direct effects on the logit of each label minus the mean of all labels' logits.

    heads: [example, head, letter]. by_label: [example, head, letter, option], the part taken from the label of each option.
    before: [example, layer, letter], what parts below a layer's attention have written. total: [example, letter].
    """

    heads: Array
    by_label: Array
    before: Array
    total: Array


def letter_effects(model: Model, batch: Batch) -> LetterEffects:
    """The direct effects on a batch of a multiple-choice task, computed once for a batch."""
    return once(model, batch, "effects on letters", lambda: _letter_effects(model, batch))


def _letter_effects(model: Model, batch: Batch) -> LetterEffects:
    ids, places = letters(batch), label_places(batch)[0]
    options = ids.shape[1]
    keys = places[:, None].expand(-1, len(model.heads), -1).numpy()
    heads, by_label, before, total = [], [], [], []
    weights = torch.eye(options) - 1 / options
    towards = [Toward(batch.positions["end"].reshape(-1), ids, one.expand(len(batch), -1)) for one in weights]
    for found in effects_along(model, batch, towards, by_source=True):
        assert found.by_source is not None
        heads.append(found.values)
        by_label.append(np.take_along_axis(found.by_source, keys, -1))
        before.append(_below(found))
        total.append(found.total)
    return LetterEffects(np.stack(heads, 2), np.stack(by_label, 2), np.stack(before, 2), np.stack(total, 1))


def _below(found: DirectEffects) -> Array:
    """[example, layer] the sum of what embedding, heads and MLPs below a layer write."""
    layer_of = np.array([head.layer for head in found.heads])
    sums = [found.others["embedding"]]
    for layer in range(int(layer_of.max())):
        rest = [value for name, value in found.others.items() if name in (f"mlp {layer}", f"block {layer}")]
        sums.append(sums[-1] + found.values[:, layer_of == layer].sum(1) + sum(rest))
    return np.stack(sums, 1)
