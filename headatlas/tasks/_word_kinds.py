"""Words by what they are names of."""

from __future__ import annotations

from headatlas.task import Vocabulary
from headatlas.tasks._prompts import halved, singles, table


def word_kinds(tokenizer: Vocabulary, half: str, least: int) -> dict[str, dict[str, int]]:
    """Kind -> word -> id, of one half of the words of filter_list.yaml; all words and the kinds' names are one token, and a kind has `least` words or more."""
    form, classes = table("filter_list"), table("abstract_patterns")["classes"]
    known = {**{kind: classes[kind] for kind in form["kinds"]}, **form["more"]}
    found = {kind: singles(tokenizer, halved(known[kind], half)) for kind in singles(tokenizer, known)}
    return {kind: words for kind, words in found.items() if len(words) >= least}
