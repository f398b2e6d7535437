"""Text that a model goes on with, with its own cache and with one that holds less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headatlas.apply.kv_cache.plan import CachePlan
from headatlas.errors import BadInput
from headatlas.methods.texts import Texts
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


@torch.no_grad()
def write_with_cache(
    model: Model, plan: CachePlan, text: str | Sequence[str] = (), *, chat: str | Path | None = None, tokens: int = 40
) -> list[Written]:
    """Go on greedily with each text, or each chat of a file, with the model's own cache and with the plan's. Raises BadInput."""
    plan.demand_fit(model)
    batch = Texts(text, chat).read(model)
    found = []
    for row, mask in zip(batch.tokens, batch.mask, strict=True):
        ids = row[mask][None].to(model.device)
        if tokens < 1 or ids.shape[1] + tokens > model.tokenizer.context:
            raise BadInput(
                f"A prompt of {ids.shape[1]} tokens cannot be continued by {tokens}.",
                f"Together 1 to {model.tokenizer.context} fit.",
            )
        own, cache = new_cache(model), plan.cache(model)
        full = _written(model.hf, ids, own, tokens)
        with plan.on(model) as hf:
            held = _written(hf, ids, cache, tokens)
        decode = model.tokenizer.decode
        found.append(Written(decode(ids[0].tolist()), decode(full), decode(held), cache_bytes(own), cache.n_bytes))
    return found


def _written(hf: Any, ids: Tensor, cache: Any, tokens: int) -> list[int]:
    """The tokens that generate() writes behind ids [1, n]."""
    # One prompt needs no padding; naming a token for it keeps transformers from announcing that it chose one.
    given = {"attention_mask": torch.ones_like(ids), "pad_token_id": int(ids[0, -1])}
    found = hf.generate(ids, max_new_tokens=tokens, do_sample=False, past_key_values=cache, **given)
    return [int(one) for one in found[0, ids.shape[1] :]]
