"""Heads that attend to the end of the word that comes next in a copied text."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of
from headatlas.task import Batch
from headatlas.tasks.repeated_words import repeated_words


# A sixth of what the first head of SmolLM2-135M has beyond chance: words differ, and 32 texts say no more for sure.
@detector(head_type="concept-induction-head", task=repeated_words, version=1, minimum_effect=0.03)
def concept_induction(layer: LayerView, batch: Batch) -> Tensor:
    """Attention, from the token before a repeated word of several tokens, to the last token of its first copy: 0 none, 1 all.

    Formula: mean over the text's words of E[i, j], i the token before the second copy of the word, j the last token of
    its first copy, E[i, k] = A[i, k] |v_k| / sum over k' of A[i, k'] |v_k'|, v the head's values (last-token matching by
    value-weighted attention; Feucht et al. 2025, as their code has it). Chance: the larger of two: the same for runs of
    as many random tokens, which a head reaches that skips ahead; and from the other random tokens of the second copy to
    the ends of words, which a head reaches that looks at them from anywhere. Examples: 64 or more; words differ much, and
    32 leave all but the strongest undecided. Differs: the paper has no chance level and takes the best heads; its score
    on random tokens comes from texts of their own. Its words are subjects of CounterFact, one a text, in shuffled tokens
    of the Pile, and its texts end before the word; here names from the bundled facts, three a text, whose tokens follow.
    Its causal score, which patches heads between prompts, is not measured here; `induction` has next-token matching.
    """
    return mean_of(
        _weighted(layer, batch.positions["word_query"], batch.positions["word_last"]).diagonal(dim1=-2, dim2=-1)
    )


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The larger of what runs of random tokens get in the place of words, and of what words get from elsewhere: [example, head]."""
    runs = _weighted(layer, batch.positions["run_query"], batch.positions["run_last"]).diagonal(dim1=-2, dim2=-1)
    elsewhere = _weighted(layer, batch.positions["rest"], batch.positions["word_last"])
    return torch.maximum(mean_of(runs), mean_of(elsewhere, (-2, -1)))


def _weighted(layer: LayerView, queries: Tensor, keys: Tensor) -> Tensor:
    """[example, head, query, key] value-weighted attention from queries [example, n] to keys [example, m]; NaN for a query of -1."""
    asked, looked = (places.to(layer.q.device) for places in (queries, keys))
    rows = layer.pattern.gather(2, asked.clamp(min=0)[:, None, :, None].expand(-1, layer.n_heads, -1, layer.n_keys))
    weighted = rows.float() * layer.repeat(layer.v).float().norm(dim=-1)[:, :, None]
    shares = weighted / weighted.sum(-1, keepdim=True)
    at = shares.gather(3, looked[:, None, None].expand(*shares.shape[:3], -1))
    return at.masked_fill((asked < 0)[:, None, :, None], torch.nan)


def planted(batch: Batch) -> Planted:
    """The token before each word attends to the end of its first copy."""
    n, length = batch.tokens.shape
    return Planted(aimed((n, length, length), batch.positions["word_query"], batch.positions["word_last"]))


def look_alike(batch: Batch) -> Planted:
    """A head that skips ahead: it attends to the end of what comes next, be it a word or random tokens."""
    n, length = batch.tokens.shape
    queries, keys = (
        torch.cat([batch.positions[f"{what}_{which}"] for what in ("word", "run")], 1) for which in ("query", "last")
    )
    return Planted(aimed((n, length, length), queries, keys))
