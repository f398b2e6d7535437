"""Sentences with gold syntax: read from treebanks, or made by the grammar of this package."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headatlas.errors import BadInput
from headatlas.reading import Source, read_text, reason

MOST = 256 << 20  # bytes of a treebank file; the largest of Universal Dependencies (German HDT) has about 250 MB
ROOT = -1  # head of the root, and of words whose head is not known
COLUMNS = 10  # of a word in CoNLL-U
CONSTITUENT = tuple[int, int, str]
# Tags of the Penn Treebank that are no words of a tree: punctuation and traces.
UNSPOKEN = frozenset({".", ",", ":", "``", "''", "-LRB-", "-RRB-", "#", "$", "HYPH", "NFP", "-NONE-"})
_HINT = "Give a CoNLL-U file (.conllu), or trees in brackets such as (S (NP (PRP she)) (VP (VBZ sleeps)))."


@dataclass(frozen=True)
class Sentence:
    """Words with what is known of their syntax; words count from 0.

    spaces: whether a space follows each word in the text. heads: for each word the word it depends on, ROOT for the root;
    empty where dependencies are not known. relations: the label of each such edge ("nsubj", "root" ...).
    spans: constituents as (first word, last word, label), last included. mentions: (word, who) of words that speak of somebody
    or something, in order; equal numbers are the same one. name: how errors call it.
    """

    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    heads: tuple[int, ...] = ()
    relations: tuple[str, ...] = ()
    spans: frozenset[CONSTITUENT] = frozenset()
    mentions: tuple[tuple[int, int], ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        n = len(self.words)
        if len(self.spaces) != n or (self.heads and len(self.heads) != n) or len(self.relations) != len(self.heads):
            raise BadInput(f"{self.name or 'A sentence'} has {n} words, and not as many spaces, heads or relations.")
        if wrong := [head for i, head in enumerate(self.heads) if not ROOT <= head < n or head == i]:
            raise BadInput(f"{self.name or 'A sentence'} has a head {wrong[0]}, and words 0 to {n - 1}.")
        if (start := _in_a_circle(self.heads)) is not None:
            raise BadInput(
                f"{self.name or 'A sentence'} has no tree: from '{self.words[start]}' heads lead in a circle.",
                "Every word's heads lead to the root.",
            )
        if wrong_spans := [one for one in self.spans if not 0 <= one[0] <= one[1] < n]:
            raise BadInput(f"{self.name or 'A sentence'} has a span {wrong_spans[0]}, and words 0 to {n - 1}.")

    @property
    def text(self) -> str:
        """The sentence as it is written."""
        pairs = zip(self.words, self.spaces, strict=True)
        return "".join(word + " " * space for word, space in pairs).rstrip()

    @property
    def root(self) -> int:
        """The root, or ROOT where dependencies are not known."""
        return self.heads.index(ROOT) if ROOT in self.heads else ROOT


def _in_a_circle(heads: Sequence[int]) -> int | None:
    """A word whose heads never lead to a root, None where there is no such word."""
    safe: set[int] = {ROOT}
    for start in range(len(heads)):
        place, passed = start, set[int]()
        while place not in safe:
            if place in passed:
                return start
            passed.add(place)
            place = heads[place]
        safe |= passed
    return None


def read_treebank(path: str | Path) -> list[Sentence]:
    """The sentences of a CoNLL-U file (dependencies) or of a file of bracketed trees (constituents; no punctuation, no traces).

    A file whose first character beside blanks is "(" holds trees. Raises BadInput, naming file and sentence.
    """
    path = Path(path)
    source = Source(path, _HINT, BadInput, MOST, pipe=True)
    text = read_text(source)
    found = _trees(source, text) if text.lstrip().startswith("(") else _dependencies(source, text)
    if not found:
        raise source.bad("holds no sentence")
    return found


def _dependencies(source: Source, text: str) -> list[Sentence]:
    """Sentences of CoNLL-U text; its multiword tokens and empty nodes are left to their words."""
    from conllu import parse_incr
    from conllu.exceptions import ParseException

    found: list[Sentence] = []
    for number, line in enumerate(text.split("\n"), 1):  # a word may hold other ends of lines, such as U+2028
        columns = line.count("\t") + 1
        if line.strip() and not line.startswith("#") and columns != COLUMNS:
            raise source.bad(f"has {columns} columns in line {number}, where CoNLL-U has {COLUMNS}, set apart by tabs")
    lines = io.StringIO(text)
    with source.explained(ParseException):
        for number, tokens in enumerate(parse_incr(lines), 1):
            name = f"{source.path}: sentence {tokens.metadata.get('sent_id', number)}"
            sentence = _sentence(tokens, name)
            if sentence.words:
                found.append(sentence)
    return found


def _sentence(tokens: Iterable[Any], name: str) -> Sentence:
    words: list[str] = []
    spaces: list[bool] = []
    heads: list[int] = []
    relations: list[str] = []
    inside: dict[int, bool] = {}  # words of a multiword token -> whether a space follows: behind its last word alone
    for token in tokens:
        number, misc = token["id"], token["misc"] or {}
        spaced = misc.get("SpaceAfter") != "No"
        if not isinstance(number, int):
            if number[1] == "-":
                inside |= {one: spaced and one == number[2] for one in range(number[0], number[2] + 1)}
            continue
        if token["head"] is None or not isinstance(token["head"], int):
            raise BadInput(
                f"{name}, word {number} ('{token['form']}'), has no head.", "Its seventh column is a number."
            )
        if number != len(words) + 1:
            raise BadInput(f"{name} has word {number} where word {len(words) + 1} is due.", "Words count from 1.")
        words.append(token["form"])
        spaces.append(inside.get(number, spaced))
        heads.append(token["head"] - 1)
        relations.append(token["deprel"] or "")
    if not words:
        return Sentence((), (), name=name)
    n = len(words)
    if heads.count(ROOT) != 1:
        raise BadInput(f"{name} has {heads.count(ROOT)} roots.", "One word of a sentence has head 0.")
    for i, head in enumerate(heads):
        if not ROOT <= head < n or head == i:
            raise BadInput(
                f"{name}, word {i + 1} ('{words[i]}'), has head {head + 1}.", f"It may be 0 to {n}, but not itself."
            )
    if inside and max(inside) > n:
        raise BadInput(f"{name} has a token of words up to {max(inside)}, and {n} words.", "Words count from 1.")
    return Sentence(tuple(words), tuple(spaces), tuple(heads), tuple(relations), name=name)


def _trees(source: Source, text: str) -> list[Sentence]:
    """Sentences of bracketed trees."""
    from nltk.tree import Tree

    found = []
    for number, one in enumerate(_one_by_one(source, text), 1):
        name = f"{source.path}: tree {number}"
        try:
            tree = Tree.fromstring(one, remove_empty_top_bracketing=True)
        except (ValueError, IndexError) as error:
            raise BadInput(f"{name} is no tree in brackets: {reason(error)}.", _HINT) from error
        sentence = of_tree(tree, name)
        if sentence.words:
            found.append(sentence)
    return found


def _one_by_one(source: Source, text: str) -> Iterable[str]:
    """Each tree's text: what lies between brackets that close each other."""
    depth = start = 0
    for place, letter in enumerate(text):
        if depth == 0 and letter not in "()" and not letter.isspace():
            raise source.bad(f"has words outside of all trees, from '{text[place : place + 20].split()[0]}' on")
        if letter == "(":
            start = place if depth == 0 else start
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                yield text[start : place + 1]
            elif depth < 0:
                break
    if depth:
        raise source.bad("has brackets that do not match")


def of_tree(tree: Any, name: str = "") -> Sentence:
    """The words and constituents of an `nltk.Tree` whose leaves stand under their tags."""
    words: list[str] = []
    spans: set[CONSTITUENT] = set()

    def walk(node: Any) -> None:
        if isinstance(node, str):
            words.append(node)
            return
        if len(node) == 1 and isinstance(node[0], str):
            if node.label() not in UNSPOKEN:
                words.append(node[0])
            return
        first = len(words)
        for child in node:
            walk(child)
        if len(words) > first and node.label():
            spans.add((first, len(words) - 1, str(node.label()).split("-")[0].split("=")[0]))

    walk(tree)
    return Sentence(tuple(words), (True,) * len(words), spans=frozenset(spans), name=name)


def known(sentences: Sequence[Sentence], what: str) -> list[Sentence]:
    """Those that have "heads", "spans" or "mentions". Raises BadInput where none has."""
    found = [one for one in sentences if getattr(one, what)]
    if not found:
        kind = {"heads": "dependencies", "spans": "constituents", "mentions": "mentions of the same one"}[what]
        raise BadInput(f"None of these {len(sentences)} sentences has {kind}.", _HINT)
    return found
