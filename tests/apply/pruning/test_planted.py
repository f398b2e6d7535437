"""A model in which only some heads do anything: every order finds the dead ones, and without them nothing is lost."""

from __future__ import annotations

import json

import pytest
import transformers

import headatlas as ha
from headatlas.heads import HeadId
from headatlas.lab.head import Head
from headatlas.lab.spec import PlantSpec
from tests.pages import run

LIVE = {HeadId(0, 1), HeadId(1, 2)}
ORDERS = ["michel", "l0", "mean-ablation", "zero-ablation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Induction by two heads of eight; the others attend and write nothing."""
    spec = PlantSpec((Head(0, 1, "previous"), Head(1, 2, "induction")), rest="dormant")
    return ha.plant(spec, architecture="llama", n_kv_heads=2).save(tmp_path_factory.mktemp("planted") / "model")


@pytest.fixture(scope="module")
def found(folder):
    options = ha.PruneOptions(points=4, draws=2, steps=50, rate=0.2, penalty=0.02)
    return ha.prune(ha.load(folder), ha.Prompts("repeated", n=4), order=ORDERS, options=options)


@pytest.mark.parametrize("order", ORDERS)
def test_dead_heads_go_first_and_cost_nothing(found, order):
    assert set(found.orders[order].heads[-2:]) == LIVE
    for point in found.curves[order]:
        if point.kept >= 2:
            assert point.rise == 0
            assert (point.rise_low, point.rise_high) == (0, 0)
            assert point.beyond <= 0
        else:
            assert point.rise_low > 4  # nats
    assert min(point.beyond for point in found.curves[order]) < -1


def test_gates_close_on_dead_heads_and_stay_open_on_live_ones(found):
    gates = found.orders["l0"]
    assert gates.open == LIVE
    assert gates.facts["exactly_closed"] == 6
    assert found.gated.kept == 2
    assert found.gated.rise == 0


def test_the_command_writes_the_live_heads_as_a_smaller_model(folder, capsys, tmp_path):
    out, svg = tmp_path / "small", tmp_path / "curve.svg"
    line = ["prune", folder, "--task", "repeated", "--n", 4, "--draws", 2]
    code, shown, err = run(capsys, *line, "--keep", 0.25, "--out", out, "--svg", svg)
    assert code == 0, err
    assert "Written to" in shown
    assert "1 head a layer in 1 KV group (were 4 in 2)" in shown
    assert "next-token loss" in shown
    plain = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert (plain.config.num_attention_heads, plain.config.num_key_value_heads) == (1, 1)
    assert svg.read_text(encoding="utf-8").count("order-michel") == 1
    before, after = ha.load(folder), ha.load(out)
    text = ha.find_task("repeated")(before.tokenizer, 3, 7)
    assert float((before.forward(text) - after.forward(text)).abs().max()) < 1e-3  # dead heads write nothing
    code, shown, err = run(capsys, *line, "--points", 4, "--json")
    data = json.loads(shown)
    assert code == 0, err
    assert [point["kept"] for point in data["curves"]["michel"]] == [6, 4, 2, 0]
    assert data["checkpoint"] is None


def test_a_family_that_cannot_is_refused_before_heads_are_ordered(capsys, tmp_path):
    spec = PlantSpec((Head(0, 1, "previous"), Head(1, 2, "induction")), rest="dormant")
    gpt2 = ha.plant(spec, architecture="gpt2").save(tmp_path / "gpt2")
    code, shown, err = run(
        capsys, "prune", gpt2, "--task", "repeated", "--n", 2, "--keep", 0.5, "--out", tmp_path / "small"
    )
    assert (code, shown) == (1, "")
    assert "width of a head follows" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "small").exists()
