"""What removing a head at chosen events alone changes: the loss there, and on the tokens behind.

Removed means that the head's output at the event's position, and nowhere else, is its mean over the sampled events (mean
ablation). Each event is a run of its own. Tokens before the event cannot change in a causal model, nor can layers before the
head's: a window is read once for all of its events, and a run then computes the event's token and those behind it, from the
head's layer on (`headatlas.model.runs.cached_forward` says why that is exact). The first run of a model is compared with
a whole one; where they differ, or runs cannot start at a layer, all runs are whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import Mean
from headatlas.errors import HeadAtlasError, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.model.runs.cached_forward import PartialForward
from headatlas.model.runs.cached_run import CachedRun, cache_run
from headatlas.ops import stats
from headatlas.ops.types import Array, LayerKey
from headatlas.pages.corpus import Corpus
from headatlas.pages.events import Place
from headatlas.progress import Progress, Silent
from headatlas.task import Batch

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


Jobs = Mapping[Hashable, tuple[HeadId, Sequence[Place]]]


def price(model: Model, corpus: Corpus, jobs: Jobs) -> float:
    """About how many tokens go through the whole model to remove heads at these events."""
    windows: dict[int, int] = {}
    late = 0.0
    for head, places in jobs.values():
        for window, position in places:
            length = _length(corpus, window, position)
            windows[window] = max(windows.get(window, 0), length)
            late += (length - position) * (model.n_layers - head.layer) / model.n_layers if model.restarts else length
    return sum(windows.values()) + late


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
    model: Model, corpus: Corpus, jobs: Jobs, means: Mapping[LayerKey, Tensor], *, progress: Progress | None = None
) -> dict[Hashable, Removal]:
    """Remove heads at events: by name a head with the (window, position) at each of which alone it is removed.

    means: (stack, layer) -> [head, d_value]. Raises UnsupportedModel for a model without a next-token loss.
    """
    demand_loss(model)
    progress = progress or Silent()
    total = sum(len(places) for _, places in jobs.values())
    result = {name: Removal(*(np.full(len(places), np.nan) for _ in range(2))) for name, (_, places) in jobs.items()}
    by_window: dict[int, dict[HeadId, list[tuple[Hashable, int, int]]]] = {}
    for name, (head, places) in jobs.items():
        for number, (window, position) in enumerate(places):
            by_window.setdefault(window, {}).setdefault(head, []).append((name, number, position))
    trust: bool | None = None if model.restarts and model.stacks == ("decoder",) else False
    for window in sorted(by_window):
        asked = by_window[window]
        last = max(_length(corpus, window, position) for events in asked.values() for _, _, position in events)
        part = _Window(model, corpus, window, last, means)
        for head, events in asked.items():
            positions = torch.tensor([position for _, _, position in events])
            for some in torch.arange(len(events)).split(max(1, AT_ONCE // (AFTER + 1 if trust else last))):
                if trust is None:
                    trust = part.agrees(head, positions[some][:1])
                change = part.changed(head, positions[some], late=trust)
                for i, row in zip(some.tolist(), change, strict=True):
                    name, number, _ = events[i]
                    result[name].there[number] = row[0]
                    result[name].after[number] = np.nanmean(row[1:]) if not np.isnan(row[1:]).all() else np.nan
                progress.advance(STEP, len(some), total)
    return result


class _Window:
    """The events of one window, whose clean run is kept."""

    def __init__(
        self, model: Model, corpus: Corpus, window: int, length: int, means: Mapping[LayerKey, Tensor]
    ) -> None:
        self.model, self.means, self.length = model, means, length
        whole = corpus.batch([window])
        self.batch = Batch(whole.tokens[:, :length], whole.mask[:, :length])
        everywhere = torch.arange(length - 1)[None]
        if model.restarts:
            self.run, logits = cache_run(model, self.batch, logit_positions=everywhere)
        else:
            logits = model.forward(self.batch, logit_positions=everywhere)
        self.clean = _losses(logits, self.batch.tokens, everywhere)[0]

    def changed(self, head: HeadId, positions: Tensor, *, late: bool) -> Array:
        """[event, 1 + AFTER] change of the loss at each event and behind it, NaN past the window's end; positions [event]."""
        n, key = len(positions), (head.stack, head.layer)
        read = positions[:, None] + torch.arange(AFTER + 1)
        read = torch.where(read < self.length - 1, read, -1)
        removed = Mean([head], {key: self.means[key].to(self.model.device)}, positions=positions[:, None])
        if late:
            computed = PartialForward(_repeated(self.run, n), 1, read, key, read).logits(self.model, [removed])[0]
        else:
            batch = Batch(self.batch.tokens.expand(n, -1), self.batch.mask.expand(n, -1))
            computed = self.model.forward(batch, edits=[removed], logit_positions=read)
        losses = _losses(computed, self.batch.tokens.expand(n, -1), read)
        change: Array = (losses - self.clean[read.clamp(min=0)]).double().numpy()
        return change

    def agrees(self, head: HeadId, positions: Tensor) -> bool:
        """Whether late tokens computed alone give what a whole run gives."""
        try:
            late = self.changed(head, positions, late=True)
        except (HeadAtlasError, ValueError, TypeError, RuntimeError, AttributeError, LookupError):
            return False  # the model's own code stumbled over a sequence without its beginning
        whole = self.changed(head, positions, late=False)
        half = self.model.dtype not in (torch.float32, torch.float64)
        return bool(np.nanmax(np.abs(late - whole)) <= (5e-2 if half else 1e-4))


def _repeated(run: CachedRun, n: int) -> CachedRun:
    """A run of one example as one of `n` like it; nothing is copied."""
    attention = {
        key: replace(one, k=one.k.expand(n, -1, -1, -1), v=one.v.expand(n, -1, -1, -1))
        for key, one in run.attention.items()
    }
    residuals = {key: x.expand(n, -1, -1) for key, x in run.residuals.items()}
    return replace(
        run, tokens=run.tokens.expand(n, -1), mask=run.mask.expand(n, -1), residuals=residuals, attention=attention
    )


def _losses(logits: Tensor, tokens: Tensor, read: Tensor) -> Tensor:
    """[event, n] loss in nats of the token behind each position in `read` [event, n]; NaN where that is -1."""
    wanted = tokens.gather(1, (read + 1).clamp(min=0)).to(logits.device)
    found = -logits.float().log_softmax(-1).gather(-1, wanted[..., None])[..., 0].cpu()
    return found.masked_fill(read < 0, torch.nan)
