"""Toys: their data is what it says, training is repeatable, and an induction head forms in a short stretch of it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import headatlas
from headatlas.cli import main
from headatlas.errors import BadInput, StoreError, UnknownName
from headatlas.lab.toy.data import counting, counting_losses, markov_chains, repeated_tokens, transitions
from headatlas.lab.toy.figure import draw
from headatlas.lab.toy.study import Claim, Panel, order
from headatlas.lab.toys import studies, train_toy
from headatlas.lab.training.loop import Point, Training
from tests import pages

PAPERS = Path(headatlas.__file__).parent / "catalogue" / "data" / "papers"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_repeated_texts_have_a_period_of_their_own_each():
    texts = repeated_tokens(40, 97, 128, generator())
    assert texts.shape == (40, 97)
    assert not texts[:, 0].any()
    assert (texts[:, 1:] > 0).all()
    periods = {next(period for period in range(8, 49) if (row[1 + period :] == row[1:-period]).all()) for row in texts}
    assert len(periods) > 15


def test_chains_follow_their_matrix_and_counting_approaches_it():
    # Edelman et al. 2024 give these levels for three states and a hundred steps: 1.099, 1.004, 0.887.
    levels = counting_losses(markov_chains(1500, 101, 3, generator()), 3)
    assert levels["uniform"] == pytest.approx(1.099, abs=0.001)
    assert levels["unigram"] == pytest.approx(1.004, abs=0.015)
    assert levels["bigram"] == pytest.approx(0.887, abs=0.015)


def test_counting_is_what_a_loop_over_places_counts():
    chains = markov_chains(3, 30, 3, generator(4))
    found = counting(chains, 3)
    for row, place in ((0, 0), (1, 7), (2, 28)):
        chain, here = chains[row].tolist(), int(chains[row, place])
        states = [1 + sum(one == state for one in chain[: place + 1]) for state in range(3)]
        pairs = list(itertools.pairwise(chain[: place + 1]))
        nexts = [1 + sum(pair == (here, state) for pair in pairs) for state in range(3)]
        assert found["unigram"][row, place].tolist() == pytest.approx([one / sum(states) for one in states])
        assert found["bigram"][row, place].tolist() == pytest.approx([one / sum(nexts) for one in nexts])


def test_doubly_stochastic_chains_rest_evenly():
    rows = transitions(50, 3, generator(), doubly=True)
    torch.testing.assert_close(rows.sum(-1), torch.ones(50, 3))
    torch.testing.assert_close(rows.sum(-2), torch.ones(50, 3), atol=1e-3, rtol=0)
    assert float(rows.std()) > 0.1


# masked-words makes thousands of sentences before its first step; test_toy_data.py looks at it more closely.
QUICK = [pytest.param(name, marks=pytest.mark.slow) if name == "masked-words" else name for name in studies()]


@pytest.mark.parametrize("name", QUICK)
def test_every_toy_measures_what_its_figure_and_its_claims_ask_for(name, tmp_path):
    study = studies()[name]
    assert name == study.name
    assert (PAPERS / f"{study.paper}.yaml").is_file()
    measured = {}
    for variant in study.variants:
        model = variant.make(0).eval()
        chance = torch.Generator().manual_seed(0)
        assert float(variant.objective(model, chance).detach()) == pytest.approx(
            float(variant.objective(model, torch.Generator().manual_seed(0)).detach())
        )
        if variant is study.variants[0] or len(study.variants) < 4:
            with torch.no_grad():
                measured[variant.name] = variant.measure(0)(model)
    first = measured[study.variants[0].name]
    assert all(math.isfinite(value) for value in first.values())
    assert not study.ablated or study.ablated in first
    for panel in study.panels:
        for variant, number in panel.lines.values():
            assert variant not in measured or number in measured[variant]
    study.variants[0].save(model if len(study.variants) == 1 else study.variants[0].make(0), tmp_path)
    assert list(tmp_path.glob("*.safetensors"))


def test_the_same_seed_trains_the_same_toy():
    one, same, other = (train_toy("small-repeated", seed=seed, steps=2) for seed in (1, 1, 2))
    assert json.dumps(one.data) == json.dumps(same.data)
    assert one.runs["plain"].last("late") != other.runs["plain"].last("late")
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, same.model.state_dict()[name])
        if ".mlp." in name:
            assert not weight.any()


def test_an_untrained_toy_keeps_no_claim():
    toy = train_toy("small-repeated", steps=1)
    assert not any(outcome.passed for outcome in toy.outcomes)
    assert max(map(abs, toy.effects.values())) < 0.05


def made_up(**numbers):
    points = [
        Point(step, 0.0, dict(zip(numbers, values, strict=True)))
        for step, values in zip((0, 1, 10, 100, 1000), zip(*numbers.values(), strict=True), strict=True)
    ]
    return {"plain": Training(None, tuple(points))}


def test_a_training_tells_when_a_number_gets_somewhere():
    run = made_up(a=(0.0, 0.1, 0.3, 0.8, 0.9), b=(4.0, 3.0, 2.5, 1.0, 1.0))["plain"]
    assert run.reaches("a", 0.3) == 10
    assert run.reaches("a", 0.95) == math.inf
    assert (run.halfway("a"), run.halfway("b")) == (100, 10)
    assert order(1, 2, 2) == 1
    assert order(3, 2, 1) == 0
    assert order(1, 2, math.inf) == 0.5


def test_a_claim_is_kept_within_its_bounds_alone():
    claim = Claim("share", lambda runs: runs["plain"].last("a"), least=0.2, most=0.8)
    told = {value: claim.judged(made_up(a=(0.0,) * 4 + (value,))) for value in (0.1, 0.5, 0.9, math.nan, math.inf)}
    assert [outcome.passed for outcome in told.values()] == [False, True, False, False, False]
    assert str(told[0.5]) == "passed  share: 0.5 (at least 0.2, at most 0.8)"
    assert str(told[0.1]).startswith("FAILED  share: 0.1")


SVG = "{http://www.w3.org/2000/svg}"


def parts_of(root, start):
    """id -> the points [x, y] of the path of each part of the drawing whose id starts so."""
    found = [node for node in root.iter(f"{SVG}g") if node.get("id", "").startswith(start)]
    places = {node.get("id"): re.findall(r"[-\d.]+ [-\d.]+", node.find(f"{SVG}path").get("d")) for node in found}
    return {name: [tuple(map(float, place.split())) for place in points] for name, points in places.items()}


def test_the_drawing_is_whole_and_says_what_it_shows():
    runs = made_up(a=(0.0, 0.1, 0.3, 0.8, 0.9), b=(4.0, 3.0, 2.5, 1.0, 1.0))
    panels = [Panel("losses", {"b < c": ("plain", "b")}, {"uniform": 4.1}), Panel("heads", {"a": ("plain", "a")})]
    text = draw("a toy", panels, runs)
    assert text == draw("a toy", panels, runs)
    root = ElementTree.fromstring(text)
    spoken = " ".join("".join(node.itertext()) for node in root.iter(f"{SVG}text"))
    for name in ("a toy", "losses", "heads", "b < c", "uniform", "training step"):
        assert name in spoken
    (line,) = parts_of(root, "line-a").values()
    assert len(line) == 5
    across = [x for x, _ in line]
    assert across[3] - across[2] == pytest.approx(across[4] - across[3], abs=0.2)  # tens of steps are equally far


def test_labels_do_not_lie_on_each_other():
    runs = made_up(**{name: (0.0, 0.0, 0.0, 0.0, 0.1) for name in "abcd"})
    text = draw("a toy", [Panel("all", {f"{name} here": ("plain", name) for name in "abcd"})], runs)
    nodes = list(ElementTree.fromstring(text).iter(f"{SVG}text"))
    ends = sorted(float(node.get("y")) for node in nodes if node.text.endswith(" here"))
    assert len(ends) == 4
    assert min(b - a for a, b in itertools.pairwise(ends)) >= 13.9


def test_without_matplotlib_the_command_says_what_to_install_before_it_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for command in (
        ["toy", "repeated", "--out", str(tmp_path / "toy")],
        ["calibrate", "--out", str(tmp_path / "a.md")],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert "needs the 'matplotlib' package. Run: pip install 'headatlas[plots]'" in " ".join(said.split())
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_an_ordinary_model_folder(tmp_path, capsys):
    folder = tmp_path / "toy"
    with pytest.raises(SystemExit) as ended:
        main(["toy", "repeated", "--out", str(folder), "--steps", "2", "--seed", "3"])
    assert ended.value.code == 0
    assert "without layer 1" in capsys.readouterr().out
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    facts = json.loads((folder / "curve.json").read_text())
    assert [point["step"] for point in facts["trainings"]["plain"]] == [0, 1, 2]
    assert facts["seed"] == 3
    early = AutoModelForCausalLM.from_pretrained(folder / "checkpoints" / "step-0000001")
    assert not torch.equal(early.lm_head.weight, model.lm_head.weight)
    assert not list(folder.rglob("state.safetensors"))
    ElementTree.fromstring((folder / "curve.svg").read_text())
    with pytest.raises(SystemExit) as ended:
        main(["toy", "repeated", "--out", str(folder), "--steps", "2"])
    assert ended.value.code == 1
    assert "differs in seed (3, now 0)" in capsys.readouterr().err


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'markov'"):
        train_toy("markow")
    with pytest.raises(BadInput, match="at least 1 step"):
        train_toy("markov", steps=0)
    toy = train_toy("markov", steps=1)
    toy.save(tmp_path / "toy")
    with pytest.raises(StoreError, match="exists already"):
        toy.save(tmp_path / "toy")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # some minutes on an idle machine
@pytest.mark.parametrize("name", studies())
def test_what_papers_say_holds_of_our_toys(name):
    toy = train_toy(name)
    failed = {outcome.says for outcome in toy.outcomes if not outcome.passed}
    known = json.loads(pages.text("toys.json")).get(name, {}).get("0", {})
    bounds = {claim.says: claim for claim in toy.study.claims}
    told = {
        says for says, value in known.items() if value is None or not bounds[says].least <= value <= bounds[says].most
    }
    assert failed <= told  # what fails here is said on the page of toys


def test_the_page_of_toys_says_what_was_measured():
    place = Path(headatlas.__file__).parent.parent / "benchmarks" / "toy_seeds.py"
    spec = importlib.util.spec_from_file_location("toy_seeds", place)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    known, page = json.loads(pages.text("toys.json")), pages.text("toys.md")
    assert script.faults(known, page) == []
    first = next(iter(known))
    seed = next(iter(known[first]))
    claim = next(iter(known[first][seed]))
    changed = {**known, first: {**known[first], seed: {**known[first][seed], claim: 12345.0}}}
    assert len(script.faults(changed, page)) == 1
    assert "1.23e+04" in script.written(page, changed)
    del changed[first][seed][claim]
    assert len(script.faults(changed, page)) == 2
