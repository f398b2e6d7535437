"""Finds entries by words, best first, also when a word is misspelt or only begun.

The ranking is BM25 over weighted fields (a word in a name counts more than one in a note). A word that the catalogue
does not know stands for the known words it begins or nearly is. Two hundred short texts need no stored index.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rapidfuzz import process
from rapidfuzz.distance import DamerauLevenshtein

from headatlas.catalogue.catalogue import Catalogue
from headatlas.errors import BadInput

# How much a word counts by where it stands.
WEIGHTS: Mapping[str, float] = {"name": 4.0, "aliases": 4.0, "authors": 3.0, "about": 2.0, "summary": 1.0, "notes": 0.5}
_SATURATION, _LENGTH = 1.2, 0.5  # BM25's k1 and b
_NEAR = 0.7  # share of letters that a misspelt word has right, at least
_SHORTEST_TYPO, _SHORTEST_START = 4, 3
# An entry whose name has the query's words comes first, and before it one whose name is the query.
_SAME_WORDS, _SAME_NAME = 2.0, 3.0
_STOP = frozenset(
    "a an and are as at by do for from how in is it of on or than that the this to what when which with".split()  # noqa: SIM905
)
# A claim is found through its paper and head type too: it should not crowd them out.
_KINDS: Mapping[str, float] = {"head type": 1.1, "circuit": 0.9, "benchmark": 0.9, "claim": 0.5}


@dataclass(frozen=True)
class Hit:
    """An entry that fits, how well, and the text in which the words were found."""

    kind: str
    id: str
    title: str
    score: float
    snippet: str


@dataclass(frozen=True)
class Result:
    """Hits, best first, and what unknown words were taken for."""

    hits: tuple[Hit, ...]
    corrected: Mapping[str, tuple[str, ...]]


@dataclass
class _Document:
    kind: str
    id: str
    title: str
    fields: Mapping[str, list[str]]
    words: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What the entry is called: its title and aliases."""
        return (self.title, *self.fields.get("aliases", ()))


def words(text: str) -> list[str]:
    """The text's words for comparison: no case, no accents, no plural s, letters apart from digits.

    >>> words("GPT-2's Heads, gpt2")
    ['gpt', '2', 'head', 'gpt', '2']
    """
    plain = unicodedata.normalize("NFKD", text).casefold().replace("'s", " ")
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    return [_singular(word) for word in re.findall(r"[^\W\d_]+|\d+", plain)]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def search(catalogue: Catalogue, query: str, *, limit: int = 20) -> Result:
    """The entries that fit the words best. Raises BadInput for a query without a word."""
    wanted = list(dict.fromkeys(words(query)))
    if not wanted:
        raise BadInput(f"'{query}' has no word to search for.", 'Write one, such as "induction".')
    wanted = [word for word in wanted if word not in _STOP] or wanted
    documents = list(_documents(catalogue))
    for document in documents:
        document.words = {
            name: Counter(w for text in texts for w in words(text)) for name, texts in document.fields.items()
        }
    holders = Counter(word for d in documents for word in set[str]().union(*d.words.values()))
    meanings = {word: _meanings(word, holders) for word in wanted}
    lengths = {name: [sum(d.words[name].values()) for d in documents if name in d.words] for name in WEIGHTS}
    means = {name: max(1.0, sum(found) / max(1, len(found))) for name, found in lengths.items()}
    known = {word for near in meanings.values() for word in near}
    best = {max(near, key=lambda word: near[word]) for near in meanings.values() if near}
    asked = _without_head(query)
    if not any(asked == _without_head(name) for document in documents for name in document.names):
        # No name is the query to the letter: "what is the induction head" asks for what "induction head" does.
        asked = [word for word in wanted if word != "head"]
    hits = []
    for document in documents:
        score = _score(document, meanings, holders, len(documents), means) * _KINDS.get(document.kind, 1.0)
        if score > 0:
            if any(asked == _without_head(name) for name in document.names):
                score *= _SAME_NAME
            elif any(_same_words(best, words(name)) for name in document.names):
                score *= _SAME_WORDS
            hits.append(Hit(document.kind, document.id, document.title, round(score, 3), _snippet(document, known)))
    hits.sort(key=lambda hit: (-hit.score, hit.kind, hit.id))
    corrected = {word: tuple(near) for word, near in meanings.items() if near and word not in near}
    return Result(tuple(hits[:limit]), corrected)


def _same_words(wanted: set[str], name: Iterable[str]) -> bool:
    """Whether the words name the thing, with or without 'head' and words that say nothing."""
    return bool(wanted) and wanted - {"head"} == set(name) - {"head"} - _STOP


def _without_head(name: str) -> list[str]:
    return [word for word in words(name) if word != "head"]


def _score(
    document: _Document,
    meanings: Mapping[str, Mapping[str, float]],
    holders: Counter[str],
    n: int,
    means: Mapping[str, float],
) -> float:
    parts = []
    for near in meanings.values():
        worths = (share * _worth(document, known, holders, n, means) for known, share in near.items())
        parts.append(max(worths, default=0.0))
    # An entry that has all the words is better than one that has one of them often.
    return float(sum(parts) * (sum(part > 0 for part in parts) / len(parts)) ** 2)


def _worth(document: _Document, word: str, holders: Counter[str], n: int, means: Mapping[str, float]) -> float:
    """BM25F of one known word in one document."""
    often = 0.0
    for name, counts in document.words.items():
        if counts[word]:
            length = 1 - _LENGTH + _LENGTH * sum(counts.values()) / means[name]
            often += WEIGHTS[name] * counts[word] / length
    rarity = math.log(1 + (n - holders[word] + 0.5) / (holders[word] + 0.5))
    return rarity * often / (_SATURATION + often)


def _meanings(word: str, vocabulary: Iterable[str]) -> dict[str, float]:
    """The known words that a typed word may mean, each with how surely: itself, what it begins, what it nearly is."""
    known = list(vocabulary)
    found: dict[str, float] = {}
    if len(word) >= _SHORTEST_START and not word.isdigit():
        found = {other: 0.8 * len(word) / len(other) for other in known if other.startswith(word)}
    if word in known:
        return {**found, word: 1.0}
    if len(word) >= _SHORTEST_TYPO and not word.isdigit():
        near = process.extract(
            word, known, scorer=DamerauLevenshtein.normalized_similarity, score_cutoff=_NEAR, limit=4
        )
        for other, likeness, _ in near:
            found[other] = max(found.get(other, 0.0), 0.8 * likeness**2)
    return found


def _snippet(document: _Document, known: set[str]) -> str:
    """The author who was asked for; else the text of the entry that has one of the words, or says what it is."""
    fields = document.fields
    if not known.intersection(words(document.title)):
        for name in ("authors", "summary", "about", "notes"):
            for text in fields.get(name, []):
                if known.intersection(words(text)):
                    return text
    return next((text for name in ("summary", "about", "notes") for text in fields.get(name, [])), "")


def _documents(catalogue: Catalogue) -> Iterator[_Document]:
    named: defaultdict[str, list[str]] = defaultdict(list)
    for head in catalogue.heads.values():
        named[head.id] = [head.name, *head.aliases]
    for paper in catalogue.papers.values():
        summary = paper.summary
        about = [name for id_ in paper.heads for name in named[id_]]
        about += [catalogue.methods[id_].name for id_ in paper.methods] + [
            catalogue.benchmarks[b].name for b in paper.benchmarks
        ]
        fields = {
            "name": [paper.title],
            "authors": paper.authors,
            "about": [
                *about,
                *paper.models,
                *([paper.venue] if paper.venue else []),
                *([paper.arxiv] if paper.arxiv else []),
            ],
            "summary": [summary.innovation, summary.tasks, summary.result] if summary else [],
            "notes": [*paper.notes, *paper.tags, *paper.bib_keys],
        }
        yield _Document("paper", paper.id, paper.title, fields)
    for head in catalogue.heads.values():
        stage = catalogue.stages[head.stage]
        fields = {
            "name": [head.name],
            "aliases": head.aliases,
            "about": [stage.name, *([head.scope] if head.scope else []), *head.models],
            "summary": [head.role, head.reads, head.writes],
            "notes": [head.tested_by],
        }
        yield _Document("head type", head.id, head.name, fields)
    for method in catalogue.methods.values():
        yield _Document("method", method.id, method.name, {"name": [method.name], "summary": [method.operation]})
    for benchmark in catalogue.benchmarks.values():
        fields = {"name": [benchmark.name], "summary": [benchmark.description], "notes": benchmark.facts}
        yield _Document("benchmark", benchmark.id, benchmark.name, fields)
    for circuit in catalogue.circuits.values():
        fields = {
            "name": [circuit.name],
            "about": [*([circuit.model] if circuit.model else []), *(node.label for node in circuit.nodes)],
            "summary": [circuit.task],
        }
        yield _Document("circuit", circuit.id, circuit.name, fields)
    for claim in catalogue.claims.values():
        title = f"{catalogue.heads[claim.head_type].name} in {claim.model}"
        fields = {"summary": [claim.statement, claim.model], "notes": named[claim.head_type]}
        yield _Document("claim", claim.id, title, fields)
