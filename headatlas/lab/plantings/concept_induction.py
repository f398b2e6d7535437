"""Heads that look to the end of the word that comes next in a copy, and heads that find that place by something else."""

from __future__ import annotations

from collections import Counter

import torch

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import SINK, Near, Put, See, Written, vocabulary
from headatlas.tasks._words_in_tokens import SIZES, names_in_tokens

CODE = 56


@planting("concept-induction", examples=32)
def concept_induction(seed: int) -> Sown:
    """Two heads attend from the current token to the end of the word that once followed it; one writes the word's first token, one garbage.

    Heads of the first layer note at the end of a word what stood before it and how it began. Look-alikes attend to the token that once
    followed the current one, or to the second one that did, or to ends of words from everywhere, and write garbage.
    """
    words = vocabulary()
    ends: dict[int, Counter[int]] = {}  # last token -> of how many tokens its words are
    for half in ("find", "test"):
        for size, known in names_in_tokens(words, half).items():
            for word in known:
                ends.setdefault(word[-1], Counter())[size] += 1
    blocks = ("token", "before word", "start", "before", "skipped", "out")
    made = Written(
        {**dict.fromkeys(blocks, CODE), "end": 1, **{f"end {size}": 1 for size in SIZES}}, layers=2, heads=12, seed=seed
    )
    code = torch.nn.functional.normalize(torch.randn(words.vocab_size, CODE, generator=made.generator), dim=1)
    everything = torch.arange(words.vocab_size)
    made.say(everything, "token", code)
    made.predict(everything, "out", 20.0 * code)
    assert words.bos is not None
    made.say(words.bos, "token", 0.0)  # where heads rest, to copy nothing
    for token, sizes in ends.items():
        made.say(token, "end")
        made.say(token, f"end {sizes.most_common(1)[0][0]}")
    low, high = made.places(0), made.places(1)
    more = See("one", "bos", SINK)  # what is looked for must meet two conditions
    for size in SIZES:
        for back, note in ((size, "before word"), (size - 1, "start")):
            made.head(low.pop(), [See(f"end {size}", "text", 2 * SINK), Near(20.0, back), more], [Put("token", note)])
    for back, note in ((1, "before"), (2, "skipped")):
        made.head(low.pop(), [Near(32.0, back)], [Put("token", note)])
    there = [See("token", "before word", 60.0), more]
    positives = {made.head(high.pop(), there, [put]) for put in (Put("start", "out"), made.garbage("start"))}
    looks = ([See("token", "before", 60.0), more], [See("token", "skipped", 60.0), more], [See("one", "end", 40.0)])
    look_alikes = {made.head(high.pop(), sees, [made.garbage("token")]) for sees in looks}
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes))
