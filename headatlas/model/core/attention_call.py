"""One attention call of a layer: what it was given, and the model's own computation on it, whole or for some rows.

Shapes: q [example, head, query, d_head]; k, v [example, group, key, d] with `group` the key/value groups (GQA, MQA): query
head h reads group h // (heads per group), so that a group's heads lie side by side; z [example, query, head, d_value];
attention weights ("rows") [example, head, query, key].

A whole pattern grows with the square of the length, so it is made only on request. Two ways lead to part of it:

- Rows by the model's own eager attention. Each row of attention depends on its own query alone: softmax runs over keys.
  So the eager function is called with some queries, all keys, and these queries' rows of the mask and of biases, in blocks
  that keep to `PassContext.block_bytes`. Where only weights are wanted, one column of the values is enough for the call.
- Weights from the log-sum-exp. The CPU flash kernel returns lse[i] = log sum_j exp(s[i, j]) over the keys j that query i
  may see, s = scale * q.k, beside its output. By the definition of softmax a weight is exp(s[i, j]) / sum_j exp(s[i, j])
  = exp(s[i, j] - lse[i]), so any weight costs one product q.k. That holds where nothing but a mask changes the scores:
  calls with a softcap, a position bias or a sink do not get the kernel, and the self-check compares the two ways on
  every model (they agree to about 1e-5) and turns the kernel off (`Model.fast`) where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model.core import dispatch
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.pass_context import PassContext

STREAMED = 128  # queries a block where rows come from the log-sum-exp: small blocks stay in the processor's cache


class AttentionCall:
    """The arguments of one attention call, and what follows from them.

    attention: the layer. mask: as the model's code made it, boolean (True: may be seen), additive or None, [example or 1,
    head or 1, query or 1, key]. kwargs: the call's other arguments (scaling, is_causal, position_bias ...). context: facts of
    the forward pass. These four, `lse` and what is named by methods here are for code within `headatlas.model`; watchers
    use `LayerView`. lse: [example, head, query] the log-sum-exp of each row's scores, once the fast kernel has run.
    """

    def __init__(
        self,
        attention: AttentionLayer,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
        context: PassContext,
    ) -> None:
        self.attention, self.q, self.k, self.v = attention, q, k, v
        self.mask, self.kwargs, self.context = mask, kwargs, context
        self.lse: Tensor | None = None
        self._pattern: Tensor | None = None
        self._shown: dict[str, tuple[Tensor, int]] = {}  # what was handed out, with its version then
        self._closed = False

    @property
    def n_heads(self) -> int:
        """Number of query heads of this layer."""
        return self.attention.n_heads

    @property
    def n_queries(self) -> int:
        """Number of query positions."""
        return self.q.shape[2]

    @property
    def n_keys(self) -> int:
        """Number of key positions."""
        return self.k.shape[2]

    @property
    def scale(self) -> float:
        """The factor on q.k before the softmax."""
        scaling = self.kwargs.get("scaling")
        return float(scaling) if scaling is not None else self.q.shape[-1] ** -0.5

    @property
    def causal_flag(self) -> bool:
        """Whether the call is causal without a mask: torch's kernel is told so by `is_causal`, as transformers decides it."""
        if self.mask is not None or self.context.path != "sdpa":
            return False
        given = self.kwargs.get("is_causal")
        causal = given if given is not None else getattr(self.attention.module, "is_causal", True)
        return bool(causal) and self.n_queries > 1

    def repeat(self, x: Tensor) -> Tensor:
        """Keys or values per query head: [example, group, key, d] -> [example, head, key, d], each group's heads side by side."""
        return x if x.shape[1] == self.n_heads else x.repeat_interleave(self.n_heads // x.shape[1], dim=1)

    def grouped_queries(self) -> Tensor:
        """Queries as [example, group, head in group, query, d], so that products with k need no copy of k per head."""
        grouped: Tensor = self.q.unflatten(1, (self.k.shape[1], -1))
        return grouped

    # ---- the layer's own computation ----------------------------------------------------------------------------
    def compute(self) -> Tensor:
        """The layer's output before the output projection, [example, query, head, d_value], by the model's own code."""
        if self.context.path == "sdpa":
            fast = self._fast_kernel() if self.context.fast else None
            if fast is not None:
                output, self.lse = fast
                return output.transpose(1, 2).contiguous()
            return dispatch.delegate("sdpa", self.attention.module)(
                self.attention.module, self.q, self.k, self.v, self.mask, **self.kwargs
            )[0]
        pieces = []
        for positions in self._blocks():
            output, rows = self._eager(positions, self.v)
            pieces.append(output)
            if len(positions) == self.n_queries and not self.attention.sink_factor:
                self._pattern = rows
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)

    def _fast_kernel(self) -> tuple[Tensor, Tensor] | None:
        """Output [example, head, query, d] and log-sum-exp [example, head, query] of the CPU flash kernel, or None.

        The same kernel that scaled_dot_product_attention picks on the CPU, called by its own name because it then returns
        the log-sum-exp too. None wherever torch would pick another, or where the scores are more than scale * q.k + mask.
        """
        q, k, v = self.q, self.k, self.v
        grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        plain = not any(self.kwargs.get(name) is not None for name in ("softcap", "position_bias", "s_aux", "sinks"))
        if q.device.type != "cpu" or grad or not plain or q.shape[2] == 1 or q.shape[-1] != v.shape[-1]:
            return None
        causal = self.causal_flag
        # The kernel's own causal mask aligns the first query with the first key; with a cache that would be wrong.
        if causal and q.shape[2] != k.shape[2]:
            return None
        mask = additive(self.mask, q.dtype) if self.mask is not None else None
        if mask is not None and k.shape[1] != q.shape[1]:
            k, v = self.repeat(k), self.repeat(v)  # as transformers does when there is a mask
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=mask, scale=self.kwargs.get("scaling")
        )
        return output, lse

    def from_pattern(self, pattern: Tensor) -> Tensor:
        """z formed from an attention pattern, [example, query, head, d_value]."""
        return torch.matmul(pattern, self.repeat(self.v)).transpose(1, 2).contiguous()

    def set_pattern(self, pattern: Tensor) -> None:
        """Make an edited pattern the one that watchers see."""
        self._pattern, self.lse = pattern, None
        self._shown.pop("pattern", None)

    def close(self) -> None:
        """End of the layer: nothing may be asked any more, and nothing large is held."""
        self._closed = True
        self._pattern = self.lse = None
        self._shown = {}

    # ---- rows ---------------------------------------------------------------------------------------------------
    def _eager(self, positions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own eager attention for the queries at `positions` [n]: z [example, n, head, d], rows [..., n, key]."""
        if self._closed:
            raise BadInput("A LayerView was used after its layer had ended.", "Take what you need inside `watch`.")
        module = self.attention.module
        eager = dispatch.eager_of(module)
        if eager is None:
            raise UnsupportedModel(f"{type(module).__name__} has no eager attention, so its pattern cannot be read.")
        kwargs = dict(self.kwargs)
        bias = kwargs.get("position_bias")
        if bias is not None and bias.shape[-2] == self.n_queries:
            kwargs["position_bias"] = bias[..., positions, :]
        output, rows = eager(module, self.q[:, :, positions], self.k, values, self._mask_rows(positions), **kwargs)
        if rows is None:
            raise UnsupportedModel(f"{type(module).__name__} does not give its attention weights.")
        return output, rows

    def _rows(self, positions: Tensor) -> Tensor:
        """Attention weights of the queries at `positions` [n], [example, head, n, key]: what each key's value is multiplied by.

        Where a sink is a factor on the output (see `weight_passed`), the eager function's rows sum to one, and the factor is put on
        them: they are then those of a softmax with the sink as one logit more.
        """
        if not self.attention.sink_factor:
            return self._eager(positions, self.v[..., :1])[1]
        passed, rows = self.weight_passed(positions)
        return rows * (passed / rows.sum(-1)).unsqueeze(-1).to(rows.dtype)

    def weight_passed(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(how much of each row's weight comes to the output [example, head, n], the eager function's rows [..., n, key]).

        The first is the output for values of one. A sink takes the rest, either as one more logit, so that rows sum to less than
        one, or as a factor sigmoid(log-sum-exp of the scores - sink) on the output, which is the same and leaves rows at one (Granite).
        """
        output, rows = self._eager(positions, torch.ones_like(self.v[..., :1]))
        return output[..., 0].transpose(1, 2), rows

    def _mask_rows(self, positions: Tensor) -> Tensor | None:
        """The additive mask of the queries at `positions`; a causality that only the kernel was told is written out."""
        if self.mask is not None:
            rows = self.mask[..., positions, :] if self.mask.shape[-2] == self.n_queries else self.mask
            return additive(rows, self.q.dtype)
        if self.causal_flag:
            seen = torch.arange(self.n_keys, device=self.q.device) <= positions[:, None]
            return additive(seen[None, None], self.q.dtype)
        return None

    def allowed(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether query i may see key j, for index tensors [example or 1, ...] of one shape; [example or 1, 1 or head, ...].

        For calls that went through the fast kernel, where mask and flag are all there is.
        """
        if self.mask is None:
            allowed = keys <= queries if self.causal_flag else torch.ones_like(keys, dtype=torch.bool)
            return allowed.unsqueeze(1)
        mask = self.mask.expand(max(len(queries), len(self.mask)), *self.mask.shape[1:])
        example = torch.arange(len(mask), device=mask.device).view(-1, *[1] * (queries.ndim - 1))
        rows = queries if mask.shape[2] == self.n_queries else torch.zeros_like(queries)
        picked = mask[example, :, rows, keys].movedim(-1, 1)
        return picked if picked.dtype == torch.bool else picked > torch.finfo(picked.dtype).min / 2

    def block_size(self) -> int:
        """How many rows of attention may exist at once."""
        row = len(self.q) * self.n_heads * self.n_keys * 4
        return max(1, min(self.n_queries, self.context.block_bytes // max(row, 1)))

    def _blocks(self) -> Iterator[Tensor]:
        yield from torch.arange(self.n_queries, device=self.q.device).split(self.block_size())

    def rows(self, positions: Tensor) -> Tensor:
        """Attention weights of the queries at `positions` ([n] shared, or [example, n]): [example, head, n, key]."""
        if self._pattern is not None:
            if positions.ndim == 1:
                return self._pattern[:, :, positions]
            index = positions[:, None, :, None].expand(-1, self.n_heads, -1, self.n_keys)
            return self._pattern.gather(2, index)
        if positions.ndim == 1:
            return self._rows(positions)
        parts = [self._one(example).rows(row)[0] for example, row in enumerate(positions)]
        return torch.stack(parts)

    def _one(self, example: int) -> AttentionCall:
        """The same call for one example of the batch."""
        pick = slice(example, example + 1)
        mask = self.mask[pick] if self.mask is not None and len(self.mask) == len(self.q) else self.mask
        kwargs = {
            name: value[pick] if isinstance(value, Tensor) and value.ndim == 4 and len(value) == len(self.q) else value
            for name, value in self.kwargs.items()
        }
        return AttentionCall(self.attention, self.q[pick], self.k[pick], self.v[pick], mask, kwargs, self.context)

    @property
    def pattern(self) -> Tensor:
        """All attention weights, [example, head, query, key]; for short inputs, it grows with the square of the length."""
        if self._pattern is None:
            self._pattern = self._rows(torch.arange(self.n_queries, device=self.q.device))
        return self.shown("pattern", self._pattern)

    # ---- what is handed out is for reading ------------------------------------------------------------------------
    def shown(self, name: str, value: Tensor) -> Tensor:
        """`value` itself, whose version is noted: torch counts the writes into a tensor, through all views of it."""
        if name not in self._shown and not value.is_inference():  # under inference_mode nothing is counted
            self._shown[name] = value, value._version
        return value

    def demand_unwritten(self, who: str) -> None:
        """Raise BadInput where something that was handed out has been written into since.

        It is the model's own tensor, or what the next watcher reads: the numbers after a write would be nobody's.
        """
        for name, (value, version) in self._shown.items():
            if value._version != version:
                raise BadInput(
                    f"{who} wrote into {name} of {self.attention.stack} layer {self.attention.index}, which is for reading.",
                    f"Take layer.{name}.clone() to compute with; to change the model, give an edit (headatlas.Zero, Scale ...) "
                    "in edits=.",
                )

    def reduce(self, fn: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Stream all rows in blocks of queries: fn(rows [example, head, n, key], positions [n]) -> [example, head, n, ...].

        The results are joined along the query axis; no more than one block of rows exists at a time. Where every query
        sees only keys at or before itself, the keys after the block's last query, which get nothing, may be left out of
        the rows.
        """
        if self._pattern is not None:
            return fn(self.pattern, torch.arange(self.n_queries, device=self.q.device))
        if self.lse is None:
            return torch.cat([fn(self._rows(block), block) for block in self._blocks()], 2)
        return torch.cat([fn(rows, block) for rows, block in self._streamed(self.lse)], 2)

    def _streamed(self, lse: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of rows from the log-sum-exp, and their queries.

        For each block of n queries: scores = scale * q.k with the scale put on q once; then exp(scores - lse) in place, since
        a block is the largest tensor here; then zero where a query may not see a key. Scores of unseen keys were not in
        the log-sum-exp, so their exponential may be any number, infinity included: they are overwritten, not multiplied
        by zero. In a causal call the first key that no query of the block sees is start + n, so the product stops there;
        the last n columns are a triangle (query start + i sees key start + j where j <= i), all before them are seen.
        """
        q, k = self.grouped_queries() * self.scale, self.k.transpose(-1, -2)
        causal = self.causal_flag
        size = min(self.block_size(), STREAMED)
        for block in torch.arange(self.n_queries, device=q.device).split(size):
            start, n = int(block[0]), len(block)
            seen = start + n if causal else self.n_keys
            # [example, group, head in group x n, d] @ [example, group, d, seen]: one product per group, k is not repeated.
            scores = torch.matmul(q[..., start : start + n, :].flatten(2, 3), k[..., :seen]).float()
            scores = scores.unflatten(2, (-1, n)).flatten(1, 2)  # group and head in group are again the heads in order
            rows = scores.sub_(lse[:, :, start : start + n, None]).exp_()
            if causal:
                rows[..., start:].tril_()
            else:
                keys = torch.arange(self.n_keys, device=q.device).expand(n, -1)
                rows.masked_fill_(~self.allowed(block[None, :, None].expand(1, -1, self.n_keys), keys[None]), 0.0)
            yield rows, block


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as numbers to add to scores; an additive one as it is."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
