"""Checks are chosen by name, and a run says in all its places what came of them."""

from __future__ import annotations

import pytest
from rich.console import Console

import headatlas as ha
from headatlas.errors import BadInput, UnknownName
from headatlas.mining import twins
from headatlas.mining.checks.critics import ALL, DEFAULT, chosen
from headatlas.model import Model
from headatlas.report.head_line import line_of, receipt_of
from tests.mining import echo, record


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


def test_a_check_that_cannot_be_asked_leaves_the_verdict(model: Model, tmp_path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise BadInput("Its prompts are of wood.")

    monkeypatch.setattr("headatlas.mining.checks.same_answer.donors", refuse)
    monkeypatch.setattr(record.WHERE, lambda: {"twins": echo.DETECTORS["twins"]})
    (found,) = ha.mine(model, n=12, seed=3, checks=["same-answer"], out=tmp_path / "one").data["detectors"]
    assert {row["verdict"] for row in found["heads"]} > {"causal"}
    assert {row["checks"][4]["note"] for row in found["heads"]} == {"Its prompts are of wood."}
    assert {row["checks"][4]["outcome"] for row in found["heads"]} == {"does not apply"}


def test_checks_change_no_verdict(runs: dict[str, ha.Atlas]):
    def verdicts(atlas: ha.Atlas) -> list[tuple[object, ...]]:
        return [
            (d["name"], r["layer"], r["head"], r["verdict"], r["effect"])
            for d in atlas.data["detectors"]
            for r in d["heads"]
        ]

    assert verdicts(runs["all"]) == verdicts(runs["none"])


def test_tables_and_terminal_carry_the_line(runs: dict[str, ha.Atlas]):
    told = runs["all"].query("SELECT line FROM scores WHERE line IS NOT NULL")
    assert sorted(row["line"] for row in told) == sorted(
        row["line"] for one in runs["all"].data["detectors"] for row in one["heads"]
    )
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
