"""Attention under a cache plan written out: everything is kept, and each query of each head looks at what it may, one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from headatlas.apply.kv_cache.plan import CachePlan
from headatlas.methods.protected_groups import Group
from headatlas.model import Model
from headatlas.model.core.dispatch import delegate, receiving


class Written:
    """Full keys and values by layer; read: tokens of the first call. starts: the first token of each text that is no padding."""

    def __init__(self, model: Model, plan: CachePlan, starts: list[int]) -> None:
        self.model, self.plan, self.starts, self.read = model, plan, starts, 0
        self.layers = {layer.module: layer for layer in model.layers}
        self.softcap: float | None = None
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def attends(self, module: nn.Module) -> bool:
        return module in self.layers

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        layer = self.layers[module]
        i, new = layer.index, query.shape[2]
        if i not in self.keys:
            self.read = new
            self.keys[i], self.values[i] = key[:, :, -new:], value[:, :, -new:]
            return delegate(self.model.path, module)(module, query, key, value, mask, **kwargs)[0], None
        # A sliding layer's own cache gives back less than all; what is new stands at its end.
        self.keys[i] = torch.cat([self.keys[i], key[:, :, -new:]], 2)
        self.values[i] = torch.cat([self.values[i], value[:, :, -new:]], 2)
        self.softcap = kwargs.get("softcap")
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        z = torch.zeros(len(query), new, query.shape[1], value.shape[-1])
        total = self.keys[i].shape[2]
        for example, start in enumerate(self.starts):
            for head in range(query.shape[1]):
                group = head // (query.shape[1] // key.shape[1])
                for n in range(new):
                    own = total - new + n
                    k, v = self.keys[i][example, group], self.values[i][example, group]
                    z[example, n, head] = self.one(Group(i, group), query[example, head, n] * scale, k, v, start, own)
        return z, None

    def one(self, group: Group, q: Tensor, keys: Tensor, values: Tensor, start: int, own: int) -> Tensor:
        span, window = self.plan.span(group), self.plan.shapes[group.layer].window
        seen, gone = [], []
        for column in range(start, own + 1):
            within = window is None or own - column < window
            if span is None:
                kept = True
            else:
                recent = own - column < span.recent_of(self.read)
                kept = recent or (column < start + span.sinks and window is None)
            if within and kept:
                seen.append(column)
            elif within:
                gone.append(column)
        scores, held = self.capped(keys[seen] @ q), values[seen]
        if span is not None and span.compensate and gone and window is None:
            mean = self.capped(keys[gone].mean(0) @ q) + torch.log(torch.tensor(float(len(gone))))
            scores, held = torch.cat([scores, mean[None]]), torch.cat([held, values[gone].mean(0)[None]])
        return scores.softmax(0) @ held

    def capped(self, scores: Tensor) -> Tensor:
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)


@torch.no_grad()
def logits(model: Model, plan: CachePlan, ids: Tensor, pieces: list[int], mask: Tensor | None = None) -> Tensor:
    """[example, pos, vocab] of ids read in pieces of these sizes, under the plan, by the written-out attention."""
    n = len(ids)
    starts = [0] * n if mask is None else (1 - mask.long()).sum(1).tolist()
    cache = DynamicCache(config=model.hf.config)
    with receiving(Written(model, plan, starts)):
        return run(model, cache, ids, pieces, mask)


@torch.no_grad()
def run(model: Model, cache: Any, ids: Tensor, pieces: list[int], mask: Tensor | None = None) -> Tensor:
    """Logits of ids read in pieces with a cache."""
    found, begin = [], 0
    for size in pieces:
        end = begin + size
        given: dict[str, Any] = {}
        if mask is not None:
            given["attention_mask"] = mask[:, :end].long()
            given["position_ids"] = (mask[:, :end].long().cumsum(1) - 1).clamp(min=0)[:, begin:end]
        found.append(model.hf(input_ids=ids[:, begin:end], past_key_values=cache, use_cache=True, **given).logits)
        begin = end
    return torch.cat(found, 1)
