"""Span corruption, the task that T5 learned on: the encoder reads sentinels for some spans, the decoder writes the spans.

Raffel et al. 2020, section 3.1.4: of "Thank you for inviting me" with two spans gone the encoder reads "Thank <extra_id_0>
inviting <extra_id_1>", and the decoder is to write "<extra_id_0> you for <extra_id_1> me <extra_id_2>" and its end token.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from headatlas.errors import UnfitTask
from headatlas.model import Tokenizer
from headatlas.model.text.reading import padded
from headatlas.task import Batch, edges
from headatlas.task.encoders import SHARE, standing

SPAN = 3  # tokens of a span on average, as T5 was trained


def corrupted(batch: Batch, tokenizer: Tokenizer, at: Tensor | None = None) -> Batch:
    """The texts of a batch, as a decoder reads them, with spans of tokens replaced by sentinels in what the encoder reads.

    at: [example, n] places in the decoder's texts of the tokens that are replaced, -1 for none; those side by side are one span.
    None: SHARE of each text's tokens in spans of SPAN on average; which ones depends on the text alone.

    positions["written"], labels["written"]: all that the decoder is to write, as `labels` of the model's own loss.
    positions["masked"], labels["masked"] [example, n]: of the replaced tokens alone, in the order of `at` (or of the text). Other
    positions, marks and counterfactuals are left out, since they are those of other texts; labels stay. The control is
    corrupted as well. Raises UnfitTask for a text of fewer than two tokens, of which none can be drawn, or with more spans than there are sentinels.
    """
    if "written" in batch.labels:
        return batch
    front = edges(tokenizer)[0]
    rule, sentinels = tokenizer.start_end, tokenizer.sentinels
    chosen = _drawn(batch, len(front), len(sentinels) - 1) if at is None else at
    read: list[list[int]] = []
    written: list[list[int]] = []
    told = torch.full_like(chosen, -1)
    for e, (row, real) in enumerate(zip(batch.tokens.tolist(), batch.mask, strict=True)):
        gone = {place: i for i, place in enumerate(chosen[e].tolist()) if place >= 0}
        source: list[int] = []
        target: list[int] = []
        spans, inside = 0, False
        for place in real.nonzero().flatten().tolist()[len(front) :]:
            if place not in gone:
                source.append(row[place])
                inside = False
                continue
            if not inside:
                _demand(
                    spans + 1 < len(sentinels),
                    f"A text has more than {len(sentinels) - 1} spans, and no sentinels for them.",
                )
                source.append(sentinels[spans])
                target.append(sentinels[spans])
                spans, inside = spans + 1, True
            told[e, gone[place]] = len(front) + len(target) - 1
            target.append(row[place])
        read.append([*rule.front, *source, *rule.back])
        written.append([*front, *target, sentinels[spans], *rule.back])
    labels = {**batch.labels, "masked": standing(batch, chosen).masked_fill(told < 0, -1)}
    found = teacher_forced(read, written, replace(batch, labels=labels))
    control = corrupted(batch.control, tokenizer) if batch.control is not None else None
    return replace(found, positions={**found.positions, "masked": told}, control=control)


def teacher_forced(read: Sequence[Sequence[int]] | Batch, written: Sequence[Sequence[int]], of: Batch) -> Batch:
    """What encoders read and decoders write, as a batch: the decoder reads all but the last token, and is to write all but the first.

    read: the encoder's tokens by example, or its batch. of: whose labels and facts it has; nothing else of it.
    """
    ids = [torch.tensor(row[1:]) for row in written]
    targets = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
    decoder = padded([row[:-1] for row in written])
    places = torch.arange(targets.shape[1]).expand_as(targets)
    return replace(
        decoder,
        positions={"written": places.masked_fill(targets < 0, -1)},
        labels={**of.labels, "written": targets},
        facts=of.facts,
        encoder=read if isinstance(read, Batch) else replace(padded(read), positions={}),
    )


def _drawn(batch: Batch, front: int, most: int) -> Tensor:
    """[example, n] places of the tokens of random spans, in order, -1 behind them."""
    found = []
    for row, real in zip(batch.tokens, batch.mask, strict=True):
        places = real.nonzero().flatten()[front:]
        _demand(len(places) > 1, "A text has no token that could be replaced.")
        chance = torch.Generator().manual_seed(zlib.crc32(row[real].cpu().numpy().tobytes()))
        gone = max(1, round(SHARE * len(places)))
        kept = len(places) - gone
        spans = min(max(1, round(gone / SPAN)), kept + 1, most)
        lengths = _parts(gone, spans, chance)
        # What stands between two spans is one token at least; before the first and after the last there may be none.
        gaps = _parts(kept + 2, spans + 1, chance)
        gaps[0], gaps[-1] = gaps[0] - 1, gaps[-1] - 1
        start, taken = 0, []
        for gap, length in zip(gaps, lengths, strict=False):
            taken.append(places[start + gap : start + gap + length])
            start += gap + length
        found.append(torch.cat(taken))
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=-1)


def _parts(total: int, n: int, chance: torch.Generator) -> list[int]:
    """A total cut into n whole numbers of at least 1, all ways alike."""
    cuts = (torch.randperm(total - 1, generator=chance)[: n - 1] + 1).sort().values.tolist()
    return [stop - start for start, stop in zip([0, *cuts], [*cuts, total], strict=True)]


def _demand(fits: bool, otherwise: str) -> None:
    if not fits:
        raise UnfitTask(otherwise)
