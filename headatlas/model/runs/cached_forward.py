"""Running part of a model again: from a layer on, for late tokens only, in several copies, with few logits.

Why a changed run equals a whole one, step by step:

1. Layers before the first changed one. Edits act at given layers; what enters the first of these blocks depends on
   nothing that was changed, so it is the cached run's residual stream. What later blocks need of earlier ones is that stream
   alone (`Model.restarts`, found by the self-check), so the run starts there: `PartialForward.start_layer`.
2. Tokens before the first changed one. In a causal model a token's state, at any depth, depends on tokens at or before it.
   Where nothing before token s changes, all states of tokens before s are the cached run's, in every layer: the causal
   prefix is untouched. Only tokens from s to the last one that is read are computed: `PartialForward.positions`.
3. What late tokens need of early ones. Tokens meet in attention only, and there a query needs of an earlier token its key
   and value. These equal the cached ones by step 2. `SuffixPass` therefore gives each attention call all keys and values of
   the sequence: the cached ones, with those of the computed tokens, which may have changed, written over theirs. Tokens after
   the last computed one keep stale keys and values, which no computed query may see.
4. Masks and biases. A row of attention depends on its own query's row of mask and position bias only, so the cached masks
   and biases are cut to the rows of the computed queries; the key axis stays whole. Where the cached call had no mask but was
   causal by a flag, the mask is written out: the kernel would align the first computed query with key 0.
5. Position ids are those of the whole sequence, so rotary and learned positions are as in the whole run.
6. Fillers. Prompts differ in how many tokens are computed; shorter rows are filled with -1. A filler runs as some token,
   but its key and value go to a column that is cut off, edits never match position -1, and its logits are not asked for.
7. Logits are a product of W_U's columns with a token's own state, so few tokens' logits need few columns (`few_logits`).

Steps 1 and 2 are facts about the edits, which callers must respect. That tokens meet in attention only and that logits
are read one by one is tried out on the model by `headatlas.methods.sweeps.cached_runs`, which runs wholes where it fails.

Copies lie one after the other: row c * n_examples + e is copy c of example e. Everything with an example axis is tiled in
that order by `repeat` (tokens, stream, keys, values, masks), never by `repeat_interleave`, which would pair example 0's
tokens with example 1's mask; edits for several copies split the batch into equal runs of rows. (`repeat_interleave` is right
on the head axis, where the heads of a key/value group lie side by side.) What has one row for all examples stays one row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput
from headatlas.model.core.attention_call import AttentionCall
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.dispatch import begun_here
from headatlas.model.core.forward_pass import Edit, Pass
from headatlas.model.core.linear_and_norm import plain_weight
from headatlas.model.core.model import Model
from headatlas.model.core.pass_context import TokenBatch, Tokens
from headatlas.model.core.unembedding import unembedding_of
from headatlas.model.core.view import LayerView
from headatlas.model.runs.cached_run import CachedAttention, CachedRun, causal_rows, rows_at
from headatlas.ops.types import LayerKey


def attend_again(layer: LayerView, *, q: Tensor | None = None, k: Tensor | None = None) -> Tensor:
    """What a layer's attention would have given for other queries or keys, [example, pos, head, d_value], by its own code.

    q, k: in the shapes of the view's. Where something lies between the attention and z, it is not included.
    """
    q, k = layer.q if q is None else q, layer.k if k is None else k
    return AttentionCall(layer.attention, q, k, layer.v, layer.mask, layer.kwargs, layer.context).compute()


def tiled(x: Tensor, copies: int) -> Tensor:
    """[copy x example, ...] of [example, ...]: the examples in order, then again."""
    return x if copies == 1 else x.repeat(copies, *[1] * (x.ndim - 1))


def inputs_at(model: Model, batch: TokenBatch, positions: Tensor, copies: int) -> dict[str, Any]:
    """The model's own inputs for the tokens at positions [example, r] alone, -1 for fillers, in several copies.

    Position ids are those of the whole sequence as the model counts them: padding on the left is left out.
    """
    tokens, mask, safe = batch.tokens.to(model.device), batch.mask.to(model.device), positions.clamp(min=0)
    inputs: dict[str, Any] = {"input_ids": tiled(tokens.gather(1, safe), copies)}
    if "position_ids" in model.accepts:
        if bool(mask[:, 0].all()):
            ids = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        else:
            ids = (mask.long().cumsum(-1) - 1).clamp(min=0)
        inputs["position_ids"] = tiled(ids.gather(1, safe), copies)
    return inputs


def index_among(positions: Tensor, wanted: Tensor) -> Tensor:
    """[example, n] where wanted [example, n] stand among computed positions [example, r]. Raises BadInput where one does not.

    Negative ones are wanted by nobody and come out as anything.
    """
    found = (positions[:, None, :] == wanted[:, :, None]).long()
    if not bool((found.sum(-1) == 1)[wanted >= 0].all()):
        raise BadInput(
            "Logits are wanted at tokens that are not computed.", "Let `positions` hold every position asked."
        )
    return found.argmax(-1)


@dataclass(frozen=True)
class PartialForward:
    """How a changed run is made: from which block, for which tokens, in how many copies of the examples, for which logits.

    start_layer: (stack, layer) whose block is entered with the cached residual stream, None for the whole model.
    positions: [example, r] the tokens to compute, each row increasing, -1 for fillers; None for all.
    logit_positions: [example, n] positions in the whole sequence whose logits are wanted.
    tokens: [m] ids whose logits are wanted, None for all.
    """

    cached: CachedRun
    copies: int
    logit_positions: Tensor
    start_layer: LayerKey | None = None
    positions: Tensor | None = None
    tokens: Tensor | None = None

    def logits(self, model: Model, edits: Sequence[Edit]) -> Tensor:
        """Logits [copy, example, n, vocabulary or m] under edits, which see the copies one after the other as one batch."""
        edits = model.require_edits(edits)
        start = self._start(model)
        with few_logits(model, self.tokens):
            if self.positions is None:
                batch = Tokens.of(self.cached).each(lambda x: tiled(x, self.copies))
                where = tiled(self.logit_positions, self.copies)
                found = model.forward(batch, edits=edits, start_at=start, logit_positions=where)
            else:
                inputs = inputs_at(model, self.cached, self.positions, self.copies)
                where = tiled(index_among(self.positions, self.logit_positions), self.copies)
                current = SuffixPass(model, edits, self.cached, self.positions, self.copies)
                with torch.no_grad():
                    found = model.run(inputs, current, start, where)
        return found.unflatten(0, (self.copies, -1))

    def _start(self, model: Model) -> tuple[int, Tensor] | None:
        if self.start_layer is None:
            return None
        residual = self.cached.residual(self.start_layer, self.positions)
        return model.block_index(*self.start_layer), tiled(residual, self.copies)


class SuffixPass(Pass):
    """A forward pass over some late tokens of sequences whose earlier tokens were read by a cached run.

    positions: [example, r] the tokens that are computed, -1 for fillers. The batch holds `copies` of the examples.
    """

    def __init__(self, model: Model, edits: Sequence[Edit], cached: CachedRun, positions: Tensor, copies: int) -> None:
        context = model.pass_context(fast=model.fast, query_positions=positions)
        super().__init__(model.layers, context, edits=edits)
        self.cached, self.positions, self.copies = cached, positions, copies
        # Layers share masks: one cut for each, by the identity of the cached mask, which stays alive in `cached`.
        self._masks: dict[tuple[int, bool], Tensor | None] = {}

    def view(
        self,
        layer: AttentionLayer,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
    ) -> LayerView:
        """The view of the call as it would be within the whole sequence: all keys and values, the computed queries.

        query, key, value [copy x example, head or group, r, d] come from the model's code, for the computed tokens alone and
        with positions already turned into them. The mask that came with them knows r keys only and is put aside.
        """
        given = self.cached.attention[layer.stack, layer.index]
        kwargs = {**kwargs, **{name: self._rows(bias) for name, bias in given.biases.items()}}
        if "is_causal" in kwargs:
            kwargs["is_causal"] = False  # the mask says it
        return super().view(
            layer, query, self._whole(given.k, key), self._whole(given.v, value), self._mask(given), kwargs
        )

    def _whole(self, old: Tensor, new: Tensor) -> Tensor:
        """Cached keys or values [example, group, key, d] with the computed tokens' own, new [copy x example, group, r, d], put in.

        The cached ones are tiled to the copies first, since each copy has changes of its own. With fillers, one column more is
        added behind the last key, takes what fillers have, and is cut off again.
        """
        length = old.shape[2]
        filled = bool((self.positions < 0).any())
        whole = torch.nn.functional.pad(old, (0, 0, 0, 1)) if filled else old
        whole = whole.repeat(self.copies, 1, 1, 1)  # always a copy: the cached run is not written to
        index = torch.where(self.positions < 0, length, self.positions).repeat(self.copies, 1)[:, None, :, None]
        return whole.scatter_(2, index.expand(-1, whole.shape[1], -1, whole.shape[3]), new)[:, :, :length]

    def _rows(self, whole: Tensor) -> Tensor:
        """The computed tokens' rows of a mask or bias [example or 1, head or 1, query or 1, key], for every copy."""
        whole = rows_at(whole, self.cached.index_of(self.positions))
        return whole if len(whole) == 1 else whole.repeat(self.copies, 1, 1, 1)

    def _mask(self, given: CachedAttention) -> Tensor | None:
        key = id(given.mask), given.causal
        if key not in self._masks:
            if given.mask is not None:
                mask = self._rows(given.mask)
            elif given.causal:
                mask = causal_rows(self.positions, given.k.shape[2]).repeat(self.copies, 1, 1, 1)
            else:
                mask = None
            # A single last token that sees everything needs no mask, and faster kernels then serve it.
            if mask is not None and mask.dtype == torch.bool and mask.shape[2] == 1 and bool(mask.all()):
                mask = None
            self._masks[key] = mask
        return self._masks[key]


@contextlib.contextmanager
def few_logits(model: Model, tokens: Tensor | None) -> Iterator[None]:
    """Let the unembedding compute the logits of tokens [m] only; None: of all.

    A plain linear map is replaced by one with these rows of its weight. Any other computes all logits and drops the rest.
    That holds for passes begun in here, in this context: not for calls in other threads, nor for what a watcher calls.
    """
    head = unembedding_of(model.hf)
    if tokens is None or head is None:
        yield
        return
    tokens = tokens.to(model.device)
    if type(head) is nn.Linear and plain_weight(head) is not None:
        weight, bias = head.weight[tokens], head.bias[tokens] if head.bias is not None else None

        def few(x: Tensor) -> Tensor:
            if not ours():
                return nn.Linear.forward(head, x)
            return torch.nn.functional.linear(x, weight, bias)

        with model.exclusive(), begun_here() as ours:
            head.__dict__["forward"] = few
            try:
                yield
            finally:
                del head.__dict__["forward"]
        return
    with model.exclusive(), begun_here() as ours:
        handle = head.register_forward_hook(lambda _, __, output: output[..., tokens] if ours() else None)
        try:
            yield
        finally:
            handle.remove()
