"""Text that a model goes on with, with its own cache and with one that holds less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headatlas.apply.going_on import prompts_to_continue, written
from headatlas.apply.kv_cache.plan import CachePlan
from headatlas.model import Model
from headatlas.model.holding.own import cache_bytes, new_cache


@dataclass(frozen=True)
class Written:
    """What follows a text with the full cache, and with the plan's; bytes of keys and values at the end of each."""

    text: str
    full: str
    held: str
    full_bytes: int
    held_bytes: int

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))


def write_with_cache(
    model: Model, plan: CachePlan, text: str | Sequence[str] = (), *, chat: str | Path | None = None, tokens: int = 40
) -> list[Written]:
    """Go on greedily with each text, or each chat of a file, with the model's own cache and with the plan's. Raises BadInput."""
    plan.demand_fit(model)
    found = []
    for ids in prompts_to_continue(model, text, chat, tokens):
        own, cache = new_cache(model), plan.cache(model)
        full = written(model, model.hf, ids, tokens, past_key_values=own)
        with plan.on(model) as hf:
            held = written(model, hf, ids, tokens, past_key_values=cache)
        found.append(Written(model.tokenizer.decode(ids[0].tolist()), full, held, cache_bytes(own), cache.n_bytes))
    return found
