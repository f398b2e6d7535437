"""Batches of pairs: what an encoder reads beside what its decoder reads, each from its own text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges
from headatlas.task.batch import complete
from headatlas.tasks._prompts import lists


def paired(
    name: str,
    tokenizer: Vocabulary,
    read: Sequence[Sequence[int]],
    written: Sequence[Sequence[int]],
    links: Sequence[Sequence[tuple[int, int]]] = (),
) -> Batch:
    """Ids of the encoder's texts and of the decoder's, without what stands around them, as a batch padded behind.

    links: of each example (token of the decoder's text, token of the encoder's); positions["aligned"] of either side are their places.
    The encoder's marks["word"] is the number of each token of its text, -1 at what stands around it. Raises UnfitTask, naming
    the task, for a tokenizer of one stack.
    """
    front, _ = edges(tokenizer)
    rows, sources = ([[*front, *row] for row in texts] for texts in (written, read))
    targets = [[len(front) + i for i, _ in pairs] for pairs in links]
    places = [[len(front) + j for _, j in pairs] for pairs in links]
    encoder = complete(_batch(sources, len(front), places), tokenizer).encoder
    if encoder is None:
        raise UnfitTask(f"{name} is made for encoder-decoders.")
    return replace(_batch(rows, len(front), targets), marks={}, encoder=encoder)


def _batch(rows: Sequence[Sequence[int]], front: int, aligned: Sequence[Sequence[int]]) -> Batch:
    lengths = torch.tensor([len(row) for row in rows])
    place = torch.arange(int(lengths.max())).expand(len(rows), -1)
    mask = place < lengths[:, None]
    word = torch.where(mask & (place >= front), place - front, -1)
    return Batch(lists(rows, 0), mask, {"aligned": lists(aligned)} if aligned else {}, {"word": word})
