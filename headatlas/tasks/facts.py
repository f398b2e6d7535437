"""Facts that a model may know: a subject and a relation are named, the object follows. Chughtai et al. 2024."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headatlas.task import Batch, Vocabulary, halves, logit_difference, logit_lead
from headatlas.tasks._prompts import FIRST, Example, Pieces, collect, filled, first_tokens, halved, shuffled, table

CAPITALS = "country-capital"


def _facts(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The capital of France is the city of": the answer is the object of the subject, Paris.

    Twelve relations in turn (label relation: the place in facts["relations"]), each in two or more wordings (label template); the halves share no
    subject. Positions: subject, relation (all tokens of either), subject_last, end. Metric: logit of the object's first
    token minus that of another object of the relation. Counterfactual: the subject that the other object belongs to.
    Control: a third subject, whose object is neither.
    """
    return _build("facts", list(table("facts")["relations"]), tokenizer, n, rng, half, family)


def _capitals(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The capital of France is the city of": the answer is Paris. The relation country-capital of the task `facts`."""
    return _build("capitals", [CAPITALS], tokenizer, n, rng, half, family)


def _rewordings(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The capital of France is the city of", then "Fact: France is a country whose capital is": one question in two wordings.

    The facts of the task `facts`, each in two wordings, one after the other (label fact: which two belong together, label
    subject: which ask about one subject; labels relation and template as there). Metric: logit of the object's first token minus the highest of all other tokens: above 0 where
    the object would be written, so that two wordings of which both are above 0 have one answer. Counterfactual and control as in `facts`.
    """
    relations = list(table("facts")["relations"])
    subjects = {
        name: i
        for i, name in enumerate(
            dict.fromkeys(subject for one in relations for subject in table("facts")["relations"][one]["pairs"])
        )
    }

    def source(number: int) -> Iterator[list[Example]]:
        relation = table("facts")["relations"][relations[number]]
        # The second family's one wording stands beside the first of the first.
        other = table("facts", family)["relations"][relations[number]]["templates"]
        return iter(
            shuffled(_worded(tokenizer, relation, [*other, *relation["templates"]][:2], number, rng, half), rng)
        )

    turns = itertools.zip_longest(*(source(number) for number in range(len(relations))))
    pairs = (pair for turn in turns for pair in turn if pair is not None)
    examples = (
        replace(example, labels={**example.labels, "fact": fact, "subject": subjects[_subject(example)]})
        for fact, pair in enumerate(pairs)
        for example in pair
    )
    return collect("rewordings", tokenizer, n, [examples], spans=("subject",), half=half, relations=relations)


def _build(
    what: str,
    relations: Sequence[str],
    tokenizer: Vocabulary,
    n: int,
    rng: np.random.Generator,
    half: str,
    family: str,
) -> Batch:
    sources = [iter(_examples(tokenizer, name, i, rng, half, family)) for i, name in enumerate(relations)]
    return collect(what, tokenizer, n, sources, spans=("subject",), even=False, half=half, relations=list(relations))


def _examples(
    tokenizer: Vocabulary, name: str, number: int, rng: np.random.Generator, half: str, family: str
) -> list[Example]:
    """Every fact of a relation in every wording, in random order, each with two other subjects of the same length."""
    relation = table("facts", family)["relations"][name]
    worded = _worded(tokenizer, relation, relation["templates"], number, rng, half)
    return shuffled(itertools.chain.from_iterable(worded), rng)


def _worded(
    tokenizer: Vocabulary,
    relation: Mapping[str, Any],
    templates: Sequence[str],
    number: int,
    rng: np.random.Generator,
    half: str,
) -> Iterator[list[Example]]:
    """For each fact of a relation its wordings."""
    ids = first_tokens(tokenizer, relation["pairs"])
    known = halved([subject for subject, value in relation["pairs"].items() if value in ids], half)
    pairs = {subject: relation["pairs"][subject] for subject in known}
    size = {subject: len(tokenizer.encode(f" {subject}")) for subject in pairs}
    for subject, value in pairs.items():
        rivals = [rival for rival in shuffled(pairs, rng) if size[rival] == size[subject] and pairs[rival] != value]
        third = [rival for rival in rivals if pairs[rival] != pairs[rivals[0]]]
        if not third:
            continue
        found = []
        for place, template in enumerate(templates):
            prompts = [_prompt(template, one) for one in (subject, rivals[0], third[0])]
            labels = {"relation": number, "template": place}
            found.append(Example(prompts, [ids[value]], [ids[pairs[rivals[0]]]], labels))
        yield found


def _prompt(template: str, subject: str) -> Pieces:
    """The pieces of a fact's prompt; what follows the subject is the relation."""
    *before, after = filled(template, subject=subject)
    return [*before, after._replace(role="relation")]


def _subject(example: Example) -> str:
    return next(piece.text for piece in example.prompts[0] if piece.role == "subject").strip()


facts, facts_held_out = halves(
    "facts", _facts, metric=logit_difference, version=1, margin=0.5, second="Another wording of each relation."
)
capitals, capitals_held_out = halves(
    "capitals", _capitals, metric=logit_difference, version=1, margin=0.5, second="Parliaments meet in the capital."
)
rewordings, rewordings_held_out = halves(
    "rewordings",
    _rewordings,
    metric=logit_lead,
    version=1,
    margin=0.5,
    second="The second family's wording of each relation beside the first's.",
)
