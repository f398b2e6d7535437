"""What several detectors need of the same model and prompts, computed once and forgotten with them."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.task import Batch

T = TypeVar("T")
_KEPT: dict[tuple[int, int, str], Any] = {}


def once(model: Model, batch: Batch | None, name: str, make: Callable[[], T]) -> T:
    """What `make()` gives for this very model and batch object (None: for the model); asked again under `name`, the same.

    It must be treated as read-only, and must not hold on to the model or the batch, or neither would ever be freed.
    """
    key = (id(model), id(batch), name)
    if key not in _KEPT:
        _KEPT[key] = make()
        # An id may be given to another object as soon as its owner is gone: what was kept goes first.
        for owner in (model,) if batch is None else (model, batch):
            weakref.finalize(owner, _KEPT.pop, key, None)
    found: T = _KEPT[key]
    return found


def seed_of(batch: Batch) -> int:
    """A seed that goes with the first prompt of a batch, for detectors that draw more prompts: other batch, other draws."""
    return zlib.crc32(batch.tokens[0][batch.mask[0]].cpu().numpy().tobytes())
