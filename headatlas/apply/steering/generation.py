"""Text that a model goes on with while it is steered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from headatlas.edits import OnHeads
from headatlas.edits.base import Positions
from headatlas.errors import BadInput
from headatlas.model import Model


def generate(
    model: Model, prompt: str, make: Callable[[Positions], Sequence[OnHeads]] | None = None, n: int = 40
) -> str:
    """The model's greedy continuation of a prompt by up to n tokens, steered at each position that decides a token of it.

    make(positions): the edits, such as `lambda positions: [steering.add(10, positions)]`; None: unsteered. Raises BadInput.
    """
    if not model.has_logits or model.kind != "decoder":
        raise BadInput(f"{model.name} does not generate text.", "Use a decoder.")
    ids = model.tokenizer.start_end.read(model.tokenizer.encode(prompt))
    if not ids or n < 1 or len(ids) + n > model.tokenizer.context:
        raise BadInput(
            f"A prompt of {len(ids)} tokens cannot be continued by {n}.",
            f"Together 1 to {model.tokenizer.context} fit.",
        )
    tokens = torch.tensor([ids], device=model.device)
    edits = [] if make is None else list(make(range(len(ids) - 1, len(ids) - 1 + n)))
    with model.edited(edits) as hf, torch.no_grad():
        plain: Any = hf
        # One prompt needs no padding; naming a token for it keeps transformers from announcing that it chose one.
        text = plain.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, do_sample=False, pad_token_id=ids[-1]
        )
    return model.tokenizer.decode(text[0, len(ids) :].tolist())
