"""Faithfulness, completeness and minimality against plain hooks; discovery on models where every circuit can be tried."""

import contextlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.circuits.circuit import Circuit, Node, parse_nodes
from headatlas.circuits.discover import _Search, discover, halves
from headatlas.circuits.edges import measure_edges, receivers_of
from headatlas.circuits.evaluate import Interval, evaluate
from headatlas.circuits.knockout import EMPTY, WHOLE, Knockout, Protocol, State
from headatlas.errors import BadInput, StoreError
from headatlas.heads import HeadId
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.methods.sweeps import checkpoint
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.progress import Silent
from headatlas.task import logit_difference
from tests.methods.sweeps.test_replay import prompts
from tests.recorder import Recorder


@pytest.fixture(scope="module")
def toy() -> ha.Model:
    return attach(FAMILIES["llama"].build())


@pytest.fixture(scope="module")
def batch():
    found = prompts(4)
    return replace(found, counterfactual=replace(found.counterfactual, mask=found.mask))


def plain(name: str, batch, out: dict[tuple[int, int], torch.Tensor], protocol: Protocol) -> np.ndarray:
    """[example] the metric of the plain model with heads replaced where `out` [example, pos] says, by hooks on o_proj."""
    hf = FAMILIES[name].build()
    layers = hf.model.layers
    seen: dict[int, torch.Tensor] = {}

    def run(tokens, change):
        handles = [
            layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args, i=i: (change(i, args[0]),))
            for i, layer in enumerate(layers)
        ]
        with torch.no_grad():
            logits = hf(input_ids=tokens, attention_mask=batch.mask.long(), use_cache=False).logits
        for handle in handles:
            handle.remove()
        return logits

    run(batch.counterfactual.tokens, lambda i, x: seen.setdefault(i, x.clone()))
    width = seen[0].shape[-1] // 4

    def replaced(layer: int, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        for (at, head), where in out.items():
            if at == layer:
                part = slice(head * width, (head + 1) * width)
                other = seen[layer][..., part]
                if protocol.ablation == "zero":
                    other = torch.zeros_like(other)
                elif protocol.ablation == "mean":
                    real = batch.mask[..., None]
                    other = ((other * real).sum((0, 1)) / real.sum((0, 1))).expand_as(other)
                x[..., part] = torch.where(where[..., None], other, x[..., part])
        return x

    logits = run(batch.tokens, replaced)
    rows = logits[torch.arange(len(batch)), batch.positions["end"]][:, None]
    return logit_difference.score(rows, batch).double().numpy()


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("ablation", ["mean", "resample", "zero"])
def test_circuits_are_what_hooks_leave_in_place(name, ablation, batch):
    model, protocol = attach(FAMILIES[name].build()), Protocol(ablation)
    knockout = Knockout(model, batch, logit_difference, protocol)
    kept = parse_nodes("0.1 1.2@end 2.0@end 2.0@middle 2.3")
    end, middle = (torch.arange(24)[None] == batch.positions[at][:, None] for at in ("end", "middle"))
    out = {(head.layer, head.head): batch.mask for head in model.heads}
    del out[0, 1], out[2, 3]
    out[1, 2], out[2, 0] = batch.mask & ~end, batch.mask & ~end & ~middle
    expected = plain(name, batch, out, protocol)
    np.testing.assert_allclose(knockout(State(frozenset(kept))), expected, atol=1e-4)
    removed = parse_nodes("0.1 1.2@end")
    out = {(0, 1): batch.mask, (1, 2): end & batch.mask}
    np.testing.assert_allclose(knockout(State(None, frozenset(removed))), plain(name, batch, out, protocol), atol=1e-4)
    everything = {(head.layer, head.head): batch.mask for head in model.heads}
    np.testing.assert_allclose(knockout(EMPTY), plain(name, batch, everything, protocol), atol=1e-4)
    np.testing.assert_allclose(knockout(WHOLE), plain(name, batch, {}, protocol), atol=1e-4)


def test_few_examples_at_once_give_the_same(toy, batch, monkeypatch):
    states = [WHOLE, EMPTY, State(frozenset(parse_nodes("0.1 1.2@end")))]
    whole = Knockout(toy, batch, logit_difference, Protocol()).measure(states)
    monkeypatch.setattr("headatlas.circuits.knockout.examples_at_once", lambda *_: 3)
    np.testing.assert_allclose(Knockout(toy, batch, logit_difference, Protocol()).measure(states), whole, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_states_beside_another_have_the_numbers_that_they_have_alone(name, batch):
    model, nodes = attach(FAMILIES[name].build()), parse_nodes("0.1 1.2@end 2.0@middle 2.3")
    rest = [State(frozenset(nodes) - {node}) for node in nodes]
    late = [State(None, frozenset(parse_nodes(text))) for text in ("2.0", "1.3@end 2.0")]
    make = lambda: Knockout(model, batch, logit_difference, Protocol("resample"))  # noqa: E731
    for beside, states in ((State(frozenset(nodes)), rest), (State(None, frozenset(parse_nodes("2.0@end"))), late)):
        alone = [make()(state) for state in states]
        np.testing.assert_allclose(make().measure(states, beside=beside), alone, atol=1e-5)


def test_a_late_head_is_left_out_at_the_price_of_late_layers(toy, batch):
    nodes = parse_nodes("0.1 2.0 2.3")
    cost = []
    for beside in (None, State(frozenset(nodes))):
        knockout = Knockout(toy, batch, logit_difference, Protocol("resample"))
        knockout(WHOLE)
        before = knockout._only[0].forwards
        knockout.measure([State(frozenset(nodes[:2])), State(frozenset(nodes[::2]))], beside=beside)
        cost.append(knockout._only[0].forwards - before)
    assert cost[1] < cost[0]


def test_the_three_criteria_follow_their_definitions(toy, batch):
    nodes = parse_nodes("0.1 1.2@end 2.0 2.3")
    roles = {nodes[0]: "early", nodes[2]: "late", nodes[3]: "late"}
    knockout = Knockout(toy, batch, logit_difference, Protocol("resample"))
    found = evaluate(Circuit("x", "none", nodes, roles=roles), knockout, draws=2)
    value = lambda kept, removed=frozenset(): knockout(State(kept, frozenset(removed))).mean()  # noqa: E731
    c, late = frozenset(nodes), frozenset(nodes[2:])
    whole, mine, empty = value(None), value(c), value(frozenset())
    assert found.faithfulness.gap == pytest.approx(abs(whole - mine))
    assert found.faithfulness.share.value == pytest.approx(mine / whole)
    assert found.faithfulness.recovered.value == pytest.approx((mine - empty) / (whole - empty))
    gaps = {gap.kind: gap for gap in found.completeness}
    assert gaps["nothing"].gap.value == pytest.approx(mine - whole)
    assert gaps["class late"].gap.value == pytest.approx(value(c - late) - value(None, late))
    assert [gap.kind for gap in found.completeness].count("random") == 2
    assert abs(gaps["greedy"].gap.value) >= abs(gaps["nothing"].gap.value) - 1e-9
    greedy = frozenset(parse_nodes(map(str, gaps["greedy"].removed)))
    assert gaps["greedy"].gap.value == pytest.approx(value(c - greedy) - value(None, greedy))
    for need in found.minimality:
        k = frozenset(need.removed)
        assert need.node not in k
        assert need.effect.value == pytest.approx(value(c - k - {need.node}) - value(c - k))
        for other in (frozenset(), late - {need.node}, frozenset([nodes[0]]) - {need.node}):
            assert abs(value(c - other - {need.node}) - value(c - other)) <= abs(need.effect.value) + 1e-9
    data = json.loads(json.dumps(found.data()))
    assert data["protocol"]["ablation"] == "resample"
    assert {"granularity", "mlps", "ratio", "positions", "n_examples", "metric"} <= set(data["protocol"])
    assert data["protocol"]["positions"] == ["end"]
    assert data["completeness"][1]["removed"] == ["0.1"]
    assert evaluate(Circuit("x", "none", nodes), knockout, criteria=()).completeness is None


def test_both_ratios_are_what_they_say():
    over, under = np.array([1.0, 2.0, 6.0]), np.array([2.0, 8.0, 6.0])
    assert Interval.ratio(over, under, "ratio-of-means").value == pytest.approx(9 / 16)
    assert Interval.ratio(over, under, "mean-of-ratios").value == pytest.approx((0.5 + 0.25 + 1) / 3)
    with pytest.raises(BadInput, match="denominator of 0"):
        Interval.ratio(over, np.array([1.0, 0.0, 1.0]), "mean-of-ratios")
    with pytest.raises(BadInput, match="changes the metric by nothing"):
        Interval.ratio(over, np.zeros(3), "ratio-of-means")


@pytest.mark.parametrize("method", ["attribution", "greedy"])
@pytest.mark.parametrize("positions", [(), ("end", "middle")])
def test_what_is_found_is_good_enough_and_nothing_can_be_left_out(toy, batch, method, positions):
    knockout = Knockout(toy, batch, logit_difference, Protocol("resample"))
    told = Recorder()
    found = discover(knockout, positions=positions, method=method, target=0.8, progress=told)
    finding, judging = halves(len(batch))
    assert not {*finding} & {*judging}
    assert sorted([*finding, *judging]) == list(range(len(batch)))
    share = lambda rows: _share(knockout, found.nodes, rows)  # noqa: E731
    assert found.recovered.value == pytest.approx(share(finding))
    assert found.judged.value == pytest.approx(share(judging))
    assert found.reached == (found.judged.low >= 0.8 and found.judged.value <= 1.2)
    assert told.lines
    assert all((node.position is None) == (positions == ()) for node in found.nodes)


def _share(knockout, nodes, rows):
    """What nodes recover over some of the examples, by its definition."""
    whole, empty, mine = (knockout(state)[rows].mean() for state in (WHOLE, EMPTY, State(frozenset(nodes))))
    return (mine - empty) / (whole - empty)


def test_greedy_adds_the_best_head_of_all(toy, batch):
    knockout = Knockout(toy, batch, logit_difference, Protocol("resample"))
    found = discover(knockout, method="greedy", largest=2, target=0.99)
    rows, _ = halves(len(batch))
    off = {
        pair: abs(1 - _share(knockout, pair, rows))
        for size in (1, 2)
        for pair in itertools.combinations([Node(head) for head in toy.heads], size)
    }
    first = min((pair for pair in off if len(pair) == 1), key=off.get)
    second = min((pair for pair in off if first[0] in pair), key=off.get)
    assert [step.size for step in found.curve] == [1, 2]
    assert found.curve[0].found.value == pytest.approx(_share(knockout, first, rows))
    assert set(found.nodes) == set(second)


class _Known:
    """A knockout whose every node is worth a given number, with the same in each example but for some noise."""

    def __init__(self, worth: dict[str, float], examples: int = 64, noise: float = 0.0) -> None:
        self.worth = {Node.parse(name): value for name, value in worth.items()}
        self.batch, self.protocol = range(examples), Protocol("zero")
        self.noise = np.random.default_rng(0).normal(0, noise, (len(worth), examples))

    def measure(self, states, beside=None):
        every = frozenset(self.worth)
        kept = [every if state.kept is None else state.kept for state in states]
        numbers = {node: i for i, node in enumerate(self.worth)}
        one = lambda node: self.worth[node] * (1 + self.noise[numbers[node]])  # noqa: E731
        return np.stack([sum((one(node) for node in nodes), np.zeros(len(self.batch))) for nodes in kept])


def _along(worth, target=0.9, noise=0.0, examples=64):
    """The beginning of the ranking (the order given) that a search settles on."""
    knockout = _Known(worth, examples, noise)
    return len(_Search(knockout, target, 0, Silent()).along(list(knockout.worth), len(worth)))


def test_a_size_that_passes_by_luck_is_passed_over():
    # One head seems to do it all; the second works against the answer; only four together do what the whole model does.
    helps_hurts = {"0.0": 1.0, "0.1": -0.9, "0.2": 0.5, "0.3": 0.4, "1.0": 0.0, "1.1": 0.0}
    assert _along(helps_hurts) == 4
    # Three heads recover 2.5 times what all do until those against the answer have come in.
    overshoots = {"0.0": 1.5, "0.1": 0.5, "0.2": 0.5, "0.3": -1.5, "1.0": 0.0, "1.1": 0.0}
    assert _along(overshoots) == 4


def test_the_lower_end_of_the_interval_stops_the_search_and_not_the_mean():
    even = {f"{i}.0": 0.125 for i in range(8)}
    assert _along(even, target=0.7) == 6
    # With noise of its own size in each head six of eight recover 75% on average, and certainly less than 70%.
    assert _along(even, target=0.7, noise=1.0, examples=16) > 6


def test_all_that_can_go_goes_and_nothing_else():
    worth = {"0.0": 0.5, "0.1": 0.0, "0.2": -0.2, "0.3": 0.45, "1.0": 0.01, "1.1": 0.0, "1.2": 0.24, "1.3": 0.0}
    knockout = _Known(worth)
    search = _Search(knockout, 0.9, 0, Silent())
    left = search.pruned(list(knockout.worth))
    assert {str(node) for node in left} >= {"0.0", "0.3"}
    alone = search.all_but_one(left)
    assert search.good(search.measured(left).found)
    assert not any(search.good(step.found) for step in alone)


def test_many_that_do_nothing_go_in_few_measurements():
    worth = {"0.0": 0.5, "0.1": 0.5, **{f"{i}.2": 0.0 for i in range(62)}}
    search = _Search(_Known(worth), 0.9, 0, Silent())
    assert {str(node) for node in search.pruned(list(search.knockout.worth))} == {"0.0", "0.1"}
    assert search.tried < 64 + 2 + 4 * np.log2(64)


def test_interrupted_work_goes_on(toy, batch, tmp_path):
    out = tmp_path / "c.json"
    first = Knockout(toy, batch, logit_difference, Protocol("zero"))
    expected = discover(first, target=0.8)

    class Stop(Silent):
        def say(self, line: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), checkpoint.file(out, {"id": "a"}) as store:
        discover(Knockout(toy, batch, logit_difference, Protocol("zero"), store=store), target=0.8, progress=Stop())
    kept = {path.name for path in (tmp_path / "c.json.partial").iterdir()}
    assert {"run.json", "ranking.npy", f"{WHOLE.key}.npy"} <= kept
    with checkpoint.file(out, {"id": "a"}) as store:
        again = Knockout(toy, batch, logit_difference, Protocol("zero"), store=store)
        assert discover(again, target=0.8) == expected
        assert again.measured < first.measured
    assert not (tmp_path / "c.json.partial").exists()
    with checkpoint.file(out, {"id": "a"}) as store:
        store.put("set", np.zeros(2))
        with pytest.raises(StoreError, match="right now"), checkpoint.file(out, {"id": "a"}):
            pass
    with contextlib.suppress(KeyboardInterrupt), checkpoint.file(out, {"id": "a"}) as store:
        store.put("set", np.zeros(2))
        raise KeyboardInterrupt
    with checkpoint.file(out, {"id": "b"}) as store:  # other work: nothing of the first counts
        assert store.get("set") is None
    out.write_text("mine")
    with pytest.raises(StoreError, match="exists already"), checkpoint.file(out, {"id": "b"}):
        pass


def test_edges_are_paths_beyond_chance(toy):
    batch = prompts(4)
    batch = replace(batch, counterfactual=replace(batch.counterfactual, mask=batch.mask))
    nodes = parse_nodes("0.1 1.2 2.0 2.3")
    edges, found = measure_edges(toy, batch, nodes, logit_difference)
    names = [one.name for one in receivers_of(toy, nodes)]
    assert list(found.positions) == names
    assert {"logits", "q:2.3", "k:2.0 2.1", "v:2.2 2.3"} <= set(names)
    assert edges == ()  # four examples have no p below 1/8, so nothing is beyond chance, whatever its size
    many, again = measure_edges(toy, batch.rows([0, 1, 2, 3] * 4), nodes, logit_difference)
    span = abs(float((again.other - again.base).mean()))
    expected = {
        (line.head, line.position) for line in again.summary() if line.q < 0.05 and abs(line.effect) >= 0.02 * span
    }
    assert {(edge.sender, edge.receiver.name) for edge in many} == expected
    assert expected
    assert [abs(edge.effect) for edge in many] == sorted((abs(edge.effect) for edge in many), reverse=True)
    alone = path_patch(toy, batch, [HeadId(1, 2)], ["q:2.3"])
    j, i = names.index("q:2.3"), [head_set[0] for head_set in found.head_sets].index(HeadId(1, 2))
    np.testing.assert_allclose(found.values[:, i, j], alone.values[:, 0, 0], atol=1e-6)


def test_wrong_requests_say_what_is_wrong(toy, batch):
    make = lambda protocol=Protocol("zero"): Knockout(toy, batch, logit_difference, protocol)  # noqa: E731
    for work, text in [
        (lambda: Protocol("melt"), "Unknown ablation 'melt'"),
        (lambda: Protocol(mean="median"), "Unknown mean 'median'"),
        (lambda: Protocol(ratio="sum"), "Unknown ratio 'sum'"),
        (lambda: make(Protocol(mean="template")), "no label 'template'"),
        (lambda: make()(State(frozenset(parse_nodes("7.1")))), "no attention layer 7"),
        (lambda: make()(State(frozenset(parse_nodes("1.1@s7")))), "no position 's7'"),
        (lambda: make()(State(frozenset(parse_nodes("1.1@all")))), "does not name single tokens"),
        (lambda: discover(make(), method="guess"), "Unknown method 'guess'"),
        (lambda: discover(make(), target=1.5), "must lie between 0 and 1"),
        (lambda: discover(make(), largest=0), "at least one head"),
        (lambda: discover(make(), positions=["each"]), "does not name single tokens"),
        (
            lambda: evaluate(Circuit("x", "y", parse_nodes("0.1")), make(), criteria=["beauty"]),
            "Unknown criterion 'beauty'",
        ),
    ]:
        with pytest.raises(BadInput, match=text):
            work()
