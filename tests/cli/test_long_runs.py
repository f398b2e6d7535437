"""Long commands: logs are told how far they are, maps come as tasks are scanned, a complete run needs no model."""

import json
import re
import time

import pytest

import headatlas
import headatlas as ha
from headatlas.cli._progress import Shown
from tests import toys
from tests.pages import run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "toy"
    toys.with_tokenizer(toys.llama(vocab_size=400), place)
    return place


def test_a_log_is_told_how_far_the_work_is_while_nothing_is_reported(capsys):
    with Shown(every=0.2) as shown:
        shown.plan([("first", 4), ("second", 2)])
        shown.advance("first", 1)
        time.sleep(0.7)
    told = [line for line in capsys.readouterr().err.splitlines() if "left for it" in line]
    assert 2 <= len(told) <= 4
    assert re.match(
        r"first: 1 of 4, about \d+(\.\d)? s left for it \(step 0 of 2 done, \d\.\d s since the start\)", told[0]
    )


def test_a_log_is_told_nothing_more_where_enough_is_said_and_when_it_is_over(capsys):
    with Shown(every=0.4) as shown:
        for number in range(6):
            shown.say(f"line {number}")
            time.sleep(0.1)
    time.sleep(0.6)
    assert len(capsys.readouterr().err.splitlines()) == 6


def mined(capsys, folder, *more):
    return run(
        capsys, "mine", folder, "--n", 4, "--detector", "positional", "--detector", "attention-sink", "--no-verdict",
        "--json", *more,
    )  # fmt: skip


def test_cost_and_maps_are_told_while_mining(capsys, folder):
    code, _, err = mined(capsys, folder)
    assert code == 0, err
    assert re.search(r"2 tasks, [\d,]+ tokens with their controls: about .* s for the passes over them here", err)
    said = err.index("prose: ")
    assert re.search(r"^prose: \d+ heads? of \d+ observed$", err[said:], re.M)


def test_a_complete_run_is_found_without_opening_the_model(capsys, folder, monkeypatch):
    code, first, err = mined(capsys, folder)
    assert code == 0, err
    monkeypatch.setattr(headatlas, "load", lambda *_, **__: pytest.fail("loaded"), raising=False)
    code, second, err = mined(capsys, folder)
    assert code == 0, err
    assert "the model was not opened" in err
    assert json.loads(first) == json.loads(second)


@pytest.mark.parametrize("what", ["weights", "config", "seed", "removed", "detector"])
def test_what_changed_since_is_asked_again(what, capsys, folder, monkeypatch, tmp_path):
    mined(capsys, folder)
    more = []
    if what == "weights":
        toys.with_tokenizer(toys.llama(vocab_size=400, hidden_size=64), folder)
    elif what == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 5000.0}))
    elif what == "seed":
        more = ["--seed", 1]
    elif what == "removed":
        for atlas in tmp_path.glob("atlas/*/*/atlas.json"):
            atlas.unlink()
    else:
        for facts in tmp_path.glob("atlas/*/*/run.json"):
            told = json.loads(facts.read_text())
            facts.write_text(json.dumps({**told, "detectors": {**told["detectors"], "positional": [99, 0.5]}}))
    calls = []
    real = ha.load
    monkeypatch.setattr(headatlas, "load", lambda *a, **k: calls.append(1) or real(*a, **k), raising=False)
    mined(capsys, folder, *more)
    assert calls == [1]
