"""A model, tasks and detectors that no later change of the package touches: what runs of old builds are compared on.

Every weight is a whole number of 1/1024 from a fixed recurrence, so that the weights' sha256, and with it the run's id, is
the same on every machine. Tokens come as S S, and heads whose queries equal their keys look from the second S to the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import transformers as T
from torch import Tensor

from headatlas.detector import Measured, detector, model_detector
from headatlas.errors import UnfitTask, UnsupportedModel
from headatlas.model import LayerView, Model, attach
from headatlas.task import Batch, Vocabulary, logit_difference, next_token_loss, task

VOCABULARY, WIDTH, HEADS, GROUPS, HEAD = 96, 32, 4, 2, 16
PERIOD = 10
# What each head of a layer does: (its queries match the keys of its group, how much it writes of the token that it sees).
LAYERS = (
    ((True, 1.0), (False, 0.0), (True, -0.5), (False, 0.0)),
    ((True, 0.0), (True, 1.0), (False, 0.0), (True, 0.5)),
    ((False, 0.0), (False, 0.0), (True, 0.25), (False, 0.0)),
)


def model() -> Model:
    """Three layers of four heads in two groups, known by token ids alone."""
    config = T.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=len(LAYERS),
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, head_dim=HEAD, max_position_embeddings=64, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, rope_theta=1e9, tie_word_embeddings=True,
    )  # fmt: skip
    hf = T.LlamaForCausalLM(config).eval()
    numbers = whole_numbers()
    with torch.no_grad():
        for _, weight in sorted(hf.named_parameters()):
            weight.copy_(drawn(numbers, weight.shape) if weight.ndim == 2 else torch.ones_like(weight))
        for layer, heads in zip(hf.model.layers, LAYERS, strict=True):
            attention = layer.self_attn
            key = attention.k_proj.weight.view(GROUPS, HEAD, WIDTH)
            value = attention.v_proj.weight.view(GROUPS, HEAD, WIDTH)
            query = attention.q_proj.weight.view(HEADS, HEAD, WIDTH)
            output = attention.o_proj.weight.view(WIDTH, HEADS, HEAD)
            for head, (matches, copies) in enumerate(heads):
                group = head // (HEADS // GROUPS)
                if matches:
                    query[head] = 2 * key[group]
                output[:, head] = copies * value[group].T if copies else output[:, head] / 4
    return attach(hf)


def whole_numbers() -> Iterator[int]:
    """-80 to 80 without end, from a linear congruence."""
    state = 1
    while True:
        state = (1103515245 * state + 12345) % 2**31
        yield (state >> 16) % 161 - 80


def drawn(numbers: Iterator[int], shape: torch.Size) -> Tensor:
    """The next numbers in this shape, in units of 1/256."""
    return torch.tensor([next(numbers) for _ in range(shape.numel())], dtype=torch.float32).reshape(shape) / 256


def _pair(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> tuple[Batch, Batch]:
    """[bos] S S, and the same with other tokens in place of the second S; the answer is the last token, there another one."""
    ids = np.array(tokenizer.plain_ids())
    draws = np.stack([rng.choice(ids, size=2 * PERIOD + 2, replace=False) for _ in range(n)])
    first, rest, others = draws[:, :PERIOD], draws[:, PERIOD : 2 * PERIOD], draws[:, -2:]
    start = np.full((n, 1), tokenizer.bos)
    second = torch.arange(PERIOD + 1, 2 * PERIOD + 1).expand(n, -1)
    positions = {"end": torch.full((n,), 2 * PERIOD), "predict": second[:, :-1]}
    twins = {"query": second, "key": second - PERIOD}
    made = []
    for again, answer in ((first, first[:, -1]), (rest, others[:, 1])):
        tokens = torch.tensor(np.concatenate([start, first, again], 1))
        labels = {**twins, "answer": torch.tensor(answer), "wrong": torch.tensor(others[:, 0])}
        made.append(Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), positions, {}, labels))
    return made[0], made[1]


def _with(batch: Batch, **others: Batch) -> Batch:
    return replace(batch, **others)


@task(metric=logit_difference, version=1)
def echo(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """The last token again: heads are removed by their mean."""
    batch, control = _pair(tokenizer, n, rng)
    return _with(batch, control=control)


@task(metric=logit_difference, version=2)
def echo_swapped(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """The last token again: heads are removed by what they do on other prompts."""
    batch, control = _pair(tokenizer, n, rng)
    return _with(batch, control=control, counterfactual=control)


@task(metric=next_token_loss, version=1, margin=1.0)
def hopeless(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """The token after each of the second S, which this model cannot know."""
    batch, control = _pair(tokenizer, n, rng)
    return _with(batch, control=control)


@task(metric=None, version=1)
def unmeasured(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Nothing to do."""
    return _pair(tokenizer, n, rng)[0]


@task(metric=None, version=1)
def unfit(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Needs more than any model has."""
    raise UnfitTask("unfit needs words that no model has.")


def _twins(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from each token of the second S to the same token in the first: 0 never, 1 always.

    Formula: mean of A[i, i - L], L the length of S. Chance: the same places where the second S is another.
    """
    return layer.entries(batch.labels["query"], batch.labels["key"]).mean(-1)


def twins_of(name: str, where: object, **options: object):
    """The detector of twins on a task, under a name of its own."""

    def score(layer: LayerView, batch: Batch) -> Tensor:
        return _twins(layer, batch)

    score.__name__, score.__doc__ = name, _twins.__doc__
    return detector(head_type="duplicate-head", task=where, version=1, minimum_effect=0.05, **options)(score)


def before(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from each token of the second S to the one before it: 0 never, 1 always.

    Formula: mean of A[i, i - 1]. Chance: the same places where the second S is another.
    """
    return layer.entries(batch.labels["query"], batch.labels["query"] - 1).mean(-1)


def output_size(model: Model, batch: Batch) -> Measured:
    """Size of what a head can write, five parts of the stream as examples; undefined for the last head: any number from 0.

    Formula: mean of |W_O| over the part's rows and the head's columns. Chance: 0.
    """
    weights = [layer.self_attn.o_proj.weight.detach().abs().double() for layer in model.hf.model.layers]
    mine = [weights[head.layer][:, head.head * HEAD : (head.head + 1) * HEAD] for head in model.heads]
    values = torch.stack([torch.stack([part.mean() for part in weight[:30].chunk(5)]) for weight in mine], 1)
    values[:, -1] = torch.nan
    return Measured(values, torch.zeros_like(values))


def refused(model: Model, batch: Batch) -> Measured:
    """Never: this model cannot be asked."""
    raise UnsupportedModel("Its blocks are of wood.")


DETECTORS = {
    one.name: one
    for one in (
        twins_of("twins", echo),
        detector(head_type="previous-head", task=echo, version=1, minimum_effect=0.1)(before),
        twins_of("twins_at_the_end", echo_swapped, verdict_positions="end"),
        twins_of("twins_swapped", echo_swapped),
        twins_of("twins_in_vain", hopeless),
        model_detector(head_type="amplification-head", task=unmeasured, version=3, minimum_effect=0.01)(output_size),
        model_detector(head_type="copy-head", task=unmeasured, version=1, minimum_effect=0.01)(refused),
        twins_of("twins_unfit", unfit),
    )
}
