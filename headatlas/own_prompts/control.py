"""A control for prompts that were given: the same words in an order that says nothing."""

from __future__ import annotations

from dataclasses import replace

import torch

from headatlas.model.text.start_end import rule_of
from headatlas.task import Batch, Vocabulary, edges


def disordered(batch: Batch, tokenizer: Vocabulary) -> Batch:
    """Each text's own tokens in another order, those that stand around a text and a written answer's in their places.

    Structure destroyed, words kept: what is asked for behind the prompt is still asked for. Of an encoder-decoder the encoder's
    text is disordered too.
    """
    tokens = batch.tokens.clone()
    around = torch.tensor(
        [*edges(tokenizer)[0], *rule_of(tokenizer).front, *rule_of(tokenizer).back], dtype=tokens.dtype
    )
    written = torch.zeros_like(batch.mask)
    if (
        "targets" in batch.labels
    ):  # each stands one place behind where it is predicted; a last column takes what is absent
        behind = batch.positions["predict"] + 1
        at = behind.where(behind > 0, torch.tensor(tokens.shape[1]))
        written = torch.nn.functional.pad(written, (0, 1)).scatter(1, at, True)[:, :-1]
    for number, row in enumerate(tokens):
        places = (batch.mask[number] & ~written[number] & ~torch.isin(row, around)).nonzero().flatten()
        mixed = torch.randperm(len(places), generator=torch.Generator().manual_seed(number))
        row[places] = row[places[mixed]].clone()
    read = batch.encoder
    if read is not None:
        read = replace(disordered(replace(read, labels={}), tokenizer), labels=read.labels)
    return replace(batch, tokens=tokens, control=None, counterfactual=None, encoder=read)
