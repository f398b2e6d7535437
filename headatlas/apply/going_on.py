"""Prompts that a model goes on with, and what it writes behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.methods.texts import Texts
from headatlas.model import Model
from headatlas.model.core.hooks import evaluating


def prompts_to_continue(
    model: Model, text: str | Sequence[str], chat: str | Path | None, tokens: int
) -> Iterator[Tensor]:
    """The ids [1, n] of each text, or each chat of a file, behind which `tokens` more fit. Raises BadInput."""
    batch = Texts(text, chat).read(model)
    for row, mask in zip(batch.tokens, batch.mask, strict=True):
        ids = row[mask][None].to(model.device)
        demand_room(model, ids.shape[1], tokens)
        yield ids


def demand_room(model: Model, n: int, tokens: int) -> None:
    """Raise BadInput unless a prompt of n tokens can be continued by so many."""
    if n < 1 or tokens < 1 or n + tokens > model.tokenizer.context:
        raise BadInput(
            f"A prompt of {n} tokens cannot be continued by {tokens}.", f"Together 1 to {model.tokenizer.context} fit."
        )


@torch.no_grad()
def written(model: Model, hf: Any, ids: Tensor, tokens: int, **how: Any) -> str:
    """The text that greedy generate() writes behind ids [1, n]; how: what else it is given."""
    # One prompt needs no padding; naming a token for it keeps transformers from announcing that it chose one.
    with evaluating(hf):
        found = hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=int(ids[0, -1]),
            **how,
        )
    return model.tokenizer.decode(found[0, ids.shape[1] :].tolist())
