"""Short texts about different cities, then a question that one of them answers: which one is looked at? Zhang et al. 2025 (QRHead)."""

from __future__ import annotations

import functools

import numpy as np

from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, first_id, forever, shuffled, table

DOCUMENTS = 6  # three kinds of text about two cities


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] six numbered texts, three kinds of fact about each of two cities, "Question: What is the password for the old gate of

    Paris? Answer: The password for the old gate of Paris is": the word that stands in the one text that has both. The kinds are asked for in turn (label
    kind: the place in facts["kinds"]); the halves share no city and no answer. answer is what that text says, wrong what the
    text of the same kind about the other city says. Positions: doc_1 ... doc_6 (all tokens of a text, its number included; label
    gold: which one answers, from 0), asked (the city in the question), query (the question's other tokens), end.
    Counterfactual: the question is about the other city. Control: it is about a third, of which no text tells.
    """
    data, shared = table("documents", family), table("needle")
    kinds = list(data["kinds"])
    cities, words = list(shared["cities"][half]), list(shared["words"][half])
    size = {city: len(tokenizer.encode(f" {city}")) for city in cities}
    first = {word: first_id(tokenizer, word) for word in words}

    def draw(number: int) -> Example:
        city = str(rng.choice(cities))
        alike = [one for one in shuffled(cities, rng) if size[one] == size[city] and one != city]
        answers = list({first[word]: word for word in shuffled(words, rng)}.values())
        if len(alike) < 2 or len(answers) < DOCUMENTS:
            return Example([[Piece(" ")]] * 3, [0], [0])  # equal answers: refused as an example
        told = [(kind, one) for kind in kinds for one in (city, alike[0])]
        facts = dict(zip(shuffled(told, rng), answers, strict=False))
        kind = data["kinds"][kinds[number]]
        texts: list[Piece] = []
        for place, ((about, one), answer) in enumerate(facts.items(), 1):
            text = data["kinds"][about]["text"].format(city=one, answer=answer)
            texts.append(Piece(f"{data['item'].format(number=place)} {text}", f"doc_{place}"))

        def prompt(asked: str) -> list[Piece]:
            question = [
                piece._replace(role={"city": "asked"}.get(piece.role, "query"))
                for piece in filled(f" {kind['question']}", city=asked)
            ]
            return [
                Piece(data["front"]),
                *texts,
                Piece(data["ask"]),
                *question,
                Piece(data["told"].format(stem=kind["stem"].format(city=asked))),
            ]

        right, rival = (first[facts[kinds[number], one]] for one in (city, alike[0]))
        prompts = [prompt(one) for one in (city, *alike[:2])]
        gold = list(facts).index((kinds[number], city))
        return Example(prompts, [right], [rival], {"kind": number, "gold": gold})

    sources = [forever(functools.partial(draw, number)) for number in range(len(kinds))]
    return collect("documents", tokenizer, n, sources, half=half, kinds=kinds, documents=DOCUMENTS)


documents, documents_held_out = halves(
    "documents",
    _build,
    metric=logit_difference,
    version=1,
    margin=1.0,
    second="Other texts, as a list of notes, asked about by somebody.",
)
