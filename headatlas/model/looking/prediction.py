"""What a model predicts after a text: its most likely next tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.model.text.reading import as_batch
from headatlas.model.text.start_end import said_of
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.render.escape import shown


class Predicts(Protocol):
    """What is asked of a model here; `Model` has it."""

    tokenizer: Tokenizer

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def has_logits(self) -> bool: ...  # noqa: D102
    @property
    def forward(self) -> Callable[..., Tensor]: ...  # noqa: D102


@dataclass(frozen=True, repr=False)
class Prediction:
    """The most likely next tokens after each text.

    tokens: for each text the tokens as text, most likely first; ids, probabilities: [example, k]. start_end: how the texts' tokens
    were made.
    """

    model: str
    tokens: tuple[tuple[str, ...], ...]
    ids: Tensor
    probabilities: Tensor
    start_end: str

    def __repr__(self) -> str:
        rows = [
            ", ".join(f"{shown(t, lines=False)!r} {float(p):.3f}" for t, p in zip(tokens, chances, strict=True))
            for tokens, chances in zip(self.tokens, self.probabilities, strict=True)
        ]
        return f"Prediction({self.model}: " + ("" if len(rows) == 1 else "\n  ") + "\n  ".join(rows) + ")"


@torch.no_grad()
def predict(model: Predicts, batch: Any, k: int) -> Prediction:
    """The `k` most likely next tokens at the end of each text. Raises BadInput for a model without token logits."""
    if not model.has_logits:
        raise BadInput(f"{model.name} gives no token logits.", "Load it with its language-model head.")
    read = as_batch(batch, model.tokenizer)
    end = read.positions["end"].reshape(-1, 1)
    chances = model.forward(read, logit_positions=end)[:, 0].float().softmax(-1).cpu()
    if not 1 <= k <= chances.shape[-1]:
        raise BadInput(f"{k} tokens cannot be shown.", f"Give 1 to {chances.shape[-1]}.")
    best = chances.topk(k, -1)
    texts = tuple(tuple(model.tokenizer.pieces(row)) for row in best.indices.tolist())
    return Prediction(model.name, texts, best.indices, best.values, said_of(read.facts))
