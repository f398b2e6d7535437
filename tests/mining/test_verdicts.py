"""Which verdict effects give, and which heads are controls."""

import functools
from types import SimpleNamespace

import numpy as np

from headatlas.heads import HeadId, parse_heads
from headatlas.methods.sweeps.matched_controls import judge, matched
from headatlas.mining.task_verdict import DetectorVerdict, group_json
from headatlas.task import next_token_loss

OTHER_KIND = frozenset(parse_heads("1.4 1.5 1.6 1.7"))


class Known:
    """A removal whose effects are written down: 1.1 alone, 2.2 and 2.3 together, and heads of another kind, 1.4 to 1.7."""

    metric = next_token_loss
    model = SimpleNamespace(heads=tuple(HeadId(layer, head) for layer in range(6) for head in range(8)))

    def __init__(self, n: int) -> None:
        self.n = n

    def metric_drop(self, heads) -> np.ndarray:
        heads = set(heads)
        noise = np.random.default_rng(len(heads)).normal(0, 0.01, self.n)
        strong = 1.0 if HeadId(1, 1) in heads else 0.0
        backed_up = 0.8 if {HeadId(2, 2), HeadId(2, 3)} <= heads else 0.0
        return noise + strong + backed_up + 2.0 * bool(heads & OTHER_KIND)


def verdicts(*names: str, assigned=()) -> dict[str, str]:
    heads = parse_heads(" ".join(names))
    excluded = {*heads, *(() if assigned else OTHER_KIND)}
    return {
        str(head): word for head, word in judge(Known(8), Known(4), heads, excluded, assigned=assigned).verdicts.items()
    }


def test_planted_effects_decide_the_verdict():
    assert verdicts("1.1", "3.3") == {"1.1": "causal", "3.3": "group"}
    assert verdicts("2.2", "2.3") == {"2.2": "group", "2.3": "group"}
    assert verdicts("3.3", "5.4") == {"3.3": "refuted", "5.4": "refuted"}


def test_heads_of_other_kinds_are_no_controls_where_there_are_others():
    heads = [HeadId(1, 1)]
    assert judge(Known(8), Known(4), heads, heads).verdicts[heads[0]] == "refuted", "they raise the bar"
    assert verdicts("1.1", assigned=OTHER_KIND) == {"1.1": "causal"}
    # With nothing but heads of other kinds these must do.
    found = judge(Known(8), Known(4), heads, heads, assigned=Known.model.heads)
    assert found.effects[heads[0]].random_effect > 1.0
    assert group_json(DetectorVerdict.of(found))["metric"] == "next-token loss"


def test_random_sets_come_from_the_nearest_heads_of_no_kind_and_differ():
    free = [head for head in Known.model.heads if head != HeadId(2, 0)]
    others = frozenset(head for head in free if head.layer == 2 and head.head < 7)
    draw = functools.partial(matched, [HeadId(2, 0)], free, np.random.default_rng(0))
    assert {head for _ in range(40) for head in draw(others)} == {HeadId(2, 7)}
    wide = {head for _ in range(200) for head in draw(others, 4)}
    assert wide == {HeadId(2, 7)} | {head for head in free if head.layer in (1, 3)}
    # Where fewer than four are free of every kind, those of other kinds help out, the nearest first.
    rest = frozenset(head for head in free if head != HeadId(2, 7))
    assert {head for _ in range(200) for head in draw(rest, 4)} == {head for head in free if head.layer == 2}
