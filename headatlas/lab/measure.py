"""What the heads of a planted model really do, read from the model's own attention weights and by switching heads off.

Nothing here uses the package's detectors or its way of looking into models: it is what they are checked against.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel
from headatlas.lab.probe import Probe, probe
from headatlas.lab.spec import find_kind


@dataclass(frozen=True)
class Reading:
    """One head's behaviour on its probe.

    attention: mean share on its targets, over queries with exactly one (a window: all it can hold), for which the
    strength is stated. deviation: its spread over queries.
    logit: how much the head raises what it is meant to raise, against the mean logit: the attended token, or for a
    head that advances the next member of the sequence. loss: what switching it off adds to the loss of predictable
    tokens; None where the probe has none.
    """

    head: Head
    attention: float
    deviation: float
    logit: float
    loss: float | None


def attend(model: Any, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
    """(a [example, head, query, key] pattern for each layer, logits), from the model's own eager attention."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = model(tokens, output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    return list(output.attentions), output.logits


def logits_of(model: Any, tokens: Tensor) -> Tensor:
    """[example, pos, token] logits."""
    with torch.no_grad():
        logits: Tensor = model(tokens).logits
    return logits


@contextmanager
def without(model: Any, *heads: HeadId) -> Iterator[None]:
    """The model with these heads switched off: their part of the output projection's input is zero."""
    by_layer: dict[tuple[str, int], list[int]] = {}
    for head in heads:
        by_layer.setdefault((head.stack, head.layer), []).append(head.head)
    handles = []
    try:
        for (stack, layer), indices in by_layer.items():
            module, d_head = projection(model, layer, stack)
            handles.append(module.register_forward_pre_hook(_zeroing(indices, d_head)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zeroing(indices: list[int], d_head: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = inputs[0].clone()
        for index in indices:
            z[..., index * d_head : (index + 1) * d_head] = 0.0
        return (z, *inputs[1:])

    return hook


def projection(model: Any, layer: int, stack: str = "decoder") -> tuple[Any, int]:
    """The output projection of a layer, and the width of a head's part of its input. Raises BadInput.

    Of a GPT-2, a Llama, a BERT with its head for masked tokens, or a Marian, of which `stack` says whose layer.
    """
    config = model.config
    if config.model_type == "marian":
        home = getattr(model.model, "encoder" if stack == "encoder" else "decoder").layers[layer]
        module = home.encoder_attn if stack == "cross" else home.self_attn
        return module.out_proj, module.head_dim
    if config.model_type == "gpt2":
        return model.transformer.h[layer].attn.c_proj, config.hidden_size // config.num_attention_heads
    if config.model_type == "llama":
        return model.model.layers[layer].self_attn.o_proj, config.head_dim
    if config.model_type == "bert":
        return model.bert.encoder.layer[layer].attention.output.dense, config.hidden_size // config.num_attention_heads
    raise BadInput(
        f"Models of type '{config.model_type}' cannot be measured here.", "Take gpt2, llama, bert or marian."
    )


def loss_of(logits: Tensor, material: Probe) -> float:
    """Mean cross-entropy of the tokens after predictable positions."""
    losses = -logits[:, :-1].log_softmax(-1).gather(-1, material.tokens[:, 1:, None])[..., 0]
    return float(losses[material.predictable[:, :-1]].mean())


def read(planted: PlantedModel, head: Head, *, n: int = 32, seed: int = 0) -> Reading:
    """Measure one head on `n` sequences of its kind's probe."""
    kind = find_kind(head.kind)
    context = int(planted.model.config.max_position_embeddings)
    material = probe(kind.probe, planted.words, context, n, seed)
    patterns, logits = attend(planted.model, material.tokens)
    targets = kind.targets(material.tokens, head, planted.words)
    asked = targets.sum(-1) == (head.width if head.kind == "window" else 1)
    pattern = patterns[head.layer][:, head.head]
    shares = (pattern * targets).sum(-1)[asked]
    with without(planted.model, head.id):
        reduced = logits_of(planted.model, material.tokens)
    change = logits - reduced
    change = change - change.mean(-1, keepdim=True)
    # The target that gets the most attention; its logit is what a copying head raises.
    key = (pattern * targets).argmax(-1)
    token = material.tokens.gather(1, key)
    if kind.outcome == "advances":
        token, asked = _next_members(token, asked, planted)
    raised = change.gather(-1, token[..., None])[..., 0][asked]
    loss = loss_of(reduced, material) - loss_of(logits, material) if material.predictable.any() else None
    return Reading(head, float(shares.mean()), float(shares.std()), float(raised.mean()), loss)


def _next_members(token: Tensor, asked: Tensor, planted: PlantedModel) -> tuple[Tensor, Tensor]:
    """The next member of each token's sequence; last members have none and are not asked about."""
    following = torch.full((len(planted.words),), -1)
    for sequence in planted.words.sequences:
        following[list(sequence[:-1])] = torch.tensor(sequence[1:])
    found = following[token]
    return found.clamp(min=0), asked & (found >= 0)


def read_all(planted: PlantedModel, *, n: int = 32, seed: int = 0) -> dict[HeadId, Reading]:
    """Measure every planted head that has a target."""
    heads = [head for head in planted.planted if head.kind != "noise"]
    return {head.id: read(planted, head, n=n, seed=seed) for head in heads}
