"""Torch's modes that a caller may have on: no gradients, inference, another default type, autocast, training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.edits import directions
from headatlas.errors import BadInput
from headatlas.methods.attribution.edge_attribution import edge_scores
from headatlas.methods.attribution.relevance import relevances
from headatlas.model import Model, attach
from headatlas.model.holding.own import read_text
from headatlas.task import logit_difference
from tests import toys
from tests.methods.sweeps.test_replay import prompts

BATCH = prompts(4, length=10)


def gates(model: Model) -> Any:
    return ha.head_gates(model, BATCH, BATCH, options=ha.GateOptions(steps=2, seeds=1, draws=1)).opened


GRADIENTS: dict[str, Callable[[Model], Any]] = {
    "atp": lambda model: ha.attribute(model, BATCH, method="atp").values,
    "edges": lambda model: edge_scores(model, BATCH, logit_difference)[1],
    "importance": lambda model: ha.head_importance(model, BATCH, logit_difference).raw,
    "relevance": lambda model: relevances(model, BATCH, logit_difference)[0]["decoder", 1],
    "gates": gates,
}
DRAWN = {("decoder", 0): torch.ones(32)}
SUMS: dict[str, Callable[[Model], Any]] = {
    "direct": lambda model: ha.direct_effects(model, BATCH).values,
    "random directions": lambda model: directions.random(DRAWN)["decoder", 0],
}


@contextlib.contextmanager
def default_type(kind: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_taken_where_a_caller_records_none(name: str):
    model = toys.model("gpt2")
    with torch.no_grad():
        found = GRADIENTS[name](model)
    np.testing.assert_array_equal(found, GRADIENTS[name](model))


@pytest.mark.parametrize("name", GRADIENTS)
def test_in_inference_mode_gradients_are_refused_in_one_line(name: str):
    with torch.inference_mode(), pytest.raises(BadInput, match="inference_mode") as refused:
        GRADIENTS[name](toys.model("gpt2"))
    assert "\n" not in str(refused.value)


def test_so_are_gradients_through_tokens_that_were_made_in_it():
    with torch.inference_mode():
        ids = torch.arange(5, 9)[None]
    with pytest.raises(BadInput, match="These tokens were made under"):
        toys.model("gqa").forward(ids, grad=True)


@pytest.mark.parametrize("name", [*GRADIENTS, *SUMS])
def test_another_default_type_changes_no_number(name: str):
    model, method = toys.model("gpt2"), {**GRADIENTS, **SUMS}[name]
    expected = method(model)
    with default_type(torch.float64):
        found = method(model)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*GRADIENTS, "direct"])
def test_what_autocast_would_round_is_refused(name: str):
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(BadInput, match="autocast"):
        {**GRADIENTS, **SUMS}[name](toys.model("gpt2"))


def test_caches_of_a_model_in_training_mode_are_read_without_dropout():
    hf, ids = toys.llama(attention_dropout=0.5), BATCH.tokens[:1]
    model = attach(hf)
    plan = ha.plan_cache(model, "recency", keep=1.0, tokens=64)
    with plan.on(model):
        expected = hf(ids, past_key_values=plan.cache(model)).logits
    past = read_text(model, ids[0])
    hf.train()
    with plan.on(model):
        assert torch.equal(hf(ids, past_key_values=plan.cache(model)).logits, expected)
    assert torch.equal(read_text(model, ids[0]).layers[1].keys, past.layers[1].keys)
    other = attach(toys.llama(attention_dropout=0.5).train())
    assert ha.plan_cache(other, "recency", keep=1.0, tokens=64).shapes == plan.shapes
    assert all(part.training for part in hf.modules())
