"""Whatever `model.forward` takes, every public method takes, and means the same by it."""

import inspect

import pytest
import torch

import headatlas as ha
from headatlas.model import attach
from tests import toys

TEXT = "The capital of France is"
WORDS = toys.smollm2_vocabulary()
# What a method needs beside prompts. Those that need a counterfactual or labels are asked with it below.
EASY = {
    "ablate": {"edit": "zero", "heads": "0.*"},
    "attribute": {},
    "direct_effects": {},
    "downstream": {"heads": "0.1"},
    "flow": {},
    "head_importance": {},
    "head_lens": {"heads": "1.*"},
    "lens": {},
    "score": {"metrics": ["rank"]},
}
PAIRED = {"edge_scores": {}, "patch": {}, "path_patch": {"senders": "0.*"}}
ELSEWHERE = {
    "find_circuit": {"largest"},
    "test_circuit": {"circuit"},
    "probe": {"labels"},
    "steer": {"labels"},
    "head_gates": {"held_out"},
    "prune": {"order"},
    "fit_recipe": {"name"},
    "measure_recipe": {"recipe"},
    "labels_of": set(),
}


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return attach(toys.llama(vocab_size=49152), tokenizer=WORDS)


def forms() -> dict[str, object]:
    ids = [WORDS.bos, *WORDS.encode(TEXT)]
    return {
        "text": TEXT,
        "list": [TEXT],
        "ids": ids,
        "tensor": torch.tensor([ids]),
        "dictionary": WORDS._hf(WORDS.decode(ids), return_tensors="pt", add_special_tokens=False),
        "batch": ha.prompts(WORDS, [TEXT]),
    }


def readers() -> dict[str, object]:
    """Public functions that are given a model and prompts."""
    found = {}
    for name in ha.__all__:
        thing = getattr(ha, name)
        if inspect.isfunction(thing):
            names = inspect.signature(thing).parameters.keys()
            if {"batch", "prompt"} & names:
                found[name] = thing
    return {name: thing for name, thing in found.items() if name not in ("prompts", "pattern_knockout")}


def test_no_method_is_left_out():
    assert readers().keys() == EASY.keys() | PAIRED.keys() | ELSEWHERE.keys()
    for name in readers().keys() - {"labels_of"}:
        parameters = inspect.signature(getattr(ha, name)).parameters
        given = parameters.get("batch", parameters.get("prompt"))
        assert "Inputs" in str(given.annotation), name


def values(found: object) -> torch.Tensor:
    """Numbers of a result, whatever it is."""
    if isinstance(found, dict):
        return torch.tensor([head["size"] for head in found["heads"]])
    if hasattr(found, "scores"):
        found = found.scores[0]
    for name in ("values", "size", "kl", "raw"):
        if hasattr(found, name):
            return torch.as_tensor(getattr(found, name)).flatten()
    if hasattr(found, "edges"):
        return torch.tensor([edge.weight for edge in found.edges])
    return torch.tensor([hash(str(node)) % 1000 for node in sorted(map(str, found.circuit.nodes))])


@pytest.mark.parametrize("name", EASY)
def test_every_form_gives_the_same_numbers(model, name):
    found = {form: values(getattr(ha, name)(model, given, **EASY[name])) for form, given in forms().items()}
    assert len(found["text"])
    for form, numbers in found.items():
        assert torch.allclose(numbers.double(), found["text"].double(), atol=1e-5), form


@pytest.mark.parametrize("name", PAIRED)
def test_methods_that_need_a_counterfactual_say_so_and_take_one(model, name):
    rows = [{"prompt": TEXT, "counterfactual": "The capital of Japan is"}]
    with pytest.raises(ha.HeadAtlasError, match="counterfactual"):
        getattr(ha, name)(model, TEXT, **PAIRED[name])
    found = getattr(ha, name)(model, ha.prompts(model, rows), **PAIRED[name])
    assert found is not None


def test_texts_with_labels_are_probed(model):
    texts = [f"{word} number {i}" for i in range(12) for word in ("good", "bad")]
    found = ha.probe(model, texts, ["good", "bad"] * 12, "0.*")
    assert found.labels.classes == ("bad", "good")
    with pytest.raises(ha.HeadAtlasError, match="3 labels for 24 prompts"):
        ha.probe(model, texts, ["a", "b", "c"])


def test_a_chat_is_read_by_its_template_and_without_one_refused(model):
    chat = [{"role": "user", "content": "Hi"}]
    text = WORDS._hf.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert model.forward(chat).equal(model.forward(text))
    assert model.forward([chat, chat]).equal(model.forward([text, text]))
    spoken = [*chat, {"role": "assistant", "content": "Well"}]
    assert WORDS.chat("", spoken).endswith("Well")
    with pytest.raises(ha.HeadAtlasError, match="message 1 has no text"):
        model.forward([{"role": "user", "content": None}])
    with pytest.raises(ha.HeadAtlasError, match="no tokenizer"):
        toys.model("gqa").forward(chat)


@pytest.mark.parametrize("given", ["0.1 0.2", [(0, 1), "0.2"], ["L0H1", ha.HeadId(0, 2)], "0.1,0.2"])
def test_heads_are_named_in_one_way_everywhere(model, given):
    assert ha.ablate(model, TEXT, given).heads == (ha.HeadId(0, 1), ha.HeadId(0, 2))
    assert model.attention(TEXT, given).heads == (ha.HeadId(0, 1), ha.HeadId(0, 2))
    assert ha.head_lens(model, TEXT, heads=given).heads == (ha.HeadId(0, 1), ha.HeadId(0, 2))


def test_patterns_name_layers_columns_and_sets(model):
    layer = tuple(head for head in model.heads if head.layer == 1)
    assert ha.ablate(model, TEXT, "1.*").heads == layer
    assert ha.ablate(model, TEXT, [("1.*",)]).head_sets == (layer,)
    assert ha.ablate(model, TEXT, "*.3").heads == (ha.HeadId(0, 3), ha.HeadId(1, 3))
    for wrong in ("7.*", "x.*", "1.*.2"):
        with pytest.raises(ha.HeadAtlasError, match="head"):
            ha.ablate(model, TEXT, wrong)
    silenced = model.forward(TEXT, edits=[ha.Zero("1.*")])
    assert torch.equal(silenced, model.forward(TEXT, edits=[ha.Zero(head) for head in layer]))


def test_a_circuit_is_searched_for_in_four_texts_or_more(model):
    texts = [f"The capital of {land} is" for land in ("France", "Japan", "Italy", "Spain")]
    found = ha.find_circuit(model, texts, largest=2, knockout=ha.KnockoutOptions("zero"))
    assert len(found.circuit.nodes) <= 2
    with pytest.raises(ha.HeadAtlasError, match="1 are too few"):
        ha.find_circuit(model, TEXT, largest=2)
