"""Which groups need the whole text, by gates that are optimised together. Xiao et al. 2024 (DuoAttention).

A gate a for each key-value group mixes attention over everything with attention over its span: z = a full + (1 - a) span. The model
is left alone; gates are learned so that it goes on as it does, under a price for open gates (section 2.2). The paper keeps last hidden
states; where few groups can be kept, what the model answers is the better thing to keep (docs/apply/cache.md has both measured).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.kv_cache.recall import Asked, OwnAttention, ruled
from headatlas.choices import KEPT
from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.model.given import demand_numbers
from headatlas.model.holding.own import again
from headatlas.model.holding.span import LayerShape, Span
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent


@dataclass(frozen=True)
class CacheGateOptions:
    """How gates are learned. steps, rate: of AdamW, one text a step, the rate rising and falling over a fifth each.

    keeps: "answer", the model's own distribution where it decides the answer (KL divergence, nats a token), or "hidden", last hidden states
    over question and answer, as in the paper (mean squared difference, in units of what they are on average).
    price: of open gates beside that: what it costs if all are open. settling: in this share of the steps, at the end, the choice that the budget allows is
    run and not the mixture. Raises BadInput.
    """

    steps: int = 200
    rate: float = 0.02
    price: float = 1.0
    keeps: str = "answer"
    settling: float = 0.0

    def __post_init__(self) -> None:
        demand_numbers(self)
        if self.steps < 1 or not 0 < self.rate < math.inf or not 0 <= self.price < math.inf:
            raise BadInput("Gates need 1 step, a rate above 0 and a price of 0 at least.", "Check the numbers given.")
        if not 0 <= self.settling < 1:
            raise BadInput(f"Gates cannot settle in {self.settling:g} of the steps.", "Give a share from 0 to below 1.")
        KEPT.demand(self.keeps)


def learned_gates(
    model: Model,
    shapes: Sequence[LayerShape],
    texts: Sequence[Asked],
    span: Span,
    *,
    options: CacheGateOptions | None = None,
    chosen: Callable[[list[Array]], Sequence[Array]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[list[Array], list[float]]:
    """([layer][group] gates from 0 to 1, the loss at each step).

    chosen: gates -> which groups would keep everything by them, 1 or 0. In the steps that are for settling the model runs with just those, without a
    price, and gates move by the slopes found there (straight through), so that what is learned in the end is a choice and no mixture.

    Differs from the paper: the text is read in full, as it is when a cache is cut down afterwards, so that gates act where it is asked.
    """
    options, progress = options or CacheGateOptions(), progress or Silent()
    gates = [torch.ones(shape.n_groups, device=model.device, requires_grad=True) for shape in shapes]
    optimizer = torch.optim.AdamW(gates, lr=options.rate, weight_decay=0.0)
    scale = float(np.mean([one.hidden.float().pow(2).mean().item() for one in texts]))
    order: list[int] = []
    losses: list[float] = []
    rng = np.random.default_rng(seed)

    def mixed(layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, own: OwnAttention) -> Tensor:
        soft = gates[layer].clamp(0, 1)
        gate = (
            (soft if hard is None else soft + (hard[layer] - soft).detach())
            .repeat_interleave(q.shape[1] // k.shape[1])
            .to(q.dtype)[:, None]
        )
        seen = span_mask(q, k, mask, span.within(shapes[layer].window))
        return gate * own(mask) + (1 - gate) * own(seen)

    hard: list[Tensor] | None = None
    for step in range(options.steps):
        if chosen is not None and step >= options.steps * (1 - options.settling):
            now = chosen([gate.detach().double().cpu().numpy() for gate in gates])
            hard = [torch.as_tensor(one, dtype=torch.float32, device=model.device) for one in now]
        order = order or rng.permutation(len(texts)).tolist()
        one = texts[order.pop()]
        fifth = max(options.steps // 5, 1)
        part = min(1.0, (step + 1) / fifth, (options.steps - step) / fifth)
        for group in optimizer.param_groups:
            group["lr"] = options.rate * max(part, 0.1)
        with torch.enable_grad(), ruled(model, mixed) as hf:
            output = hf(
                input_ids=one.tokens[None].to(model.device), past_key_values=again(one.past), output_hidden_states=True
            )  # fmt: skip
            loss = _change(output, one, options.keeps, scale)
            if hard is None:
                loss = loss + options.price * torch.cat(gates).clamp(0, 1).mean()
        for gate, gradient in zip(gates, torch.autograd.grad(loss, gates), strict=True):
            gate.grad = gradient
        optimizer.step()
        with torch.no_grad():
            for gate in gates:
                gate.clamp_(0, 1)
        losses.append(float(loss.detach()))
        progress.advance("gates", of=options.steps)
    return [gate.detach().double().cpu().numpy() for gate in gates], losses


def _change(output: Any, one: Asked, keeps: str, scale: float) -> Tensor:
    """How far a run under gates is from the model's own."""
    if keeps == "hidden":
        hidden: Tensor = output.hidden_states[-1][0]
        return (hidden.float() - one.hidden.float()).pow(2).mean() / scale
    own = one.log_p.to(output.logits.device)
    found = output.logits[0, one.wanted - 1].float().log_softmax(-1)
    return torch.nn.functional.kl_div(found, own, reduction="batchmean", log_target=True)


def span_mask(q: Tensor, k: Tensor, mask: Tensor | None, span: Span) -> Tensor:
    """[1, 1, query, key]: what the last queries of a text see of a span, among what the mask lets them see. One text, no padding."""
    n_keys, n_queries = k.shape[2], q.shape[2]
    columns = torch.arange(n_keys, device=q.device)
    own = torch.arange(n_keys - n_queries, n_keys, device=q.device)[:, None]
    seen = ((columns > own - span.recent_of(n_keys)) | (columns < span.sinks)) & (columns <= own)
    if mask is None:
        return seen[None, None]
    return mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, torch.finfo(mask.dtype).min)
