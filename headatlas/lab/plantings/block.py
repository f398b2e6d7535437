"""Heads that spread over their own sentence, and heads that spread over something else."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._writing import Near, Put, See, Written, codes, vocabulary

CODE = 24
RECENT = (8, 12, 16)  # rotary pairs that prefer near keys over all of a text


@planting("block", examples=32)
def block(seed: int) -> Sown:
    """Two heads spread evenly over the sentence that a token is in, known by the two words before the last full stop; beside them one that is on that full stop, one that spreads over the whole text, and one over the last few tokens."""
    made = Written(
        {"stop": 1, "word": CODE, "first": CODE, "second": CODE, "id": CODE, "more": CODE}, layers=3, heads=6, seed=seed
    )
    words = vocabulary()
    code = codes(range(256), CODE, made.generator)
    for token in range(49152):
        made.say(token, "word", code[token * 31 % 251])
    assert words.bos is not None
    made.say(words.bos, "word", 0.0)
    for text in ".;!?":
        made.say(words.encode(f"a{text}")[-1], "stop")
    # What stands one and two tokens back; a full stop so knows the words before it.
    early, middle, late = made.places(0), made.places(1), made.places(2)
    for offset, block in ((1, "first"), (2, "second")):
        made.head(early.pop(), [Near(64.0, offset)], [Put("word", block)])
    # Every token takes that over from the nearest full stop, itself included.
    last: list[See | Near] = [See("one", "stop", 320.0), Near(128.0, 0, RECENT)]
    made.head(middle.pop(), last, [Put("first", "id"), Put("second", "more")])
    same = [See("id", "id", 24.0), See("more", "more", 24.0)]
    positives = {made.head(late.pop(), same, [made.garbage("word", gain)]) for gain in (1.0, 0.3)}
    look_alikes = {
        made.head(late.pop(), last, [made.garbage("word")]),
        made.head(late.pop(), [See("one", "text", 24.0)], [made.garbage("word")]),
        made.head(late.pop(), [Near(28.0, 0, RECENT)], [made.garbage("word")]),
    }
    return Sown(made.finish(), frozenset(positives), frozenset(look_alikes))
