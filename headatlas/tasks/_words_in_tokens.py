"""Words that a tokenizer writes as several tokens: names of the bundled facts, and words of the bundled passages."""

from __future__ import annotations

import re
from collections.abc import Iterable

from headatlas.task import Vocabulary
from headatlas.tasks._passages import passages
from headatlas.tasks._prompts import halved, table

SIZES = range(2, 6)  # tokens of a word, as in the paper
LEAST = 8  # words of one number of tokens; of fewer there is hardly a choice


def names_in_tokens(tokenizer: Vocabulary, half: str) -> dict[int, list[list[int]]]:
    """Names of people, places and things of a half, as ids, by how many tokens they have; for numbers of tokens that LEAST names have."""
    pairs = [pair for one in table("facts")["relations"].values() for pair in one["pairs"].items()]
    names = {str(name).removeprefix("the ") for pair in pairs for name in pair}
    return _by_size(tokenizer, halved(sorted(name for name in names if name[0].isupper()), half))


def common_words_in_tokens(tokenizer: Vocabulary, half: str) -> dict[int, list[list[int]]]:
    """The same of words in small letters of five letters or more."""
    texts = (text for found in passages().values() for text in found)
    words = {word for text in texts for word in re.findall(r"(?<![\w'])[a-z]{5,}(?![\w'])", text)}
    return _by_size(tokenizer, halved(sorted(words), half))


def _by_size(tokenizer: Vocabulary, words: Iterable[str]) -> dict[int, list[list[int]]]:
    encoded = [tokenizer.encode(f" {word}") for word in words]
    alike = {size: [word for word in encoded if len(word) == len(set(word)) == size] for size in SIZES}
    return {size: known for size, known in alike.items() if len(known) >= LEAST}
