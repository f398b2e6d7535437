"""What toys that learn to repeat have in common: the plain training on repeated words, and attention that copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from headatlas.lab.toy.data import repeated_tokens
from headatlas.lab.toy.probes import back, by_head, matching, next_token_loss, shares
from headatlas.lab.toy.study import Panel, Variant
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.models import small_gpt2
from headatlas.lab.training.options import TrainOptions

COPYING_PANEL = Panel(
    "attention of the best head",
    {"previous token": ("plain", "previous token"), "prefix matching": ("plain", "prefix matching")},
)


class Sizes(NamedTuple):
    """Of the texts and of the two layers that read them."""

    vocab: int
    length: int
    width: int
    heads: int
    batch: int


def trained_on_repeats(sizes: Sizes, options: TrainOptions, measure: Callable[[int], Measure]) -> Variant:
    """The next token of random words that are given again and again."""
    vocab, length, width, heads, batch = sizes
    return Variant(
        "plain",
        lambda seed: small_gpt2(vocab, length, width, heads, seed=seed, bos=0),
        lambda model, chance: next_token_loss(model, repeated_tokens(batch, length, vocab, chance)),
        options,
        measure,
    )


def copying(tokens: Tensor) -> Callable[[Sequence[Tensor]], dict[str, float]]:
    """Patterns of two layers -> what each head attends to of what an induction head needs, on these tokens."""
    wanted, previous = matching(tokens), back(tokens)
    return lambda patterns: {
        **by_head("prefix matching", 1, shares(patterns[1], wanted)),
        **by_head("previous token", 0, shares(patterns[0], previous)),
    }
