"""Direct effects of heads in a knowledge conflict: on the answer that the context claims against the one from memory.

Jin et al. 2024 (PH3) patch the path from each head to the logits with all other heads frozen. What a head then adds to one
answer over the other is its direct effect, which is measured here in logits, with the scale of the final norm frozen too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.detectors._measures.memo import once
from headatlas.methods.direct_logit_attribution import Toward, effects_along
from headatlas.methods.sweeps.set_ablation import another
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch


class ConflictEffects(NamedTuple):
    """Direct effects on logit(claimed answer) - logit(remembered answer), divided by the mean size of this difference.

    claimed: [example, head]. unrelated: the same for the claimed and remembered answers of another prompt, neither of which is
    mentioned in this one; NaN where there is no such prompt.
    """

    claimed: Array
    unrelated: Array


def conflict_effects(model: Model, batch: Batch) -> ConflictEffects:
    """Direct effects on a batch of the task `knowledge-conflict`, computed once for a batch."""
    return once(model, batch, "effects in knowledge conflicts", lambda: _conflict_effects(model, batch))


def _conflict_effects(model: Model, batch: Batch) -> ConflictEffects:
    pairs = torch.stack([batch.answer.reshape(len(batch), -1)[:, 0], batch.wrong.reshape(len(batch), -1)[:, 0]], 1)
    unrelated = _unrelated_prompt(batch, pairs)
    signs = torch.tensor([1.0, -1.0]).expand(len(batch), 2)
    end = batch.positions["end"].reshape(-1)
    asked = (pairs, pairs[unrelated.clamp(min=0)])
    own, other = effects_along(model, batch, [Toward(end, ids, signs) for ids in asked])
    unit = float(np.abs(own.total).mean())
    return ConflictEffects(own.values / unit, np.where((unrelated < 0).numpy()[:, None], np.nan, other.values / unit))


def _unrelated_prompt(batch: Batch, pairs: Tensor) -> Tensor:
    """[example] the next prompt whose answers [example, 2] are neither answers nor mentioned here; -1 where there is none."""
    said = [
        {*tokens[mask].tolist(), *pair.tolist()}
        for tokens, mask, pair in zip(batch.tokens, batch.mask, pairs, strict=True)
    ]
    return another([pairs], lambda i, j: not said[i] & set(pairs[j].tolist()))
