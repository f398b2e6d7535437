"""GPT-J: its attention class computes attention in a method of its own, `_attn`, after the rotary positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from headatlas.model.core import dispatch
from headatlas.model.layouts import Layout, place


def _attn(
    self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """In place of the class's `_attn`, which `_eager` asks for the numbers."""
    if not dispatch.in_pass(self):
        found: tuple[Tensor, Tensor] = type(self)._attn(self, query, key, value, attention_mask)
        return found
    z, weights = dispatch.enter("eager", self, query, key, value, attention_mask, scaling=1 / self.scale_attn)
    return z.transpose(1, 2), weights


def _eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor]:
    own: Any = type(module)
    output, weights = own._attn(module, query, key, value, mask)
    return output.transpose(1, 2), weights


def _install(module: nn.Module) -> None:
    """Route one GPTJAttention through the dispatch."""
    place(module, "_attn", _attn)
    dispatch.lend(module, _eager)


layout = Layout("gptj", ("GPTJAttention",), _install)
