"""A model is given back as its owner had it; compiled ones are opened in bounded time."""

import time

import pytest
import torch
import transformers as T

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from tests import toys


def tokens() -> torch.Tensor:
    return torch.randint(5, 150, (2, 12), generator=torch.Generator().manual_seed(0))


def own_state(hf: torch.nn.Module) -> list[tuple]:
    """Attention choices, hooks and attributes of every module."""
    return [
        (name, module.training, sorted(vars(module)), [len(held) for key, held in vars(module).items() if key.endswith("_hooks")],
         getattr(getattr(module, "config", None), "_attn_implementation", None))
        for name, module in hf.named_modules()
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "bloom", "falcon", "gpt-neo", "gptj"])
def test_closing_puts_everything_back(family):
    hf = FAMILIES[family].build()
    hf.train()
    hf.config._attn_implementation = "flex_attention"
    before = own_state(hf)
    with attach(hf) as model:
        model.forward(tokens() % 100, edits=[ha.Zero(model.heads[0])])
    assert own_state(hf) == before
    with pytest.raises(BadInput, match="was closed, so no pass can run"):
        model.forward(tokens() % 100)
    with pytest.raises(BadInput, match="was closed"), model.edited([ha.Zero(model.heads[0])]):
        pass
    model.close()
    assert len(attach(hf).heads) == len(model.heads)


def test_a_refused_model_is_given_back(monkeypatch):
    hf = toys.llama()
    hf.config._attn_implementation = "flex_attention"
    before = own_state(hf)
    monkeypatch.setattr("headatlas.model.structure.selfcheck.bound", lambda *_: -1.0)
    with pytest.raises(ha.HeadAtlasError):
        attach(hf)
    assert own_state(hf) == before


def test_closing_one_of_two_leaves_the_other_open():
    hf = FAMILIES["bloom"].build()
    before, ids = own_state(hf), tokens() % 100
    first, second = attach(hf), attach(hf)
    wanted = second.forward(ids, edits=[ha.Zero(second.heads[0])])
    first.close()
    assert torch.equal(second.forward(ids, edits=[ha.Zero(second.heads[0])]), wanted)
    with pytest.raises(BadInput, match="closed"):
        first.forward(ids)
    second.close()
    assert own_state(hf) == before


def test_a_model_is_not_closed_during_its_pass():
    model = attach(toys.llama())
    with pytest.raises(BadInput, match="cannot be closed while"):
        model.forward(tokens(), watch=lambda _: model.close())
    model.forward(tokens())


def compile_whole(hf):
    hf.compile(backend="eager")


def compile_block(hf):
    hf.model.layers[0].compile(backend="eager")


def compile_forward(hf):
    hf.model.layers[1].mlp.forward = torch.compile(hf.model.layers[1].mlp.forward, backend="eager")


@pytest.mark.parametrize("compiled", [compile_whole, compile_block, compile_forward])
@pytest.mark.parametrize("when", ["before", "after"])
def test_compiled_models_are_looked_into_as_they_were_written(compiled, when):
    plain, hf, ids = attach(toys.llama()), toys.llama(), tokens()
    if when == "before":
        compiled(hf)
    began = time.process_time()
    model = attach(hf)
    if when == "after":
        compiled(hf)
    edits, seen = [ha.Zero("0.1 1.2")], []
    found = model.forward(ids, edits=edits, watch=lambda layer: seen.append(layer.index))
    assert seen == [0, 1]
    assert torch.equal(found, plain.forward(ids, edits=edits))
    with model.edited(edits) as module:
        assert torch.equal(module(ids, use_cache=False).logits, found)
    assert time.process_time() - began < 60
    torch.testing.assert_close(hf(ids, use_cache=False).logits, plain.hf(ids, use_cache=False).logits)
    assert isinstance(hf, T.LlamaForCausalLM)
