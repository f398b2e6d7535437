"""The ordered series (days, months, numbers ...) as a tokenizer has them."""

from __future__ import annotations

from headatlas.task import Vocabulary
from headatlas.tasks._prompts import singles, table


def neighbours(tokenizer: Vocabulary) -> dict[str, tuple[list[int], list[tuple[int, int]]]]:
    """Each series' members that are one token, in order, and its pairs of a member and the next one, as token ids."""
    found = {}
    for name, series in table("succession")["series"].items():
        members = series["members"]
        ids = singles(tokenizer, members)
        following = [*members[1:], *(members[:1] if series["cyclic"] else [])]
        pairs = [(ids[a], ids[b]) for a, b in zip(members, following, strict=False) if a in ids and b in ids]
        found[name] = ([ids[member] for member in members if member in ids], pairs)
    return found
