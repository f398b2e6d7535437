"""Direct logit attribution against formulas written out by hand on the plain models, and its own sum."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.direct_logit_attribution import Toward, _demand_sum, direct_effects, effects_along
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.model.structure.blocks import blocks_of
from headatlas.task import logit_difference, next_token_loss
from tests.methods.sweeps.test_replay import prompts

WORKS = [
    "gpt2", "gpt-bigcode", "gpt-neox", "gptj", "bloom", "falcon", "falcon-alibi", "opt", "llama", "mixtral", "qwen3",
    "qwen3-next", "gemma2", "gemma3", "phi", "phi3", "olmo2", "cohere", "granite", "gpt-oss", "deepseek-v2", "glm4",
    "afmoe", "jamba",
]  # fmt: skip
REFUSED = ["falcon-h1", "doge", "bert-masked", "modernbert-decoder", "albert", "t5", "bart", "eurobert"]


def opened(name: str) -> ha.Model:
    return attach(FAMILIES[name].build())


def rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    return (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def by_hand(name: str, hf, layer: int, z, final, ends, ids, weights) -> np.ndarray:
    """[example, head] direct effects of one layer from z [example, pos, width] and the final norm's input."""
    rows = torch.arange(len(ends))
    columns = torch.einsum("emd,em->ed", hf.get_output_embeddings().weight[ids], weights)
    x = final[rows, ends]
    if name in ("gpt2", "gpt-neox"):
        norm = hf.transformer.ln_f if name == "gpt2" else hf.gpt_neox.final_layer_norm
        direction = columns * norm.weight
        direction = (direction - direction.mean(-1, keepdim=True)) / (
            x.var(-1, correction=0, keepdim=True) + norm.eps
        ).sqrt()
        w = (
            hf.transformer.h[layer].attn.c_proj.weight
            if name == "gpt2"
            else hf.gpt_neox.layers[layer].attention.dense.weight.T
        )
    else:
        norm, block = hf.model.norm, hf.model.layers[layer]
        gain = 1 + norm.weight if name == "gemma3" else norm.weight
        eps = norm.eps if name == "gemma3" else norm.variance_epsilon
        direction = columns * gain / rms(x, eps)
        w = block.self_attn.o_proj.weight.T
        if name == "gemma3":
            post = block.post_attention_layernorm
            whole = z[rows, ends] @ w
            direction = direction * (1 + post.weight) / rms(whole, post.eps)
        if name == "granite":
            direction = direction * hf.config.residual_multiplier / hf.config.logits_scaling
    flat = z[rows, ends]
    heads = []
    for part, weight in zip(flat.split(flat.shape[-1] // 4, -1), w.split(w.shape[0] // 4), strict=True):
        heads.append(((part @ weight) * direction).sum(-1))
    return torch.stack(heads, 1).numpy()


@pytest.mark.parametrize("name", ["llama", "gemma3", "granite", "gpt2", "gpt-neox"])
def test_heads_equal_the_formula_written_out_on_the_plain_model(name: str):
    hf = FAMILIES[name].build(attn_implementation="eager")
    batch = prompts(3)
    projections = {
        "gpt2": lambda i: hf.transformer.h[i].attn.c_proj,
        "gpt-neox": lambda i: hf.gpt_neox.layers[i].attention.dense,
    }.get(name, lambda i: hf.model.layers[i].self_attn.o_proj)
    final_norm = {"gpt2": lambda: hf.transformer.ln_f, "gpt-neox": lambda: hf.gpt_neox.final_layer_norm}.get(
        name, lambda: hf.model.norm
    )()
    kept: dict = {}
    hooks = [projections(i).register_forward_pre_hook(lambda _, args, i=i: kept.update({i: args[0]})) for i in range(3)]
    hooks.append(final_norm.register_forward_pre_hook(lambda _, args: kept.update(final=args[0])))
    with torch.no_grad():
        hf(input_ids=batch.tokens, attention_mask=batch.mask.long())
    for hook in hooks:
        hook.remove()
    toward = Toward.answer(batch)
    with torch.no_grad():
        expected = [
            by_hand(name, hf, i, kept[i], kept["final"], batch.positions["end"], toward.ids, toward.weights)
            for i in range(3)
        ]
    found = direct_effects(attach(hf), batch)
    np.testing.assert_allclose(found.values, np.concatenate(expected, 1), atol=2e-5, rtol=1e-4)


UNSPLIT = ["qwen3-next", "afmoe"]  # a gate lies between the values attended to and the output projection


@pytest.mark.parametrize("name", WORKS)
def test_parts_add_up_to_the_logit_difference_and_sources_to_heads(name: str):
    model, batch = opened(name), prompts(3)
    found = direct_effects(model, batch, by_source=name not in UNSPLIT)
    size = max(1.0, float(np.abs(found.values).max()))
    np.testing.assert_allclose(found.values.sum(1) + sum(found.others.values()), found.total, atol=1e-5 * size)
    logits = model.forward(batch, logit_positions=batch.positions["end"][:, None])[:, 0]
    toward = Toward.answer(batch)
    real = (logits.gather(1, toward.ids) * toward.weights).sum(1).numpy()
    assert bool(found.notes) == (name == "gemma2")
    if not found.notes:
        np.testing.assert_allclose(found.total, real, atol=1e-5)
        np.testing.assert_allclose(found.total, logit_difference.score(logits[:, None], batch), atol=1e-5)
    if found.by_source is not None:
        np.testing.assert_allclose(found.by_source.sum(2), found.values, atol=1e-5 * size)
        later = np.arange(found.by_source.shape[2]) > batch.positions["end"].numpy()[:, None]
        assert np.abs(found.by_source.transpose(0, 2, 1)[later]).max() == 0.0


@pytest.mark.parametrize("name", UNSPLIT)
def test_no_split_by_source_where_something_comes_between(name: str):
    with pytest.raises(UnsupportedModel, match="cannot be split by source"):
        direct_effects(opened(name), prompts(3), by_source=True)


@pytest.mark.parametrize("name", REFUSED)
def test_models_whose_parts_do_not_add_up_are_refused(name: str):
    with pytest.raises(UnsupportedModel, match=r"\."):
        direct_effects(opened(name), prompts(3))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gptj"])
def test_the_effect_is_what_the_logits_lose_when_the_write_leaves_the_frozen_read_out(name: str):
    """The end of the stream without a head's write, through the final norm with its scale held, by a hook on the model."""
    model, batch = opened(name), prompts(3)
    found = direct_effects(model, batch)
    head, toward, kept = model.heads[-2], Toward.answer(batch), {}
    block = blocks_of(model)[head.layer]
    last = model.decoder_blocks()[-1]
    read = model.unembedding
    rows = torch.arange(3)

    def difference(hidden):
        logits = read.head(hidden)[rows, batch.positions["end"]]
        return (logits.gather(1, toward.ids) * toward.weights).sum(1)

    # What the head adds to its block's output: the block run with that head alone silenced, and the post-norm's scale held.
    handles = [
        last.register_forward_hook(lambda _, __, out: kept.update(end=out[0] if isinstance(out, tuple) else out)),
        block.attention.projection.register_forward_pre_hook(lambda _, args: kept.update(z=args[0])),
        read.head.register_forward_pre_hook(lambda _, args: kept.update(normed=args[0])),
    ]
    model.forward(batch)
    for handle in handles:
        handle.remove()
    width = kept["z"].shape[-1] // 4
    alone = torch.zeros_like(kept["z"])
    alone[..., head.head * width : (head.head + 1) * width] = kept["z"][
        ..., head.head * width : (head.head + 1) * width
    ]
    with torch.no_grad():
        w = block.attention.projection
        write = w(alone) - w(torch.zeros_like(alone))
        if block.post is not None:
            whole = w(kept["z"])
            write = write * block.post.module(whole) / whole
        end = kept["end"]
        gain = torch.where(end.abs() > 1e-6, kept["normed"] / end, 0.0) if not read.centers else None
        if gain is None:
            centred = lambda x: x - x.mean(-1, keepdim=True)  # noqa: E731
            gain = read.gain / (centred(end).pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
            write = centred(write)
        expected = difference(kept["normed"]) - difference(kept["normed"] - write * gain)
    np.testing.assert_allclose(found.values[:, -2], expected.numpy(), atol=2e-5)


def test_padding_and_batch_size_change_nothing():
    model, batch = opened("llama"), prompts(3)
    whole = direct_effects(model, batch, by_source=True)
    plain = replace(batch, counterfactual=None)
    wide = direct_effects(model, plain.padded(left=2, right=3), by_source=True)
    np.testing.assert_allclose(wide.values, whole.values, atol=1e-5)
    np.testing.assert_allclose(wide.by_source[:, :, 2:-3], whole.by_source, atol=1e-5)
    alone = direct_effects(model, plain.rows([1]))
    np.testing.assert_allclose(alone.values[0], whole.values[1], atol=1e-5)


def test_any_sum_of_logits_can_be_asked_for():
    model, batch = opened("gemma3"), prompts(3)
    end = batch.positions["end"]
    one = direct_effects(model, batch, toward=Toward.tokens(end, torch.tensor([7, 8, 9])))
    logits = model.forward(batch, logit_positions=end[:, None])[:, 0]
    np.testing.assert_allclose(one.total, logits[torch.arange(3), torch.tensor([7, 8, 9])], atol=1e-5)
    np.testing.assert_allclose(one.values.sum(1) + sum(one.others.values()), one.total, atol=1e-5)


def test_half_precision_keeps_its_bound_and_frozen_weights_do_not_matter():
    hf = FAMILIES["llama"].build()
    exact = direct_effects(attach(hf), prompts(3))
    half = attach(FAMILIES["llama"].build(dtype=torch.bfloat16))
    half.hf.requires_grad_(False)
    found = direct_effects(half, prompts(3))
    assert np.abs(found.values - exact.values).max() < 0.05 * np.abs(exact.values).max()


def test_a_metric_that_is_no_sum_of_logits_is_refused():
    with pytest.raises(BadInput, match="sum of logits"):
        direct_effects(opened("llama"), prompts(3), next_token_loss)
    with pytest.raises(BadInput, match="no wrong"):
        direct_effects(opened("llama"), replace(prompts(3), labels={"answer": prompts(3).answer}, counterfactual=None))


def test_the_model_is_left_as_it_was():
    model, batch = opened("falcon"), prompts(3)
    before = model.forward(batch)
    direct_effects(model, batch)
    assert torch.equal(model.forward(batch), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


@pytest.mark.parametrize(("dtype", "advised"), [(torch.float32, False), (torch.bfloat16, True)])
def test_a_model_in_float32_is_not_told_to_load_it_in_float32(dtype: torch.dtype, advised: bool):
    model = attach(FAMILIES["llama"].build(dtype=dtype))
    parts, none = torch.ones(1, 2), torch.zeros(1)
    with pytest.raises(UnsupportedModel, match=r"add up to 2\.0000 logits where the model gives 9\.0000") as told:
        _demand_sum(model, parts, {"embeddings": none}, torch.tensor([9.0]), none)
    assert ("float32" in str(told.value)) == advised


def test_several_sums_of_logits_from_one_run_are_those_of_a_run_each():
    model, batch = opened("llama"), prompts(3)
    end = batch.positions["end"].reshape(-1)
    towards = [Toward.answer(batch), Toward.tokens(end, torch.tensor([7, 8, 9]))]
    together = effects_along(model, batch, towards, by_source=True)
    for toward, found in zip(towards, together, strict=True):
        alone = direct_effects(model, batch, toward=toward, by_source=True)
        np.testing.assert_allclose(found.values, alone.values, atol=1e-6)
        np.testing.assert_allclose(found.by_source, alone.by_source, atol=1e-6)
    assert np.abs(together[0].values - together[1].values).max() > 1e-3
    with pytest.raises(BadInput, match="the same positions"):
        effects_along(model, batch, [towards[0], Toward.tokens(end - 1, torch.tensor([7, 8, 9]))])
