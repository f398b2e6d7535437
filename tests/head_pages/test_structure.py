"""What is read off a text's characters."""

import re

import numpy as np
import pytest

from headatlas.pages.structure import CLASSES, structure_of
from tests.head_pages.conftest import TEXT

SPLIT = re.compile(r"[A-Za-z]+|\d+|\n|[^\w\s]")


def columns(text):
    """Tokens (words, numbers, marks, line breaks; blanks belong to what follows) and their structure."""
    spans, before = [], 0
    for found in SPLIT.finditer(text):
        start = before if text[before : found.start()].strip(" ") == "" else found.start()
        spans.append((start, found.end()))
        before = found.end()
    tokens = [text[a:b] for a, b in spans]
    return [token.strip(" ") for token in tokens], structure_of(text, np.array(spans), [True] * len(spans)).columns


def test_brackets_and_quotes_are_followed_to_where_they_were_opened():
    tokens, found = columns('He (a [b] "c" d) e "f (g" h) i')
    opened = {
        token: tokens[place] if place >= 0 else None for token, place in zip(tokens, found["bracket"], strict=True)
    }
    assert [opened[x] for x in ("He", "a", "b", "d", "e", "g", "h", "i")] == [None, "(", "[", "(", None, "(", "(", None]
    first = tokens.index("(")
    assert found["bracket"][tokens.index("[")] == first  # an opening bracket stands in the outer one
    assert tokens[found["bracket"][tokens.index("]")]] == "["  # a closing one points to what it closes
    quoted = [token for token, place in zip(tokens, found["quote"], strict=True) if place >= 0 and token.isalpha()]
    assert quoted == ["c", "f", "g"]


def test_a_quote_that_nobody_closed_ends_with_the_paragraph():
    tokens, found = columns('a "b c\n\nd "e" f')
    assert [token for token, place in zip(tokens, found["quote"], strict=True) if place >= 0 and token.isalpha()] == [
        "b",
        "c",
        "e",
    ]


def test_an_unmatched_closing_bracket_closes_nothing():
    tokens, found = columns("a ) b ( c ] d ) e")
    assert [int(found["bracket"][tokens.index(x)]) for x in "abcde"] == [-1, -1, 3, 3, -1]


def test_lists_tables_and_blocks_are_found():
    tokens, found = columns(TEXT)
    item = {token for token, number in zip(tokens, found["item"], strict=True) if number >= 0}
    assert {"apples", "pears", "plums", "-"} <= item
    assert "Paris" not in item
    assert {token for token, number in zip(tokens, found["marker"], strict=True) if number >= 0} == {"-"}
    at = {token: i for i, token in enumerate(tokens)}
    assert found["cell"][at["size"]] == found["cell"][at["30"]] != found["cell"][at["name"]]
    assert found["table"][at["size"]] == found["table"][at["30"]] >= 0
    line = found["line"]
    assert found["header"][at["if"]] == line[at["def"]]
    assert found["header"][tokens.index("return")] == line[at["if"]]
    assert found["header"][len(tokens) - 2] == line[at["def"]]  # behind the inner block
    assert found["header"][at["Paris"]] == -1
    assert tokens[found["first"][at["pears"]]] == "-"


@pytest.mark.parametrize(
    ("word", "begins", "kind"),
    [(" the", True, "function word"), (" Paris", True, "capitalised"), ("ing", False, "piece of a word"), (" 12", True, "number"),
     ("\n", True, "line break"), (" ,", True, "punctuation"), (" fox", True, "word"), ("a1", True, "word")],
)  # fmt: skip
def test_classes_of_tokens(word, begins, kind):
    found = structure_of(word, np.array([[0, len(word)]]), [begins])
    assert CLASSES[found.columns["kind"][0]] == kind
