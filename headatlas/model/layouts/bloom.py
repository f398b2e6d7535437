"""BLOOM: attention and its alibi position bias written out inside one forward, between two projections.

The class's own forward is the eager attention: run on a stand-in whose projections hand their input on, it computes
exactly what lies between them. Only the frame (project, cache, attend, project back) is repeated here, and only while a
pass runs; the self-check compares it with the class's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.bloom.modeling_bloom import dropout_add

from headatlas.model.core import dispatch
from headatlas.model.layouts import Layout, StandIn, place


def _forward(
    self: Any,
    hidden_states: Tensor,
    residual: Tensor,
    alibi: Tensor,
    attention_mask: Tensor | None,
    layer_past: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    if not dispatch.in_pass(self) or (self.pretraining_tp > 1 and self.slow_but_exact):
        output: tuple[Tensor, Tensor | None] = type(self).forward(
            self, hidden_states, residual, alibi, attention_mask, layer_past, **kwargs
        )
        return output
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    if layer_past is not None:
        key, value = layer_past.update(key, value, self.layer_idx)
    bias = alibi.unflatten(0, query.shape[:2])  # by example, so that one example can be looked at alone
    z, weights = dispatch.enter("eager", self, query, key, value, attention_mask, alibi=bias)
    written = self.dense(z.flatten(2))
    return dropout_add(written, residual, self.hidden_dropout, self.training), weights


def _eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, alibi: Tensor, **_: Any
) -> tuple[Tensor, Tensor]:
    flat: list[Tensor] = []
    wide = value.expand(*value.shape[:-1], key.shape[-1])  # a single column of values may be given

    def keep(context: Tensor) -> Tensor:
        flat.append(context)
        return context

    stand_in = StandIn(
        module,
        query_key_value=lambda x: x,
        _reshape=lambda _: (query, key, wide),
        dense=keep,
        pretraining_tp=1,
        hidden_dropout=0.0,
    )
    nothing = torch.zeros((), dtype=query.dtype, device=query.device)
    shape = query.new_empty(query.shape[0], query.shape[2], 0)
    weights: Tensor = type(module).forward(stand_in, shape, nothing, alibi.flatten(0, 1), mask)[1]
    return flat[0].unflatten(-1, (query.shape[1], -1))[..., : value.shape[-1]], weights


def _install(module: nn.Module) -> None:
    """Route one BloomAttention through the dispatch."""
    place(module, "forward", _forward)
    dispatch.lend(module, _eager)


layout = Layout("bloom", ("BloomAttention",), _install)
