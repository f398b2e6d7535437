"""LRP of heads beside the epsilon rule written out map by map, and what it refuses."""

import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.attribution.relevance import relevances
from headatlas.model import attach
from headatlas.model.families.tiny_models import family
from headatlas.task import Batch, next_token_loss
from tests import toys


def batch(predict=None) -> Batch:
    tokens = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    at = torch.arange(11).expand(3, -1).clone() if predict is None else predict
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": at})


def shared_out(relevance, weight, x):
    """The epsilon rule of a linear map y = x W^T: R_x[k] = sum_i w_ik x_k / y_i R_i."""
    y = weight @ x
    return torch.stack([(weight[:, k] * x[k] / (y + 1e-12 * y.sign()) * relevance).sum() for k in range(len(x))])


def test_a_head_gets_what_the_epsilon_rule_hands_back_map_by_map():
    hf = toys.llama().double()
    given = batch(torch.tensor([[7], [-1], [10]]))
    found, logits = relevances(attach(hf), given, next_token_loss)
    assert logits == 2
    kept = {}
    block = hf.model.layers[-1]

    def keep(name):
        return lambda module, inputs, output: kept.__setitem__(name, (inputs[0].detach(), output.detach()))

    named = {"norm": hf.model.norm, "down": block.mlp.down_proj, "up": block.mlp.up_proj, "o": block.self_attn.o_proj}
    named["inner"] = block.post_attention_layernorm
    handles = [module.register_forward_hook(keep(name)) for name, module in named.items()]
    with torch.no_grad():
        out = hf(given.tokens).logits
    for handle in handles:
        handle.remove()
    for e, p in ((0, 7), (2, 10)):
        top = int(out[e, p].argmax())
        back = hf.lm_head.weight[top] * kept["norm"][1][e, p]  # a norm hands on what it gets: it only scales
        stream, written = kept["norm"][0][e, p], kept["down"][1][e, p]
        of_mlp = back * written / stream
        middle = stream - written
        of_hidden = shared_out(of_mlp, block.mlp.down_proj.weight, kept["down"][0][e, p])
        of_entry = shared_out(of_hidden, block.mlp.up_proj.weight, kept["up"][0][e, p])  # the gate gets nothing
        at_middle = back * middle / stream + of_entry
        of_heads = at_middle * kept["o"][1][e, p] / middle
        of_z = shared_out(of_heads, block.self_attn.o_proj.weight, kept["o"][0][e, p])
        expected = of_z.unflatten(0, (found["decoder", len(hf.model.layers) - 1].shape[2], -1)).sum(-1)
        torch.testing.assert_close(found["decoder", len(hf.model.layers) - 1][e, p], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "opt", "bloom", "t5", "bart", "marian"])
def test_logits_are_taken_apart_whole_with_biases_gates_and_two_stacks(name):
    model = attach(family(name).build())
    before = model.forward(batch())
    found = ha.head_importance(model, batch(), next_token_loss, method="lrp")  # refuses where anything is lost
    assert found.heads == model.heads
    for layer in model.layers:
        rows = [model.heads.index(head) for head in layer.heads]
        assert abs(found.normed[rows]).sum() == pytest.approx(1.0)
    torch.testing.assert_close(model.forward(batch()), before, rtol=0, atol=0)  # no hook stays behind


@pytest.mark.parametrize(("name", "why"), [("gemma2", "not the sum"), ("mixtral", "not the sum"), ("bert", "no token")])
def test_what_the_rules_do_not_know_is_refused(name, why):
    with pytest.raises(UnsupportedModel, match=why):
        ha.head_importance(attach(family(name).build()), batch(), next_token_loss, method="lrp")


def test_gradient_importance_is_the_length_of_the_slope():
    hf = toys.gpt2()
    model, kept = attach(hf), []

    def keep(module, inputs):
        inputs[0].retain_grad()
        kept.append(inputs[0])

    found = ha.head_importance(model, batch(), next_token_loss, method="gradient")
    handles = [block.attn.c_proj.register_forward_pre_hook(keep) for block in hf.transformer.h]
    next_token_loss.score(hf(batch().tokens).logits[:, :11], batch()).sum().backward()
    for handle in handles:
        handle.remove()
    expected = torch.cat([x.grad.unflatten(-1, (-1, 8)).norm(dim=-1).mean((0, 1)) for x in kept])
    torch.testing.assert_close(torch.tensor(found.raw), expected.double(), rtol=1e-4, atol=1e-8)
    with pytest.raises(BadInput, match="no importance by"):
        ha.head_importance(model, batch(), next_token_loss, method="lpr")
