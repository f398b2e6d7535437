"""Copying and suppression read off the weights: does a head raise, or lower, the very token that it attends to?

Two forms. Eigenvalues: the full OV circuit from all tokens to all tokens, Elhage et al. 2021. Top k: a token goes through
embedding, the head's norm, W_V (with its bias), W_O and the read-out; is it among the k highest of the whole vocabulary
(Wang et al. 2022, the copy score of name movers), or, with the head's write turned round before the final norm, the
negative copy score, among the k lowest (McDougall et al. 2023 take 10 lowest for copy suppression).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.methods.weights.qk_ov import Circuits, circuits_of, readout, to_logits, token_vectors
from headatlas.model import Model
from headatlas.ops import weights
from headatlas.ops.weights import Factored
from headatlas.scores import HeadScores
from headatlas.task import Vocabulary
from headatlas.tasks.ioi import one_token_names
from headatlas.tasks.ioi import words as ioi_words

_TOKENS = 256  # tokens that go through all heads of a layer at once


def tokens_of(tokenizer: Vocabulary, words: Sequence[str] | None = None) -> Tensor:
    """Ids [token] of words as they stand inside a text, after a space; default: the first names of the IOI task that are one token.

    Raises BadInput for a word that takes several tokens.
    """
    if words is None:
        names = [name for half in ioi_words()["names"].values() for name in half]
        return torch.tensor(list(one_token_names(tokenizer, names).values()))
    found = {word: tokenizer.single(f" {word.strip()}") for word in words}
    several = [word for word, one in found.items() if one is None]
    if several or not found:
        raise BadInput(
            f"Not one token in this vocabulary: {', '.join(several)}.", "Use words of one token, such as frequent ones."
        )
    return torch.tensor([one for one in found.values() if one is not None])


@dataclass(frozen=True)
class OVRanks:
    """raised, lowered [example, head, target]: how many tokens a head raises (lowers) more than the target, 0 for none."""

    heads: tuple[HeadId, ...]
    raised: NDArray[np.int64]
    lowered: NDArray[np.int64]


def ov_ranks(
    model: Model,
    source: Tensor,
    targets: Tensor,
    *,
    form: str = "effective",
    among: Tensor | None = None,
    heads: Heads | None = None,
) -> OVRanks:
    """Where the targets rank among all tokens in what each head writes when it attends to a source token.

    source [example], targets [example, target] ids. among [m]: ranks within these ids only, which must hold the targets;
    left out: the whole vocabulary. form: see `headatlas.model.runs.token_embedding.embedded`. heads: default model.heads.
    "Lowered" turns the write round before the final norm. Raises BadInput, UnsupportedModel.
    """
    chosen = model.heads if heads is None else parse_heads(heads, model.heads)
    model.require(chosen)
    if targets.ndim != 2 or len(source) != len(targets):
        raise BadInput(
            f"Targets must be [{len(source)}, target] for {len(source)} sources; got {tuple(targets.shape)}."
        )
    matrix, bias = readout(model)
    ranked = targets
    if among is not None:
        where = torch.full((model.vocabulary_size,), -1)
        where[among] = torch.arange(len(among))
        ranked = where[targets]
        if bool((ranked < 0).any()):
            raise BadInput("A target token is not among the tokens to rank.", "Add the targets to `among`.")
        matrix, bias = matrix[:, among], None if bias is None else bias[among]
    vectors = token_vectors(model, source, form)
    shape = len(source), len(chosen), targets.shape[1]
    raised, under = (np.empty(shape, dtype=np.int64) for _ in range(2))
    for columns, circuits in _layers(model, chosen):
        index = torch.tensor([chosen[i].head for i in columns])
        for rows in weights.pieces(len(source), _TOKENS):
            read = to_logits(model, circuits.written(vectors[rows])[index])
            wanted = ranked[rows].expand(len(columns), -1, -1)
            for found, counted in zip((raised, under), weights.ranks(read, matrix, bias, wanted), strict=True):
                found[rows, columns] = counted.transpose(0, 1).numpy()
    return OVRanks(chosen, raised, under)


def lowered(model: Model, tokens: Tensor, k: int, *, asked: Tensor | None = None) -> Tensor:
    """[token, head] whether a token [token] is among the k that a head lowers most when it attends to it.

    asked [token, head]: which pairs are looked at, the others are False; None: all. `ov_ranks(...).lowered < k` at less cost: no
    rank is counted out. Raises UnsupportedModel.
    """
    matrix, bias = readout(model)
    vectors = token_vectors(model, tokens)
    found = torch.zeros(len(tokens), len(model.heads), dtype=torch.bool)
    for columns, circuits in _layers(model, model.heads):
        index = torch.tensor([model.heads[i].head for i in columns])
        for rows in weights.pieces(len(tokens), _TOKENS):
            write = to_logits(model, circuits.written(vectors[rows])[index])
            size = rows.stop - rows.start, len(columns)
            pairs = torch.ones(size, dtype=torch.bool) if asked is None else asked[rows][:, columns]
            head, token = pairs.T.nonzero(as_tuple=True)
            hits = weights.highest(-write[head, token], matrix, bias, tokens[rows][token].to(write.device), k)
            found[rows.start + token, torch.tensor(columns)[head]] = hits.cpu()
    return found


def copy_scores(
    model: Model,
    tokens: Tensor,
    k: int = 5,
    *,
    form: str = "effective",
    heads: Heads | None = None,
    seed: int = 0,
) -> tuple[HeadScores, HeadScores]:
    """(copying, negative copying): is a token among the k that a head raises (lowers) most when it attends to it?

    tokens [token] ids, each an example. control: the same for another token of the list in its place, so that a head which
    raises all names whatever it attends to stays at its chance level. Raises BadInput, UnsupportedModel.
    """
    if len(tokens) < 2 or len(tokens.unique()) < len(tokens):
        raise BadInput("Copying is scored on two or more different tokens.", "Give each token once.")
    if not 1 <= k < model.vocabulary_size:
        raise BadInput(f"k={k} is not a number of top tokens.", f"Give 1 to {model.vocabulary_size - 1}.")
    # A random order moved on by one: nobody keeps their own token.
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(tokens)
    other[order] = tokens[order.roll(1)]
    found = ov_ranks(model, tokens, torch.stack([tokens, other], 1), form=form, heads=heads)

    def scores(ranks: NDArray[np.int64]) -> HeadScores:
        hits = (ranks < k).astype(np.float64)
        return HeadScores(found.heads, hits[..., 0], hits[..., 1])

    return scores(found.raised), scores(found.lowered)


def eigenvalue_scores(
    model: Model, *, form: str = "effective", tokens: Tensor | None = None, heads: Heads | None = None
) -> NDArray[np.float64]:
    """Copying score sum(eigenvalues) / sum(|eigenvalues|) of each head's full OV circuit, [head] in [-1, 1].

    1: raises what it attends to; -1: lowers it; 0: neither. tokens [n]: the vocabulary to take (default: all of it). Biases
    are left out. Elhage et al. 2021. NaN for a head that writes nothing. Raises UnsupportedModel.
    """
    chosen = model.heads if heads is None else parse_heads(heads, model.heads)
    model.require(chosen)
    matrix, _ = readout(model)
    ids = torch.arange(matrix.shape[1]) if tokens is None else tokens
    found = np.full(len(chosen), np.nan)
    known: dict[tuple[bool, bool], Tensor] = {}
    for columns, circuits in _layers(model, chosen):
        how = (circuits.scaled, circuits.centred)
        if how not in known:  # sum over tokens of (read-out of the token) x (the token as heads read it)
            known[how] = _outer(model, circuits, matrix, ids, form)
        ov = circuits.only([chosen[i] for i in columns])[1]
        around = Factored(known[how] @ ov.left, ov.right)
        found[columns] = weights.copying(around.eigenvalues()).numpy()
    return found


def _outer(model: Model, circuits: Circuits, matrix: Tensor, ids: Tensor, form: str) -> Tensor:
    """[d_model written, d_model read]: sum over tokens of W_U[:, token] times the token's vector."""
    total = torch.zeros(matrix.shape[0], matrix.shape[0], dtype=torch.float64)
    for part in ids.split(weights.CHUNK):
        total += (matrix[:, part] @ circuits.read(token_vectors(model, part, form))).double()
    return total.float()


def _layers(model: Model, heads: Sequence[HeadId]) -> Iterator[tuple[list[int], Circuits]]:
    """Which of the heads a layer has, and the layer's circuits, one after the other."""
    for stack, layer in dict.fromkeys((head.stack, head.layer) for head in heads):
        columns = [i for i, head in enumerate(heads) if (head.stack, head.layer) == (stack, layer)]
        yield columns, circuits_of(model, layer, stack)
