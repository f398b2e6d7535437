"""The known kinds of reading: for which pairs of tokens a plain rule says what the one is to the other.

A pair may be of several kinds (the token before may be a piece of the same word). `relations` tells all of them; the
partition gives each pair to its most specific kind, in the order of PAIRS, and what is of no kind to the class of its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

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


# A pair of these kinds is of no more specific one, so its column stands in the partition already; two distances are kinds too.
_AS_PARTITION = ("self", "previous", "next")
_AS_KIND = {"0": "self", "1": "previous"}
_OWN_PAIRS = tuple(name for name in PAIRS if name not in _AS_PARTITION)
_OWN_OFFSETS = tuple(name for name in OFFSETS if name not in _AS_KIND)
_FIRST_CLASS = 1 << len(PAIRS)  # index of a pair of no kind whose key is of the first class
_RESTING = _FIRST_CLASS + len(CLASSES)  # index of a pair whose key is a resting place


def columns() -> dict[str, slice]:
    """Where each group of columns stands in what is counted (`Relations.sums`)."""
    found, start = {}, 0
    for name, size in SIZES.items():
        found[name], start = slice(start, start + size), start + size
    return found


@dataclass(frozen=True)
class Relations:
    """What pairs of a batch's sampled queries and all keys are.

    queries [query]: their positions. kept [window, query] bool: tokens of text with something to attend to beside resting places.
    resting [window, key] bool: start and end tokens and the first position. kinds, places [window x query, key, column] 0 or
    1: the columns of `columns()`, each once, of which `sums` makes all: partition, kinds and any kind; distances and classes.
    """

    queries: Tensor
    kept: Tensor
    resting: Tensor
    kinds: Tensor
    places: Tensor

    def chance(self, weights: Tensor) -> Tensor:
        """[window x query, head, column] sums of weights [window x query, head, key] over partition, kinds and any kind."""
        return (weights @ self.kinds.to(weights.device)).index_select(
            -1, _spread()[: columns()["known"].stop].to(weights.device)
        )

    def sums(self, weights: Tensor) -> Tensor:
        """[window x query, head, column] sums of weights [window x query, head, key] over all of `columns()`."""
        both = torch.cat([weights @ part.to(weights.device) for part in (self.kinds, self.places)], -1)
        return both.index_select(-1, _spread().to(weights.device))


@cache
def _spread() -> Tensor:
    """[column] which column of `kinds` and `places`, side by side, holds each of `columns()`."""
    names = [*PARTITION, *(f"pair {name}" for name in _OWN_PAIRS), KNOWN, *(f"offset {name}" for name in _OWN_OFFSETS)]
    at = {name: i for i, name in enumerate([*names, *(f"class {name}" for name in CLASSES)])}
    pairs = [at[name] if name in _AS_PARTITION else at[f"pair {name}"] for name in PAIRS]
    offsets = [at[_AS_KIND[name]] if name in _AS_KIND else at[f"offset {name}"] for name in OFFSETS]
    classes = [at[f"class {name}"] for name in CLASSES]
    return torch.tensor([*range(len(PARTITION)), *pairs, at[KNOWN], *offsets, *classes])


@cache
def _kind_table() -> Tensor:
    """[index, column] the columns of `kinds` for an index that has bit i set where the pair is of kind i of PAIRS.

    The first of several kinds is the most specific and counts in the partition; a pair of none counts there by its key's
    class, one whose key is a resting place as such.
    """
    code = torch.arange(_FIRST_CLASS)
    bits = (code[:, None] >> torch.arange(len(PAIRS)) & 1).bool()
    part = 1 + bits.long().argmax(-1)
    # Punctuation and line breaks are a kind themselves: no pair of no kind has a key of theirs.
    classes = [PARTITION.index(name) if (name := f"elsewhere: {one}") in PARTITION else 0 for one in CLASSES]
    part = torch.cat([part, torch.tensor([*classes, 0])])
    bits = torch.cat([bits, torch.zeros(len(part) - len(bits), len(PAIRS), dtype=torch.bool)])
    own = bits[:, [list(PAIRS).index(name) for name in _OWN_PAIRS]]
    return torch.cat(
        [torch.nn.functional.one_hot(part, len(PARTITION)).bool(), own, bits.any(-1, keepdim=True)], -1
    ).float()


@cache
def _place_table() -> Tensor:
    """[index, column] the columns of `places` for a distance of OFFSETS and a class: index distance x len(CLASSES) + class."""
    distance = torch.tensor([OFFSETS.index(name) for name in _OWN_OFFSETS])
    index = torch.arange(len(OFFSETS) * len(CLASSES) + 1)[
        :, None
    ]  # the last is that of resting places, and of no column
    far = index // len(CLASSES) == distance
    classes = (index % len(CLASSES) == torch.arange(len(CLASSES))) & (index < len(index) - 1)
    return torch.cat([far, classes], -1).float()


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
    code = torch.zeros(same.shape, dtype=torch.int32)
    for bit, name in enumerate(PAIRS):
        code.add_(found[name], alpha=1 << bit)
    index = torch.where(code > 0, code, _FIRST_CLASS + key["kind"].clamp(min=0).int())
    offsets = torch.bucketize(back, torch.tensor(_BOUNDS), right=True)
    places_index = offsets * len(CLASSES) + key["kind"].clamp(min=0)
    asked = queries >= len(corpus.front) + corpus.prompt - 1
    kept = (query["kind"][..., 0] >= 0) & ~resting[:, queries] & asked
    parts = [(_kind_table(), index, _RESTING), (_place_table(), places_index, len(_place_table()) - 1)]
    kinds, where = (
        table.index_select(0, one.masked_fill(resting[:, None], last).flatten()).unflatten(0, one.shape).flatten(0, 1)
        for table, one, last in parts
    )
    return Relations(queries, kept, resting, kinds, where)
