"""Reads a title and an abstract and says which head types, methods, models and benchmarks they speak of, and why.

Nothing is guessed from meaning: every proposal quotes the words that it rests on, so that a reader can reject it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, cast

import yaml

from headatlas.catalogue.schema import Benchmark, HeadType, Method, Paper

_GAP = r"(?:[\s\-‐‑–_/]+|\.(?=\S))"
# What may stand between a head type's own words and "heads": "previous-token attention heads".
_HEADS = rf"(?:{_GAP}(?:token|self|attention)){{0,3}}{_GAP}heads?"
# "name mover, duplicate token and S-inhibition heads": the noun comes once, at the end.
_SHARED = r"(?:,?\s+(?:and|or|&)|,)\s+(?:and\s+|or\s+)?[\w-]+(?:\s+[\w-]+)?"
Kind = Literal["heads", "methods", "models", "benchmarks"]
Place = Literal["title", "abstract"]


@dataclass(frozen=True)
class Proposal:
    """One thing that a text speaks of; `sure` where it is named outright, not merely touched on."""

    kind: Kind
    id: str
    quote: str  # the words of the text
    place: Place
    sure: bool = True

    @property
    def reason(self) -> str:
        """Why it is proposed."""
        return f'the {self.place} says "{self.quote}"'


@dataclass(frozen=True)
class _Hit:
    id: str
    own: tuple[int, int]  # the span of the head type's own words, without "heads"
    start: int
    end: int
    sure: bool


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name)


@cache
def _parts(name: str) -> tuple[str, ...]:
    """What a text must hold for the name's patterns to match; looking for it is far cheaper than the patterns are."""
    words = [word.lower() for word in _words(name)]
    if words and words[-1] in ("head", "heads"):
        return tuple(words[:-1])
    # The last word may be in the other number: "memories" is looked for as "memor".
    return tuple([*words[:-1], *(word[: max(1, len(word) - 3)] for word in words[-1:])])


def _joined(words: Sequence[str]) -> str:
    return _GAP.join(re.escape(word) for word in words)


def _either_number(word: str) -> str:
    """A pattern for a noun in the singular and the plural."""
    single = word.removesuffix("ies") + "y" if word.endswith("ies") else word.removesuffix("s")
    return rf"{re.escape(single[:-1])}(?:y|ies)" if single.endswith("y") else rf"{re.escape(single)}s?"


@cache
def _patterns(name: str) -> tuple[tuple[re.Pattern[str], bool], ...]:
    """How a head type of that name may appear in running text, and whether the pattern names it outright."""
    words = _words(name)
    if not words:
        return ()
    if words[-1].lower() not in ("head", "heads"):  # such as "Function Vector"
        plain = _GAP.join([*(re.escape(word) for word in words[:-1]), _either_number(words[-1])])
        return ((re.compile(rf"\b({plain})\b", re.I), len(words) > 1),)
    base = words[:-1]
    own = rf"\b({_joined(base)})"
    found = [
        (re.compile(rf"{own}{_HEADS}\b", re.I), True),
        (re.compile(rf"{own}(?:{_SHARED}){{1,4}}?{_GAP}(?:attention\s+)?heads?\b", re.I), False),
    ]
    if len(base) > 1 and all(len(word) > 2 for word in base):
        found.append((re.compile(rf"{own}\b", re.I), False))
    return tuple(found)


def _head_hits(text: str, heads: Iterable[HeadType]) -> list[_Hit]:
    hits = []
    small = text.lower()
    for head in heads:
        for name in (head.name, *head.aliases):
            if not all(part in small for part in _parts(name)):
                continue
            for pattern, sure in _patterns(name):
                hits += [_Hit(head.id, m.span(1), m.start(), m.end(), sure) for m in pattern.finditer(text)]
    # "retrieval and streaming heads" names retrieval heads outright if "streaming heads" is a head type as well.
    ends = {hit.end for hit in hits if hit.sure}
    hits = [_Hit(hit.id, hit.own, hit.start, hit.end, hit.sure or hit.end in ends) for hit in hits]
    # "backup name mover heads" is no mention of name mover heads: what lies within longer words is dropped.
    at: dict[int, list[_Hit]] = {}
    for hit in hits:
        for position in range(*hit.own):
            at.setdefault(position, []).append(hit)
    return [hit for hit in hits if not any(_within(hit, other) for other in at[hit.own[0]])]


def _within(hit: _Hit, other: _Hit) -> bool:
    longer = other.own[1] - other.own[0] > hit.own[1] - hit.own[0]
    return other.id != hit.id and longer and other.own[0] <= hit.own[0] and hit.own[1] <= other.own[1]


def head_types(title: str, abstract: str, heads: Iterable[HeadType]) -> list[Proposal]:
    """The head types that the text names, each once with its best mention; the sure ones first."""
    best: dict[str, Proposal] = {}
    known = list(heads)
    for place, text in (("title", title), ("abstract", abstract)):
        for hit in sorted(_head_hits(text, known), key=lambda hit: (not hit.sure, hit.start)):
            held = best.get(hit.id)
            if held is None or (hit.sure and not held.sure):
                best[hit.id] = Proposal("heads", hit.id, text[hit.start : hit.end], cast(Place, place), hit.sure)
    return sorted(best.values(), key=lambda proposal: not proposal.sure)


@cache
def method_phrases() -> Mapping[str, tuple[str, ...]]:
    """The words by which abstracts speak of a method, by method id."""
    source = files("headatlas.catalogue").joinpath("data/aids/phrases.yaml").read_text(encoding="utf-8")
    return {method: tuple(phrases) for method, phrases in yaml.safe_load(source)["methods"].items()}


def _first(kind: Kind, id: str, phrases: Iterable[str], texts: Mapping[Place, str], ending: str) -> Proposal | None:
    for place, text in texts.items():
        for phrase in phrases:
            match = re.search(rf"\b{_joined(_words(phrase))}{ending}", text, re.I)
            if match:
                return Proposal(kind, id, match[0], place)
    return None


def _models(names: Iterable[str], texts: Mapping[Place, str]) -> list[Proposal]:
    """The longest name at each place: "Llama-2-7B" is not Llama-2 as well; of two spellings the text's own."""
    found = []
    for name in sorted(names):
        pattern = re.compile(rf"\b{_joined(_words(name))}(?!\w|\.\d)", re.I)
        found += [(place, match, name) for place, text in texts.items() for match in pattern.finditer(text)]
    found.sort(key=lambda item: (-len(item[1][0]), item[2] != item[1][0]))
    taken: set[tuple[Place, int]] = set()
    best: dict[str, Proposal] = {}
    for place, match, name in found:
        letters = {(place, position) for position in range(*match.span())}
        if not letters & taken:
            taken |= letters
            best.setdefault(name, Proposal("models", name, match[0], place))
    return list(best.values())


def propose(
    title: str,
    abstract: str,
    *,
    heads: Iterable[HeadType],
    methods: Iterable[Method] = (),
    benchmarks: Iterable[Benchmark] = (),
    papers: Iterable[Paper] = (),
) -> list[Proposal]:
    """All that the text speaks of and the catalogue knows; `papers` lend the names of the models they studied."""
    texts: dict[Place, str] = {"title": title, "abstract": abstract}
    found: list[Proposal | None] = list(head_types(title, abstract, heads))
    for method in methods:
        found.append(_first("methods", method.id, [method.name, *method_phrases().get(method.id, ())], texts, r"\w*"))
    found += _models({model for paper in papers for model in paper.models if len(model) > 2}, texts)
    for benchmark in benchmarks:
        found.append(_first("benchmarks", benchmark.id, [benchmark.name], texts, r"\b"))
    return [proposal for proposal in found if proposal is not None]
