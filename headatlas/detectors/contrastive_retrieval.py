"""Heads that tell the text which answers a question from texts that nearly do."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.model.runs.mean_attention import mean_rows
from headatlas.ops.patterns import aimed, every_pair
from headatlas.task import Batch
from headatlas.tasks.documents import DOCUMENTS, documents

# The authors' for Llama 3.1 and Phi 4. With their other, 0.001, a hundredth of attention decides all, which the length of a text makes.
TEMPERATURE = 0.1


# By chance a sixth of the softmax.
@detector(head_type="contrastive-retrieval-head", task=documents, version=1, minimum_effect=0.05)
def contrastive_retrieval(layer: LayerView, batch: Batch) -> Tensor:
    """Share of the text that answers in a softmax over what a question's tokens give to each text: 0 none, 1 all, 1/6 where six get the same.

    Formula: exp(A_p / T) / sum over the texts d of exp(A_d / T), p the text that answers, A_d = sum over its tokens k of the mean over the
    question's tokens i of A[i, k], T = 0.1 (Tran et al. 2025, CoRe heads, as their code has it). Chance: the mean share of the five texts that
    do not answer. Differs: the paper's other texts are passages that a retriever ranks high; here each tells another fact about the same
    city, or a fact about another one. Its authors take T = 0.001 for Mistral and Granite. What a question without content gets they
    take off where texts are ordered (`headatlas rerank`), not where heads are scored; so here.
    """
    shares = _shares(layer, batch)
    return shares.gather(2, _gold(batch, shares)).squeeze(2)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The mean share of the texts that do not answer: [example, head]."""
    shares = _shares(layer, batch)
    return shares.scatter(2, _gold(batch, shares), torch.nan).nanmean(2)


def _shares(layer: LayerView, batch: Batch) -> Tensor:
    """[example, head, text] each text's share of the softmax."""
    row = mean_rows(layer, _question(batch))
    mass = []
    for number in range(1, DOCUMENTS + 1):
        span = batch.positions[f"doc_{number}"].to(row.device)
        inside = row.gather(2, span.clamp(min=0)[:, None].expand(-1, row.shape[1], -1))
        mass.append(inside.masked_fill((span < 0)[:, None], 0.0).sum(2))
    return (torch.stack(mass, -1) / TEMPERATURE).softmax(-1)


def _question(batch: Batch) -> Tensor:
    """Positions [example, n] of all tokens of the question, -1 for none."""
    return torch.cat([batch.positions["query"], batch.positions["asked"]], 1)


def _gold(batch: Batch, shares: Tensor) -> Tensor:
    """[example, head, 1] the place of the text that answers."""
    return batch.labels["gold"].to(shares.device)[:, None, None].expand(-1, shares.shape[1], 1)


def planted(batch: Batch) -> Planted:
    """Every token of the question attends to the whole text that answers."""
    spans = torch.nn.utils.rnn.pad_sequence(
        [batch.positions[f"doc_{int(gold) + 1}"][e] for e, gold in enumerate(batch.labels["gold"])], True, -1
    )
    return _from_question(batch, spans)


def look_alike(batch: Batch) -> Planted:
    """A head that attends to the first text, whatever is asked."""
    return _from_question(batch, batch.positions["doc_1"])


def _from_question(batch: Batch, keys: Tensor) -> Planted:
    """All tokens of the question attend to keys [example, n]."""
    length = batch.tokens.shape[1]
    return Planted(aimed((len(batch), length, length), *every_pair(_question(batch), keys)))
