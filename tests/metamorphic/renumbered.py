"""Token ids in another order, with the rows of embedding and unembedding and a tokenizer that go along."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from headatlas.model import Tokenizer


class Renumbered(Tokenizer):
    """A tokenizer whose id t is the id `new[t]` of another."""

    def __init__(self, of: Tokenizer, new: Tensor) -> None:
        self.__dict__.update({k: v for k, v in of.__dict__.items() if k not in ("_plain", "_special")})
        self._of, self._new, self._old = of, new.tolist(), new.argsort().tolist()
        rule = of.start_end
        front, back = (tuple(self._new[one] for one in ids) for ids in (rule.front, rule.back))
        start = None if rule.decoder_start is None else self._new[rule.decoder_start]
        self.start_end = replace(rule, front=front, back=back, decoder_start=start)

    def within(self, context: int) -> Renumbered:
        shorter = copy.copy(self)
        shorter._of, shorter.context = self._of.within(context), min(self.context, context)
        return shorter

    def encode(self, text: str) -> list[int]:
        return [self._new[one] for one in self._of.encode(text)]

    def decode(self, ids: list[int] | int) -> str:
        return self._of.decode(self._back(ids))

    def single(self, word: str) -> int | None:
        one = self._of.single(word)
        return None if one is None else self._new[one]

    def plain_ids(self) -> list[int]:
        return [self._new[one] for one in self._of.plain_ids()]

    def pieces(self, ids: list[int]) -> list[str]:
        return self._of.pieces(self._back(ids))

    def word_starts(self, ids: list[int]) -> list[bool]:
        return self._of.word_starts(self._back(ids))

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self._new[one] for one in self._of._special)

    def _back(self, ids: list[int] | int) -> list[int]:
        return [self._old[one] for one in ([ids] if isinstance(ids, int) else ids)]


def renumber(hf: nn.Module, tokenizer: Tokenizer) -> tuple[nn.Module, Tokenizer, Tensor]:
    """The model and the tokenizer with ids in random order, and the new id of each old one."""
    new = torch.randperm(tokenizer.vocab_size, generator=torch.Generator().manual_seed(3))
    other = copy.deepcopy(hf)
    for table in (other.get_input_embeddings(), other.get_output_embeddings()):
        table.weight.data = table.weight.data[new.argsort()]
    return other, Renumbered(tokenizer, new), new
