"""Start and end tokens: which stand around each text that a model reads, who puts them there, and how results say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headatlas.task import Vocabulary, edges

AS_GIVEN = "ids as given, no start or end token added"
ALONE = "each token alone, no start or end token"


@dataclass(frozen=True)
class StartEnd:
    """The one rule by which texts get their start and end tokens, through whatever door they come; prints itself.

    front, back: ids before and after a text. two_stacks: an encoder-decoder, whose encoder reads front, text and back;
    decoder_start: what its decoder reads before the same front and text, None where the model names no such token.
    why: what results say of front and back; names: decoder_start as the tokenizer spells it.
    """

    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    two_stacks: bool = False
    decoder_start: int | None = None
    why: str = ""
    names: str = ""

    def __str__(self) -> str:
        if not self.two_stacks:
            return self.why
        start = "no start token: the model names none" if self.decoder_start is None else self.names
        return f"{self.why}; decoder: {start}"

    @property
    def reading(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What stands before and after a text in the stack that predicts the next token (the only one, or the decoder)."""
        if not self.two_stacks:
            return self.front, self.back
        return (() if self.decoder_start is None else (self.decoder_start,)) + self.front, ()

    def around(self, ids: Sequence[int]) -> list[int]:
        """A text's ids with what they lack of front and back: a text that has them already (a chat template's) gets none twice."""
        return [*self.missing_front(ids), *ids, *self._missing_back(ids)]

    def read(self, ids: Sequence[int]) -> list[int]:
        """A text's ids as the stack that predicts tokens reads them: with what stands around them, once."""
        if not self.two_stacks:
            return self.around(ids)
        start = () if self.decoder_start is None else (self.decoder_start,)
        return [*start, *self.missing_front(ids), *ids]

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether a text begins with a start token by itself."""
        return bool(self.front) and len(self.missing_front(ids)) < len(self.front)

    def missing_front(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What must be put before a text: all of front, less what the text begins with."""
        if self.front and list(ids[:1]) == [self.front[0]]:
            return ()
        n = len(self.front)
        held = next((k for k in range(n, 0, -1) if tuple(ids[:k]) == self.front[n - k :]), 0)
        return self.front[: n - held]

    def _missing_back(self, ids: Sequence[int]) -> tuple[int, ...]:
        n = len(self.back)
        held = next((k for k in range(n, 0, -1) if tuple(ids[-k:]) == self.back[:k]), 0)
        return self.back[held:]

    def said_of(self, texts: Sequence[Sequence[int]]) -> str:
        """The rule, and how many of these texts (ids before anything was added) began with a start token by themselves."""
        had = sum(self.begins(ids) for ids in texts)
        if not had:
            return str(self)
        whose = (
            "the text begins with it already"
            if len(texts) == 1
            else f"{had} of {len(texts)} texts begin with it already"
        )
        return f"{self}; {whose}: put once"


def rule_of(tokenizer: Vocabulary) -> StartEnd:
    """The rule of a tokenizer; of a vocabulary that knows no more, its bos and eos."""
    known: StartEnd | None = getattr(tokenizer, "start_end", None)
    if known is not None:
        return known
    front, back = edges(tokenizer)
    return StartEnd(front, back, why=f"id {front[0]}, given" if front else "none given")


def first_written(tokenizer: Vocabulary) -> int:
    """The position at which an encoder-decoder's decoder writes its first token: the last of what it reads before."""
    return max(len(edges(tokenizer)[0]) - 1, 0)


def said_of(facts: Mapping[str, Any]) -> str:
    """What a batch's facts say of how its tokens were made; tokens of unknown origin were taken as they are."""
    return str(facts.get("start_end", AS_GIVEN))
