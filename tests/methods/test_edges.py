"""Edge scores against finite differences, and measured edges against hooks on the plain Hugging Face model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.attribution import edge_attribution as module
from headatlas.methods.attribution.edge_attribution import edge_scores, sides
from headatlas.methods.attribution.edge_graph import Difference, Graph, written
from headatlas.methods.attribution.edge_patching import _Run, edge_effects
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.task import Batch, logit_difference
from tests.methods.sweeps.test_replay import prompts

KINDS = ["gpt2", "gpt-neox", "falcon", "opt", "llama", "gemma2", "gemma3", "olmo2", "granite", "phi"]


def opened(name: str) -> ha.Model:
    return attach(FAMILIES[name].build())


def some(graph: Graph, n: int, seed: int = 0) -> list[int]:
    """Edges of every kind of reader, chosen at random."""
    rng, edges, found = np.random.default_rng(seed), graph.edges(), []
    for kind in ("q", "k", "v", "mlp", "logits"):
        mine = [i for i, (_, j) in enumerate(edges) if graph.readers[j].kind == kind]
        found += [int(i) for i in rng.choice(mine, n, replace=False)]
    return found


def slope(run: _Run, reader, shift: torch.Tensor, size: float = 4e-3) -> np.ndarray:
    """Central difference of the metric along a shift of what one reader reads."""
    size /= max(1.0, float(shift.abs().max()))
    return (run.read(reader, shift * size) - run.read(reader, -shift * size)) / (2 * size)


@torch.no_grad()
def differences(model, graph, batch, ran, edges) -> np.ndarray:
    """[example, edge] slopes at the run on `ran`, along what each writer writes more in the clean run than in the other."""
    base, source = sides(batch, "denoising")
    change = Difference(graph, written(model, graph, base), written(model, graph, source))
    run = _Run(model, graph, logit_difference, batch, ran)
    return np.stack([slope(run, graph.readers[j], change.of(graph.writers[i])) for i, j in edges], 1)


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_the_slope_along_the_difference_between_the_runs(name: str):
    model, batch = opened(name), prompts(2, length=10)
    graph, scores = edge_scores(model, batch, logit_difference)
    assert scores.shape == (2, len(graph.edges()))
    chosen = some(graph, 3)
    expected = differences(model, graph, batch, batch.counterfactual, [graph.edges()[i] for i in chosen])
    # Rounding of the differences, relative to the largest slope.
    np.testing.assert_allclose(scores[:, chosen], expected, atol=3e-3 * np.abs(expected).max(), rtol=2e-2)
    assert np.abs(expected).max() > 1e-3


def between() -> tuple[ha.Model, Batch, Batch]:
    """A model in which token 152 + i is the middle of tokens 100 + i and 50 + i; prompts of either, and the middle ones."""
    hf = FAMILIES["llama"].build()
    table = hf.get_input_embeddings().weight
    with torch.no_grad():
        table[152:158] = (table[100:106] + table[50:56]) / 2
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(0, 6, (2, 9), generator=generator)
    mask, at = torch.ones(2, 9, dtype=torch.bool), {"end": torch.tensor([8, 8])}
    labels = {"answer": torch.tensor([7, 8]), "wrong": torch.tensor([9, 10])}
    clean = Batch(100 + picks, mask, at, labels=labels, counterfactual=Batch(50 + picks, mask, at))
    return attach(hf), clean, Batch(152 + picks, mask, at, labels=labels)


def test_integrated_gradients_are_taken_between_the_prompts_embeddings():
    model, batch, middle = between()
    graph, scores = edge_scores(model, batch, logit_difference, steps=1)
    chosen = some(graph, 4)
    expected = differences(model, graph, batch, middle, [graph.edges()[i] for i in chosen])
    np.testing.assert_allclose(scores[:, chosen], expected, atol=3e-3 * np.abs(expected).max(), rtol=2e-2)
    plain = edge_scores(model, batch, logit_difference, graph=graph)[1]
    assert np.abs(plain - scores).max() > 0.1 * np.abs(scores).max()


def test_more_steps_come_closer_to_a_limit():
    model, batch, _ = between()
    graph = Graph(model)
    one, some_, many = (edge_scores(model, batch, logit_difference, steps=n, graph=graph)[1] for n in (1, 24, 48))
    assert np.abs(some_ - many).max() < 0.1 * np.abs(one - many).max()


def test_direction_turns_the_prompts_around():
    model, batch = opened("llama"), prompts(2, length=10)
    turned = replace(batch.counterfactual, labels=batch.labels, counterfactual=replace(batch, counterfactual=None))
    _, forth = edge_scores(model, batch, logit_difference, direction="noising")
    _, back = edge_scores(model, turned, logit_difference, direction="denoising")
    np.testing.assert_allclose(forth, back, atol=1e-6)


def test_memory_and_batch_size_do_not_change_scores():
    model, batch = opened("gemma3"), prompts(3, length=10)
    graph, whole = edge_scores(model, batch, logit_difference)
    _, narrow = edge_scores(model, batch, logit_difference, memory=3 << 20)
    np.testing.assert_allclose(narrow, whole, atol=1e-5 * np.abs(whole).max())
    _, padded = edge_scores(model, padded_right(batch), logit_difference, graph=graph)
    np.testing.assert_allclose(padded, whole, atol=1e-5 * np.abs(whole).max())
    with pytest.raises(BadInput, match="allowed"):
        edge_scores(model, batch, logit_difference, memory=1000)


@pytest.mark.parametrize("memory", [4 << 30, 3 << 20, 1 << 20, 1 << 19])
@pytest.mark.parametrize("name", ["llama", "olmo2"])
def test_steps_side_by_side_give_the_mean_of_single_runs(name: str, memory: int):
    """Each run between the prompts by itself: its gradients contracted alone, and the scores of all averaged."""
    model, batch, steps = opened(name), prompts(3, length=10), 4
    graph, found = edge_scores(model, batch, logit_difference, steps=steps, memory=memory)
    base, source = sides(batch, "denoising")
    expected = []
    for index in range(len(batch)):
        rows = module._Rows(batch, base, source, torch.tensor([index]))
        one, other = (written(model, graph, part) for part in (rows.base, rows.source))
        change, total = Difference(graph, one, other), torch.zeros(1, len(graph.writers), len(graph.readers))
        for k in range(steps):
            entry = one.entry + (k + 0.5) / steps * (other.entry - one.entry)
            tape, score = module._record(model, graph, logit_difference, rows, entry)
            for first, slopes in module._slopes(model, graph, tape, score, 1 << 30, module.Shortcuts()):
                module._contract(graph, change, first, slopes / steps, total)
        expected.append([float(total[0, i, j]) for i, j in graph.edges()])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def padded_right(batch: Batch) -> Batch:
    return batch.padded(right=3)


# ---- what edges really carry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_measured_edges_equal_hooks_on_the_plain_model(groups: int):
    """Head 0.1 into a query, a group's keys, the second block's feed-forward part and the logits, by hand."""
    hf = FAMILIES["llama"].build(num_hidden_layers=2, num_key_value_heads=groups, attn_implementation="eager")
    batch = prompts(2, length=10)
    ran, other = batch.counterfactual, batch
    block, mask = hf.model.layers[1], ran.mask.long()
    rows = torch.arange(2)

    def metric(logits):
        return logit_difference.score(logits[rows, batch.positions["end"]][:, None], batch).numpy()

    def write(tokens):
        kept = {}
        hook = hf.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda _, args: kept.update(z=args[0]))
        hf(input_ids=tokens, attention_mask=mask)
        hook.remove()
        return kept["z"][..., 8:16] @ hf.model.layers[0].self_attn.o_proj.weight[:, 8:16].T

    def run(module, change):
        hook = module.register_forward_hook(change)
        try:
            return metric(hf(input_ids=ran.tokens, attention_mask=mask).logits)
        finally:
            hook.remove()

    with torch.no_grad():
        shift = write(other.tokens) - write(ran.tokens)
        kept = {}
        hook = block.register_forward_pre_hook(lambda _, args, kwargs: kept.update(x=args[0]), with_kwargs=True)
        unchanged = metric(hf(input_ids=ran.tokens, attention_mask=mask).logits)
        hook.remove()
        read = block.input_layernorm(kept["x"] + shift)

        def part(start, stop):
            def change(module, args, output):
                output = output.clone()
                output[..., start:stop] = (read @ module.weight.T)[..., start:stop]
                return output

            return change

        expected = {
            "1.2.q": run(block.self_attn.q_proj, part(16, 24)),
            "k": run(block.self_attn.k_proj, part(0, 8)),
            "v": run(block.self_attn.v_proj, part(0, 8)),
            "logits": run(
                block, lambda _, __, out: (out[0] + shift, *out[1:]) if isinstance(out, tuple) else out + shift
            ),
        }
        hook = block.post_attention_layernorm.register_forward_pre_hook(lambda _, args: (args[0] + shift,))
        expected["mlp 1"] = metric(hf(input_ids=ran.tokens, attention_mask=mask).logits)
        hook.remove()
    model = attach(hf)
    graph = Graph(model)
    names = {"k": "1.0.k" if groups == 4 else f"1.0-{4 // groups - 1}.k"}
    names["v"] = names["k"].replace("k", "v")
    writer = next(i for i, w in enumerate(graph.writers) if w.name == "0.1")
    for name, value in expected.items():
        reader = next(j for j, r in enumerate(graph.readers) if r.name == names.get(name, name))
        assert graph.name((writer, reader)) in [graph.name(edge) for edge in graph.edges()]
        found = edge_effects(model, batch, logit_difference, graph, [(writer, reader)])[:, 0]
        np.testing.assert_allclose(found, value - unchanged, atol=2e-6)


@pytest.mark.parametrize("name", KINDS)
def test_what_all_writers_carry_is_the_difference_of_the_streams(name: str):
    model, batch = opened(name), prompts(2, length=10)
    graph = Graph(model)
    base, source = written(model, graph, batch.counterfactual), written(model, graph, batch)
    change = Difference(graph, base, source)
    found = sum(change.of(writer) for writer in graph.writers)
    streams = []
    for prompt in (batch.counterfactual, batch):
        last, kept = model.decoder_blocks()[-1], []
        hook = last.register_forward_hook(
            lambda _, __, out, kept=kept: kept.append(out[0] if isinstance(out, tuple) else out)
        )
        model.forward(prompt)
        hook.remove()
        streams.append(kept[0])
    there = batch.mask.unsqueeze(-1)
    torch.testing.assert_close(found * there, (streams[1] - streams[0]) * there, atol=1e-4, rtol=1e-4)


def test_a_parallel_block_has_no_edge_from_its_heads_to_its_feed_forward_part():
    for name, there in (("llama", True), ("gpt-neox", False), ("phi", False)):
        graph = Graph(opened(name))
        assert ("0.1 -> mlp 0" in [graph.name(edge) for edge in graph.edges()]) is there


@pytest.mark.parametrize("name", ["jamba", "qwen3-next", "afmoe", "t5", "bert-masked"])
def test_models_whose_edges_cannot_be_told_apart_are_refused(name: str):
    with pytest.raises(UnsupportedModel):
        edge_scores(attach(FAMILIES[name].build()), prompts(2, length=10), logit_difference)


def test_frozen_weights_are_fine_and_inference_weights_are_refused():
    batch = prompts(2, length=10)
    _, expected = edge_scores(opened("llama"), batch, logit_difference)
    frozen = opened("llama")
    frozen.hf.requires_grad_(False)
    np.testing.assert_allclose(edge_scores(frozen, batch, logit_difference)[1], expected, atol=1e-7)
    with torch.inference_mode():
        made = FAMILIES["llama"].build()
    with pytest.raises(UnsupportedModel, match="No gradient flows"):
        edge_scores(attach(made), batch, logit_difference)


def test_the_model_is_left_as_it_was():
    model, batch = opened("falcon"), prompts(2, length=10)
    before = model.forward(batch)
    graph, _ = edge_scores(model, batch, logit_difference)
    edge_effects(model, batch, logit_difference, graph, graph.edges()[::20])
    assert torch.equal(model.forward(batch), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())
    assert all(weight.grad is None for weight in model.hf.parameters())
