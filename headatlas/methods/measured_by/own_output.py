"""What an encoder-decoder writes by itself for the texts of a batch, as a target: all there is to ask a translator without a translation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from headatlas.edits.collect import pieces
from headatlas.methods.measured_by.spans import teacher_forced
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.task.batch import complete

MOST = 24  # tokens of the output, which is cut there


def writes(model: Model) -> bool:
    """Whether the model reads tokens, writes text by itself, and names the token that its decoder starts with."""
    able = getattr(model.hf, "can_generate", None)
    reads = "input_ids" in model.accepts and model.tokenizer.start_end.decoder_start is not None
    return model.has_logits and reads and able is not None and bool(able())


@torch.no_grad()
def with_own_output(model: Model, batch: Batch) -> Batch:
    """The batch with what the model's decoder writes for what its encoder reads: greedy `generate`, by the model's own settings.

    positions["written"], labels["written"]: the first MOST tokens of it, the end token included where it is among them. Other
    positions, marks of the decoder's texts and counterfactuals are left out, since they are those of other texts. The control keeps its own source,
    and is asked for the same output.
    """
    if "written" in batch.labels:
        return batch
    whole = complete(batch, model.tokenizer)
    written: list[list[int]] = []
    for part in pieces(whole):
        assert part.encoder is not None
        written += _written(model, part.encoder)
    found = teacher_forced(_bare(whole), written, whole)
    if whole.control is None:
        return found
    return replace(found, control=teacher_forced(_bare(whole.control), written, whole.control))


def _bare(batch: Batch) -> Batch:
    assert batch.encoder is not None
    return replace(batch.encoder, control=None, counterfactual=None)


def _written(model: Model, read: Batch) -> list[list[int]]:
    """What the decoder reads first, with what it then writes, up to its end token."""
    hf: Any = model.hf
    config = hf.generation_config
    ends = config.eos_token_id
    stops = set(ends if isinstance(ends, list) else [ends])
    pad = config.pad_token_id
    tokens = read.tokens if pad is None else read.tokens.masked_fill(~read.mask, pad)
    found = hf.generate(
        input_ids=tokens.to(model.device), attention_mask=read.mask.long().to(model.device), do_sample=False, num_beams=1,
        max_new_tokens=max(1, min(MOST, model.tokenizer.context - 1)), return_dict_in_generate=False,
    )  # fmt: skip
    rows = []
    for row in found.tolist():
        # Not the first: BART's start is its end token.
        last = next((i for i, one in enumerate(row) if i and one in stops), len(row) - 1)
        rows.append(row[: last + 1])
    return rows
