"""Metrics of models with an encoder: the loss of masked tokens where there is a head for it, else the pooled vector.

Labels that they read: `masked` [example, n] the ids that stood at positions["masked"] before the mask token did; `vector`
[example, d_model] the pooled vector of the run without changes; `written` [example, n] the ids that a decoder is to write,
each told at its place of positions["written"].
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import torch
from torch import Tensor

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Metric, Vocabulary, edges
from headatlas.task.batch import complete

SHARE = 0.15  # of a text's tokens that are masked at once (Devlin et al. 2019)
ROUNDING = 1e-11  # of the change of a vector, which is a square: what batches of another size leave in float32


def masked(batch: Batch, tokenizer: Vocabulary, mask: int) -> Batch:
    """The batch with a share of each text's tokens, start and end left out, replaced by the mask token.

    Which ones depends on the text alone, so that neither the other examples nor their order matter. Its control is masked as
    well. Raises UnfitTask for a text without a token.
    """
    if "masked" in batch.labels:
        return batch
    at, ids = _chosen(batch, tokenizer)
    return replace(
        batch,
        tokens=replaced(batch, at, mask).tokens,
        positions={**batch.positions, "masked": at},
        labels={**batch.labels, "masked": ids},
        control=masked(batch.control, tokenizer, mask) if batch.control is not None else None,
    )


def noised(batch: Batch, tokenizer: Vocabulary, mask: int, at: Tensor | None = None) -> Batch:
    """The batch of an encoder-decoder with such tokens masked in what its encoder reads; the decoder reads the text whole.

    at: [example, n] the places in the decoder's text of the tokens that are masked, -1 for none; None: a share of each text's.
    positions["masked"]: these places, "before masked" those before them, at which the tokens are
    predicted. Its control is masked as well. Raises UnfitTask for a text without a token.
    """
    if "masked" in batch.labels:
        return batch
    at, ids = _chosen(batch, tokenizer) if at is None else (at, standing(batch, at))
    before = torch.where(at > 0, at - 1, -1)
    positions = {**batch.positions, "masked": at, "before masked": before}
    labels = {**batch.labels, "masked": ids.masked_fill(before < 0, -1)}
    both = complete(
        replace(batch, encoder=None, positions=positions, labels=labels, control=None, counterfactual=None), tokenizer
    )
    assert both.encoder is not None
    read = replaced(both.encoder, both.encoder.positions["masked"], mask)
    control = noised(batch.control, tokenizer, mask) if batch.control is not None else None
    return replace(both, encoder=read, control=control)


def _chosen(batch: Batch, tokenizer: Vocabulary) -> tuple[Tensor, Tensor]:
    """Places of tokens to be masked and what stands there, [example, n] each, -1 for none."""
    front, back = map(len, edges(tokenizer))
    chosen = []
    for row, real in zip(batch.tokens, batch.mask, strict=True):
        places = real.nonzero().flatten()[front:]
        places = places[: len(places) - back]
        if not len(places):
            raise UnfitTask("A text has no token that could be masked.")
        seed = zlib.crc32(row[real].numpy().tobytes())
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
        chosen.append(places[order[: max(1, round(SHARE * len(places)))]].sort().values)
    at = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=-1)
    return at, standing(batch, at)


def standing(batch: Batch, at: Tensor) -> Tensor:
    """[example, n] the ids that stand at [example, n], -1 for none."""
    return batch.tokens.gather(1, at.clamp(min=0)).masked_fill(at < 0, -1)


def replaced(batch: Batch, at: Tensor, mask: int) -> Batch:
    """The batch with the mask token at [example, n], -1 for none."""
    hit = torch.zeros_like(batch.mask).scatter(1, at.clamp(min=0), True)  # a filler names place 0,
    hit[:, 0] = (at == 0).any(1)  # which counts where it was chosen
    return replace(batch, tokens=batch.tokens.masked_fill(hit, mask))


def _masked_loss(logits: Tensor, batch: Batch) -> Tensor:
    return _mean_loss(logits, batch.labels["masked"].to(logits.device))


def _written_loss(logits: Tensor, batch: Batch) -> Tensor:
    return _mean_loss(logits, batch.labels["written"].to(logits.device))


def _mean_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """[example] mean cross-entropy of ids [example, n], -1 for none."""
    loss = -logits.float().log_softmax(-1).gather(-1, ids.clamp(min=0)[..., None])[..., 0]
    present = ids >= 0
    return loss.masked_fill(~present, 0.0).sum(1) / present.sum(1)


def pooled(states: Tensor, batch: Batch) -> Tensor:
    """[example, d_model] mean of last hidden states [example, pos, d_model] over all tokens of a text, of length 1.

    Of classifiers, whose outputs [example, label] are one a text, these.
    """
    if states.ndim == 2:
        return torch.nn.functional.normalize(states.double(), dim=-1)
    real = batch.mask.to(states.device)[..., None]
    return torch.nn.functional.normalize((states.double() * real).sum(1), dim=-1)


def _moved(states: Tensor, batch: Batch) -> Tensor:
    clean = batch.labels["vector"].to(states.device)
    change = ((pooled(states, batch) - clean) ** 2).sum(-1) / 2  # 1 - cosine of two vectors of length 1
    return change.masked_fill(change < ROUNDING, 0.0)


def _first(batch: Batch) -> Tensor:
    return torch.zeros(len(batch), 1, dtype=torch.long)


# Mean cross-entropy of the masked tokens.
masked_token_loss = Metric("masked-token loss", lambda batch: batch.positions["masked"], _masked_loss, False, "nats")
# The same of an encoder-decoder, whose decoder writes the tokens that its encoder reads masked (as BART is trained).
denoising_loss = Metric("denoising loss", lambda batch: batch.positions["before masked"], _masked_loss, False, "nats")
# Mean cross-entropy of what a T5 is to write where spans of the text were replaced by sentinels in what its encoder reads:
# the sentinels with the tokens behind each, the last sentinel and the end token (Raffel et al. 2020).
span_corruption_loss = Metric(
    "span-corruption loss", lambda batch: batch.positions["written"], _written_loss, False, "nats"
)
# Mean cross-entropy of what the model itself writes for the text that its encoder reads, by greedy decoding without changes.
own_output_loss = Metric(
    "loss of its own greedy output", lambda batch: batch.positions["written"], _written_loss, False, "nats"
)
# 1 - cosine between the pooled vector and that of the clean run: 0 where a change does nothing, 1 for unrelated vectors.
pooled_change = Metric("pooled-vector change", _first, _moved, False, "", level=True)
