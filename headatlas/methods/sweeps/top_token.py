"""Which token becomes the likeliest when a head is changed: proven by its KL where that is small, run where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from headatlas.edits.collect import pieces
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.methods.sweeps.plan import Sweep
from headatlas.model import Model
from headatlas.progress import Progress, Silent

_SLACK = 1e-3  # of a probability: what rounding may do


@torch.no_grad()
def top_tokens(model: Model, sweep: Sweep, found: HeadEffects, progress: Progress | None = None) -> Mapping[str, Any]:
    """The likeliest next token of each prompt without changes, and under each change that makes it another one.

    sweep: measured by `kl`, with labels["clean"]; found: its result. Changes that are left out keep every prompt's token. By
    Pinsker's inequality probabilities differ by no more than sqrt(2 KL) in sum, so a token that leads by more than that keeps its
    lead; all other changes are run again, one by one.
    """
    progress = progress or Silent()
    clean = sweep.batch.labels["clean"]
    lead = clean.exp().topk(2, -1).values
    margin = (lead[:, 0] - lead[:, 1]).double().numpy()
    before = clean.argmax(-1)
    with np.errstate(invalid="ignore"):
        unsure = (np.sqrt(2 * found.values) + _SLACK >= margin[:, None, None]).any(0)
    after: dict[str, list[str]] = {}
    positions = list(sweep.positions.items())
    for i, j in np.argwhere(unsure):
        (name, at), start, tokens = positions[j], 0, []
        for part in pieces(sweep.batch):
            rows = slice(start, start + len(part))
            start = rows.stop
            edits = sweep.prepare(rows)(sweep.head_sets[i], at if at is None or len(at) == 1 else at[rows])
            logits = model.forward(part, edits=edits, logit_positions=part.positions["end"].reshape(-1, 1))
            tokens.append(logits[:, 0].float().cpu().argmax(-1))
        new = torch.cat(tokens)
        if not torch.equal(new, before):
            heads = " ".join(map(str, sweep.head_sets[i]))
            after[heads if name == "all" else f"{heads}@{name}"] = model.tokenizer.pieces(new.tolist())
        progress.advance("next tokens", of=int(unsure.sum()))
    return {"before": model.tokenizer.pieces(before.tolist()), "after": after}
