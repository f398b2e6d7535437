"""What is learned on recall texts: gates find the planted group; the worth of keys is the change of the loss; heads find documents."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from headatlas.apply.kv_cache.choosing import CacheOptions, plan_cache
from headatlas.apply.kv_cache.gates import CacheGateOptions, learned_gates
from headatlas.apply.kv_cache.measuring import compare_cache_plans, needle, paired_shares
from headatlas.apply.kv_cache.plan import plan_of
from headatlas.apply.kv_cache.recall import asked, ruled
from headatlas.apply.kv_cache.reranking import document_attention, query_heads, recall_examples, rerank
from headatlas.apply.kv_cache.spans import key_worth
from headatlas.errors import BadInput
from headatlas.lab.grid import model_of
from headatlas.lab.plantings._needle import NeedleHeads, needle_heads
from headatlas.methods.protected_groups import Group
from headatlas.model import Model
from headatlas.model.holding.cache import cache_shapes
from headatlas.model.holding.own import again
from headatlas.model.holding.span import Span
from headatlas.task import Batch, find_task
from tests.recorder import Recorder


@functools.cache
def planted() -> tuple[Model, NeedleHeads]:
    """A head that copies the needle's answer, one that looks there and writes garbage, and two that look elsewhere."""
    heads = needle_heads(0)
    return model_of(heads.planted), heads


@functools.cache
def needles(n: int = 6) -> Batch:
    return find_task("needle")(planted()[0].tokenizer, n, 0)


@pytest.mark.slow
def test_gates_stay_open_where_the_answer_comes_from():
    model, heads = planted()
    options = CacheOptions(recent=16, n=6, task="needle", steps=30, price=0.5, keeps="answer")
    plan = plan_cache(model, "gates", keep=0.35, tokens=249, options=options)
    place = Group(heads.fetching.layer, heads.fetching.head)
    assert place in plan.whole
    assert plan.scores[place] == max(plan.scores.values())
    assert plan.share(249) <= 0.35
    found = compare_cache_plans(model, {"gates": plan}, task="needle", n=12, n_prose=0, draws=1)
    told = {row["plan"]: row for row in found.rows}
    assert told["everything"]["accuracy"] >= 0.7
    assert told["gates"]["accuracy"] == told["everything"]["accuracy"]
    assert told["gates, recency"]["accuracy"] <= 0.3
    closed = plan_of(plan.shapes, [g for g in plan.groups if g != place], Span(4, 16))
    without = compare_cache_plans(model, {"closed": closed}, task="needle", n=12, n_prose=0)
    assert without.costs["closed"].found.mean() <= 0.3, "all others together do not do it"


def test_retrieval_scores_find_both_heads_that_look_there():
    model, heads = planted()
    plan = plan_cache(model, "retrieval", keep=0.3, tokens=249, options=CacheOptions(recent=16, n=12, task="needle"))
    looking = {Group(one.layer, one.head) for one in (heads.fetching, heads.silent)}
    assert looking <= set(plan.whole)
    low, high = plan.facts["intervals"][str(Group(heads.fetching.layer, heads.fetching.head))]
    assert low <= plan.scores[Group(heads.fetching.layer, heads.fetching.head)] <= high


def test_open_gates_are_the_model_and_closed_ones_the_spans():
    """The mix at its two ends: what the learning starts from, and what a plan does then."""
    model, _ = planted()
    shapes = cache_shapes(model)
    texts = asked(model, needles(), 2)
    gates, losses = learned_gates(model, shapes, texts, Span(4, 16), options=CacheGateOptions(steps=1, price=0.0))
    assert losses[0] == pytest.approx(0.0, abs=1e-6)
    assert all((row >= 0).all() and (row <= 1).all() for row in gates)


def test_worth_is_the_change_of_the_loss():
    """Taking a little of one key's weight away, the others growing to sum to one, changes the loss as the first order says."""
    model = model_of_llama()
    shapes = cache_shapes(model)
    batch = find_task("needle")(model.tokenizer, 1, 0)
    (text,) = asked(model, batch, 1)
    worth = key_worth(model, shapes, [text])
    step = 1e-2
    rng = np.random.default_rng(0)
    for _ in range(6):
        layer, distance = int(rng.integers(len(shapes))), int(rng.integers(0, 40))
        group = int(rng.integers(shapes[layer].n_groups))
        change = (
            loss(model, text, layer, group, distance, step) - loss(model, text, layer, group, distance, -step)
        ) / (2 * step)
        assert worth[layer][group, distance] == pytest.approx(change, rel=0.05, abs=2e-5)


@functools.cache
def model_of_llama() -> Model:
    from headatlas.model import attach
    from headatlas.model.families.tiny_models import spread
    from tests import toys

    hf = spread(toys.llama(vocab_size=49152, num_hidden_layers=2), 1.0)
    return attach(hf.double(), tokenizer=toys.smollm2_vocabulary())


def loss(model: Model, text, layer: int, group: int, distance: int, share: float) -> float:
    """The loss where each query's key at a distance gives away this share of what taking it whole would change."""

    def attention(at: int, q, k, v, mask, own):
        per_group = q.shape[1] // k.shape[1]
        scores = torch.einsum("ehqd,ehkd->ehqk", q, k.repeat_interleave(per_group, 1)) * q.shape[-1] ** -0.5
        n_queries, n_keys = scores.shape[2:]
        columns, places = torch.arange(n_keys), torch.arange(n_keys - n_queries, n_keys)[:, None]
        pattern = scores.masked_fill(columns > places, float("-inf")).softmax(-1)
        if at == layer:
            hit = (places - columns == distance).double()  # [query, key]
            changed = pattern.clone()
            for head in range(group * per_group, (group + 1) * per_group):
                a = pattern[0, head]
                without = a * (1 - hit)
                gone = without / without.sum(-1, keepdim=True)
                changed[0, head] = a + share * (gone - a)
            pattern = changed
        return torch.einsum("ehqk,ehkd->eqhd", pattern, v.repeat_interleave(per_group, 1))

    with torch.no_grad(), ruled(model, attention) as hf:
        logits = hf(input_ids=text.tokens[None], past_key_values=again(text.past)).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[text.wanted - 1], text.tokens[text.wanted]))


def test_what_is_asked_gets_the_models_own_numbers():
    """The full cache, cut nowhere, gives each answer what a plain forward pass gives it."""
    model, _ = planted()
    batch = find_task("needle-held-out")(model.tokenizer, 5, 0)
    found = compare_cache_plans(model, {}, task="needle", n=5, n_prose=0).costs["everything"]
    log_p = model.forward(batch).log_softmax(-1)
    for example in range(5):
        row = batch.tokens[example][batch.mask[example]]
        context, rest, wanted = needle(model, batch, example)
        assert torch.equal(torch.cat([context, rest]), row)
        places = batch.positions["answer"][example]
        places = places[places >= 0]
        assert torch.equal(rest[wanted], batch.tokens[example][places])
        own = log_p[example, places - 1].gather(1, batch.tokens[example][places][:, None]).sum()
        assert found.log_probability[example] == pytest.approx(float(own), rel=1e-3, abs=1e-3)


def test_interrupted_measuring_goes_on(tmp_path):
    model, _ = planted()
    plan = plan_of(cache_shapes(model), (), Span(4, 32))
    out = tmp_path / "result.json"

    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        compare_cache_plans(model, {"p": plan}, task="needle", n=6, n_prose=0, out=out, progress=Recorder(stop))
    assert not out.exists()
    kept = sorted(path.name for path in (tmp_path / "result.json.partial").glob("needle-*.npy"))
    assert len(kept) == 3
    found = compare_cache_plans(model, {"p": plan}, task="needle", n=6, n_prose=0, out=out)
    again = compare_cache_plans(model, {"p": plan}, task="needle", n=6, n_prose=0)
    np.testing.assert_array_equal(found.costs["p"].log_probability, again.costs["p"].log_probability)
    assert out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_intervals_of_paired_shares_cover():
    """Newcombe's method: 95% intervals of the difference of two shares on the same trials, of which few differ."""
    rng = np.random.default_rng(0)
    for high, lost in ((0.8, 0.02), (0.6, 0.1), (0.95, 0.0)):
        inside = []
        for _ in range(300):
            one = rng.random(100) < high
            other = one & (rng.random(100) >= lost)
            change, low, up = paired_shares(other, one)
            assert low <= change <= up
            inside.append(low <= -high * lost <= up)
        assert np.mean(inside) >= 0.92
    change, low, up = paired_shares(np.ones(100), np.ones(100))
    assert change == 0
    assert -0.05 < low < 0 < up < 0.05


def test_documents_are_ordered_by_heads_that_were_planted_to_find_them():
    model, heads = planted()
    examples = recall_examples(model, 8, documents=6)
    found = query_heads(model, examples)
    assert found.best(1) == (heads.repeat.id,), "it attends from a city to its earlier mention"
    right = [
        rerank(model, q, documents, [heads.repeat.id]).order[0] == place
        for q, documents, place in recall_examples(model, 12, documents=6, seed=1, half="test")
    ]
    assert np.mean(right) >= 0.8
    noise = next(head for head in model.heads if head.layer == 0 and head not in heads.planted.of("previous"))
    wrong = [
        rerank(model, q, documents, [noise]).order[0] == place
        for q, documents, place in recall_examples(model, 12, documents=6, seed=1, half="test")
    ]
    assert np.mean(wrong) < 0.6


def test_attention_on_documents_is_the_patterns_own():
    """Against whole patterns read off one pass, document by document."""
    model, _ = planted()
    question, documents, _ = recall_examples(model, 1, documents=3)[0]
    found = document_attention(model, question, documents)

    def by_hand(asked_for: str) -> list[np.ndarray]:
        encode, ids, spans = model.tokenizer.encode, [0, *model.tokenizer.encode("Documents:")], []
        for number, text in enumerate(documents, 1):
            ids += encode(f"\n[{number}] ")
            own = encode(text)
            spans.append(range(len(ids), len(ids) + len(own)))
            ids += own
        ids += encode("\n\nQuestion:")
        start = len(ids)
        ids += encode(f" {asked_for}")
        patterns = []
        model.forward(torch.tensor([ids]), watch=lambda layer: patterns.append(layer.pattern[0].clone()))
        pattern = torch.cat(patterns).double().numpy()
        return [pattern[:, start:, span.start : span.stop].mean(1).T for span in spans]

    for row, one, nothing in zip(found, by_hand(question), by_hand("N/A"), strict=True):
        gain = one - nothing
        kept = np.where(gain >= gain.mean(0) - 2 * gain.std(0, ddof=1), gain, 0)
        np.testing.assert_allclose(row, kept.sum(0), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: plan_cache(m, "best"), "no way to plan a cache called 'best'"),
        (lambda m: plan_cache(m, "razor", keep=0.001), "more than 0.001"),
        (lambda m: CacheOptions(n=1), "too few"),
        (lambda m: CacheOptions(task="ioi"), "no needle"),
        (lambda m: CacheOptions(recent=0), "cannot be kept"),
        (lambda m: CacheOptions(steps=0), "Gates need"),
        (lambda m: compare_cache_plans(m, {}, task="ioi"), "no needle"),
        (lambda m: compare_cache_plans(m, {}, n=0, n_prose=0), "nothing to measure on"),
        (lambda m: rerank(m, "", ["a"], "0.0"), "is empty"),
        (lambda m: rerank(m, "What?", [], "0.0"), "is empty"),
        (lambda m: query_heads(m, []), "no example"),
        (lambda m: query_heads(m, [("What?", ["a", "b"], 2)]), "number 2 matters"),
    ],
)
def test_wrong_input_is_refused(call, said: str):
    with pytest.raises(BadInput, match=said):
        call(planted()[0])
