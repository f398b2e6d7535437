"""What several detectors compute of the same model and batch: once while they are asked together, and never longer.

A model may be trained on, or its weights set anew, between two questions; what was computed before then holds no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
# By model, batch and name: a result, beside its owners, so that no other object is given their ids.
_KEPT: ContextVar[dict[tuple[int, int, str], tuple[Any, object, object]] | None] = ContextVar(
    "headatlas_kept", default=None
)


@contextlib.contextmanager
def asked_together() -> Iterator[None]:
    """Keep the results of `once` while this is entered, in this context; the model must not change meanwhile."""
    if _KEPT.get() is not None:
        yield
        return
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def once(model: object, batch: object, name: str, make: Callable[[], T]) -> T:
    """The result of `make()`, computed once under `name` for this model and batch (None: for the model alone).

    It is shared within `asked_together`, and must be treated as read-only.
    """
    with asked_together():
        known = _KEPT.get()
        assert known is not None
        key = (id(model), id(batch), name)
        if key not in known:
            known[key] = make(), model, batch
        found: T = known[key][0]
    return found
