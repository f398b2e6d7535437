"""Toys: their data is what it says, training is repeatable, and an induction head forms in a short stretch of it."""

from __future__ import annotations

import itertools
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headatlas.cli import main
from headatlas.errors import BadInput, StoreError, UnknownName
from headatlas.lab.toy.curve import Curve, Point, draw
from headatlas.lab.toy.data import counting_losses, markov_chains, repeated_tokens
from headatlas.lab.toys import train_toy


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


@pytest.mark.parametrize("kind", ["repeated", "markov"])
def test_the_same_seed_trains_the_same_toy(kind):
    one, same, other = (train_toy(kind, seed=seed, steps=3) for seed in (1, 1, 2))
    assert one.curve == same.curve
    assert one.curve.points[-1].loss != other.curve.points[-1].loss
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, same.model.state_dict()[name])
        if ".mlp." in name:
            assert not weight.any()


def test_an_untrained_toy_has_no_phase_change():
    toy = train_toy("repeated", steps=1)
    assert toy.curve.phase is None
    assert toy.curve.fall is None
    assert max(map(abs, toy.effects.values())) < 0.05
    assert toy.curve.points[0].best("prefix_matching") == pytest.approx(toy.curve.chance, abs=0.02)


def made_up(icl, matching):
    points = [
        Point(10 * i, 4.0, 4.0, 4.0 + fall, ((0.0, share),), ((share, 0.0),))
        for i, (fall, share) in enumerate(zip(icl, matching, strict=True))
    ]
    return Curve("a < b", tuple(points), {"uniform": 4.1}, 0.1)


def test_the_phase_change_is_the_middle_of_the_rise():
    curve = made_up((0.0, -0.3, -0.3, -0.9, -1.0), (0.1, 0.1, 0.3, 0.8, 0.9))
    assert curve.phase == (20, 30)
    assert curve.fall == (10, 30)
    assert curve.points[3].icl == pytest.approx(-0.9)


SVG = "{http://www.w3.org/2000/svg}"


def parts_of(root, start):
    """id -> the points [x, y] of the path of each part of the drawing whose id starts so."""
    found = [node for node in root.iter(f"{SVG}g") if node.get("id", "").startswith(start)]
    places = {node.get("id"): re.findall(r"[-\d.]+ [-\d.]+", node.find(f"{SVG}path").get("d")) for node in found}
    return {name: [tuple(map(float, place.split())) for place in points] for name, points in places.items()}


def test_the_drawing_is_whole_and_says_what_it_shows():
    text = draw(made_up((0.0, -0.1, -0.3, -0.9, -1.0), (0.1, 0.1, 0.3, 0.8, 0.9)))
    root = ElementTree.fromstring(text)
    spoken = " ".join("".join(node.itertext()) for node in root.iter(f"{SVG}text"))
    assert "induction head forms: steps 20 to 30" in spoken
    for name in ("early tokens", "late tokens", "uniform", "prefix matching", "previous token", "training step"):
        assert name in spoken
    bands, lines = parts_of(root, "phase"), parts_of(root, "line-")
    assert len(bands) == 2
    assert len(lines) == 5
    places = [x for x, _ in lines["line-early-tokens"]]
    for band in bands.values():
        assert min(x for x, _ in band) == pytest.approx(places[2], abs=0.2)
        assert max(x for x, _ in band) == pytest.approx(places[3], abs=0.2)


def test_the_same_curve_is_drawn_the_same():
    assert draw(made_up((0.0, 0.0), (0.1, 0.1))) == draw(made_up((0.0, 0.0), (0.1, 0.1)))


def test_labels_do_not_lie_on_each_other():
    text = draw(made_up((0.0, 0.0), (0.1, 0.1)))
    nodes = list(ElementTree.fromstring(text).iter(f"{SVG}text"))
    ends = sorted(float(node.get("y")) for node in nodes if float(node.get("x")) > 560 and node.text[0].isalpha())
    assert len(ends) == 7
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
    assert [point["step"] for point in facts["points"]] == [0, 2]
    assert facts["seed"] == 3
    ElementTree.fromstring((folder / "curve.svg").read_text())
    with pytest.raises(SystemExit) as ended:
        main(["toy", "repeated", "--out", str(folder), "--steps", "2"])
    assert ended.value.code == 1
    assert "exists already" in capsys.readouterr().err


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
@pytest.mark.timeout(1800)  # a minute or two on an idle machine
@pytest.mark.parametrize("seed", [0, 1])
def test_an_induction_head_forms_on_repeated_words(seed):
    toy = train_toy("repeated", seed=seed)
    (start, end), (falls, fallen) = toy.curve.phase, toy.curve.fall
    last = toy.curve.points[-1]
    assert end - start <= 300
    assert start <= fallen  # the head forms where the in-context learning score falls
    assert falls <= end
    assert last.late < 0.1
    assert max(last.prefix_matching[1]) > 0.85
    assert max(last.prefix_matching[0]) < 0.3
    assert max(last.previous_token[0]) > 0.8
    assert toy.effects["layer 1"] > 3.0  # ablation decides: without them repeats cannot be told


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute or two on an idle machine
def test_an_induction_head_forms_on_markov_chains():
    toy = train_toy("markov")
    assert toy.curve.phase[0] > toy.curve.points[1].step
    last = toy.curve.points[-1]
    losses = [point.loss for point in toy.curve.points]
    levels = toy.curve.levels
    assert levels["bigram"] - 0.01 < last.loss < levels["bigram"] + 0.02
    # The level of counting states is reached well before that of counting transitions.
    passed = [next(i for i, loss in enumerate(losses) if loss < levels[name] + 0.02) for name in ("unigram", "bigram")]
    assert passed[0] < passed[1]
    assert max(last.prefix_matching[1]) > 0.75 > 0.5 > toy.curve.chance
    assert max(last.previous_token[0]) > 0.4
    assert toy.effects["layer 1"] > 0.1
