"""Running part of a model again: from a layer on, for late tokens only, in several copies, with few logits.

A finished run is kept: the residual stream at the entry of each block and what each attention layer saw. A changed run
then enters at the first changed layer. Where nothing before some token changes, the keys and values of earlier tokens
are those of the kept run, and only the later tokens are computed: their attention calls get the kept keys and values
with their own put in place, and their rows of the kept mask and position bias.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.forward_pass import Edit, Pass, Tap
from headatlas.model.core.model import Model
from headatlas.model.core.unembedding import unembedding_of
from headatlas.model.core.view import LayerView

AT_ONCE = 8192  # tokens a pass of long texts; a mask of all their pairs at once would not fit


@dataclass(frozen=True)
class CachedAttention:
    """What one attention layer saw in a kept run: keys, values [example, group, key, d], mask and position biases.

    Where the run was kept for a window of queries, mask and biases have their rows only.
    """

    k: Tensor
    v: Tensor
    mask: Tensor | None
    causal: bool  # whether the call was causal without a mask
    biases: dict[str, Tensor]

    @classmethod
    def of(cls, layer: LayerView) -> CachedAttention:
        """What the call of a view was given."""
        biases = {
            name: value
            for name, value in layer._kwargs.items()
            if isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] == layer.n_keys
        }
        causal = layer._mask is None and layer._pass.path == "sdpa" and layer._is_causal_call()
        return cls(layer.k, layer.v, layer._mask, causal, biases)

    def rows(self, rows: slice) -> CachedAttention:
        """Of some examples."""
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[rows]
        biases = {name: bias if len(bias) == 1 else bias[rows] for name, bias in self.biases.items()}
        return CachedAttention(self.k[rows], self.v[rows], mask, self.causal, biases)

    def cut(self, window: Tensor, known: dict[int, tuple[Tensor, Tensor]]) -> CachedAttention:
        """With the mask and biases of the queries in window [example, r] alone; known: masks cut before, which layers share."""
        if self.mask is None:
            mask = _backwards(window, self.k.shape[2])
            if not self.causal:
                mask = torch.ones_like(mask)
        else:
            if id(self.mask) not in known:
                known[id(self.mask)] = self.mask, rows_at(self.mask, window)
            mask = known[id(self.mask)][1]
        biases = {name: rows_at(bias, window) for name, bias in self.biases.items()}
        return CachedAttention(self.k, self.v, mask, False, biases)

    @property
    def bytes(self) -> int:
        """Memory held; masks and biases are shared between layers and examples, and left out."""
        return self.k.numel() * self.k.element_size() + self.v.numel() * self.v.element_size()


@dataclass
class CachedRun:
    """A finished run: tokens, mask and position ids [example, pos]; the residual stream by (stack, layer); attention.

    window: [example, r] consecutive tokens, -1 for fillers behind them, to which the residual stream was cut; None: all.
    """

    tokens: Tensor
    mask: Tensor
    window: Tensor | None = None
    residuals: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    seen: dict[tuple[str, int], CachedAttention] = field(default_factory=dict)

    @property
    def position_ids(self) -> Tensor:
        """[example, pos] as the model counts them: padding on the left is left out."""
        if bool(self.mask[:, 0].all()):
            return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand(len(self.tokens), -1)
        return (self.mask.long().cumsum(-1) - 1).clamp(min=0)

    def rows(self, rows: slice) -> CachedRun:
        """The run of some examples."""
        window = None if self.window is None else self.window[rows]
        return CachedRun(
            self.tokens[rows], self.mask[rows], window,
            {place: x[rows] for place, x in self.residuals.items()},
            {place: seen.rows(rows) for place, seen in self.seen.items()},
        )  # fmt: skip

    def residual(self, place: tuple[str, int], columns: Tensor | None) -> Tensor:
        """[example, r, d_model] the stream at the entry of a block, at tokens `columns` [example, r] (None: all)."""
        found = self.residuals[place]
        if columns is None:
            assert self.window is None, "the stream was kept for some tokens only"
            return found
        index = self.within(columns)
        return found.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, found.shape[-1]))

    def within(self, columns: Tensor) -> Tensor:
        """Tokens [example, r] counted from the window's first; -1 stays."""
        if self.window is None:
            return columns
        return torch.where(columns < 0, -1, columns - self.window[:, :1])

    @property
    def bytes(self) -> int:
        """Memory held."""
        residuals = sum(value.numel() * value.element_size() for value in self.residuals.values())
        return residuals + sum(seen.bytes for seen in self.seen.values())


def attend_again(layer: LayerView, *, q: Tensor | None = None, k: Tensor | None = None) -> Tensor:
    """What a layer's attention would have given for other queries or keys, [example, pos, head, d_value], by its own code.

    q, k: in the shapes of the view's. Where something lies between the attention and z, it is not included.
    """
    q, k = layer.q if q is None else q, layer.k if k is None else k
    return LayerView(layer.attention, q, k, layer.v, layer._mask, layer._kwargs, layer._pass).compute()


def _backwards(queries: Tensor, n_keys: int) -> Tensor:
    """[example, 1, r, key] whether a key stands at or before the query, for queries [example, r]."""
    return torch.arange(n_keys, device=queries.device) <= queries.clamp(min=0)[:, None, :, None]


def rows_at(whole: Tensor, queries: Tensor) -> Tensor:
    """Rows of a mask or bias [example or 1, head or 1, query or 1, key] at queries [example, r], -1 for fillers."""
    if whole.shape[2] == 1:
        return whole
    rows = whole.expand(len(queries), -1, -1, -1)
    index = queries.clamp(min=0)[:, None, :, None]
    return rows.gather(2, index.expand(-1, rows.shape[1], -1, rows.shape[3]))


def cache_run(
    model: Model,
    batch: Any,
    *,
    logit_positions: Tensor | None = None,
    attention: bool = True,
    window: Tensor | None = None,
) -> tuple[CachedRun, Tensor]:
    """Run the model on a batch and keep what later runs start from; also the logits of this run.

    attention: keep keys and values too, so that late tokens can be computed alone. window: keep the residual stream of these
    tokens only (see `CachedRun`), for later runs that compute no others; long texts then run a few at a time.
    """
    if window is None:
        return _keep(model, batch, logit_positions, attention, None)
    size = max(1, AT_ONCE // batch.tokens.shape[1])
    parts = []
    for start in range(0, len(batch.tokens), size):
        rows = slice(start, start + size)
        part = SimpleNamespace(tokens=batch.tokens[rows], mask=batch.mask[rows])
        wanted = (
            logit_positions[rows]
            if logit_positions is not None and len(logit_positions) == len(batch.tokens)
            else logit_positions
        )
        parts.append(_keep(model, part, wanted, attention, window[rows].to(model.device)))
    return _joined([kept for kept, _ in parts]), torch.cat([logits for _, logits in parts])


def _keep(
    model: Model, batch: Any, logit_positions: Tensor | None, attention: bool, window: Tensor | None
) -> tuple[CachedRun, Tensor]:
    kept = CachedRun(batch.tokens.to(model.device), batch.mask.to(model.device), window)
    known: dict[int, tuple[Tensor, Tensor]] = {}

    def enter(place: tuple[str, int], x: Tensor) -> None:
        if window is not None:
            x = x.gather(1, window.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))
        kept.residuals[place] = x

    def watch(layer: LayerView) -> None:
        if attention:
            seen = CachedAttention.of(layer)
            kept.seen[layer.stack, layer.index] = seen if window is None else seen.cut(window, known)

    tap = Tap([(layer.stack, layer.index) for layer in model.layers], enter)
    logits = model.forward(batch, watch=watch, edits=[tap], logit_positions=logit_positions)
    return kept, logits


def _joined(parts: Sequence[CachedRun]) -> CachedRun:
    """Runs of several pieces of a batch as one; each part lets go of a layer as soon as it is joined."""
    if len(parts) == 1:
        return parts[0]
    tokens, mask, window = (torch.cat([getattr(one, name) for one in parts]) for name in ("tokens", "mask", "window"))
    whole = CachedRun(tokens, mask, window)
    for place in list(parts[0].residuals):
        whole.residuals[place] = torch.cat([one.residuals.pop(place) for one in parts])
    for place in list(parts[0].seen):
        seen = [one.seen.pop(place) for one in parts]
        k, v = (torch.cat([getattr(one, name) for one in seen]) for name in ("k", "v"))
        masks = [one.mask.expand(len(one.k), -1, -1, -1) for one in seen if one.mask is not None]
        biases = {
            name: torch.cat([one.biases[name].expand(len(one.k), -1, -1, -1) for one in seen])
            for name in seen[0].biases
        }
        whole.seen[place] = CachedAttention(k, v, torch.cat(masks) if masks else None, False, biases)
    return whole


@dataclass(frozen=True)
class PartialForward:
    """How a changed run is made: from which block, for which tokens, in how many copies of the examples, for which logits.

    place: (stack, layer) whose block is entered with the kept residual stream, None for the whole model.
    columns: [example, r] the tokens to compute, each row increasing, -1 for fillers; None for all.
    logit_positions: [example, n] positions in the whole sequence whose logits are wanted.
    tokens: [m] ids whose logits are wanted, None for all.
    """

    kept: CachedRun
    copies: int
    logit_positions: Tensor
    place: tuple[str, int] | None = None
    columns: Tensor | None = None
    tokens: Tensor | None = None

    def logits(self, model: Model, edits: Sequence[Edit]) -> Tensor:
        """Logits [copy, example, n, vocabulary or m] under edits, which see the copies one after the other as one batch."""
        model.require_edits(edits)
        columns, kept = self.columns, self.kept
        if columns is None:
            where = self._repeat(self.logit_positions)
            batch = SimpleNamespace(tokens=self._repeat(kept.tokens), mask=self._repeat(kept.mask))
            with few_logits(model, self.tokens):
                found = model.forward(batch, edits=edits, start_at=self._start(model, None), logit_positions=where)
        else:
            found = self._late(model, edits, columns)
        return found.unflatten(0, (self.copies, -1))

    def _late(self, model: Model, edits: Sequence[Edit], columns: Tensor) -> Tensor:
        """The same for chosen tokens only."""
        safe = columns.clamp(min=0)
        inputs: dict[str, Any] = {"input_ids": self._repeat(self.kept.tokens.gather(1, safe))}
        if "position_ids" in model._accepts:
            inputs["position_ids"] = self._repeat(self.kept.position_ids.gather(1, safe))
        wanted = (columns[:, None, :] == self.logit_positions[:, :, None]).long()
        if not bool((wanted.sum(-1) == 1)[self.logit_positions >= 0].all()):
            raise BadInput(
                "Logits are wanted at tokens that are not computed.", "Let `columns` hold every position asked."
            )
        current = SuffixPass(model, edits, self.kept, columns, self.copies)
        with few_logits(model, self.tokens), torch.no_grad():
            return model.run(inputs, current, self._start(model, columns), self._repeat(wanted.argmax(-1)))

    def _start(self, model: Model, columns: Tensor | None) -> tuple[int, Tensor] | None:
        if self.place is None:
            return None
        return model.block_index(*self.place), self._repeat(self.kept.residual(self.place, columns))

    def _repeat(self, x: Tensor) -> Tensor:
        return x if self.copies == 1 else x.repeat(self.copies, *[1] * (x.ndim - 1))


class SuffixPass(Pass):
    """A forward pass over some late tokens of sequences whose earlier tokens were read by a kept run."""

    def __init__(self, model: Model, edits: Sequence[Edit], kept: CachedRun, columns: Tensor, copies: int) -> None:
        super().__init__(
            model.layers, view_type=LayerView, path=model.path, valid={}, watch=None, edits=edits,
            unembedding=model.unembedding, fast=model.fast, block_bytes=model.block_bytes,
        )  # fmt: skip
        self.kept, self.columns, self.copies = kept, columns, copies
        self._masks: dict[int, Tensor | None] = {}  # by identity of the kept mask, which layers share

    def look(
        self,
        layer: AttentionLayer,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
    ) -> LayerView:
        """The view of the call as it would be within the whole sequence."""
        seen = self.kept.seen[layer.stack, layer.index]
        kwargs = {**kwargs, **{name: self._rows(bias) for name, bias in seen.biases.items()}}
        if "is_causal" in kwargs:
            kwargs["is_causal"] = False  # the mask says it
        return super().look(
            layer, query, self._whole(seen.k, key), self._whole(seen.v, value), self._mask(seen), kwargs
        )

    @property
    def _cols(self) -> Tensor:
        assert self.columns is not None
        return self.columns

    def _whole(self, old: Tensor, new: Tensor) -> Tensor:
        """CachedRun keys or values with the new tokens' own in place; fillers go to a column that is cut off."""
        length = old.shape[2]
        filled = bool((self._cols < 0).any())
        whole = torch.nn.functional.pad(old, (0, 0, 0, 1)) if filled else old
        whole = whole.repeat(self.copies, 1, 1, 1)
        index = torch.where(self._cols < 0, length, self._cols).repeat(self.copies, 1)[:, None, :, None]
        return whole.scatter_(2, index.expand(-1, whole.shape[1], -1, whole.shape[3]), new)[:, :, :length]

    def _rows(self, whole: Tensor) -> Tensor:
        """The new tokens' rows of a mask or bias [example or 1, head or 1, query or 1, key], for every copy."""
        whole = rows_at(whole, self.kept.within(self._cols))
        return whole if len(whole) == 1 else whole.repeat(self.copies, 1, 1, 1)

    def _mask(self, seen: CachedAttention) -> Tensor | None:
        key = id(seen.mask)
        if key not in self._masks:
            if seen.mask is not None:
                mask = self._rows(seen.mask)
            elif seen.causal:
                mask = _backwards(self._cols, seen.k.shape[2]).repeat(self.copies, 1, 1, 1)
            else:
                mask = None
            # A single last token that sees everything needs no mask, and faster kernels then serve it.
            if mask is not None and mask.dtype == torch.bool and mask.shape[2] == 1 and bool(mask.all()):
                mask = None
            self._masks[key] = mask
        return self._masks[key]


@contextlib.contextmanager
def few_logits(model: Model, tokens: Tensor | None) -> Iterator[None]:
    """Let the unembedding compute the logits of some tokens only."""
    head = unembedding_of(model.hf)
    if tokens is None or head is None:
        yield
        return
    tokens = tokens.to(model.device)
    plain = type(head) is nn.Linear and "forward" not in head.__dict__ and head.weight.is_floating_point()
    if plain and isinstance(head, nn.Linear):
        weight, bias = head.weight[tokens], head.bias[tokens] if head.bias is not None else None
        few: Callable[[Tensor], Tensor] = lambda x: torch.nn.functional.linear(x, weight, bias)  # noqa: E731
        head.__dict__["forward"] = few
        try:
            yield
        finally:
            del head.__dict__["forward"]
        return
    handle = head.register_forward_hook(lambda _, __, output: output[..., tokens])
    try:
        yield
    finally:
        handle.remove()
