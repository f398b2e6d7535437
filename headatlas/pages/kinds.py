"""The known kinds of reading: for which pairs of tokens a plain rule says what the one is to the other.

A pair may be of several kinds (the token before may be a piece of the same word). `relations` tells all of them; the
partition gives each pair to its most specific kind, in the order of PAIRS, and what is of no kind to the class of its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headatlas.pages.corpus import Corpus
from headatlas.pages.structure import CLASSES

# The order decides where a pair of several kinds is counted in the partition.
PAIRS: dict[str, str] = {
    "self": "the token itself",
    "previous": "the token before",
    "next": "the token behind (encoders)",
    "bracket": "the bracket that is open around the token, of a closing one the one it closes",
    "quote": "the quotation mark that is open around the token",
    "sub-word": "the other pieces of the token's word",
    "follows-same": "the token that followed an earlier copy of this one (induction)",
    "same-token": "an earlier or later copy of this token",
    "list": "the mark of an item of the list that the token's line belongs to",
    "table": "the same column in another row of the table",
    "code": "the line that opens the indented block around the token's line",
    "line": "the first token of the token's line",
    "near": "two to four tokens before or behind",
    "delimiter": "a punctuation mark or a line break",
}
REST = "rest"
ELSEWHERE = tuple(f"elsewhere: {name}" for name in CLASSES if name not in ("line break", "punctuation"))
PARTITION = (REST, *PAIRS, *ELSEWHERE)
OFFSETS = ("ahead", "0", "1", "2", "3-4", "5-8", "9-16", "17-32", "33-64", "65-128", "129+")
_BOUNDS = (0, 1, 2, 3, 5, 9, 17, 33, 65, 129)
NEAR = (2, 4)
KNOWN = "any known kind"
SIZES = {"partition": len(PARTITION), "pairs": len(PAIRS), "known": 1, "offsets": len(OFFSETS), "classes": len(CLASSES)}


def columns() -> dict[str, slice]:
    """Where each group of columns stands in `Relations.columns`."""
    found, start = {}, 0
    for name, size in SIZES.items():
        found[name], start = slice(start, start + size), start + size
    return found


@dataclass(frozen=True)
class Relations:
    """What pairs of a batch's sampled queries and all keys are.

    queries [query]: their positions. kept [window, query] bool: tokens of text with something to attend to beside resting places.
    resting [window, key] bool: start and end tokens and the first position. columns [window x query, key, column] 0 or 1,
    in the groups of `columns()`.
    """

    queries: Tensor
    kept: Tensor
    resting: Tensor
    columns: Tensor


def relations_of(corpus: Corpus, numbers: Sequence[int], tokens: Tensor, queries: Tensor) -> Relations:
    """The relations of windows `numbers`, whose tokens [window, position] these are, for the queries at positions [query]."""
    length = tokens.shape[1]
    names = ("word", "line", "first", "bracket", "quote", "item", "marker", "table", "cell", "header", "kind")
    key = {name: corpus.column(numbers, name, length) for name in names}
    query = {name: value[:, queries, None] for name, value in key.items()}
    key = {name: value[:, None] for name, value in key.items()}
    places = torch.arange(length)
    back = queries[:, None] - places  # [query, key]
    of_text = key["kind"] >= 0
    resting = (~of_text[:, 0]) | (places == 0)
    same = (tokens[:, queries, None] == tokens[:, None]) & (back != 0) & of_text
    followed = torch.zeros_like(same)
    followed[..., 1:] = same[..., :-1]

    def equal(name: str, other: str | None = None) -> Tensor:
        """Pairs whose query has in column `other` what the key has in `name`."""
        mine = query[other or name]
        return (mine == key[name]) & (mine >= 0)

    found = {
        "self": (back == 0).expand_as(same),
        "previous": (back == 1).expand_as(same),
        "next": (back == -1).expand_as(same),
        "bracket": query["bracket"] == places,
        "quote": query["quote"] == places,
        "sub-word": equal("word") & (back != 0),
        "follows-same": followed & (back != 0),
        "same-token": same,
        "list": equal("marker", "item"),
        "table": equal("table") & equal("cell") & (query["line"] != key["line"]),
        "code": equal("line", "header"),
        "line": query["first"] == places,
        "near": ((back.abs() >= NEAR[0]) & (back.abs() <= NEAR[1])).expand_as(same),
        "delimiter": (key["kind"] <= CLASSES.index("punctuation")).expand_as(same),
    }
    pairs = torch.stack([found[name] for name in PAIRS], -1) & ~resting[:, None, :, None]
    offsets = torch.bucketize(back, torch.tensor(_BOUNDS), right=True)
    label = _partition(pairs, key["kind"], resting)
    active = (~resting)[:, None, :, None]
    parts = [
        torch.nn.functional.one_hot(label, len(PARTITION)).bool(),
        pairs,
        pairs.any(-1, keepdim=True),
        torch.nn.functional.one_hot(offsets, len(OFFSETS)).bool()[None] & active,
        (torch.nn.functional.one_hot(key["kind"].clamp(min=0), len(CLASSES)).bool() & active).expand(
            -1, len(queries), -1, -1
        ),
    ]
    asked = queries >= len(corpus.front) + corpus.prompt - 1
    kept = (query["kind"][..., 0] >= 0) & ~resting[:, queries] & asked
    return Relations(queries, kept, resting, torch.cat(parts, -1).float().flatten(0, 1))


def _partition(pairs: Tensor, kind: Tensor, resting: Tensor) -> Tensor:
    """[window, query, key] which of PARTITION each pair is counted for."""
    first = pairs.long().argmax(-1) + 1  # the first of several is the most specific
    places = {name: PARTITION.index(f"elsewhere: {name}") for name in CLASSES if f"elsewhere: {name}" in PARTITION}
    classes = torch.tensor(
        [places.get(name, 0) for name in CLASSES]
    )  # delimiters are of a kind, so none asks for theirs
    label = torch.where(pairs.any(-1), first, classes[kind.clamp(min=0)])
    return label.masked_fill(resting[:, None], 0)
