"""A cache for what several detectors compute of the same model and batch; it goes when either of them does."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.task import Batch

T = TypeVar("T")
_CACHE: dict[tuple[int, int, str], Any] = {}


def once(model: Model, batch: Batch | None, name: str, make: Callable[[], T]) -> T:
    """The result of `make()`, computed once under `name` for this model and batch object (None: for the model alone).

    It must be treated as read-only, and must not refer to the model or the batch, or neither would ever be freed.
    """
    key = (id(model), id(batch), name)
    if key not in _CACHE:
        _CACHE[key] = make()
        # An id may be given to another object as soon as its owner is gone: the entry goes first.
        for owner in (model,) if batch is None else (model, batch):
            weakref.finalize(owner, _CACHE.pop, key, None)
    found: T = _CACHE[key]
    return found


def seed_of(batch: Batch) -> int:
    """A seed computed from the words of a batch, for detectors that draw more prompts: other batch, other draws.

    From which of them are the same word, not from their ids: a model whose ids are numbered otherwise gets the same prompts.
    """
    ids = batch.tokens[batch.mask].cpu().numpy()
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first))
    return zlib.crc32(rank[which].tobytes())
