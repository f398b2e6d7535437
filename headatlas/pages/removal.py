"""What removing a head at chosen events alone changes: the loss there, and on the tokens behind.

Removed means that the head's output at the event's position, and nowhere else, is its mean over the sampled events (mean
ablation). Each event is a run of its own, from the head's layer on; what the layers before compute is the same with and
without. Tokens before the event cannot change in a causal model, and those far behind are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import Mean
from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.model.core.forward_pass import Tap
from headatlas.ops import stats
from headatlas.ops.types import Array, LayerKey
from headatlas.pages.corpus import Corpus
from headatlas.pages.events import Place
from headatlas.progress import Progress, Silent

EVENTS = 32  # of a group, at most
AFTER = 32  # tokens behind an event on which the loss is taken too
AT_ONCE = 2048  # tokens of a pass
STEP = "removals"


@dataclass(frozen=True)
class Removal:
    """Change of the loss, in nats, with a head removed at events. there [event]: at the event (of the token that follows it);
    after [event]: mean over the next AFTER tokens, NaN where there are none.
    """

    there: Array
    after: Array

    @property
    def data(self) -> dict[str, Any]:
        """Means with 95% intervals over events, as plain data."""
        found: dict[str, Any] = {"n": len(self.there)}
        for name in ("there", "after"):
            values: Array = getattr(self, name)
            low, high = stats.interval(values[:, None]) if len(values) > 1 else (np.array([np.nan]),) * 2
            mean = stats.mean(values[:, None])[0] if len(values) else np.nan
            found[name] = {"mean": float(mean), "low": float(low[0]), "high": float(high[0])}
        return found


def demand_loss(model: Model) -> None:
    """Raise UnsupportedModel where a model predicts no next token, or attends to what comes after."""
    if not model.has_logits or not all(layer.causal for layer in model.layers):
        raise UnsupportedModel(
            f"{model.name} predicts no next token, so removing a head at an event changes no loss.",
            "Make its pages without that (--no-causal).",
        )


def price(model: Model, head: HeadId, corpus: Corpus, places: Sequence[Place]) -> float:
    """How many tokens go through the whole model to remove a head at these events: each once clean, once from its layer on."""
    depth = model.n_layers
    share = 1 + (depth - head.layer) / depth if model.restarts else 2.0
    return share * sum(_length(corpus, *place) for place in places)


def usable(corpus: Corpus, places: Sequence[Place]) -> list[Place]:
    """The events behind which a token of text follows in their window, EVENTS at most, in the order given."""
    front = len(corpus.front)
    kept = [(window, position) for window, position in places if position + 1 < front + len(corpus.ids(window))]
    return kept[:EVENTS]


def _length(corpus: Corpus, window: int, position: int) -> int:
    """Tokens of a window that are run for an event."""
    return min(len(corpus.front) + len(corpus.ids(window)), position + AFTER + 2)


@torch.no_grad()
def remove_at(
    model: Model,
    corpus: Corpus,
    head: HeadId,
    places: Sequence[Place],
    means: Mapping[LayerKey, Tensor],
    *,
    progress: Progress | None = None,
) -> Removal:
    """Remove a head at each of the events (window, position) alone. means: (stack, layer) -> [head, d_value]. Raises UnsupportedModel."""
    demand_loss(model)
    progress = progress or Silent()
    order = sorted(range(len(places)), key=lambda i: _length(corpus, *places[i]))  # like lengths beside each other
    there, after = np.full(len(places), np.nan), np.full(len(places), np.nan)
    start = 0
    while start < len(order):
        longest, stop = 0, start
        while stop < len(order) and max(longest, _length(corpus, *places[order[stop]])) * (stop + 1 - start) <= AT_ONCE:
            longest, stop = max(longest, _length(corpus, *places[order[stop]])), stop + 1
        chosen = order[start : max(stop, start + 1)]
        at, behind = _removed(model, corpus, head, [places[i] for i in chosen], means)
        there[chosen], after[chosen] = at, behind
        start += len(chosen)
        progress.advance(STEP, len(chosen))
    return Removal(there, after)


def _removed(
    model: Model, corpus: Corpus, head: HeadId, places: Sequence[Place], means: Mapping[LayerKey, Tensor]
) -> tuple[Array, Array]:
    """(change at the event, mean change behind it) of each of a few events, run side by side."""
    windows = [window for window, _ in places]
    lengths = torch.tensor([_length(corpus, *place) for place in places])
    batch = corpus.batch(windows)
    longest = int(lengths.max())
    tokens = batch.tokens[:, :longest]
    mask = torch.arange(longest) < lengths[:, None]
    cut = type(batch)(tokens.where(mask, torch.zeros_like(tokens)), mask)
    position = torch.tensor([place[1] for place in places])
    read = position[:, None] + torch.arange(AFTER + 1)  # positions whose next token is scored
    read = torch.where(read < lengths[:, None] - 1, read, -1)
    read = read[:, : int((read >= 0).sum(1).max())]
    key = (head.stack, head.layer)
    entry: dict[LayerKey, Tensor] = {}
    tap = Tap([key], lambda where, x: entry.update({where: x}))
    clean = _losses(model.forward(cut, edits=[tap], logit_positions=read), cut.tokens, read)
    removed = Mean([head], {key: means[key].to(model.device)}, positions=position[:, None])
    begin = (model.block_index(*key), entry[key]) if model.restarts else None
    changed = _losses(model.forward(cut, edits=[removed], start_at=begin, logit_positions=read), cut.tokens, read)
    change = (changed - clean).double().numpy()
    behind = stats.mean(change[:, 1:].T) if change.shape[1] > 1 else np.full(len(places), np.nan)
    return change[:, 0], behind


def _losses(logits: Tensor, tokens: Tensor, read: Tensor) -> Tensor:
    """[event, n] loss in nats of the token behind each position in `read` [event, n]; NaN where that is -1."""
    wanted = tokens.gather(1, (read + 1).clamp(min=0)).to(logits.device)
    found = -logits.float().log_softmax(-1).gather(-1, wanted[..., None])[..., 0].cpu()
    return found.masked_fill(read < 0, torch.nan)
