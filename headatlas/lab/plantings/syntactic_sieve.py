"""Heads that put their attention on the verb a noun is the object of, and heads that look elsewhere."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._grammar import reading


@planting("syntactic-sieve", examples=32)
def syntactic_sieve(seed: int) -> Sown:
    """One head attends from nouns to the verb whose object they are; beside it heads that attend from nouns to their determiners, from pronouns to names, from everywhere to determiners.

    A head that looks a token back is not decided about: adjectives stand before their nouns, so it has the role too.
    """
    made = reading(seed)
    others = made.dependency | made.by_place | made.coreference | made.nearest_name
    return Sown(made.model, made.objects, others - made.objects - made.previous, undecided=made.previous)
