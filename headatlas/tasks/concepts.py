"""Four relations between words, each in three formats: open in English and in French, and with options. Opiełka et al. 2026."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import (
    FIRST,
    Example,
    Piece,
    Pieces,
    collect,
    filled,
    first_id,
    forever,
    halved,
    pick,
    shuffled,
    table,
)

SHOTS = {"open": 5, "choice": 3, "french": 5}  # as in the paper
OPTIONS = ("first", "second", "third", "fourth")


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] five times "Q: hot, A: cold" (or, with four options before each answer, three times), then a new word of the same relation.

    Antonyms, synonyms, plurals and past tenses (label concept, the place in facts["concepts"]), in English, with options, and in French
    (label format, the place in facts["formats"]): all twelve in turn. The answer's first token counts. Positions: input, output, query,
    end. Metric: logit of the answer minus the mean of the wrong ones: the other options, else the outputs shown. Counterfactual:
    the outputs have moved to other examples, so that no relation is shown by the same words; where there are options, another of them
    is the answer. Control: the same, and another query.
    """
    form = table("concepts", family)
    pairs = {
        (concept, name): dict(halved((form["french"][concept] if name == "french" else table(f"icl/{concept}")["pairs"]).items(), half))
        for concept in form["concepts"] for name in form["formats"]
    }  # fmt: skip

    def draw(concept: int, number: int) -> Example:
        name = form["formats"][number]
        known = pairs[form["concepts"][concept], name]
        chosen = pick(list(known), rng, SHOTS[name] + 1)
        *others, query = chosen
        size = len(tokenizer.encode(f" {query}"))
        free = [
            one
            for one in known
            if one not in chosen and len(tokenizer.encode(f" {one}")) == size and known[one] != known[query]
        ]
        stranger = pick(free, rng, 1)[0] if free else query  # the same query again makes no control and is refused
        outputs, values = [known[one] for one in others], list(dict.fromkeys(known.values()))
        if name == "choice":
            shown = [
                shuffled([known[one], *pick([value for value in values if value != known[one]], rng, 3)], rng)
                for one in (*others, query)
            ]
            mixed = [
                pick([value for value in options if value != known[one]], rng, 1)[0]
                for one, options in zip(others, shown, strict=False)
            ]
            wrong = [value for value in shown[-1] if value != known[query]]
        else:
            shown, mixed, wrong = [[]] * len(chosen), [*outputs[1:], outputs[0]], outputs
        prompts = [
            _prompt(form, [*others, asked], given, shown)
            for asked, given in ((query, outputs), (query, mixed), (stranger, mixed))
        ]
        answer = first_id(tokenizer, known[query])
        rest = [one for one in dict.fromkeys(first_id(tokenizer, value) for value in wrong) if one != answer]
        return Example(prompts, [answer], rest, {"concept": concept, "format": number})

    if any(len(known) < SHOTS[name] + 2 for (_, name), known in pairs.items()):
        raise UnfitTask("concepts needs more pairs of each relation.")
    sources = [forever(functools.partial(draw, concept, number)) for number in range(len(form["formats"])) for concept in range(len(form["concepts"]))]  # fmt: skip
    facts = {"concepts": form["concepts"], "formats": form["formats"], "half": half, "family": family}
    return collect("concepts", tokenizer, n, sources, spans=("query",), **facts)


def _prompt(form: Mapping[str, str], inputs: list[str], outputs: list[str], shown: list[list[str]]) -> Pieces:
    pieces: list[Piece] = []
    for i, word in enumerate(inputs):
        template = form["choice" if shown[i] else "open"]
        options = dict(zip(OPTIONS, shown[i], strict=False))
        last = i == len(outputs)
        if last:
            template = template.split(" {output}")[0]
        made = filled(template, input=word, output="" if last else outputs[i], **options)
        roles = {"input": "query" if last else "input", "output": "output"}
        pieces += [piece._replace(role=roles.get(piece.role, "")) for piece in made]
    return pieces


concepts, concepts_held_out = halves(
    "concepts",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="Input: and Output: in place of Q: and A:.",
)
