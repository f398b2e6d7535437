"""Finds a thing by what people call it: its id, its name or an alias, however it is spaced and capitalised."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from headatlas.errors import UnknownName
from headatlas.registry import did_you_mean


def normal(text: str) -> str:
    """The text without case, accents, spaces and signs: 'S-Inhibition Head' and 's inhibition head' are the same.

    >>> normal("Llamá-2 7B")
    'llama27b'
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(sign for sign in plain if sign.isalnum())


class Names:
    """A table from every name of every thing to its id."""

    def __init__(self, what: str, things: Iterable[tuple[str, Iterable[str]]]) -> None:
        self.what = what
        self._ids: dict[str, str] = {}
        self._written: dict[str, str] = {}
        for id_, names in things:
            for name in (id_, *names):
                self._ids.setdefault(normal(name), id_)
                self._written.setdefault(name.lower(), id_)

    def __iter__(self) -> Iterator[str]:
        return iter(self._written)

    def get(self, name: str) -> str | None:
        """The id of the thing called `name`, or None. 'induction' finds 'induction head' too."""
        key = normal(name)
        return next((self._ids[form] for form in (key, f"{key}head") if form in self._ids), None)

    def find(self, name: str) -> str:
        """The id of the thing called `name`; raises UnknownName with the nearest name."""
        id_ = self.get(name)
        if id_ is None:
            raise UnknownName(f"There is no {self.what} called '{name}'.", did_you_mean(name, self._written))
        return id_


def starts_a_word(query: str, text: str) -> bool:
    """Whether the query, without spaces and signs, is how the text goes on from the start of one of its words.

    >>> starts_a_word("gpt2", "GPT-2 small"), starts_a_word("llama", "Code Llama"), starts_a_word("llama", "TinyLlama")
    (True, True, False)
    """
    wanted = normal(query)
    starts = (match.start() for match in re.finditer(r"(?<![^\W_])[^\W_]", text))
    return bool(wanted) and any(normal(text[start:]).startswith(wanted) for start in starts)
