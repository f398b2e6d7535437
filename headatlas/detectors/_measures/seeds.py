"""Seeds of detectors that draw more prompts than they are given."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from headatlas.task import Batch


def seed_of(batch: Batch) -> int:
    """A seed computed from the words of a batch, for detectors that draw more prompts: other batch, other draws.

    From which of them are the same word, not from their ids: a model whose ids are numbered otherwise gets the same prompts.
    """
    ids = batch.tokens[batch.mask].cpu().numpy()
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first))
    return zlib.crc32(rank[which].tobytes())
