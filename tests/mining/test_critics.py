"""The checks printed beside verdicts: what each says of written numbers, of the toy, and of planted heads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import headatlas as ha
from headatlas.errors import BadInput, UnknownName
from headatlas.heads import HeadId
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining import twins
from headatlas.mining.checks import over_prompts, transfer
from headatlas.mining.checks.critics import ALL, DEFAULT, chosen
from headatlas.mining.checks.judging import Bench
from headatlas.mining.checks.records import HeadVerdict, RemovalEffect
from headatlas.mining.checks.removals import Removals, three
from headatlas.mining.checks.same_answer import SameAnswer, compared, donors
from headatlas.model import Model
from headatlas.report.head_line import line_of, receipt_of
from headatlas.task import Batch, tasks
from tests.mining import echo, record


@pytest.fixture(scope="module")
def model() -> Model:
    return echo.model()


@contextlib.contextmanager
def replaced(model: Model, head: HeadId, new: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The head's z, [example, position, d], replaced in the plain model, without anything of the package."""
    part = slice(head.head * echo.HEAD, (head.head + 1) * echo.HEAD)

    def hook(module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = args[0].clone()
        z[:, :, part] = new(z[:, :, part])
        return (z,)

    handle = model.hf.model.layers[head.layer].self_attn.o_proj.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def z_of(model: Model, head: HeadId, batch: Batch) -> Tensor:
    seen: list[Tensor] = []
    with replaced(model, head, lambda z: seen.append(z) or z):
        model.hf(batch.tokens)
    return seen[0]


@torch.no_grad()
def logit_difference(model: Model, batch: Batch) -> np.ndarray:
    rows = torch.arange(len(batch))
    logits = model.hf(batch.tokens).logits[rows, batch.positions["end"]]
    return (logits[rows, batch.answer] - logits[rows, batch.wrong]).double().numpy()


# ---- three removals --------------------------------------------------------------------------------------------------
def test_the_three_removals_are_what_the_plain_model_gives(model: Model):
    batch = echo.echo_swapped(model.tokenizer, 6, 1)
    ways = three(ablated(model, batch, echo.echo.metric, {}))
    assert list(ways) == ["zero", "mean", "resample"]
    clean = logit_difference(model, batch)
    for head in (HeadId(0, 0), HeadId(1, 1)):
        z = z_of(model, head, batch)
        other = z_of(model, head, batch.counterfactual)
        news = {"zero": torch.zeros_like(z), "mean": z.mean((0, 1)).expand_as(z), "resample": other}
        for kind, new in news.items():
            with replaced(model, head, lambda z, new=new: new):
                expected = clean - logit_difference(model, batch)
            assert np.allclose(ways[kind].metric_drop([head]), expected, atol=1e-4), (kind, head)
            assert np.abs(expected).max() > 1e-3


def test_without_other_prompts_each_example_takes_the_next_of_its_length(model: Model):
    batch = echo.echo(model.tokenizer, 5, 2)
    head = HeadId(1, 1)
    way = three(
        ablated(
            model,
            batch,
            echo.echo.metric,
            dict.fromkeys(((s.stack, s.index) for s in model.layers), torch.zeros(4, 16)),
        )
    )
    z = z_of(model, head, batch).roll(-1, 0)
    with replaced(model, head, lambda _: z):
        expected = logit_difference(model, batch)
    assert np.allclose(way["resample"].metric_drop([head]), logit_difference(model, batch) - expected, atol=1e-4)


class Written:
    """Three removals whose effects are written down: 0.0 agrees, 0.1 is lost to zeros alone, 0.2 is near the bar, others little."""

    SIZES: ClassVar = {(0, 0): (2.0, 1.9, 2.1), (0, 1): (1.5, 0.0, 0.0), (0, 2): (0.32, 0.27, 0.29)}

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def prepare(self, sets) -> None:
        pass

    def metric_drop(self, heads) -> np.ndarray:
        (head,) = heads
        size = self.SIZES.get(tuple(head[:2]), (0.01 + 0.01 * head.head,) * 3)[self.kind]
        return size * (1 + 0.2 * np.random.default_rng([*head[:2]]).normal(size=16))


def test_a_verdict_that_depends_on_the_removal_is_said_to(model: Model, monkeypatch: pytest.MonkeyPatch):
    own = ablated(model, echo.echo_swapped(model.tokenizer, 16, 1), echo.echo.metric, {})
    free = [HeadId(2, i) for i in range(4)]
    bench = Bench(own, free)
    asked = Removals(bench)
    asked.ways = {kind: Written(i) for i, kind in enumerate(("zero", "mean", "resample"))}  # type: ignore[assignment]
    monkeypatch.setattr("headatlas.mining.checks.removals._bars", lambda drops, *_: dict.fromkeys(drops, 0.28))
    found = asked.check([HeadId(0, 0), HeadId(0, 1), HeadId(0, 2)], 0.1)
    assert {str(head): one.outcome for head, one in found.items()} == {
        "0.0": "passed",
        "0.1": "failed",
        "0.2": "weakened",
    }
    assert "zero only" in found[HeadId(0, 1)].note
    assert found[HeadId(0, 1)].parts["mean"] == (0.0, 0.0, 0.0)
    one = found[HeadId(0, 0)]
    assert one.low <= one.value <= one.high <= 1.0


# ---- same answer -----------------------------------------------------------------------------------------------------
def test_prompts_with_the_same_answer_and_with_another_are_alike_in_all_else():
    n = 60
    rng = np.random.default_rng(0)
    labels = {"answer": torch.tensor(rng.integers(5, size=n)), "template": torch.tensor(rng.integers(3, size=n))}
    tokens = torch.arange(n)[:, None].expand(n, 4).clone()
    tokens[1] = tokens[0]  # the same prompt again is no other prompt
    labels["answer"][1] = labels["answer"][0]
    pool = Batch(tokens, torch.ones(n, 4, dtype=torch.bool), {}, {}, {**labels, "wrong": labels["answer"] + 5})
    rows, same, other = donors(pool, 20).T
    assert len(rows) == 20
    assert torch.equal(labels["answer"][rows], labels["answer"][same])
    assert bool((labels["answer"][rows] != labels["answer"][other]).all())
    assert bool((pool.tokens[rows] != pool.tokens[same]).any(1).all())
    assert torch.equal(labels["template"][same], labels["template"][other])


def test_swaps_are_those_of_the_plain_model(model: Model):
    control = SameAnswer(model, echo.echo, echo.echo.metric, seed=5)
    assert control.reason == ""
    head = HeadId(1, 1)
    rows, same, other = control._donors
    batch, at = control._pool.rows(rows), control._pool.positions["end"]
    for way, source in zip(control._swaps, (same, other), strict=True):
        taken = z_of(model, head, control._pool.rows(source))[torch.arange(len(rows)), at[source]]

        def put(z: Tensor, taken: Tensor = taken) -> Tensor:
            new = z.clone()
            new[torch.arange(len(rows)), at[rows]] = taken
            return new

        clean = logit_difference(model, batch)
        with replaced(model, head, put):
            expected = clean - logit_difference(model, batch)
        assert np.allclose(way.metric_drop([head]), expected, atol=1e-4)


def test_a_head_that_keeps_the_run_on_its_course_is_told_from_one_that_carries_the_answer():
    """Two heads of the last layer see the same mean of the text and write it with opposite signs, so large that without one
    of them the final norm drowns the answer: both matter, and neither has anything to do with the answer."""
    model = echo.model()
    attention = model.hf.model.layers[2].self_attn
    with torch.no_grad():
        query = attention.q_proj.weight.view(echo.HEADS, echo.HEAD, echo.WIDTH)
        output = attention.o_proj.weight.view(echo.WIDTH, echo.HEADS, echo.HEAD)
        query[:2] = 0.0
        output[:, 0] *= 200
        output[:, 1] = -output[:, 0]
    found = SameAnswer(model, echo.echo, echo.echo.metric, seed=5).check([HeadId(0, 0), HeadId(2, 0), HeadId(2, 1)])
    assert {str(head): one.outcome for head, one in found.items()} == {
        "0.0": "passed",
        "2.0": "failed",
        "2.1": "failed",
    }
    judged = HeadVerdict(RemovalEffect(1.0, 0.9, 1.1), verdict="causal", checks=(found[HeadId(2, 0)],))
    assert judged.carries == "trajectory"
    assert replace(judged, verdict="refuted").carries == "", "it does nothing that could be a course"
    assert replace(judged, checks=(found[HeadId(0, 0)],)).carries == ""


@pytest.mark.parametrize(
    ("same", "other", "outcome"),
    [(0.1, 2.0, "passed"), (1.9, 2.0, "failed"), (-1.9, 2.0, "failed"), (1.0, 2.0, "weakened"), (0.0, -2.0, "passed"),
     (-1.9, -2.0, "failed"), (1.0, 0.0, "does not apply")],
)  # fmt: skip
def test_the_same_answer_must_change_less_than_half(same: float, other: float, outcome: str):
    noise = np.random.default_rng(0).normal(size=(2, 24))
    noise -= noise.mean(1, keepdims=True)
    found = compared(same + 0.4 * noise[0], other + 0.4 * noise[1], 1.0)
    assert found.outcome == outcome
    if outcome != "does not apply":
        assert found.low <= found.value <= found.high
        assert found.value == pytest.approx(same / other)


def test_the_control_is_right_about_intervals():
    """Of heads that change exactly half as much, at most 5% pass and at most 5% fail: the boundary is the null."""
    rng = np.random.default_rng(1)
    outcomes = [compared(1 + rng.normal(size=24), 2 + rng.normal(size=24), 1.0).outcome for _ in range(200)]
    assert outcomes.count("passed") <= 14
    assert outcomes.count("failed") <= 14


# ---- transfer --------------------------------------------------------------------------------------------------------
def test_every_task_names_a_second_family():
    without = [name for name, one in tasks().items() if one.second is None]
    assert without == []
    for one in tasks().values():
        assert one.second.doc
        assert one.second.metric == one.metric
        assert one.second.second is None


def test_score_and_effect_transfer_together_in_part_or_not():
    rng = np.random.default_rng(0)
    spread = 0.05 * rng.normal(size=16)
    assert transfer.held(0.5 + spread, 0.1)[0] == "passed"
    assert transfer.held(0.02 + spread / 5, 0.1)[0] == "failed"
    assert transfer.held(0.1 + spread, 0.1)[0] == "weakened"
    for sign in (1, -1):
        assert transfer.kept(sign * (1 + spread), sign, 0.1, 1.0)[0] == "passed"
        assert transfer.kept(-sign * (1 + spread), sign, 0.1, 1.0)[0] == "failed"
        assert transfer.kept(sign * (0.01 + spread / 10), sign, 0.1, 1.0)[0] == "failed"
    yes, no = ("passed", (1.0, 0.9, 1.1)), ("failed", (0.0, -0.1, 0.1))
    cases = [(yes, yes, "passed"), (yes, no, "weakened"), (no, yes, "failed")]
    for score, effect, outcome in cases:
        assert transfer.together({"score above chance": score, "effect": effect}).outcome == outcome
    assert transfer.together({"effect": no}).note == "does not transfer: effect lost"
    assert transfer.together({}).outcome == "does not apply"


# ---- over prompts ----------------------------------------------------------------------------------------------------
def test_a_head_that_scores_on_one_prompt_only_is_visible():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(32, 40))
    values[:, 3], values[:, 7], values[1:, 9], values[0, 9] = 2.0, -1.0, -1.0, 90.0
    values[5, 3] = np.nan
    always, never, once = (over_prompts.check(values, head) for head in (3, 7, 9))
    assert (always.outcome, always.value, always.note) == ("passed", 1.0, "top ten on 31 of 31 prompts")
    assert (never.outcome, never.value) == ("failed", 0.0)
    assert (once.outcome, once.value, once.parts["score"]) == ("failed", 1 / 32, (-1.0, -1.0, -1.0))
    assert values[:, 9].mean() > np.sort(values.mean(0))[-4], "by its mean it is one of the strongest"
    for head in range(40):
        ranks = [(row[~np.isnan(row)] > row[head]).sum() for row in values if not np.isnan(row[head])]
        assert over_prompts.check(values, head).value == np.mean(np.array(ranks) < 10)
    assert over_prompts.check(values[:, :8], 3).outcome == "does not apply"


# ---- choosing, and a whole run ---------------------------------------------------------------------------------------
def test_checks_are_chosen_by_name():
    assert chosen(None) == DEFAULT
    assert chosen("none") == chosen([]) == ()
    assert chosen("all") == ALL
    assert chosen("transfer, removals") == chosen(["transfer", "removals"]) == ("removals", "transfer")
    with pytest.raises(UnknownName, match=r"no check 'remvals'.*Did you mean 'removals'"):
        chosen("remvals")
    with pytest.raises(BadInput, match="not both"):
        chosen("all,twin")


@pytest.fixture(scope="module")
def runs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ha.Atlas]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            record.WHERE, lambda: {name: echo.DETECTORS[name] for name in ("twins", "twins-swapped", "before")}
        )
        folder = tmp_path_factory.mktemp("runs")
        return {name: ha.mine(model, n=12, seed=3, checks=name, out=folder / name) for name in ("all", "none")}  # type: ignore[arg-type]


def test_a_run_says_what_was_asked_and_what_came_of_it(runs: dict[str, ha.Atlas]):
    every = runs["all"].data
    assert every["run"]["checks"] == list(ALL)
    for detector in every["detectors"]:
        assert [one["kind"] for one in detector["twins"]] == list(twins.KINDS)
        assert all(one["heads"] == 12 and not one["reason"] for one in detector["twins"])
        assert detector["task_version"] == {"echo": 1, "echo-swapped": 2}[detector["task"]]
        for row in detector["heads"]:
            names = [check["name"] for check in row["checks"]]
            assert names[4:] == ["removals", "same answer", "transfer", "prompts"]
            assert row["line"] == line_of(detector, row)
    twin = {one["name"]: one for one in every["detectors"]}["twins"]
    assert len(twin["heads"]) > sum(one["observed"] for one in twin["twins"])
    bare = runs["none"].data
    assert all(len(row["checks"]) == 4 and not one["twins"] for one in bare["detectors"] for row in one["heads"])


def test_checks_change_no_verdict(runs: dict[str, ha.Atlas]):
    def verdicts(atlas: ha.Atlas) -> list[tuple[object, ...]]:
        return [
            (d["name"], r["layer"], r["head"], r["verdict"], r["effect"])
            for d in atlas.data["detectors"]
            for r in d["heads"]
        ]

    assert verdicts(runs["all"]) == verdicts(runs["none"])


def test_tables_and_terminal_carry_the_line(runs: dict[str, ha.Atlas], capsys: pytest.CaptureFixture[str]):
    told = runs["all"].query("SELECT line FROM scores WHERE line IS NOT NULL")
    assert sorted(row["line"] for row in told) == sorted(
        row["line"] for one in runs["all"].data["detectors"] for row in one["heads"]
    )
    from rich.console import Console

    screen = Console(width=160, record=True)
    screen.print(ha.show(runs["all"].run, detector="twins", width=160))
    text = screen.export_text()
    assert "untrained twin: 0 of 12 heads" in text
    assert "weights " in text
    assert "echo v1; n 12, verdicts on" in text


def test_one_line_says_it_all():
    checks = [
        {"name": "removals", "outcome": "passed"}, {"name": "same answer", "outcome": "does not apply"},
        {"name": "transfer", "outcome": "passed"}, {"name": "prompts", "outcome": "passed", "value": 0.94},
    ]  # fmt: skip
    row = {"layer": 18, "head": 6, "stack": "decoder", "score": 0.89, "chance": 0.004, "verdict": "causal", "effect": 1.52,
           "checks": checks}  # fmt: skip
    assert line_of({"name": "induction"}, row) == (
        "induction 18.6  0.89 (chance 0.004)  causal +1.52  removals agree  transfers  top ten on 94% of prompts"
    )
    row |= {"works": "against", "carries": "trajectory", "effect": -1.52, "checks": []}
    assert line_of({"name": "induction"}, row).endswith("causal, works against, trajectory −1.52")


def test_a_receipt_names_weights_tasks_examples_seed_versions_and_time():
    atlas = {
        "model": {"sha256": "0123456789abcdef"},
        "run": {
            "n": 32,
            "seed": 3,
            "versions": {"torch": "2"},
            "seconds": {"forward": 10.0, "verdict": 5.0, "check x": 4.0},
        },
    }
    detectors = [{"task": "ioi", "task_version": 1, "group": {"examples": 8}}, {"task": "prose", "group": None}]
    assert receipt_of(atlas, detectors) == (
        "weights 0123456789ab; ioi v1, prose; n 32, verdicts on 8 or more; seed 3; torch 2; 15 s"
    )
