"""Heads that find a word of the text which is about to be said again, and argue against it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.edits import OnHeads
from headatlas.edits.collect import means
from headatlas.methods.sweeps.set_ablation import SetAblation, ablated
from headatlas.methods.weights.copying import lowered
from headatlas.methods.weights.qk_ov import readout, token_vectors
from headatlas.model import Model
from headatlas.model.runs.token_embedding import keys_of, queries_of
from headatlas.task import Batch, Metric
from headatlas.tasks.prose import prose

WORDS = 3  # drawn from each text
LOWEST = 10  # ranks of the vocabulary that count as suppressed, as in the paper
HIGHEST = 10  # ranks of the sampled vocabulary that count as sought
SAMPLED = 2048  # tokens of the vocabulary whose keys are compared: all of them would take minutes
OFFSET = 8  # tokens between a word and its prediction, for models that turn queries and keys by position


@model_detector(
    head_type="copy-suppression-head",
    task=prose,
    version=3,
    minimum_effect=0.1,
    needs=("unembedding",),
    finds=("copy-suppression",),
)
def copy_suppression(model: Model, batch: Batch) -> Measured:
    """Words that a head looks for when they are predicted, and lowers when it finds them: 0 none, 1 all.

    Formula: share of 3 words a text, each word in one text only, that meet both conditions of McDougall et al. 2023, read
    off the weights. QK: for the query that the head makes of the word's unembedding vector, which is how a prediction of it
    stands in the stream, the word's own key (effective embedding, 8 places back) ranks among the 10 highest of 2,048 tokens
    spread over the vocabulary.
    OV: when the head attends to the word, the word is among the 10 tokens of the whole vocabulary that it lowers most.
    Chance: the same with the query made of the word's own embedding, so that heads that look for copies of the current word
    and lower it stay at chance; where embeddings and unembedding are tied, this is the baseline that the paper asks for.
    Differs: the paper counts tokens whose key is the highest of the whole vocabulary, in GPT-2, where distance plays no
    part in that; ten of the sample was chosen with the ranks of four heads of SmolLM2 in view, so counts on that model are not
    independent of it. Minimum effect: one word in ten. Verdict: the heads are mean-ablated, and the effect is not that on the loss but the rise in the log probability, in nats,
    of tokens of the text so far that do not come next.
    """
    words = _drawn(model, batch.tokens.tolist())
    known = torch.tensor(sorted({one for row in words for one in row}))
    size = (len(batch), len(model.heads))
    values, control = (torch.full(size, torch.nan, dtype=torch.float64) for _ in range(2))
    if not len(known):
        return Measured(values, control)
    own = token_vectors(model, known)
    columns = readout(model)[0][:, known].T
    asked = columns * (own.norm(dim=-1, keepdim=True) / columns.norm(dim=-1, keepdim=True))
    sought = _sought(model, known, own, (asked, own))
    # Few pairs meet the first condition, and the second one takes a product with much of the vocabulary for each.
    suppressed = lowered(model, known, LOWEST, asked=sought[0] | sought[1])
    both = [suppressed & one for one in sought]
    for example, row in enumerate(words):
        if row:
            places = torch.searchsorted(known, torch.tensor(row))
            for target, hits in zip((values, control), both, strict=True):
                target[example] = hits[places].double().mean(0)
    return Measured(values, control)


def _drawn(model: Model, texts: list[list[int]]) -> list[list[int]]:
    """Up to WORDS different tokens of each text that are words of four letters or more, spread evenly over it.

    What is measured is the word, so a word that several texts hold is drawn for the first of them alone: counted again and
    again it would make one fact about the weights look like many independent ones.
    """
    taken: set[int] = set()
    drawn = []
    for tokens in texts:
        starts = model.tokenizer.word_starts(tokens)
        several = {one for one, start in zip(tokens[1:], starts[1:], strict=True) if not start}
        found: list[int] = []
        for one, start in zip(tokens, starts, strict=True):
            text = model.tokenizer.decode(one).strip()
            if (
                start
                and one not in several
                and one not in taken
                and one not in found
                and text.isalpha()
                and len(text) >= 4
            ):
                found.append(one)
        drawn.append(found[:: max(1, len(found) // WORDS)][:WORDS])
        taken.update(drawn[-1])
    return drawn


def _sought(model: Model, known: Tensor, own: Tensor, asking: Sequence[Tensor]) -> list[Tensor]:
    """For each kind of query vectors [word, d_model], [word, head]: whether the word's own key is among the HIGHEST."""
    plain = torch.tensor(model.tokenizer.plain_ids())
    spread = plain[torch.linspace(0, len(plain) - 1, min(SAMPLED, len(plain))).long()].unique()
    others = token_vectors(model, spread[~torch.isin(spread, known)])
    found: list[list[Tensor]] = [[] for _ in asking]
    for layer in model.layers:
        mine, theirs = (keys_of(model, layer, vectors) for vectors in (own, others))
        for hits, vectors in zip(found, asking, strict=True):
            query = queries_of(model, layer, vectors, OFFSET)
            least = torch.einsum("whd,whd->wh", query, mine)
            scores = torch.cat([torch.einsum("whd,thd->wht", query, key) for key in (mine, theirs)], -1)
            scores.diagonal(dim1=0, dim2=2).fill_(-torch.inf)  # rounding must not let a word exceed itself
            hits.append((scores > least[..., None]).sum(-1) < HIGHEST)
    return [torch.cat(hits, 1).cpu() for hits in found]


def _repeats(logits: Tensor, batch: Batch) -> Tensor:
    positions = batch.positions["predict"]
    following = batch.tokens.gather(1, (positions + 1).clamp(min=0))[..., None]  # [example, n, 1]
    real = batch.mask & (batch.mask.long().cumsum(1) > 1)  # without the first token, which is no word of the text
    seen = real[:, None] & (torch.arange(batch.tokens.shape[1]) <= positions[..., None])
    wrong = torch.zeros(logits.shape, dtype=torch.bool)
    wrong.scatter_(-1, torch.where(seen, batch.tokens[:, None], following), True)
    wrong.scatter_(-1, following, False)
    mass = logits.float().log_softmax(-1).masked_fill(~wrong, -torch.inf).logsumexp(-1)
    present = positions >= 0
    return torch.where(present, mass, 0.0).sum(1) / present.sum(1)


# Mean log probability that the next token is one of the text so far, where it is none of them.
wrong_repeats = Metric(
    "log probability of wrong repeats", lambda batch: batch.positions["predict"], _repeats, False, "nats"
)


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """The heads mean-ablated, and how much more the model then bets on tokens of the text that do not come next."""
    _, found, _ = means(model, batch, OnHeads(model.heads))
    return ablated(model, batch, wrong_repeats, {place: value[0] for place, value in found.items()})
