"""What a model is measured on: a task, a file or a batch, with its metric, its facts and a look at whether it can be done."""

import json

import pytest

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.methods.prompts import prompts_for
from headatlas.model.text.start_end import AS_GIVEN
from headatlas.task import find_task, logit_difference, logit_margin
from tests import toys
from tests.methods.sweeps.test_replay import prompts
from tests.recorder import Recorder


def test_one_source_is_asked_for():
    for given in ({}, {"task": "ioi", "prompts": "x.jsonl"}, {"task": "ioi", "batch": prompts(2)}):
        with pytest.raises(BadInput, match="Say what the prompts are"):
            ha.Prompts(**given)
    with pytest.raises(BadInput, match="Say what the prompts are"):
        ha.LabelledPrompts()


def test_a_batch_is_taken_as_it_is():
    batch = prompts(2)
    plain, other = (
        prompts_for(toys.model("gqa"), given) for given in (batch, ha.Prompts(batch=batch, metric=logit_margin))
    )
    assert plain.batch is other.batch is batch
    assert (plain.metric, other.metric) == (logit_difference, logit_margin)
    assert (dict(plain.facts), plain.task) == ({"start_end": AS_GIVEN}, None)


def test_a_task_is_drawn_and_looked_at():
    model, told = toys.model("gqa"), Recorder()
    found = prompts_for(model, ha.Prompts("repeated", n=4, seed=3, force=True), told)
    expected = find_task("repeated")(model.tokenizer, 4, 3)
    assert found.batch.tokens.equal(expected.tokens)
    drawn = {"task": "repeated", "task_version": find_task("repeated").version, "n": 4, "seed": 3}
    assert found.facts == {**drawn, "start_end": expected.facts["start_end"]}
    assert told.lines
    assert "floor" in told.lines[0]
    with pytest.raises(BadInput, match="does not do repeated"):
        prompts_for(model, ha.Prompts("repeated", n=4))


def test_sweeps_measure_a_task_as_they_measure_its_batch():
    model = toys.model("gqa")
    task = find_task("repeated")
    named = ha.ablate(model, ha.Prompts("repeated", n=4, force=True), "0.1 1.2", edit="zero")
    made = ha.ablate(
        model, ha.Prompts(batch=task(model.tokenizer, 4, 0), metric=task.metric), [ha.HeadId(0, 1), ha.HeadId(1, 2)],
        edit="zero",
    )  # fmt: skip
    assert named.values.tolist() == made.values.tolist()
    assert named.facts["task"] == "repeated"


def test_means_over_a_number_of_prompts_need_a_task():
    with pytest.raises(BadInput, match="--reference draws prompts of a task"):
        ha.ablate(toys.model("gqa"), prompts(2), reference=8)


def test_memory_is_read_at_once():
    assert ha.RunOptions("1GB").bytes == ha.RunOptions(1 << 30).bytes == 1 << 30
    for options in (ha.RunOptions, ha.AttributionOptions):
        with pytest.raises(BadInput, match="not an amount of memory"):
            options(memory="lots")


def test_steering_is_asked_for_something():
    with pytest.raises(BadInput, match="nothing to measure"):
        ha.SteerOptions()
    with pytest.raises(BadInput, match="Both --heads and --layers"):
        ha.SteerOptions(heads="0.1", layers=1, generate="x")
    assert ha.SteerOptions(alpha="5, -20", generate="x").largest == -20
    assert ha.SteerOptions(alpha=3, generate="x").alphas == [3.0]
    assert json.dumps(ha.SteerOptions(generate="x").alphas) == "[5.0, 10.0, 15.0]"
