"""A finished run, kept so that later runs need not compute again what they share with it.

Kept are the residual stream at the entry of each block, which lets a changed run start at the first changed layer, and
what each attention layer was given, which lets it compute late tokens alone; `cached_forward` says why that is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headatlas.model.core.forward_pass import Tap
from headatlas.model.core.model import Model
from headatlas.model.core.pass_context import TokenBatch, Tokens
from headatlas.model.core.view import LayerView
from headatlas.ops.types import LayerKey

AT_ONCE = 8192  # tokens a pass of long texts; a mask of all their pairs at once would not fit


@dataclass(frozen=True)
class CachedAttention:
    """What one attention layer was given in a cached run: keys, values [example, group, key, d], mask and position biases.

    mask and biases: [example or 1, head or 1, query or 1, key], None and empty where there were none. Where the run was
    cached for some queries, they have these queries' rows only. causal: the call was causal without a mask.
    """

    k: Tensor
    v: Tensor
    mask: Tensor | None
    causal: bool
    biases: dict[str, Tensor]

    @classmethod
    def of(cls, layer: LayerView) -> CachedAttention:
        """What the call of a view was given. Position biases (T5, ALiBi) are known by their shape: they end in the keys."""
        biases = {
            name: value
            for name, value in layer.kwargs.items()
            if isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] == layer.n_keys
        }
        return cls(layer.k, layer.v, layer.mask, layer.causal_flag, biases)

    def rows(self, rows: slice | Tensor) -> CachedAttention:
        """Of some examples."""
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[rows]
        biases = {name: bias if len(bias) == 1 else bias[rows] for name, bias in self.biases.items()}
        return CachedAttention(self.k[rows], self.v[rows], mask, self.causal, biases)

    def cut(self, queries: Tensor, known: dict[int, tuple[Tensor, Tensor]]) -> CachedAttention:
        """With the mask and biases of the queries at positions [example, r] alone, causality written out as a mask.

        known: masks that were cut before, by identity, since layers share them; each beside the mask that it was cut from,
        which so stays alive and keeps its identity.
        """
        if self.mask is None:
            mask = causal_rows(queries, self.k.shape[2])
            if not self.causal:
                mask = torch.ones_like(mask)
        else:
            if id(self.mask) not in known:
                known[id(self.mask)] = self.mask, rows_at(self.mask, queries)
            mask = known[id(self.mask)][1]
        biases = {name: rows_at(bias, queries) for name, bias in self.biases.items()}
        return CachedAttention(self.k, self.v, mask, False, biases)

    @property
    def bytes(self) -> int:
        """Memory held; masks and biases are shared between layers and examples, and left out."""
        return self.k.numel() * self.k.element_size() + self.v.numel() * self.v.element_size()


@dataclass
class CachedRun:
    """A finished run: tokens and mask [example, pos]; by (stack, layer) the residual stream at the block's entry, and attention.

    positions: [example, r] consecutive tokens, -1 for fillers behind them, to which the residual stream [example, r, d_model]
    and the rows of masks and biases were cut; None: all.
    """

    tokens: Tensor
    mask: Tensor
    positions: Tensor | None = None
    residuals: dict[LayerKey, Tensor] = field(default_factory=dict)
    attention: dict[LayerKey, CachedAttention] = field(default_factory=dict)
    encoder: Tokens | None = None  # what an encoder-decoder's encoder read, where the tokens are its decoder's

    def rows(self, rows: slice | Tensor) -> CachedRun:
        """The run of some examples."""
        return CachedRun(
            self.tokens[rows],
            self.mask[rows],
            None if self.positions is None else self.positions[rows],
            {key: x[rows] for key, x in self.residuals.items()},
            {key: attention.rows(rows) for key, attention in self.attention.items()},
            None if self.encoder is None else self.encoder.each(lambda x: x[rows]),
        )

    def residual(self, key: LayerKey, positions: Tensor | None) -> Tensor:
        """[example, r, d_model] the stream at the entry of a block, at tokens `positions` [example, r] (None: all)."""
        found = self.residuals[key]
        if positions is None:
            assert self.positions is None, "the stream was cached for some tokens only"
            return found
        index = self.index_of(positions)
        return found.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, found.shape[-1]))

    def index_of(self, positions: Tensor) -> Tensor:
        """Which cached row the tokens at positions [example, r] have, since cached tokens are consecutive; -1 stays."""
        if self.positions is None:
            return positions
        return torch.where(positions < 0, -1, positions - self.positions[:, :1])

    @property
    def bytes(self) -> int:
        """Memory held."""
        residuals = sum(value.numel() * value.element_size() for value in self.residuals.values())
        return residuals + sum(attention.bytes for attention in self.attention.values())


def causal_rows(queries: Tensor, n_keys: int) -> Tensor:
    """[example, 1, r, key] whether a key stands at or before the query, for queries at positions [example, r]."""
    return torch.arange(n_keys, device=queries.device) <= queries.clamp(min=0)[:, None, :, None]


def rows_at(whole: Tensor, queries: Tensor) -> Tensor:
    """Rows of a mask or bias [example or 1, head or 1, query or 1, key] at queries [example, r], -1 for fillers."""
    if whole.shape[2] == 1:  # the same row for every query
        return whole
    rows = whole.expand(len(queries), -1, -1, -1)
    index = queries.clamp(min=0)[:, None, :, None]
    return rows.gather(2, index.expand(-1, rows.shape[1], -1, rows.shape[3]))


def cache_run(
    model: Model,
    batch: TokenBatch,
    *,
    logit_positions: Tensor | None = None,
    attention: bool = True,
    positions: Tensor | None = None,
) -> tuple[CachedRun, Tensor]:
    """Run the model on a batch and keep what later runs start from; also the logits of this run.

    attention: keep keys and values too, so that late tokens can be computed alone. positions: [example, r] keep the residual
    stream of these tokens only (see `CachedRun`), for later runs that compute no others; long texts then run a few at a time.
    """
    if positions is None:
        return _run(model, batch, logit_positions, attention, None)
    size = max(1, AT_ONCE // batch.tokens.shape[1])
    parts = []
    for start in range(0, len(batch.tokens), size):
        rows = slice(start, start + size)
        part = Tokens.of(batch).each(lambda x, rows=rows: x[rows])  # type: ignore[misc]
        wanted = (
            logit_positions[rows]
            if logit_positions is not None and len(logit_positions) == len(batch.tokens)
            else logit_positions
        )
        parts.append(_run(model, part, wanted, attention, positions[rows].to(model.device)))
    return _joined([run for run, _ in parts]), torch.cat([logits for _, logits in parts])


def _run(
    model: Model, batch: TokenBatch, logit_positions: Tensor | None, attention: bool, positions: Tensor | None
) -> tuple[CachedRun, Tensor]:
    given = Tokens.of(batch).each(lambda x: x.to(model.device))
    run = CachedRun(given.tokens, given.mask, positions, encoder=given.encoder)
    known: dict[int, tuple[Tensor, Tensor]] = {}

    def keep_residual(key: LayerKey, x: Tensor) -> None:
        if positions is not None:
            x = x.gather(1, positions.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))
        run.residuals[key] = x

    def keep_attention(layer: LayerView) -> None:
        if attention:
            given = CachedAttention.of(layer)
            run.attention[layer.stack, layer.index] = given if positions is None else given.cut(positions, known)

    tap = Tap([(layer.stack, layer.index) for layer in model.layers], keep_residual)
    logits = model.forward(batch, watch=keep_attention, edits=[tap], logit_positions=logit_positions)
    return run, logits


def _joined(parts: Sequence[CachedRun]) -> CachedRun:
    """Runs of several pieces of a batch as one; each part lets go of a layer as soon as it is joined."""
    if len(parts) == 1:
        return parts[0]
    tokens, mask, positions = (
        torch.cat([getattr(one, name) for one in parts]) for name in ("tokens", "mask", "positions")
    )
    whole = CachedRun(tokens, mask, positions)
    for key in list(parts[0].residuals):
        whole.residuals[key] = torch.cat([one.residuals.pop(key) for one in parts])
    for key in list(parts[0].attention):
        layers = [one.attention.pop(key) for one in parts]
        k, v = (torch.cat([getattr(one, name) for one in layers]) for name in ("k", "v"))
        masks = [one.mask.expand(len(one.k), -1, -1, -1) for one in layers if one.mask is not None]
        biases = {
            name: torch.cat([one.biases[name].expand(len(one.k), -1, -1, -1) for one in layers])
            for name in layers[0].biases
        }
        whole.attention[key] = CachedAttention(k, v, torch.cat(masks) if masks else None, False, biases)
    return whole
