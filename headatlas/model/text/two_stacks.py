"""What an encoder reads where the decoder of the same model reads a batch: the same texts at other positions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headatlas.model.text.start_end import StartEnd
from headatlas.task import Batch


def completed(batch: Batch, rule: StartEnd) -> Batch:
    """A batch of texts as the stack that predicts tokens reads them, with the encoder's side of an encoder-decoder.

    The facts say by which rule the texts begin and end, unless they say it already.
    """
    if rule.two_stacks and batch.encoder is None:
        batch = replace(batch, encoder=_encoder(batch, rule))
    return replace(
        batch,
        facts={"start_end": str(rule), **batch.facts},
        control=None if batch.control is None else completed(batch.control, rule),
        counterfactual=None if batch.counterfactual is None else completed(batch.counterfactual, rule),
    )


def _encoder(batch: Batch, rule: StartEnd) -> Batch:
    """The encoder's rows: without the decoder's start token, with what the tokenizer puts around a text; padded behind."""
    rows, moves = [], []
    for tokens, mask in zip(batch.tokens, batch.mask, strict=True):
        real = tokens[mask].tolist()
        begun = rule.decoder_start is not None and real[:1] == [rule.decoder_start]
        text = real[int(begun) :]
        rows.append(rule.around(text))
        # A token at p in the decoder's row stands at p + move in the encoder's.
        moves.append(len(rule.missing_front(text)) - int(begun) - int(mask.long().argmax()))
    length = max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(length) < lengths[:, None]
    shift = torch.tensor(moves)

    def moved(at: Tensor) -> Tensor:
        by = shift.view(-1, *[1] * (at.ndim - 1))
        return torch.where(at >= 0, at.cpu() + by, -1).clamp(min=-1)

    def marked(marks: Tensor) -> Tensor:
        found = torch.full((len(rows), length), -1, dtype=marks.dtype)
        source = torch.arange(length) - shift[:, None]
        inside = mask & (source >= 0) & (source < marks.shape[1])
        taken = marks.cpu().gather(1, source.clamp(0, marks.shape[1] - 1))
        return torch.where(inside, taken, found)

    return Batch(
        torch.tensor([row + [0] * (length - len(row)) for row in rows]),
        mask,
        positions={name: moved(at) for name, at in batch.positions.items()},
        marks={name: marked(marks) for name, marks in batch.marks.items()},
        labels=batch.labels,
        facts={**batch.facts, "bos": rule.front[0] if rule.front else None},
    )


def shifted(tokens: Tensor, mask: Tensor, start: int) -> Tensor:
    """What a decoder reads where its text [example, pos] is the encoder's: the start token, then all but the last token."""
    first = mask.long().argmax(1, keepdim=True)
    moved = torch.cat([tokens[:, :1], tokens[:, :-1]], 1)
    return moved.scatter(1, first, start)
