"""Text to token ids and back, for tasks and pictures; says openly which token stands at the start of each text."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas.errors import BadInput, SourceError, UnfitTask
from headatlas.model.text.folder_tokenizer import folder_tokenizer
from headatlas.model.text.start_end import StartEnd
from headatlas.model.text.token_text import Spelling, is_ordinary, scores_of, spelling_of, starts, text_alone, text_of
from headatlas.model.text.two_stacks import completed
from headatlas.reading import reason
from headatlas.registry import did_you_mean
from headatlas.task import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CARRIER = "a"  # a text for the word to follow, where a tokenizer adds a space to the start of each text


class Tokenizer:
    """A model's tokenizer as tasks see it (`headatlas.task.Vocabulary`).

    start_end: the tokens put around each text, and why these. front, back: those that the stack which predicts tokens reads
    (an encoder-decoder's decoder); bos, eos: the first of them, None for none. causal: False for encoders. context: the
    longest input in tokens. vocab_size: ids from here on do not exist.
    """

    def __repr__(self) -> str:
        kind = "token ids alone" if self._hf is None else type(self._hf).__name__
        return f"Tokenizer({kind}, {self.vocab_size:,} tokens, context {self.context:,}; {self.start_end})"

    def __init__(
        self,
        *,
        causal: bool,
        context: int,
        vocab_size: int,
        hf: PreTrainedTokenizerBase | None,
        bos: str | int | None,
        two_stacks: bool = False,
        decoder_start: int | None = None,
    ) -> None:
        self.causal, self.context, self.vocab_size = causal, context, vocab_size
        self._hf = hf
        if hf is None:
            front: tuple[int, ...] = (bos,) if isinstance(bos, int) and not two_stacks else ()
            why = f"id {bos}, given" if front else "none: the model has no tokenizer"
            self.start_end = StartEnd(front, (), two_stacks, decoder_start, why, f"id {decoder_start}")
            return
        before, after = self._added_by_itself()
        front, why = self._choose_front(str(bos), before, two_stacks)
        back: tuple[int, ...] = ()
        if not causal or two_stacks:
            back = tuple(after) or (() if two_stacks or hf.sep_token_id is None else (hf.sep_token_id,))
            ends = f"end {self._spelled_with_ids(back)}" if back else "no end token"
            why = f"{why}; {ends}"
        names = "" if decoder_start is None else self._spelled_with_ids([decoder_start])
        self.start_end = StartEnd(front, back, two_stacks, decoder_start, why, names)

    @property
    def front(self) -> tuple[int, ...]:
        """What stands before each text in the stack that predicts tokens."""
        return self.start_end.reading[0]

    @property
    def back(self) -> tuple[int, ...]:
        """What stands after each text there."""
        return self.start_end.reading[1]

    @property
    def bos(self) -> int | None:
        """The first token of each text, None for no such token."""
        return self.front[0] if self.front else None

    @property
    def eos(self) -> int | None:
        """The token that closes each text, None for no such token."""
        return self.back[0] if self.back else None

    @property
    def mask(self) -> int | None:
        """The token that stands for one to be guessed, None for no such token."""
        return None if self._hf is None else self._hf.mask_token_id

    @cached_property
    def sentinels(self) -> tuple[int, ...]:
        """The tokens <extra_id_0>, <extra_id_1> ... that stand for spans of a text (T5), in order; () in most tokenizers."""
        known = {} if self._hf is None else self._hf.get_vocab()
        numbered = (known.get(f"<extra_id_{i}>", self.vocab_size) for i in itertools.count())
        return tuple(itertools.takewhile(lambda one: one < self.vocab_size, numbered))

    @property
    def bos_policy(self) -> str:
        """Which tokens stand around each text, and why; part of every result."""
        return str(self.start_end)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        causal: bool,
        context: int,
        vocab_size: int,
        bos: str = "auto",
        two_stacks: bool = False,
        decoder_start: int | None = None,
    ) -> Tokenizer:
        """Load the tokenizer in `folder`. Raises SourceError where it cannot be read, BadInput for an unknown `bos`.

        bos: "auto" (what the tokenizer itself puts in front, else its bos token, else nothing), "none", or a token.
        two_stacks, decoder_start: for encoder-decoders, see `StartEnd`.
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
        return cls(
            causal=causal,
            context=context,
            vocab_size=vocab_size,
            hf=hf,
            bos=bos,
            two_stacks=two_stacks,
            decoder_start=decoder_start,
        )

    @classmethod
    def bare(
        cls,
        vocab_size: int,
        context: int,
        *,
        causal: bool,
        bos: int | None = None,
        two_stacks: bool = False,
        decoder_start: int | None = None,
    ) -> Tokenizer:
        """Token ids without text, for models that came without a tokenizer."""
        return cls(
            causal=causal,
            context=context,
            vocab_size=vocab_size,
            hf=None,
            bos=bos,
            two_stacks=two_stacks,
            decoder_start=decoder_start,
        )

    def within(self, context: int) -> Tokenizer:
        """The same tokenizer with inputs of at most `context` tokens, for tasks that should stay short."""
        shorter = copy.copy(self)
        shorter.context = min(self.context, context)
        return shorter

    def serialized(self) -> list[str]:
        """All that decides which ids a text gets, as text; without padding and truncation, which calls switch on and off."""
        if self._hf is None:
            return []
        _, start, rest = self._hf.backend_tokenizer.to_str().partition('"added_tokens"')  # they stand before it
        return [start + rest, " ".join(map(str, sorted(self._special)))]

    def complete(self, batch: Batch) -> Batch:
        """The batch with what an encoder-decoder's encoder reads, and with the rule for start and end in its facts."""
        return completed(batch, self.start_end)

    @property
    def has_text(self) -> bool:
        """Whether text can be encoded at all."""
        return self._hf is not None

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, without bos and eos. Raises BadInput for half a surrogate pair, which is no text."""
        _demand_text(text)
        return list(self._text.encode(text, add_special_tokens=False))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """For each id of `encode(text)` the characters (from, to) that it stands for."""
        _demand_text(text)
        found = self._text(text, add_special_tokens=False, return_offsets_mapping=True)
        return [(int(start), int(stop)) for start, stop in found["offset_mapping"]]

    def chat(self, where: str, messages: Sequence[Mapping[str, Any]]) -> str:
        """Messages (role, content) as the tokenizer's own chat template writes them. Raises BadInput naming `where` they stand.

        The text ends where the assistant is to speak; where its own words come last, they are left open to be gone on with.
        """
        spoken = messages[-1]["role"] == "assistant"
        try:
            text = self._text.apply_chat_template(
                [dict(one) for one in messages], tokenize=False, add_generation_prompt=not spoken,
                continue_final_message=spoken,
            )  # fmt: skip
        except Exception as error:  # templates are programs of the models' makers, and refuse chats as they like
            hint = "Give the text itself, or roles that the template knows."
            raise BadInput(
                f"{where} cannot be written by the tokenizer's chat template: {reason(error)}.", hint
            ) from error
        return str(text)

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
        around = {*self.front, *self.start_end.back}
        if self._hf is None:
            return tuple(one for one in range(self.vocab_size) if one not in around)
        backend, spelling = self._hf.backend_tokenizer, self._spelling
        barred = {*self._special, *self._hf.added_tokens_decoder, *around}
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
        carrier = next((text for text in (_CARRIER, "A", "0", ".") if self.encode(text)), _CARRIER)
        plain = self.encode(carrier)
        full = list(self._text.encode(carrier, add_special_tokens=True))
        for start in range(len(full) - len(plain) + 1):
            if plain and full[start : start + len(plain)] == plain:
                return full[:start], full[start + len(plain) :]
        return [], []

    def _spelled_with_ids(self, ids: Sequence[int]) -> str:
        return ", ".join(f"{token} (id {one})" for one, token in zip(ids, self._spelled(list(ids)), strict=True))

    def _choose_front(self, bos: str, before: list[int], two_stacks: bool) -> tuple[tuple[int, ...], str]:
        """The tokens to put before a text, and why these. Raises BadInput for a token that there is not."""
        hf = self._text
        if bos == "none":
            return (), "none, as asked"
        if bos != "auto":
            one = hf.get_vocab().get(bos)
            if one is None or one >= self.vocab_size:
                known = [str(token) for token in hf.added_tokens_decoder.values()]
                hint = did_you_mean(bos, known) or did_you_mean(bos, hf.get_vocab())
                raise BadInput(f"The tokenizer has no token '{bos}' to put first.", hint or "Write 'auto' or 'none'.")
            return (one,), f"{bos} (id {one}), as asked"
        if before:
            them = "it" if len(before) == 1 else "them"
            return tuple(before), f"{self._spelled_with_ids(before)}: the tokenizer adds {them}"
        if two_stacks:  # its encoder learned on what the tokenizer gives
            return (), "none: the tokenizer adds no token"
        role, one = (
            ("bos_token", hf.bos_token_id) if self.causal or hf.cls_token_id is None else ("cls_token", hf.cls_token_id)
        )
        if one is None or one >= self.vocab_size:
            return (), "none: the tokenizer adds no token and defines no start token"
        return (one,), f"{self._spelled_with_ids([one])}: the tokenizer adds none, its {role} is used"


def _demand_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"Character {error.start} of {text[:40]!r} is half of a surrogate pair, which is no text.",
            "Read the text as UTF-8 (JSON: write both halves), or leave it out.",
        ) from error
