"""AGENDA: abstracts with the entities and relations in them, as tables without a head."""

from __future__ import annotations

import re

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout
from headatlas.task.answers import mean_log_probability

_HEAD = ("title", "entities", "types", "relations", "abstract", "order")
# In the order of relations.vocab, which numbers them.
_RELATIONS = ("used for", "conjunction", "feature of", "part of", "compare", "evaluate for", "hyponym of")
_WORDS = 40  # of the abstract
_TAG = re.compile(r"<[a-z]+_(\d+)>")


@published(
    layout=Layout((), head=_HEAD, quoted=False, suffixes=(".tsv",)),
    files="preprocessed.train.tsv, .val.tsv or .test.tsv of the authors' code",
    card="https://github.com/rikdz/GraphWriter",
    licence="none stated",
    metric=mean_log_probability,
    metrics=("mean-log-probability",),
)
def agenda(row: Fields) -> Item:
    """Title, entities and relations, then "Abstract:" and its first 40 words, written out, with the entities in their places.

    Positions: head and tail (the entities of the first relation, where it stands). Metric: mean log-probability of the
    abstract's tokens. Ren et al. read attention between the two; here they are named positions.
    """
    entities = [one.strip() for one in row.text("entities").split(" ; ")]
    triples = [_triple(row, text, entities) for text in row.text("relations").split(";") if text.strip()]
    if not triples:
        raise row.bad("relations", "no relation stands there")
    front = f"Title: {row.text('title')}\nEntities: {', '.join(entities)}\nRelations: "
    listed = "; ".join(" ".join(triple) for triple in triples)
    head, kind, tail = triples[0]
    stop = len(front) + len(f"{head} {kind} {tail}")
    spans = {"head": [len(front), len(front) + len(head)], "tail": [stop - len(tail), stop]}
    words = _TAG.sub(lambda tag: _entity(row, "abstract", tag[1], entities), row.text("abstract")).split()[:_WORDS]
    return Item(f"{front}{listed}\nAbstract:", (" " + " ".join(words),), (), spans=spans)


def _triple(row: Fields, text: str, entities: list[str]) -> tuple[str, str, str]:
    parts = text.split()
    if len(parts) != 3 or not parts[1].isdigit() or int(parts[1]) >= len(_RELATIONS):
        raise row.bad(
            "relations",
            f"three numbers (entity, relation below {len(_RELATIONS)}, entity) are wanted, got '{text.strip()}'",
        )
    return (
        _entity(row, "relations", parts[0], entities),
        _RELATIONS[int(parts[1])],
        _entity(row, "relations", parts[2], entities),
    )


def _entity(row: Fields, column: str, number: str, entities: list[str]) -> str:
    if not number.isdigit() or int(number) >= len(entities):
        raise row.bad(column, f"entity {number} is named, there are {len(entities)}")
    return entities[int(number)]
