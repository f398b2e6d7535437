"""GPT-Neo: full and local (sliding window) layers in turn, unscaled scores, attention in a method of its own, `_attn`.

Its causal mask and window live in a buffer that `_attn` applies by the length of its inputs. A view needs it as a
mask, so that some rows can be computed alone: the buffer's part goes into the mask and `_attn` runs on a stand-in whose
buffer lets all keys pass. The sums are the same, masked positions included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headatlas.model.core import dispatch
from headatlas.model.layouts import Layout, StandIn, place


def _attn(
    self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    if not dispatch.in_pass(self):
        found: tuple[Tensor, Tensor] = type(self)._attn(self, query, key, value, attention_mask)
        return found
    n_queries, n_keys = query.shape[-2], key.shape[-2]
    seen = self.bias[:, :, n_keys - n_queries : n_keys, :n_keys]
    mask = torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, torch.finfo(torch.float32).min)
    if attention_mask is not None:
        mask = mask + attention_mask
    z, weights = dispatch.enter("eager", self, query, key, value, mask, scaling=1.0)
    return z.transpose(1, 2), weights


def _eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor]:
    everything = torch.ones((), dtype=torch.bool, device=key.device).expand(1, 1, key.shape[-2], key.shape[-2])
    own: Any = type(module)
    output, weights = own._attn(StandIn(module, bias=everything), query, key, value, mask)
    return output.transpose(1, 2), weights


def _install(module: nn.Module) -> None:
    """Route one GPTNeoSelfAttention through the dispatch."""
    place(module, "_attn", _attn)
    dispatch.lend(module, _eager)


layout = Layout("gpt-neo", ("GPTNeoSelfAttention",), _install)
