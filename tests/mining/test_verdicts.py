"""Which verdict effects give, which heads are controls, and what a run's tests count together."""

from types import SimpleNamespace

import numpy as np
import pytest

from headatlas.heads import HeadId, parse_heads
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.mining.checks.beside_others import random_sets
from headatlas.mining.checks.judging import Bench, judge
from headatlas.mining.checks.records import DetectorVerdict, unranked
from headatlas.mining.checks.settling import settled
from headatlas.mining.task_verdict import group_json, head_json
from headatlas.task import next_token_loss

OTHER_KIND = frozenset(parse_heads("1.4 1.5 1.6 1.7"))
FAKE = parse_heads("5.0 5.1 5.2")  # they write nothing


class Known:
    """A removal whose effects are written down, in nats of loss.

    1.1 alone; 2.2 and 2.3 back each other up; 3.1 is what 3.2 stands in for, in part; 4.4 works against; heads of another kind,
    1.4 to 1.7; 5.0 to 5.2 write nothing; every other head a little, of either sign.
    """

    metric = next_token_loss

    def __init__(self, n: int, seed: int = 0, layers: int = 6) -> None:
        self.n, self.seed, self.asked = n, seed, 0
        self.model = SimpleNamespace(heads=tuple(HeadId(layer, head) for layer in range(layers) for head in range(8)))

    def _little(self, head: HeadId) -> np.ndarray:
        if head in FAKE:
            return np.zeros(self.n)
        rng = np.random.default_rng([self.seed, *head[:2]])
        own = np.random.default_rng([7, *head[:2]]).lognormal(-4.5, 1.0)
        return own * rng.choice([-1, 1]) * (1 + 0.5 * rng.normal(size=self.n))

    def metric_drop(self, heads) -> np.ndarray:
        heads = set(heads)
        self.asked += 1
        scatter = 1 + 0.1 * np.random.default_rng(self.seed + 5).normal(size=self.n)
        strong = 1.0 * (HeadId(1, 1) in heads)
        backed_up = 0.8 * ({HeadId(2, 2), HeadId(2, 3)} <= heads)
        hidden = 0.6 * (HeadId(3, 1) in heads) + 0.5 * ({HeadId(3, 1), HeadId(3, 2)} <= heads)
        against = -0.9 * (HeadId(4, 4) in heads)
        total = strong + backed_up + hidden + against + 2.0 * bool(heads & OTHER_KIND)
        return total * scatter + sum((self._little(head) for head in sorted(heads)), np.zeros(self.n))


def judged(*names: str, known: Known | None = None, labelled=OTHER_KIND, more=None, smallest=0.02) -> DetectorVerdict:
    known = known or Known(8)
    heads = parse_heads(" ".join(names))
    free = [head for head in known.model.heads if head not in heads and head not in labelled]
    bench = Bench(known, free, more=more or (lambda have, wanted: None))
    return settled({0: judge(bench, heads, smallest=smallest)})[0]


def verdicts(*names: str, **options) -> dict[str, str]:
    return {str(head): word for head, word in judged(*names, **options).verdicts.items()}


def test_a_head_that_matters_alone_does_not_make_its_company_a_group():
    assert verdicts("1.1", "3.3", "5.4") == {"1.1": "causal", "3.3": "refuted", "5.4": "refuted"}
    assert verdicts("3.3", "5.4") == {"3.3": "refuted", "5.4": "refuted"}
    found = judged("1.1", "3.3", "5.4")
    assert found.group.whole.effect > 0.9
    assert found.group.heads == parse_heads("3.3 5.4")
    assert abs(found.group.rest.effect) < 0.1


def test_backup_heads_are_a_group_and_their_silent_neighbour_is_not():
    assert verdicts("2.2", "2.3") == {"2.2": "group", "2.3": "group"}
    words = verdicts("1.1", "2.2", "2.3", "3.4")
    assert words == {"1.1": "causal", "2.2": "group", "2.3": "group", "3.4": "refuted"}


def test_a_backup_of_a_head_that_matters_alone_shows_once_that_is_gone():
    assert verdicts("3.1", "3.2", "3.5") == {"3.1": "causal", "3.2": "group", "3.5": "refuted"}


@pytest.mark.parametrize("company", [(), ("1.1",), ("2.2", "2.3")])
def test_heads_that_write_nothing_are_refuted_in_any_company(company):
    found = judged(*company, "5.0", "5.1", "5.2")
    for head in FAKE:
        assert found.verdicts[head] == "refuted"
        assert (found.heads[head].alone.effect, found.heads[head].works) == (0.0, "")
        assert np.isnan(found.heads[head].q), "nothing to test is no test"


class Lively(Known):
    """0.0 does half as much again as any other head of its layer, which do about as much as each other."""

    def _little(self, head: HeadId) -> np.ndarray:
        scatter = 1 + 0.02 * np.random.default_rng([self.seed, *head[:2]]).normal(size=self.n)
        size = 0.15 if head == HeadId(0, 0) else float(np.random.default_rng([3, *head[:2]]).uniform(0.03, 0.1))
        return size * scatter


@pytest.mark.parametrize(("layers", "verdict"), [(1, "untested"), (8, "causal")])
def test_few_free_heads_do_not_say_that_a_head_is_none_of_the_rare_ones(layers, verdict):
    known = Lively(8, layers=layers)
    found = judged("0.0", known=known, labelled=OTHER_KIND.union(parse_heads("1.1 2.2 2.3 3.1 3.2 4.4")))
    one = found.heads[HeadId(0, 0)]
    assert one.verdict == verdict
    outcome = next(check for check in one.checks if check.name == "random heads")
    assert (outcome.outcome == "does not apply") is (verdict == "untested")
    assert unranked(one.alone, found.smallest) is (verdict == "untested")
    row = head_json(HeadId(0, 0), found)
    assert row["effect"] > row["random_ordinary"]
    assert not one.marginal
    ordinary = judged("0.1", known=known, labelled=OTHER_KIND.union(parse_heads("0.0 1.1 2.2 2.3 3.1 3.2 4.4")))
    assert ordinary.verdicts[HeadId(0, 1)] == "refuted", "three of its neighbours do as much or more"


@pytest.mark.parametrize(("layers", "plenty"), [(4, False), (8, True)])
def test_few_draws_decide_where_plenty_of_heads_are_free(layers, plenty):
    found = judged("2.2", "2.3", known=Known(8, layers=layers))
    assert found.free >= 40 if plenty else found.free < 40
    for one in found.heads.values():
        assert one.verdict == "group"
        assert (one.beside.random_ordinary == one.beside.random_effect) is plenty
    assert found.group.draws == 10


def test_the_sign_is_part_of_the_verdict():
    found = judged("1.1", "4.4", "3.3")
    rows = {str(head): head_json(head, found) for head in found.heads}
    words = {name: (row["verdict"], row["works"]) for name, row in rows.items()}
    assert words == {"1.1": ("causal", "for"), "4.4": ("causal", "against"), "3.3": ("refuted", "")}
    assert rows["4.4"]["effect"] < 0


def test_every_check_says_what_came_of_it():
    found = judged("1.1", "2.2", "2.3", "3.4", "5.0")
    outcomes = {str(head): {one.name: one.outcome for one in found.heads[head].checks} for head in found.heads}
    passed, failed, none = "passed", "failed", "does not apply"
    names = ("own effect", "random heads", "beside others", "false discoveries")
    assert outcomes["1.1"] == dict(zip(names, (passed, passed, none, passed), strict=True))
    assert outcomes["2.2"]["beside others"] == passed
    assert outcomes["3.4"]["beside others"] == failed
    assert outcomes["5.0"]["false discoveries"] == none
    group = group_json(found)
    assert (group["metric"], group["heads"], group["draws"]) == ("next-token loss", ["2.2", "2.3", "3.4"], 10)


def test_a_layer_that_does_nothing_changes_no_draw_and_no_bar():
    class Deeper(Known):
        """The same model with a layer that writes nothing in front of layer 3."""

        def __init__(self) -> None:
            super().__init__(8, layers=7)

        def metric_drop(self, heads) -> np.ndarray:
            return super().metric_drop([HeadId(h.layer - (h.layer > 3), h.head) for h in heads if h.layer != 3])

    names = ["1.1", "2.2", "2.3", "3.1", "3.2", "4.4", "4.0", "0.3"]
    moved = [name if int(name[0]) < 3 else f"{int(name[0]) + 1}{name[1:]}" for name in names]
    shallow, deep = judged(*names), judged(*moved, "3.0", known=Deeper())
    assert (shallow.free, shallow.measured) == (deep.free, deep.measured)
    for name, other in zip(names, moved, strict=True):
        assert shallow.heads[HeadId.parse(name)] == deep.heads[HeadId.parse(other)]
    assert deep.verdicts[HeadId(3, 0)] == "refuted"


def test_planted_nulls_are_rarely_causal():
    """Heads that are free in all but name: of 20 models, 12 heads each that nothing reads."""
    words = []
    for seed in range(20):
        known = Known(8, seed)
        names = [f"{layer}.{head}" for layer in (0, 3, 4) for head in (0, 3, 5, 7)]
        words += verdicts("1.1", *names, known=known).values()
    assert words.count("causal") - 20 <= 0.03 * 240


def test_few_examples_with_an_effect_ask_for_more():
    class Rare(Known):
        """3.3 matters on every sixteenth example."""

        def metric_drop(self, heads) -> np.ndarray:
            found = super().metric_drop([head for head in heads if head != HeadId(3, 3)])
            return found + (3.0 * (np.arange(self.n) % 16 == 3) if HeadId(3, 3) in heads else 0.0)

    asked = []

    def more(have: int, wanted: int) -> Rare:
        asked.append((have, wanted))
        return Rare(wanted - have, seed=wanted)

    few = judged("3.3", known=Rare(8)).heads[HeadId(3, 3)]
    assert (few.verdict, few.alone.few, few.alone.examples) == ("untested", True, 8)
    assert np.isnan(few.alone.low)
    assert few.checks[0].note == "too few events"
    many = judged("3.3", known=Rare(8), more=more).heads[HeadId(3, 3)]
    assert asked == [(8, 16), (16, 32), (32, 64), (64, 128)], "enough are touched by 64, and its size is still open"
    assert (many.alone.examples, many.alone.few) == (128, False)
    assert many.alone.low < many.alone.effect < many.alone.high


def test_random_sets_come_from_about_the_same_depth_and_differ():
    free = [head for head in Known(1).model.heads if head.layer != 2]
    draws = random_sets(parse_heads("2.0 2.1"), free, 0)
    assert all(len(draw) == 2 for draw in draws)
    assert {head.layer for draw in draws for head in draw} <= {1, 3}
    assert len(set(draws)) > 6
    assert random_sets(parse_heads("2.0"), [], 0) == []


def test_matched_heads_come_from_the_nearest_layer():
    free = [head for head in Known(1).model.heads if head.layer not in (2, 3)]
    for seed in range(10):
        drawn = matched(parse_heads("2.0 2.1 5.0"), free, np.random.default_rng(seed))
        assert sorted(head.layer for head in drawn) == [1, 1, 5]
