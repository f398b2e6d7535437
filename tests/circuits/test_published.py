"""Every circuit of the catalogue, on a model of its shape: it loads, its positions are its task's, and it can be tested."""

import pytest

import headatlas as ha
from headatlas import catalogue
from headatlas.catalogue.model_names import find_model
from headatlas.circuits.circuit import Node
from headatlas.circuits.published import from_catalogue, published
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.model import attach
from tests import toys

CIRCUITS = catalogue.load().circuits
WITH_HEADS = [one for one in CIRCUITS.values() if any(node.heads for node in one.nodes)]
QUICK = ha.KnockoutOptions("resample")
LARGE = 300  # heads from which a model takes seconds


def random_model(name: str) -> ha.Model:
    """Random weights with the layers and heads of a model of the catalogue, two dimensions a head, SmolLM2's tokenizer."""
    shape = find_model(name)
    assert shape is not None
    sizes = {"num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.heads}
    return attach(
        toys.llama(vocab_size=49152, hidden_size=2 * shape.heads, intermediate_size=8, **sizes),
        tokenizer=toys.smollm2_vocabulary(),
    )


def marked(circuit):
    shape = find_model(circuit.model) if circuit.model else None
    large = shape is not None and shape.layers * shape.heads > LARGE
    return pytest.param(circuit, id=circuit.id, marks=[pytest.mark.slow] if large else [])


@pytest.mark.parametrize("circuit", [marked(one) for one in WITH_HEADS if one.runs_on])
def test_a_published_circuit_is_tested_with_its_own_task_on_a_model_of_its_shape(circuit):
    model = random_model(circuit.model)
    found = ha.test_circuit(
        model, circuit.id, ha.circuit_prompts(circuit.id, n=4, force=True),
        criteria="none", known_as=circuit.model, knockout=QUICK,
    )  # fmt: skip
    claimed = {HeadId.parse(head) for node in circuit.nodes for head in node.heads}
    assert set(found.circuit.heads) == claimed
    assert found.circuit.task == circuit.runs_on
    assert found.faithfulness.whole != found.faithfulness.empty
    assert found.protocol["n_examples"] == 4


@pytest.mark.parametrize("circuit", [one for one in WITH_HEADS if not one.runs_on], ids=lambda one: one.id)
def test_a_circuit_without_a_task_loads_and_says_why_there_is_none(circuit):
    assert from_catalogue(circuit.id).heads
    with pytest.raises(BadInput, match="no prompts to test") as caught:
        ha.circuit_prompts(circuit.id)
    assert circuit.untested in str(caught.value)


def test_heads_in_two_classes_are_in_both():
    classes = from_catalogue("sentiment").classes
    assert Node(HeadId(9, 2), "end") in classes["reader"]
    assert Node(HeadId(9, 2), "end") in classes["direct"]
    assert {str(node) for node in classes["early"]} == {"0.4@adjective", "0.4@verb"}


def test_the_shape_alone_makes_no_model_a_known_one():
    model = random_model("gpt2")
    with pytest.raises(BadInput, match="say --as openai-community/gpt2"):
        published("ioi", model)
    with pytest.raises(BadInput, match="12 layers of 12 heads, GPT-2 medium has 24 of 16"):
        published("syllogism", model, "gpt2-medium")
    assert len(published("ioi", model, "GPT-2 small").nodes) == 26
