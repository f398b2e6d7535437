"""Path patching on some examples: what is sent from each head, where it arrives, and what becomes of the metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.edits import Swap
from headatlas.errors import BadInput
from headatlas.methods.path_patching.frozen_run import Frozen, Want
from headatlas.methods.path_patching.receivers import Receiver
from headatlas.methods.sweeps.cached_runs import CachedRuns, tokens_a_pass
from headatlas.methods.sweeps.memory_budget import peak_of, show_size
from headatlas.methods.sweeps.plan import Sweep
from headatlas.model import Model
from headatlas.ops.types import Array, LayerKey

if TYPE_CHECKING:
    from headatlas.model import Edit


@dataclass(frozen=True)
class Paths:
    """All pairs of senders (the head sets of the sweep) and receivers on one batch.

    hold_mlps: MLPs between them are frozen. memory: bytes that may be used beside the weights.
    """

    model: Model
    sweep: Sweep
    receivers: tuple[Receiver, ...]
    hold_mlps: bool
    memory: int


class PathPiece:
    """Paths on some examples: what was kept of the run that is changed, and the paths through it."""

    def __init__(self, paths: Paths, rows: slice) -> None:
        self.paths, self.model, self.rows, sweep = paths, paths.model, rows, paths.sweep
        batch = sweep.batch.rows(rows)
        other = sweep.run_on.rows(rows) if sweep.run_on is not None else None
        self.batch, self.prompts = batch, other if other is not None else batch
        self.cached = CachedRuns(self.model, batch, sweep.metric, run_on=other, memory=paths.memory)
        self.make = sweep.prepare(rows)
        self.last = max(layer.index for layer in self.model.layers)
        self.logit_positions = sweep.metric.positions(batch).expand(len(batch), -1)
        self.positions = {name: at if at is None or len(at) == 1 else at[rows] for name, at in sweep.positions.items()}
        self._frozen: dict[bytes, Frozen] = {}
        self._forwards = 2.0  # the runs whose values are sent and kept
        self._row_bytes: dict[tuple[bytes, bool], float] = {}

    @property
    def forwards(self) -> float:
        """The cost of the work so far, in forward passes of the whole model."""
        return self.cached.forwards + self._forwards

    def measure(self, band: Sequence[int]) -> Array:
        """The metric [example, sender, receiver] for the senders numbered in `band`; NaN where there is no path."""
        sweep, receivers = self.paths.sweep, self.paths.receivers
        found = np.full((len(self.batch), len(band), len(receivers)), np.nan)
        groups: dict[tuple[bytes, bytes], list[int]] = {}
        for j, one in enumerate(receivers):
            positions = self.positions[one.name]
            groups.setdefault((_key(self._tokens_for(one)), b"" if positions is None else _key(positions)), []).append(
                j
            )
        later: list[tuple[int, int, list[Edit]]] = []  # sender, receiver and what is put into it, to be replayed
        for members in groups.values():
            tokens, positions = self._tokens_for(receivers[members[0]]), self.positions[receivers[members[0]].name]
            frozen = self._keep(tokens)
            by_layer: dict[int, list[int]] = {}
            for i, number in enumerate(band):
                by_layer.setdefault(min(head.layer for head in sweep.head_sets[number]), []).append(i)
            for layer, senders in sorted(by_layer.items()):
                heard = [j for j in members if receivers[j].hears(layer)]
                if heard:
                    edits = [self.make(sweep.head_sets[band[i]], positions) for i in senders]
                    for i, j, score, put in self._send(frozen, layer, senders, edits, heard):
                        if score is not None:
                            found[:, i, j] = score
                        else:
                            later.append((i, j, put))
        for (i, j, _), score in zip(later, self.cached.measure([put for *_, put in later]), strict=True):
            found[:, i, j] = score
        for j, one in enumerate(receivers):
            found[~self._exists(self.positions[one.name]), :, j] = np.nan
        return found

    # ---- what is sent, and where it arrives ---------------------------------------------------------------------
    def _send(
        self, frozen: Frozen, layer: int, senders: list[int], edits: list[Sequence[Edit]], heard: list[int]
    ) -> list[tuple[int, int, Array | None, list[Edit]]]:
        """(sender, receiver, metric or None, edits that carry on) for senders of one layer and receivers at the same tokens."""
        receivers = [self.paths.receivers[j] for j in heard]
        wanted = sorted({want for one in receivers for want in _wants(one, layer)})
        to_logits = any(one.kind == "logits" for one in receivers)
        result: list[tuple[int, int, Array | None, list[Edit]]] = []
        while senders:
            size = self._copies(frozen, to_logits)
            now, senders = senders[:size], senders[size:]
            mine, edits = edits[:size], edits[size:]
            seen, logits = self._run(frozen, mine, layer, wanted, logits=to_logits)
            for j, one in zip(heard, receivers, strict=True):
                if one.kind == "logits":
                    assert logits is not None
                    result += [(i, j, self._score(x), []) for i, x in zip(now, logits, strict=True)]
                elif one.kind == "mlp":
                    scores, carried = self._through_mlp(frozen, one.layers[0], seen["mlp", one.layers[0]])
                    pairs = zip(now, scores, carried, strict=True)
                    result += [(i, j, score, [put] if put is not None else []) for i, score, put in pairs]
                else:
                    arrived = {later: seen[one.kind, later] for later in one.layers if later > layer}
                    heads = [head for head in one.heads if head.layer > layer]
                    for copy, i in enumerate(now):
                        values = {("decoder", at): x[copy] for at, x in arrived.items()}
                        result.append((i, j, None, [self._put(frozen, heads, values, one.kind)]))
        return result

    def _through_mlp(self, frozen: Frozen, layer: int, entered: Tensor) -> tuple[list[Array | None], list[Edit | None]]:
        """What entered a block's MLP [copy, example, r, d_model], carried to the entry of the next block, or to the logits."""
        nothing: list[Sequence[Edit]] = [[] for _ in entered]
        if layer == self.last:
            _, logits = self._run(frozen, nothing, layer, [], logits=True, put={layer: entered})
            assert logits is not None
            return [self._score(x) for x in logits], [None] * len(entered)
        seen, _ = self._run(frozen, nothing, layer, [("residual", layer + 1)], put={layer: entered})
        place = ("decoder", layer + 1)
        puts: list[Edit | None] = [
            self._put(frozen, place, {place: x[:, :, None]}, "residual") for x in seen["residual", layer + 1]
        ]
        return [None] * len(entered), puts

    @staticmethod
    def _put(frozen: Frozen, what: Any, values: Mapping[LayerKey, Tensor], component: str) -> Edit:
        """The edit that puts values [example, r, head, width] in at the cached tokens."""
        return Swap(what, values, component=component, positions=frozen.positions.cpu(), group=True)

    # ---- running ------------------------------------------------------------------------------------------------
    def _run(
        self,
        frozen: Frozen,
        runs: Sequence[Sequence[Edit]],
        layer: int,
        wanted: Sequence[Want],
        *,
        logits: bool = False,
        put: Mapping[int, Tensor] | None = None,
    ) -> tuple[dict[Want, Tensor], Tensor | None]:
        key = (_key(frozen.positions), logits)
        hold = self.paths.hold_mlps and put is None
        where, ids = (self.logit_positions, self.cached.reads[0]) if logits else (None, None)

        def work() -> tuple[dict[Want, Tensor], Tensor | None]:
            return frozen.run(runs, layer, wanted, logit_positions=where, tokens=ids, hold_mlps=hold, put=put)

        if key in self._row_bytes:
            found = work()
        else:  # the first of its kind runs alone and tells how much memory a run takes
            found, peak = peak_of(work, self.model.hf.parameters())
            self._row_bytes[key] = 1.2 * peak / len(runs)
        end = self.last + 1 if logits else max((at for _, at in wanted), default=layer) + 1
        share = (end - layer) / (self.last + 1) * frozen.positions.shape[1] / self.batch.tokens.shape[1]
        self._forwards += len(runs) * share
        return found

    def _copies(self, frozen: Frozen, logits: bool) -> int:
        """How many senders go side by side. Raises BadInput where not even one fits into the memory."""
        known = self._row_bytes.get((_key(frozen.positions), logits))
        if known is None:
            return 1
        held = sum(one.bytes for one in self._frozen.values())
        fits = int((self.paths.memory - held) / max(known, 1))
        if fits < 1:
            raise BadInput(
                f"One path on {len(self.batch)} examples needs about {show_size(int(held + known))}, "
                f"{show_size(self.paths.memory)} are allowed.",
                "Allow more with --memory, or use fewer or shorter prompts.",
            )
        return max(1, min(fits, tokens_a_pass(self.model) // frozen.positions.numel()))

    def _keep(self, tokens: Tensor) -> Frozen:
        key = _key(tokens)
        if key not in self._frozen:
            mlps = self.paths.hold_mlps or any(one.kind == "mlp" for one in self.paths.receivers)
            self._frozen[key] = Frozen.of(self.model, self.prompts, tokens, mlps=mlps)
            self._forwards += 1
        return self._frozen[key]

    def _tokens_for(self, receiver: Receiver) -> Tensor:
        """[example, r] the tokens at which something arrives: where it is sent, or for logits those that are read."""
        if receiver.kind == "logits" or (receiver.kind == "mlp" and receiver.layers[0] == self.last):
            return self.logit_positions
        at = self.positions[receiver.name]
        n, length = self.batch.tokens.shape
        tokens = torch.arange(length)[None] if at is None else at
        return tokens.expand(n, -1)

    def _score(self, logits: Tensor) -> Array:
        found: Array = self.paths.sweep.metric.score(logits.cpu(), self.cached.reads[1]).double().numpy()
        return found

    def _exists(self, at: Tensor | None) -> NDArray[np.bool_]:
        """[example] whether it has a token at the positions."""
        if at is None:
            return np.ones(len(self.batch), dtype=bool)
        at = at.expand(len(self.batch), -1)
        found: NDArray[np.bool_] = ((at >= 0) & self.batch.mask.gather(1, at.clamp(min=0))).any(1).numpy()
        return found


def _wants(receiver: Receiver, layer: int) -> list[Want]:
    """What has to be noted for a receiver when something is sent from `layer`."""
    if receiver.kind == "logits":
        return []
    return [(receiver.kind, at) for at in receiver.layers if at > layer or receiver.kind == "mlp"]


def _key(positions: Tensor) -> bytes:
    return bytes(positions.cpu().contiguous().numpy().tobytes())
