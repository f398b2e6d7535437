"""Falcon (multi-query, grouped and alibi variants): calls torch's attention itself, from within its forward.

The call of `scaled_dot_product_attention` is caught on its way and goes through the dispatch; all else, rotary positions
and alibi included, stays the class's own. Falcon's written-out attention is not used: with alibi it counts the position
bias twice, once in the mask and once beside it, and so differs from what the model was trained with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers.models.llama.modeling_llama import eager_attention_forward

from headatlas.model.core import dispatch
from headatlas.model.layouts import Layout, place


class _Catch(TorchFunctionMode):
    """Sends the first call of torch's attention to `dispatch.enter`; later ones, made by watchers, pass."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module, self.caught = module, False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not scaled_dot_product_attention or self.caught:
            return func(*args, **(kwargs or {}))
        self.caught = True
        return self._enter(*args, **(kwargs or {}))

    def _enter(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, dropout_p: float
    ) -> Tensor:
        step = self.module.num_key_value_groups if self.module.new_decoder_architecture else 1
        z, _ = dispatch.enter(
            "sdpa", self.module, query, key[:, ::step], value[:, ::step], attn_mask,
            scaling=self.module.inv_norm_factor, is_causal=is_causal, dropout=dropout_p,
        )  # fmt: skip
        return z.transpose(1, 2).contiguous()


def _kernel(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, is_causal: bool, **_: Any
) -> tuple[Tensor, None]:
    """The class's own call: grouped Falcons repeat keys and values for their query heads, multi-query ones do not."""
    own: Any = module
    if own.new_decoder_architecture:
        key, value = (x.repeat_interleave(own.num_key_value_groups, dim=1) for x in (key, value))
    z = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal)
    return z.transpose(1, 2), None


def _forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if not dispatch.in_pass(self):
        return type(self).forward(self, *args, **kwargs)
    catch = _Catch(self)
    with catch:
        output = type(self).forward(self, *args, **kwargs)
    return output


def _install(module: nn.Module) -> None:
    """Route one FalconAttention through the dispatch."""
    own: Any = module
    own.num_key_value_groups = own.num_heads // own.num_kv_heads  # the name that transformers' own functions read
    place(module, "forward", _forward)
    dispatch.lend(module, eager_attention_forward, _kernel)


layout = Layout("falcon", ("FalconAttention",), _install, path="sdpa")
