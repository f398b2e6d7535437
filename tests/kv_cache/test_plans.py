"""Plans: budgets, rivals, files, and what cannot be planned; on shapes alone where no model is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headatlas.apply.kv_cache.patterns import (
    CONFIG,
    GATES,
    export_duo_attention,
    import_duo_attention,
    read_cache_plan,
    save_cache_plan,
)
from headatlas.apply.kv_cache.plan import (
    CachePlan,
    as_recent,
    everything,
    groups_of,
    plan_of,
    shuffled,
    widest,
    within_budget,
)
from headatlas.apply.kv_cache.spans import WIDTHS, chosen_spans
from headatlas.errors import BadInput, HeadAtlasError, StoreError
from headatlas.methods.protected_groups import Group
from headatlas.model.holding.cache import cache_shapes
from headatlas.model.holding.span import LayerShape, Span
from tests.kv_cache.test_exact import model_of

SMOLLM2 = (LayerShape(3, 64, 64),) * 30
GEMMA = tuple(LayerShape(1, 256, 256, None if layer % 6 == 5 else 512) for layer in range(18))


def test_bytes_by_hand():
    """RazorAttention's own sizes on SmolLM2 at 4,096 tokens: 14 of 90 groups protected, 820 recent, 4 first, one mean."""
    plan = plan_of(SMOLLM2, groups_of(SMOLLM2)[:14], Span(4, 820, compensate=True))
    kept = 14 * 4096 + 76 * (820 + 4 + 1)
    assert plan.n_bytes(4096, itemsize=2) == kept * 2 * 64 * 2
    assert everything(SMOLLM2).n_bytes(4096, itemsize=2) == 94_371_840
    assert plan.share(4096) == pytest.approx(0.326, abs=5e-4)
    assert plan.share(500) == 1.0, "nothing is dropped of a text that fits"


def test_a_share_of_the_text_counts_where_it_is_more():
    plan = plan_of(SMOLLM2, (), Span(4, 100, share=0.2))
    assert plan.tokens(Group(0, 0), 1000) == 204
    assert plan.tokens(Group(0, 0), 300) == 104


def test_windows_of_the_model_itself_count_in_the_baseline():
    full = everything(GEMMA)
    assert full.n_bytes(4096) == (3 * 4096 + 15 * 512) * 512 * 4
    plan = plan_of(GEMMA, (), Span(4, 128, compensate=True))
    assert plan.tokens(Group(0, 0), 4096) == 128, (
        "first tokens cannot be seen outside of the window, and no mean of them is kept"
    )
    assert plan.tokens(Group(5, 0), 4096) == 4 + 128 + 1
    assert plan.share(4096) == pytest.approx((3 * 133 + 15 * 128) / (3 * 4096 + 15 * 512))


@pytest.mark.parametrize("shapes", [SMOLLM2, GEMMA])
@pytest.mark.parametrize("keep", [0.2, 0.3, 0.5, 0.9, 1.0])
def test_a_budget_is_kept_and_used(shapes: tuple[LayerShape, ...], keep: float):
    span = Span(4, 64)
    order = [groups_of(shapes)[i] for i in np.random.default_rng(0).permutation(len(groups_of(shapes)))]
    whole = within_budget(shapes, order, span, keep=keep, n_tokens=4096)
    plan = plan_of(shapes, whole, span)
    assert plan.share(4096) <= keep + 1e-12
    for left_out in set(order) - set(whole):
        assert plan_of(shapes, [*whole, left_out], span).share(4096) > keep, "none of the others fits any more"
    wide = widest(shapes, span, keep=keep, n_tokens=4096)
    assert plan_of(shapes, (), wide).share(4096) <= keep
    if wide.recent < 4096:
        assert plan_of(shapes, (), Span(4, wide.recent + 1)).share(4096) > keep or wide.recent >= 4092


def test_rivals_take_no_more_bytes():
    plan = plan_of(GEMMA, [Group(5, 0), Group(0, 0), Group(3, 0)], Span(4, 64))
    for seed in range(5):
        other = shuffled(plan, seed)
        assert other.n_bytes(4096) == plan.n_bytes(4096)
        assert sorted(str(s) for row in other.spans for s in row) == sorted(str(s) for row in plan.spans for s in row)
    assert len({shuffled(plan, seed).spans for seed in range(5)}) > 1
    assert as_recent(plan, 4096).n_bytes(4096) <= plan.n_bytes(4096)
    assert not as_recent(plan, 4096).whole


def test_spans_are_the_best_there_are():
    """Against all choices there are, on two layers of two groups."""
    rng = np.random.default_rng(0)
    shapes = (LayerShape(2, 8, 8), LayerShape(2, 8, 8, 100))
    worth = [rng.exponential(size=(2, 200)) * rng.uniform(0, 1, (2, 1)) for _ in shapes]
    widths = [width for width in WIDTHS if width + 4 < 200]
    for keep in (0.35, 0.5, 0.8):
        found = CachePlan(shapes, chosen_spans(shapes, worth, keep=keep, n_tokens=200))
        choices = [
            [Span(4, width) for width in widths if width + 4 < (shapes[g.layer].window or 200)] + [None]
            for g in groups_of(shapes)
        ]
        costs = []
        for a in choices[0]:
            for b in choices[1]:
                for c in choices[2]:
                    for d in choices[3]:
                        plan = CachePlan(shapes, ((a, b), (c, d)))
                        if plan.share(200) <= keep:
                            costs.append(left_out(plan, worth))
        assert found.share(200) <= keep + 1e-9
        assert left_out(found, worth) == pytest.approx(min(costs), abs=1e-6)


def left_out(plan: CachePlan, worth: list[np.ndarray]) -> float:
    total = 0.0
    for group in plan.groups:
        span = plan.span(group)
        if span is not None:
            total += max(float(worth[group.layer][group.group, span.recent : 196].sum()), 0.0)
    return total


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: within_budget(SMOLLM2, (), Span(4, 2000), keep=0.3, n_tokens=4096), "more than 0.3"),
        (lambda: within_budget(SMOLLM2, (), Span(4, 64), keep=0.0, n_tokens=4096), "is none"),
        (lambda: plan_of(SMOLLM2, [Group(30, 0)], Span()), "no key-value group 30.0"),
        (
            lambda: chosen_spans(SMOLLM2[:2], [np.ones((3, 4096))] * 2, keep=0.001, n_tokens=4096),
            "No choice of spans fits",
        ),
    ],
)
def test_what_cannot_be_planned(call, said):
    with pytest.raises(BadInput, match=said):
        call()


def test_a_plan_survives_its_file(tmp_path: Path):
    plan = plan_of(
        GEMMA, [Group(5, 0)], Span(4, 64, 0.1, compensate=True), method="retrieval", scores={g: 0.5 for g in groups_of(GEMMA)},
        model="m", weights="abc", facts={"keep": 0.5, "intervals": {"5.0": [0.25, 0.75]}},
    )  # fmt: skip
    path = tmp_path / "plan.json"
    save_cache_plan(plan, path)
    assert read_cache_plan(path) == plan
    data = json.loads(path.read_text())
    (row,) = [row for row in data["groups"] if row["group"] == "5.0"]
    assert row == {"group": "5.0", "keeps": "all", "score": 0.5, "low": 0.25, "high": 0.75}
    assert data["weights"] == "abc"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["groups"].pop(), "does not list the 18 groups"),
        (lambda data: data["groups"].reverse(), "does not list the 18 groups"),
        (lambda data: data["groups"][0].update(keeps="some"), "keeps"),
        (
            lambda data: data["groups"][0].update(keeps={"sinks": -1, "recent": 4, "share": 0, "compensate": False}),
            "sinks",
        ),
        (lambda data: data["groups"][0].update(score=float("inf")), "."),
        (lambda data: data.update(schema="other/1"), "other/1"),
        (lambda data: data.pop("layers"), "layers"),
    ],
)
def test_a_damaged_plan_is_refused(change, said: str, tmp_path: Path):
    path = tmp_path / "plan.json"
    save_cache_plan(plan_of(GEMMA, [Group(5, 0)], Span(4, 64)), path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(HeadAtlasError, match=said) as refused:
        read_cache_plan(path)
    assert "plan.json" in str(refused.value)


def test_a_pattern_of_duo_attention_goes_out_and_comes_back(tmp_path: Path):
    model = model_of("llama")
    shapes = cache_shapes(model)
    groups = groups_of(shapes)
    scores = {group: 0.9 - 0.1 * i for i, group in enumerate(groups)}
    plan = plan_of(shapes, groups[:2], Span(4, 64), scores=scores)
    share = export_duo_attention(plan, tmp_path / "pattern")
    assert share == pytest.approx(4 / 6)
    gates = np.loadtxt(tmp_path / "pattern" / GATES, delimiter="\t")
    np.testing.assert_allclose(gates, np.array([list(scores.values())]).reshape(3, 2))
    # As DuoAttention's readers do it: the lowest share of all gates streams.
    streaming = np.argsort(gates, axis=None)[: round(gates.size * share)]
    assert sorted(set(range(6)) - set(streaming.tolist())) == [0, 1]
    back = import_duo_attention(model, tmp_path / "pattern", keep=1 - share)
    assert back.spans == plan.spans
    # Scores that do not say which groups keep everything become 1 and 0.
    other = plan_of(shapes, groups[3:], Span(4, 64), scores=scores)
    assert export_duo_attention(other, tmp_path / "other") == 0.5
    assert np.loadtxt(tmp_path / "other" / GATES).flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert json.loads((tmp_path / "other" / CONFIG).read_text())["recent_size"] == 64


def test_what_a_pattern_cannot_say_is_refused(tmp_path: Path):
    model = model_of("llama")
    shapes = cache_shapes(model)
    for plan in (
        plan_of(shapes, (), Span(4, 8, compensate=True)),
        CachePlan(shapes, tuple(tuple(Span(4, 8 + g) for g in range(s.n_groups)) for s in shapes)),
        plan_of(GEMMA, (), Span(4, 8)),
    ):
        with pytest.raises(BadInput, match="DuoAttention pattern"):
            export_duo_attention(plan, tmp_path / "no")
        assert not (tmp_path / "no").exists()
    with pytest.raises(StoreError, match=r"it has no full_attention_heads\.tsv"):
        import_duo_attention(model, tmp_path)
    (tmp_path / CONFIG).write_text('{"sink_size": 4, "recent_size": 8}')
    for text, said in (
        ("1\t0\n1\n", "line 2"),
        ("a\tb\n", "line 1"),
        ("", "is empty"),
        ("1\tnan\n", "line 1"),
        ("1\t0\n", "1 layers of 2"),
    ):
        (tmp_path / GATES).write_text(text)
        with pytest.raises(HeadAtlasError, match=said):
            import_duo_attention(model, tmp_path)
