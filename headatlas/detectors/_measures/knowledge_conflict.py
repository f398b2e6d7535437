"""Which side heads take where a text contradicts what the model knows: the answer it remembers, or the one it has read.

Jin et al. 2024 (PH3) patch the path from each head to the logits with all other heads held. Held so, what a head adds to the
one answer over the other is its direct effect, which is measured here in logits, the final norm held as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.detectors._measures.memo import once
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.methods.sweeps.set_ablation import another
from headatlas.model import Model
from headatlas.task import Batch

Array = NDArray[np.float64]


class Sides(NamedTuple):
    """Direct effects on the claimed answer over the remembered one, as shares of how far the model usually leans.

    claimed: [example, head]. strangers: the same for the claimed and remembered answers of another prompt, neither of which is
    mentioned in this one; NaN where there is no such prompt.
    """

    claimed: Array
    strangers: Array


def sides(model: Model, batch: Batch) -> Sides:
    """The sides that heads take on a batch of the task `knowledge-conflict`."""
    return once(model, batch, "sides in knowledge conflicts", lambda: _sides(model, batch))


def _sides(model: Model, batch: Batch) -> Sides:
    pairs = torch.stack([batch.answer.reshape(len(batch), -1)[:, 0], batch.wrong.reshape(len(batch), -1)[:, 0]], 1)
    strange = _stranger(batch, pairs)
    signs = torch.tensor([1.0, -1.0]).expand(len(batch), 2)
    end = batch.positions["end"].reshape(-1)
    own = direct_effects(model, batch, toward=Toward(end, pairs, signs))
    other = direct_effects(model, batch, toward=Toward(end, pairs[strange.clamp(min=0)], signs))
    unit = float(np.abs(own.total).mean())
    return Sides(own.values / unit, np.where((strange < 0).numpy()[:, None], np.nan, other.values / unit))


def _stranger(batch: Batch, pairs: Tensor) -> Tensor:
    """[example] the next prompt whose answers [example, 2] are neither answers nor mentioned here; -1 where there is none."""
    said = [
        {*tokens[mask].tolist(), *pair.tolist()}
        for tokens, mask, pair in zip(batch.tokens, batch.mask, pairs, strict=True)
    ]
    return another([pairs], lambda i, j: not said[i] & set(pairs[j].tolist()))
