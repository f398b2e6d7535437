"""Text to token ids and back, for tasks and pictures; says openly which token stands at the start of each text."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from headatlas.errors import BadInput, SourceError, UnfitTask
from headatlas.model.text.folder_tokenizer import folder_tokenizer
from headatlas.model.text.token_text import Spelling, is_ordinary, scores_of, spelling_of, starts, text_alone, text_of
from headatlas.reading import reason
from headatlas.registry import did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CARRIER = "a"  # a text for the word to follow, where a tokenizer adds a space to the start of each text


class Tokenizer:
    """A model's tokenizer as tasks see it (`headatlas.task.Vocabulary`).

    bos, eos: the ids put before and after each text, None for none; `bos_policy` says which and why.
    causal: False for encoders. context: the longest input in tokens. vocab_size: ids from here on do not exist.
    """

    def __init__(
        self, *, causal: bool, context: int, vocab_size: int, hf: PreTrainedTokenizerBase | None, bos: str | int | None
    ) -> None:
        self.causal, self.context, self.vocab_size = causal, context, vocab_size
        self._hf = hf
        self.bos: int | None
        self.eos: int | None = None
        if hf is None:
            self.bos = bos if isinstance(bos, int) else None
            self.bos_policy = f"id {self.bos}, given" if self.bos is not None else "none: the model has no tokenizer"
            return
        before, after = self._added_by_itself()
        self.bos, self.bos_policy = self._choose_bos(str(bos), before)
        if not causal:
            self.eos = after[0] if after else hf.sep_token_id

    @classmethod
    def load(cls, folder: Path, *, causal: bool, context: int, vocab_size: int, bos: str = "auto") -> Tokenizer:
        """Load the tokenizer in `folder`. Raises SourceError where it cannot be read, BadInput for an unknown `bos`.

        bos: "auto" (what the tokenizer itself puts in front, else its bos token, else nothing), "none", or a token.
        """
        from transformers import PreTrainedTokenizerFast

        try:
            hf = folder_tokenizer(folder)
        except Exception as error:  # the tokenizers library raises plain Exceptions for damaged files
            hint = "Save the tokenizer again: tokenizer.save_pretrained(folder)."
            raise SourceError(f"The tokenizer in {folder} cannot be read: {reason(error)}", hint) from error
        if not isinstance(hf, PreTrainedTokenizerFast):
            raise SourceError(f"The tokenizer in {folder} has no tokenizer.json.", "Convert it to a fast tokenizer.")
        hf.model_max_length = 1 << 62  # the length is checked against the model's context, not warned about here
        return cls(causal=causal, context=context, vocab_size=vocab_size, hf=hf, bos=bos)

    @classmethod
    def bare(cls, vocab_size: int, context: int, *, causal: bool, bos: int | None = None) -> Tokenizer:
        """Token ids without text, for models that came without a tokenizer."""
        return cls(causal=causal, context=context, vocab_size=vocab_size, hf=None, bos=bos)

    def within(self, context: int) -> Tokenizer:
        """The same tokenizer with inputs of at most `context` tokens, for tasks that should stay short."""
        shorter = copy.copy(self)
        shorter.context = min(self.context, context)
        return shorter

    @property
    def has_text(self) -> bool:
        """Whether text can be encoded at all."""
        return self._hf is not None

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, without bos and eos."""
        return list(self._text.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int] | int) -> str:
        """The text of one id or several, as the tokenizer writes it."""
        ids = [ids] if isinstance(ids, int) else list(ids)
        text = self._text.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def single(self, word: str) -> int | None:
        """The one id of `word` as it stands (" Mary" with its space, inside a text), None where it takes several."""
        ids = self.encode(word)
        if len(ids) != 1 and word.startswith(" "):
            carrier, joined = self.encode(_CARRIER), self.encode(_CARRIER + word)
            ids = joined[len(carrier) :] if joined[: len(carrier)] == carrier else []
        if len(ids) != 1 or ids[0] in self._special or ids[0] >= self.vocab_size:
            return None
        return ids[0]

    def plain_ids(self) -> list[int]:
        """Ordinary text tokens, most frequent first: words and pieces of words.

        Left out: special and added tokens, bytes, blanks, punctuation, numbers, half characters, ids the model has no
        row for, and tokens that their own text does not encode to, which no text can have shown to the model.
        Order: by score where the tokenizer keeps scores (unigram), else by id, since merges and word lists are numbered
        by frequency when they are made (so a piece such as " t" ranks by all words it was once part of); single
        characters, which most vocabularies list first, come last. Without a tokenizer: all ids but bos and eos.
        """
        return list(self._plain)

    def pieces(self, ids: list[int]) -> list[str]:
        """One printable string a token, for drawing: the leading space kept, line breaks and tabs made visible."""
        if self._hf is None:
            return [str(token) for token in ids]
        texts = [
            token if one in self._special else text_of(token, self._spelling)
            for one, token in zip(ids, self._spelled(ids), strict=True)
        ]
        return [text.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍") for text in texts]

    def word_starts(self, ids: list[int]) -> list[bool]:
        """For each token whether it starts a word; punctuation, blanks and special tokens stand for themselves."""
        return starts(self._spelled(ids), [one in self._special for one in ids], self._spelling)

    def _spelled(self, ids: list[int]) -> list[str]:
        """The tokens as the vocabulary spells them; ids that only the model's padded embedding knows as [number]."""
        tokens = self._text.convert_ids_to_tokens(list(ids))
        return [f"[{one}]" if token is None else token for one, token in zip(ids, tokens, strict=True)]

    @property
    def _text(self) -> PreTrainedTokenizerBase:
        if self._hf is None:
            raise UnfitTask("The model has no tokenizer, so it can only be given token ids, not text.")
        return self._hf

    @cached_property
    def _spelling(self) -> Spelling:
        return spelling_of(self._text.backend_tokenizer)

    @cached_property
    def _special(self) -> frozenset[int]:
        hf = self._text
        return frozenset(
            {*hf.all_special_ids, *(one for one, token in hf.added_tokens_decoder.items() if token.special)}
        )

    @cached_property
    def _plain(self) -> tuple[int, ...]:
        if self._hf is None:
            return tuple(one for one in range(self.vocab_size) if one not in (self.bos, self.eos))
        backend, spelling = self._hf.backend_tokenizer, self._spelling
        barred = {*self._special, *self._hf.added_tokens_decoder, self.bos, self.eos}
        tokens = {
            one: token
            for token, one in self._hf.get_vocab().items()
            if one < self.vocab_size and one not in barred and is_ordinary(token, spelling)
        }
        alone = {one: text_alone(token, spelling, adds_space=self._adds_space) for one, token in tokens.items()}
        texts = {one: text for one, text in alone.items() if text is not None}
        encoded = backend.encode_batch_fast(list(texts.values()), add_special_tokens=False)
        unreachable = {one for one, found in zip(texts, encoded, strict=True) if found.ids != [one]}
        scores = scores_of(backend)

        def rank(one: int) -> tuple[bool, float, int]:
            return len(tokens[one]) == 1, -scores.get(tokens[one], 0.0), one

        return tuple(sorted((one for one in tokens if one not in unreachable), key=rank))

    @cached_property
    def _adds_space(self) -> bool:
        tokens = self._text.convert_ids_to_tokens(self.encode(_CARRIER))
        return bool(tokens) and tokens[0].startswith("▁")

    def _added_by_itself(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text when it is asked to add its special tokens."""
        plain = self.encode(_CARRIER)
        full = list(self._text.encode(_CARRIER, add_special_tokens=True))
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return full[:start], full[start + len(plain) :]
        return [], []

    def _choose_bos(self, bos: str, before: list[int]) -> tuple[int | None, str]:
        hf = self._text
        if bos == "none":
            return None, "none, as asked"
        if bos != "auto":
            one = hf.get_vocab().get(bos)
            if one is None or one >= self.vocab_size:
                known = [str(token) for token in hf.added_tokens_decoder.values()]
                hint = did_you_mean(bos, known) or did_you_mean(bos, hf.get_vocab())
                raise BadInput(f"The tokenizer has no token '{bos}' to put first.", hint or "Write 'auto' or 'none'.")
            return one, f"{bos} (id {one}), as asked"
        if before:
            more = f", the first of {len(before)} it adds" if len(before) > 1 else ""
            return before[0], f"{hf.convert_ids_to_tokens(before[0])} (id {before[0]}): the tokenizer adds it{more}"
        role, one = (
            ("bos_token", hf.bos_token_id) if self.causal or hf.cls_token_id is None else ("cls_token", hf.cls_token_id)
        )
        if one is None or one >= self.vocab_size:
            return None, "none: the tokenizer adds no token and defines no start token"
        return one, f"{hf.convert_ids_to_tokens(one)} (id {one}): the tokenizer adds none, its {role} is used"
