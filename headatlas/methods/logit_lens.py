"""Logit lens per head: the tokens that a single head's write makes more and less likely, if read out as it is.

A head's write at a position goes through the final norm, whose scale is kept at its value in this run, and W_U
(nostalgebraist 2020; per head: Elhage et al. 2021). The mean over the vocabulary is taken off, which changes no
probability. Later parts read the write too; that is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.choices import demand_some
from headatlas.errors import BadInput
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.methods.texts import Texts, texts_as_batch, token_at
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.runs.residual_stream import FinalResidual, Writes, decompose
from headatlas.model.structure.blocks import blocks_of
from headatlas.model.text.reading import as_batch
from headatlas.model.text.start_end import said_of
from headatlas.ops.types import Array
from headatlas.task import Batch, find_task

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class HeadLens:
    """What heads write in favour of and against, in logits above the mean over the vocabulary.

    heads. size: [example, head] standard deviation over the vocabulary. promoted, suppressed: [example, head, k] token ids,
    strongest first, with raised and lowered: [example, head, k] their logits. notes: what a reader must know.
    """

    heads: tuple[HeadId, ...]
    size: Array
    promoted: Ids
    raised: Array
    suppressed: Ids
    lowered: Array
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        best = ", ".join(f"{self.heads[i]} {self.size[:, i].mean():.3g}" for i in self.largest(3))
        return f"HeadLens({len(self.heads)} heads on {len(self.size)} prompts; largest {best})"

    def largest(self, k: int) -> list[int]:
        """Numbers of the `k` heads with the largest mean size."""
        return [int(i) for i in np.argsort(-self.size.mean(0), kind="stable")[:k]]


@torch.no_grad()
def head_lens(
    model: Model, batch: Inputs, positions: Tensor | None = None, heads: Heads | None = None, *, k: int = 5
) -> HeadLens:
    """The k tokens that each head promotes and suppresses most at positions [example]; default the end of each prompt.

    batch: prompts as `model.forward` takes them.
    Raises BadInput for heads or positions that do not exist, UnsupportedModel where writes cannot be told apart.
    """
    read: Batch = as_batch(batch, model.tokenizer)
    positions = read.positions["end"].reshape(-1) if positions is None else positions
    chosen = parse_heads(heads, model.heads) if heads is not None else model.heads
    model.require(chosen)
    length = read.mask.sum(1) if bool(read.mask[:, 0].all()) else torch.full((len(read),), read.tokens.shape[1])
    if bool(((positions < 0) | (positions >= length)).any()):
        raise BadInput(
            f"Position {int(positions.max() if int(positions.min()) >= 0 else positions.min())} lies outside the prompt.",
            f"Its tokens are 0 to {int(length.min()) - 1}.",
        )
    if not 1 <= k <= max(model.vocabulary_size, 1):
        raise BadInput(f"{k} tokens cannot be shown.", "Give 1 or more.")
    written: list[Writes] = []
    end = decompose(model, blocks_of(model), read, positions[:, None].to(model.device), written.append)
    by_layer = {(w.block.attention.stack, w.block.attention.index): w for w in written if w.block.attention is not None}
    found = [_head(end, by_layer[head.stack, head.layer], head.head, k) for head in chosen]
    size, promoted, raised, suppressed, lowered = (
        torch.stack(parts, 1).cpu().numpy() for parts in zip(*found, strict=True)
    )
    notes = ("logits before the model's cap, which bends large ones",) if end.capped else ()
    return HeadLens(chosen, size, promoted, raised, suppressed, lowered, notes)


def _head(end: FinalResidual, writes: Writes, head: int, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Size [example]; ids and logits [example, k] of the tokens promoted and suppressed most."""
    write = writes.heads(slice(head, head + 1))[:, 0, 0]  # [example, d_model]
    logits = end.read(write, end.scale[:, 0]).double()
    up, down = logits.topk(k, -1), (-logits).topk(k, -1)
    return logits.std(-1, correction=0), up.indices, up.values, down.indices, -down.values


def lens(
    model: Model,
    prompt: Inputs | Texts | None = None,
    *,
    task: str | None = None,
    heads: Heads | None = None,
    position: int | str | None = None,
    tokens: int = 5,
    seed: int = 0,
    top: int = 15,
) -> dict[str, Any]:
    """The tokens that heads' writes make more and less likely at one position of one prompt, as plain data (`lens_data`).

    prompt: as `model.forward` takes it (a text, a chat, ids, a Batch), or `Texts`, of which the first is read
    (`texts_as_batch` and `Batch.rows` give the others); task: a prompt of a built-in task, drawn with `seed`. heads: default
    the `top` largest writes. position: default the last token; a number from 0, or the name of a position. tokens: how many
    on either side. Raises BadInput, UnknownName, UnsupportedModel.
    """
    demand_some(top, "heads")
    if (prompt is None) == (task is None):
        raise BadInput("Say what the prompt is.", "Give either --text TEXT or --task NAME.")
    if prompt is not None:
        batch = texts_as_batch(model, prompt).rows([0])
    else:
        batch = as_batch(find_task(str(task))(model.tokenizer, 1, seed), model.tokenizer)
    place = int(batch.mask[0].nonzero().max()) if position is None else token_at(batch, position)
    where = torch.tensor([place])
    found = head_lens(model, batch, where, heads, k=tokens)
    return lens_data(model, batch, where, found, top if heads is None else len(found.heads))


def lens_data(model: Model, batch: Batch, positions: Tensor, found: HeadLens, top: int) -> dict[str, Any]:
    """The first example's `top` largest heads as plain data, with tokens as text and the model's own next tokens."""
    text = lambda one: model.tokenizer.decode(int(one))  # noqa: E731
    logits = model.forward(batch.rows([0]), logit_positions=positions[:1, None])[0, 0]

    def side(ids: Ids, values: Array, i: int) -> list[dict[str, Any]]:
        pairs = zip(ids[0, i], values[0, i], strict=True)
        return [{"id": int(one), "token": text(one), "logit": float(value)} for one, value in pairs]

    return {
        "schema": "headatlas/lens/1",
        "model": model.name,
        "start_end": said_of(batch.facts),
        "position": int(positions[0]),
        "token": text(batch.tokens[0, positions[0]]),
        "predicted": [text(one) for one in logits.topk(5).indices],
        "notes": list(found.notes),
        "heads": [
            {
                "head": str(found.heads[i]),
                "size": float(found.size[0, i]),
                "promoted": side(found.promoted, found.raised, i),
                "suppressed": side(found.suppressed, found.lowered, i),
            }
            for i in found.largest(top)
        ],
    }
