"""Text that a model goes on with while it is steered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from headatlas.apply.going_on import demand_room, written
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
    demand_room(model, len(ids), n)
    tokens = torch.tensor([ids], device=model.device)
    edits = [] if make is None else list(make(range(len(ids) - 1, len(ids) - 1 + n)))
    with model.edited(edits) as hf:
        return written(model, hf, tokens, n)
