"""Function vectors: indirect effects and injections against hooks on the plain model, and what they do in SmolLM2."""

import functools
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas import load
from headatlas.detector import find_detector
from headatlas.heads import HeadId
from headatlas.lab.controls import weight_shuffled
from headatlas.methods.function_vectors import (
    Injection,
    answer_probability,
    ends,
    indirect_effects,
    layer_for,
    transfer,
    vector_of,
    without,
)
from headatlas.model import Model, attach
from headatlas.scores import HeadScores
from headatlas.task import Batch
from tests import toys

KINDS = ["mha", "gqa", "mqa", "gpt2", "window", "softcap"]


def prompts(n: int = 5, seed: int = 0) -> Batch:
    """Random prompts of two lengths with a counterfactual of the same shape."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randint(5, 150, (n, 16), generator=generator)  # noqa: E731
    lengths = 12 + 4 * (torch.arange(n) % 2)
    mask = torch.arange(16) < lengths[:, None]
    labels = {"answer": torch.randint(5, 150, (n,), generator=generator)}
    other = Batch(draw(), mask, {"end": lengths - 1})
    return Batch(draw(), mask, {"end": lengths - 1}, labels=labels, counterfactual=other)


@contextmanager
def hooked(module, change):
    handle = module.register_forward_pre_hook(change)
    try:
        yield
    finally:
        handle.remove()


def probabilities(model: Model, batch: Batch, tokens: torch.Tensor) -> torch.Tensor:
    """p(answer) after each prompt alone, by the plain model."""
    rows = []
    with torch.no_grad():
        for row, mask, answer in zip(tokens, batch.mask, batch.answer, strict=True):
            rows.append(model.hf(row[mask][None]).logits[0, -1].softmax(-1)[answer])
    return torch.stack(rows)


def last_z(model: Model, batch: Batch, layer: int) -> torch.Tensor:
    """[example, head, d] what enters the output projection at the last token, by the plain model."""
    seen = []
    with hooked(model.layers[layer].projection, lambda _, args: seen.append(args[0][0, -1])):
        probabilities(model, batch, batch.tokens)
    return torch.stack(seen).detach().unflatten(-1, (4, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_indirect_effects_are_those_of_one_patched_run_per_head(kind):
    model, batch = toys.model(kind), prompts()
    mean = {(layer.stack, layer.index): last_z(model, batch, layer.index).mean(0) for layer in model.layers}
    found = ends(model, batch)
    for place, value in found.mean().items():
        torch.testing.assert_close(value, mean[place], atol=1e-5, rtol=1e-4)
    tokens = batch.counterfactual.tokens
    plain = probabilities(model, batch, tokens)
    wanted = []
    for head in model.heads:
        width = mean[head.stack, head.layer].shape[-1]

        def put(_, args, head=head, width=width):
            x = args[0].clone()
            x[:, -1, head.head * width : (head.head + 1) * width] = mean[head.stack, head.layer][head.head]
            return (x,)

        with hooked(model.layers[head.layer].projection, put):
            wanted.append(probabilities(model, batch, tokens) - plain)
    effects = indirect_effects(model, batch, [found.mean(), found.mean(torch.arange(5) < 2)])
    np.testing.assert_allclose(effects[0], torch.stack(wanted, 1), atol=1e-6)
    assert np.abs(effects[0] - effects[1]).max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_injection_adds_the_summed_mean_writes_to_the_stream_at_the_end(kind):
    model, batch = toys.model(kind), prompts(seed=1)
    # All prompts count, whether the toy is right or not.
    right = replace(batch, labels={"answer": torch.stack([plain_argmax(model, batch, i) for i in range(5)])})
    writes = ends(model, right).writes
    heads = [model.heads[1], model.heads[6]]
    vector = vector_of(heads, writes)
    wanted_writes = []
    for head in heads:
        z = last_z(model, batch, head.layer)[:, head.head]
        weight = model.layers[head.layer].output_weight()[head.head]
        wanted_writes.append((z @ weight).mean(0))
    if kind in ("mha", "gqa", "mqa", "gpt2"):  # no norm behind the attention
        torch.testing.assert_close(vector, sum(wanted_writes).detach(), atol=1e-5, rtol=1e-4)

    def push(_, args):
        x = args[0].clone()
        x[:, -1] += 3.0 * vector
        return (x, *args[1:])

    injection = Injection(model, batch, answer_probability, writes, layer=1)
    np.testing.assert_allclose(injection.by_layer(heads)[1], injection.measure([heads])[0], atol=1e-9)
    assert list(injection.by_layer(heads)) == list(range(model.n_layers))
    plain = probabilities(model, batch, batch.tokens)
    with hooked(model.decoder_blocks()[1], push):
        pushed = probabilities(model, batch, batch.tokens)
    np.testing.assert_allclose(injection.clean, plain, atol=1e-6)
    np.testing.assert_allclose(injection.measure([heads], scale=3.0)[0], pushed, atol=1e-6)
    np.testing.assert_allclose(injection.metric_drop(heads), injection.measure([heads])[0] - injection.clean, atol=1e-9)


def plain_argmax(model: Model, batch: Batch, i: int) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(batch.tokens[i][batch.mask[i]][None]).logits[0, -1].argmax()


def test_the_writes_of_all_heads_behind_a_norm_add_up_to_what_the_attention_added():
    model, batch = toys.model("window"), prompts(seed=2)
    right = replace(batch, labels={"answer": torch.stack([plain_argmax(model, batch, i) for i in range(5)])})
    block, seen = model.decoder_blocks()[0], []
    handle = block.post_attention_layernorm.register_forward_hook(lambda _, __, output: seen.append(output[0, -1]))
    probabilities(model, batch, batch.tokens)
    handle.remove()
    total = vector_of(model.heads[:4], ends(model, right).writes)
    torch.testing.assert_close(total, torch.stack(seen).mean(0).detach(), atol=1e-5, rtol=1e-4)


def test_prompts_that_share_an_answer_are_left_out_of_the_mean():
    batch = prompts(4)
    batch = replace(batch, labels={"answer": torch.tensor([7, 8, 7, 9])})
    assert without(batch, torch.tensor([7, 30])).answer.tolist() == [8, 9]


@functools.cache
def untrained() -> Model:
    hf = toys.llama(vocab_size=49152, num_hidden_layers=2, max_position_embeddings=256)
    return attach(hf, tokenizer=toys.smollm2_vocabulary())


def scores(model: Model, n: int, seed: int = 0) -> HeadScores:
    detector = find_detector("function-vector")
    found = detector.measure(model, detector.task(model.tokenizer, n, seed))
    return HeadScores(model.heads, found.values.double().numpy(), found.control.double().numpy())


def test_a_model_that_does_none_of_the_tasks_has_no_scores():
    found = scores(untrained(), 8)
    assert np.isnan(found.values).all()
    assert found.values.shape == (8, 8)
    assert found.observed(0.0) == []


@pytest.fixture(scope="module")
def smollm2() -> Model:
    return load("smollm2-135m")


@pytest.mark.slow
def test_shuffled_weights_have_no_function_vector(smollm2):
    shuffled = attach(weight_shuffled(smollm2.hf, seed=0), tokenizer=smollm2.tokenizer)
    assert scores(shuffled, 8).observed(0.0) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_head_of_smollm2_stands_out_with_either_seed(smollm2):
    for seed in (0, 1):
        best = scores(smollm2, 32, seed).top(2)
        assert best[0].head == HeadId(20, 5)
        assert best[0].low > 0.05
        assert best[0].score > 3 * best[1].score


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_vector_makes_smollm2_do_at_least_three_tasks_without_examples(smollm2):
    heads = [line.head for line in scores(smollm2, 32).top(10)]
    rows = [
        transfer(smollm2, name, heads, layer_for(smollm2), n=24)
        for name in ("singular-plural", "present-past", "antonym", "capitalize")
    ]
    won = [row for row in rows if row.low > 0 and row.gain >= 0.15 and row.gain > 3 * max(row.random_gains)]
    assert len(won) >= 3, rows
