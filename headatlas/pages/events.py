"""Chosen events looked at again: the row of attention in its context, and what the head's write there makes likelier.

A window that holds chosen events is read once more, for all of its events together; the numbers are those of that pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import LayerView, Model
from headatlas.model.core.forward_pass import Edit
from headatlas.model.runs.residual_stream import FinalResidual, Writes, decompose
from headatlas.model.structure.blocks import blocks_of
from headatlas.pages.corpus import Corpus
from headatlas.progress import Progress, Silent

BEFORE, BEHIND = 40, 12  # tokens of context that are drawn; behind for heads that look ahead
FAR, FAINTEST = 3, 0.05  # keys outside the context that are named, and the least attention that is worth it
TOKENS = 5  # that a write makes more, and less, likely
STEP = "events"
Place = tuple[int, int]  # window, position


@dataclass(frozen=True)
class Event:
    """One head at one query.

    window, position: where; document: the text's name. tokens, weights: the context and the head's attention to it; query:
    which of these tokens asks. far: (tokens back, token, weight) of strong keys outside the context. following: the token
    that comes next in the text. raised, lowered: (token, logit above the mean over the vocabulary) of the head's write, under the
    final norm's scale of this run (logit lens); empty where the model has no linear read-out.
    """

    window: int
    position: int
    document: str
    query: int
    tokens: tuple[str, ...]
    weights: tuple[float, ...]
    far: tuple[tuple[int, str, float], ...]
    following: str
    raised: tuple[tuple[str, float], ...]
    lowered: tuple[tuple[str, float], ...]

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "tokens": list(self.tokens), "weights": [round(weight, 4) for weight in self.weights]}


@torch.no_grad()
def look_at(
    model: Model,
    corpus: Corpus,
    wanted: Mapping[HeadId, Iterable[Place]],
    *,
    edits: Sequence[Edit] = (),
    progress: Progress | None = None,
) -> dict[tuple[HeadId, Place], Event]:
    """The events of heads at (window, position), each looked at once. Raises UnsupportedModel."""
    progress = progress or Silent()
    by_window: dict[int, dict[int, list[HeadId]]] = {}
    for head, places in wanted.items():
        for window, position in places:
            heads = by_window.setdefault(window, {}).setdefault(position, [])
            if head not in heads:
                heads.append(head)
    found: dict[tuple[HeadId, Place], Event] = {}
    readable = True
    for window in sorted(by_window):
        part = _Window(model, corpus, window, by_window[window])
        if readable:
            try:
                part.read(edits)
            except UnsupportedModel:  # no linear read-out, or writes that do not add up: pages then say so
                readable = False
        if not readable:
            part.watch_only(edits)
        found.update(part.events())
        progress.advance(STEP, 1, len(by_window))
    return found


class _Window:
    """The events of one window."""

    def __init__(self, model: Model, corpus: Corpus, window: int, asked: Mapping[int, list[HeadId]]) -> None:
        self.model, self.corpus, self.window, self.asked = model, corpus, window, asked
        self.batch = corpus.batch([window])
        self.positions = sorted(asked)
        self.rows: dict[tuple[HeadId, int], Tensor] = {}
        self.writes: dict[tuple[HeadId, int], Tensor] = {}
        self.logits: dict[tuple[HeadId, int], Tensor] = {}
        self.causal = True

    def look(self, layer: LayerView) -> None:
        """Take the rows of a layer's heads."""
        mine = {
            p: [h for h in heads if (h.stack, h.layer) == (layer.stack, layer.index)] for p, heads in self.asked.items()
        }
        at = [position for position in self.positions if mine[position]]
        self.causal = layer.causal
        if at:
            rows = layer.rows(torch.tensor(at, device=layer.q.device))[0].float().cpu()  # [head, query, key]
            for i, position in enumerate(at):
                self.rows.update({(head, position): rows[head.head, i] for head in mine[position]})

    def watch_only(self, edits: Sequence[Edit]) -> None:
        """Rows alone."""
        self.rows.clear()
        self.model.forward(self.batch, watch=self.look, edits=edits, logit_positions=torch.zeros(1, dtype=torch.long))

    def read(self, edits: Sequence[Edit]) -> None:
        """Rows and writes. Raises UnsupportedModel."""
        places = torch.tensor([self.positions], device=self.model.device)

        def each(written: Writes) -> None:
            if written.block.attention is None:
                return
            layer = written.block.attention
            for i, position in enumerate(self.positions):
                for head in self.asked[position]:
                    if (head.stack, head.layer) == (layer.stack, layer.index):
                        one = slice(head.head, head.head + 1)
                        z = written.z
                        assert z is not None
                        vector = z[0, i, head.head].float() @ written.block.weight[one][0].float()
                        self.writes[head, position] = (
                            written.block.carried(vector[None, None, None]) * written.scale[:, i : i + 1, None]
                        )[0, 0, 0]

        end = decompose(self.model, blocks_of(self.model), self.batch, places, each, watch=self.look, edits=edits)
        self._read_out(end)

    def _read_out(self, end: FinalResidual) -> None:
        keys = list(self.writes)
        for start in range(0, len(keys), 64):  # [event, vocabulary] at once
            some = keys[start : start + 64]
            scale = torch.stack([end.scale[0, self.positions.index(position)] for _, position in some])
            logits = end.read(torch.stack([self.writes[key] for key in some]), scale)
            up, down = logits.topk(TOKENS), (-logits).topk(TOKENS)
            for i, key in enumerate(some):
                pairs = [(up.indices[i], up.values[i]), (down.indices[i], -down.values[i])]
                self.logits[key] = torch.stack(
                    [torch.stack([ids.double(), values.double()]) for ids, values in pairs]
                ).cpu()

    def events(self) -> dict[tuple[HeadId, Place], Event]:
        """What was found."""
        return {
            (head, (self.window, position)): self._event(head, position)
            for position in self.positions
            for head in self.asked[position]
        }

    def _event(self, head: HeadId, position: int) -> Event:
        pieces, row = self.pieces, self.rows[head, position]
        low = max(0, position - BEFORE)
        high = position + 1 if self.causal else min(len(pieces), position + BEHIND + 1)
        outside = row.clone()
        outside[low:high] = 0
        best = outside.topk(min(FAR, len(row)))
        far = [
            (position - int(key), pieces[int(key)], float(w))
            for w, key in zip(best.values, best.indices, strict=True)
            if w >= FAINTEST
        ]
        sides = self.logits[head, position].tolist() if (head, position) in self.logits else [([], []), ([], [])]
        name = self.model.tokenizer.pieces
        raised, lowered = (
            tuple((name([int(one)])[0], value) for one, value in zip(*side, strict=True)) for side in sides
        )
        document = self.corpus.texts[self.corpus.windows[self.window].document].name
        following = pieces[position + 1] if position + 1 < len(pieces) else ""
        return Event(
            self.window, position, document, position - low, tuple(pieces[low:high]), tuple(row[low:high].tolist()), tuple(far), following,
            raised, lowered,
        )  # fmt: skip

    @property
    def pieces(self) -> list[str]:
        """The window's tokens as text."""
        return self.model.tokenizer.pieces(self.batch.tokens[0].tolist())
