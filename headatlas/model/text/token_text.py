"""How a tokenizer spells its tokens: which hide a leading space, which continue a word, which are ordinary words."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend  # a part of transformers, and slow to import

Spelling = Literal["bytes", "metaspace", "wordpiece", "words"]

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_UNREADABLE = "\ufffd"


def spelling_of(backend: Backend) -> Spelling:
    """The way the tokens of a `tokenizers.Tokenizer` are spelled, read off its decoder and its kind of model.

    bytes: each character stands for a byte, a leading space is an Ġ. metaspace: a leading space is a ▁.
    wordpiece: what continues a word starts with ##. words: each token is a word.
    """
    parts = {part["type"] for part in _parts(backend.decoder)} | {
        part["type"] for part in _parts(backend.pre_tokenizer)
    }
    if "ByteLevel" in parts:
        return "bytes"
    kind = type(backend.model).__name__
    if kind == "WordPiece":
        return "wordpiece"
    return "words" if kind == "WordLevel" else "metaspace"


def _parts(component: Any) -> list[dict[str, Any]]:
    """The steps of a decoder or pre-tokenizer, with those inside sequences."""
    if component is None:
        return []
    state = json.loads(component.__getstate__())
    steps: list[dict[str, Any]] = [state]
    for step in steps:
        steps.extend(step.get("decoders", []) + step.get("pretokenizers", []))
    return steps


def _byte_table() -> dict[str, int]:
    """Byte-level tokenizers write each byte as one visible character: itself where it is one, else one from 256 up."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_table()


def text_of(token: str, spelling: Spelling) -> str:
    """The text of a token with its leading space; bytes that are no whole character come out as �."""
    if spelling == "bytes" and all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token).decode("utf-8", errors="replace")
    if spelling == "metaspace":
        return token.replace("▁", " ")
    if spelling == "wordpiece":
        return token[2:] if is_continuation(token) else f" {token}"
    return token


def is_continuation(token: str) -> bool:
    """Whether a word-piece token goes on with the word before it (##ing)."""
    return len(token) > 2 and token.startswith("##")


def text_alone(token: str, spelling: Spelling, *, adds_space: bool) -> str | None:
    """A text that should encode to just this token, None for tokens that only occur inside a word.

    adds_space: whether the tokenizer puts a space before each text by itself.
    """
    if spelling == "wordpiece":
        return None if is_continuation(token) else token
    text = text_of(token, spelling)
    if spelling == "metaspace" and adds_space:
        return text[1:] if text.startswith(" ") else None
    return text


def scores_of(backend: Backend) -> dict[str, float]:
    """The log-probability of each token in a unigram tokenizer; empty for other kinds, which keep none."""
    if type(backend.model).__name__ != "Unigram":
        return {}
    return {token: float(score) for token, score in json.loads(backend.model.__getstate__())["vocab"]}


def is_ordinary(token: str, spelling: Spelling) -> bool:
    """Whether a token is a word or a piece of one: letters, perhaps with digits, and at most one leading space."""
    if spelling == "metaspace" and _BYTE_TOKEN.fullmatch(token):
        return False
    text = text_of(token, spelling)
    body = text.removeprefix(" ")
    letters = any(character.isalpha() for character in body)
    # Toy models count with words such as "17"; in a real vocabulary numbers are a class of their own.
    return bool(body) and all(map(_of_word, body)) and _UNREADABLE not in body and (letters or spelling == "words")


def starts(tokens: Sequence[str], special: Sequence[bool], spelling: Spelling) -> list[bool]:
    """For each token whether a word starts with it.

    A letter or digit right after another continues its word. Punctuation marks, blanks, line breaks and special tokens
    stand for themselves.
    """
    found: list[bool] = []
    before = " "
    for token, own in zip(tokens, special, strict=True):
        text = " " if own else text_of(token, spelling)
        if own or spelling == "words":
            found.append(True)
        elif spelling == "wordpiece":
            found.append(not is_continuation(token))
        else:
            found.append(not (_of_word(text[:1]) and _of_word(before[-1:])))
        before = text or before
    return found


def _of_word(character: str) -> bool:
    return character == _UNREADABLE or (character != "" and unicodedata.category(character)[0] in "LMN")
