"""Path patching: what one head tells another one, or the logits, directly, with all other heads held as they were.

Wang et al. 2022 (IOI), section 3.1; Goldowsky-Dill et al. 2023. For a sender h and a receiver R: (1) a run on the prompts and
(2) one on their counterfactuals are kept; (3) the prompts are run with h giving what it gave in the other run and all other
heads what they gave in (1), and what enters R is noted; (4) the prompts are run with that put into R, and measured.

Since heads are held in (3), a token's change stays with the token: only the tokens at which something is sent and
received are computed, only in the blocks between sender and receiver, for many senders side by side. (4) is a replayed run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.edits import OnHeads, Resample, Swap, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.path_patching.frozen_run import Frozen, Want, demand_tokenwise
from headatlas.methods.path_patching.receivers import Receiver, parse_receivers
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.methods.sweeps.activation_patching import DIRECTIONS
from headatlas.methods.sweeps.cached_runs import GB, CachedRuns, tokens_a_pass
from headatlas.methods.sweeps.effects import HeadEffects, HeadSet
from headatlas.methods.sweeps.memory_budget import peak_of, show_size
from headatlas.methods.sweeps.run import (
    ChunkStore,
    Make,
    NoStore,
    Sweep,
    examples_at_once,
    head_sets_for,
    metric_of,
    positions_of,
)
from headatlas.model import Model
from headatlas.ops.types import Array, LayerKey
from headatlas.task import Batch, Metric, logit_difference

if TYPE_CHECKING:
    from headatlas.model import Edit

MLPS = ("recomputed", "frozen")


def path_patch(
    model: Model,
    batch: Batch,
    senders: Sequence[HeadId | HeadSet] | None = None,
    receivers: Sequence[str | Receiver] = ("logits",),
    *,
    metric: Metric = logit_difference,
    direction: str = "noising",
    positions: str = "all",
    mlps: str = "recomputed",
    group: bool = False,
    memory: int = 4 * GB,
    out: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> HeadEffects:
    """The effect of each path from a sender (a head, or heads together; all heads if None) to a receiver.

    receivers: "logits", "mlp:5", or q, k or v of heads that receive together ("q:9.6 9.9"), with "@end" behind for a named
    position of their own; see `Receiver`. group: keys and values may be named by one head of their KV group.
    direction: noising sends the counterfactual's value in the clean run, as the paper does; denoising the clean value in
    the run on the counterfactual. positions: where it is sent and received ("all", or a named one such as "end"): with all
    other heads held, what is sent at a token arrives at that token. mlps: those between are recomputed, as in the
    paper, or frozen, which leaves the direct path alone. The other options are those of `patch`.

    Returns values [example, sender, receiver]; receivers stand in the place of positions, and their names in
    `.positions`. NaN where a sender does not come before a receiver. Raises BadInput, UnsupportedModel.
    """
    if direction not in DIRECTIONS:
        raise BadInput(f"There is no direction '{direction}'.", f"Choose one of {', '.join(DIRECTIONS)}.")
    if mlps not in MLPS:
        raise BadInput(f"MLPs cannot be '{mlps}'.", f"Choose one of {', '.join(MLPS)}.")
    if positions == "each":
        raise BadInput("Paths are not followed for each position at once.", "Choose all, or a named position.")
    other = batch.counterfactual
    if other is None:
        raise BadInput("Path patching needs counterfactual prompts.", "Choose a task or prompts that have them.")
    demand_aligned(batch, other)
    found = parse_receivers(receivers, model, group=group)
    named_positions = {
        one.name: positions_of(batch, one.position or positions)[one.position or positions] for one in found
    }
    head_sets = head_sets_for(model, senders, "z")
    everything = sorted({head for head_set in head_sets for head in head_set})
    ran, source = (other, batch) if direction == "denoising" else (batch, other)
    demand_tokenwise(model, ran, metric.positions(batch))

    def prepare(rows: slice) -> Make:
        values = collect(model, source.rows(rows), OnHeads(everything))
        return lambda head_set, places: [Resample(head_set, values, positions=places)]

    facts = {
        "method": "path patching",
        "positions": positions,
        "receivers": [one.name for one in found],
        "mlps": mlps,
        **(about or {}),
    }
    sweep = Sweep(
        direction,
        batch,
        metric,
        head_sets,
        named_positions,
        "z",
        prepare,
        other if direction == "denoising" else None,
        facts,
    )
    with checkpoint.folder(out, model, sweep, {}) as kept:
        if kept.result is not None:
            return kept.result
        paths = _Paths(model, sweep, found, mlps == "frozen", memory, kept.ledger, tick)
        unchanged = metric_of(model, batch, metric, run_on=None if direction == "denoising" else other)
        return kept.finish(replace(paths.measure(), other=unchanged), model, sweep)


@dataclass
class _Paths:
    """All pairs of senders and receivers on one batch."""

    model: Model
    sweep: Sweep
    receivers: tuple[Receiver, ...]
    hold_mlps: bool
    memory: int
    ledger: ChunkStore | NoStore
    tick: Callable[[int, int], None]
    done: int = 0

    def measure(self) -> HeadEffects:
        """Every pair on every example, in pieces of examples and of senders that fit into the memory."""
        began, sweep = time.perf_counter(), self.sweep
        n, size = len(sweep.batch), examples_at_once(self.model, sweep, self.memory)
        values = np.full((n, len(sweep.head_sets), len(self.receivers)), np.nan)
        base = np.full(n, np.nan)
        forwards, notes = 0.0, list[str]()
        bands = self._bands(size)
        total = len(sweep.head_sets) * len(self.receivers) * len(range(0, n, size))
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            names = [f"{start}-{rows.stop}.{band[0]}-{band[-1]}" for band in bands]
            known, clean = [self.ledger.get(name) for name in names], self.ledger.get(f"{start}-{rows.stop}.base")
            piece: _Piece | None = None
            if clean is None or any(found is None for found in known):
                piece = _Piece(self, rows)
                clean = piece.replay.clean
                self.ledger.put(f"{start}-{rows.stop}.base", clean)
            base[rows] = clean
            for band, name, found in zip(bands, names, known, strict=True):
                if found is None:
                    assert piece is not None
                    found = piece.measure(band)
                    self.ledger.put(name, found)
                values[rows, band[0] : band[-1] + 1] = found
                self.done += len(band) * len(self.receivers)
                self.tick(self.done, total)
            if piece is not None:
                forwards += piece.forwards * (rows.stop - rows.start) / n
                notes += [note for note in piece.replay.notes if note not in notes]
        facts = {
            **sweep.facts,
            "examples_at_once": size,
            "forwards": round(forwards, 2),
            "seconds": round(time.perf_counter() - began, 2),
            "notes": notes,
        }
        return HeadEffects(
            sweep.kind, sweep.head_sets, tuple(one.name for one in self.receivers), values, base, None, None, facts
        )

    def _bands(self, n_examples: int) -> list[list[int]]:
        """Numbers of the senders in runs of neighbours that fill a pass."""
        limit = tokens_a_pass(self.model)
        width = max(
            1
            if places is None and one.kind == "logits"
            else self.sweep.batch.tokens.shape[1]
            if places is None
            else places.shape[1]
            for one, places in zip(self.receivers, self.sweep.positions.values(), strict=True)
        )
        step = max(8, limit // (width * n_examples))
        numbers = list(range(len(self.sweep.head_sets)))
        return [numbers[start : start + step] for start in range(0, len(numbers), step)]


class _Piece:
    """The same on some examples: what was kept of the run that is changed, and the paths through it."""

    def __init__(self, paths: _Paths, rows: slice) -> None:
        self.paths, self.model, self.rows, sweep = paths, paths.model, rows, paths.sweep
        batch = sweep.batch.rows(rows)
        other = sweep.run_on.rows(rows) if sweep.run_on is not None else None
        self.batch, self.prompts = batch, other if other is not None else batch
        self.replay = CachedRuns(self.model, batch, sweep.metric, run_on=other, memory=paths.memory)
        self.make = sweep.prepare(rows)
        self.last = max(layer.index for layer in self.model.layers)
        self.logit_positions = sweep.metric.positions(batch).expand(len(batch), -1)
        self.positions = {
            name: places if places is None or len(places) == 1 else places[rows]
            for name, places in sweep.positions.items()
        }
        self._frozen: dict[bytes, Frozen] = {}
        self._forwards = 2.0  # the runs whose values are sent and kept
        self._row_bytes: dict[tuple[bytes, bool], float] = {}

    @property
    def forwards(self) -> float:
        """How many whole runs the work so far was worth."""
        return self.replay.forwards + self._forwards

    def measure(self, band: Sequence[int]) -> Array:
        """The metric [example, sender, receiver] for the senders numbered in `band`; NaN where there is no path."""
        sweep, receivers = self.paths.sweep, self.paths.receivers
        found = np.full((len(self.batch), len(band), len(receivers)), np.nan)
        groups: dict[tuple[bytes, bytes], list[int]] = {}
        for j, one in enumerate(receivers):
            positions = self.positions[one.name]
            groups.setdefault((_key(self._columns(one)), b"" if positions is None else _key(positions)), []).append(j)
        later: list[tuple[int, int, list[Edit]]] = []  # sender, receiver and what is put into it, to be replayed
        for members in groups.values():
            columns, positions = self._columns(receivers[members[0]]), self.positions[receivers[members[0]].name]
            frozen = self._keep(columns)
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
        for (i, j, _), score in zip(later, self.replay.measure([put for *_, put in later]), strict=True):
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
        """The edit that puts values [example, r, head, width] in at the columns."""
        return Swap(what, values, component=component, positions=frozen.columns.cpu(), group=True)

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
        key = (_key(frozen.columns), logits)
        hold = self.paths.hold_mlps and put is None
        where, ids = (self.logit_positions, self.replay.reads[0]) if logits else (None, None)

        def work() -> tuple[dict[Want, Tensor], Tensor | None]:
            return frozen.run(runs, layer, wanted, logit_positions=where, tokens=ids, hold_mlps=hold, put=put)

        if key in self._row_bytes:
            found = work()
        else:  # the first of its kind runs alone and tells how much memory a run takes
            found, peak = peak_of(work, self.model.hf.parameters())
            self._row_bytes[key] = 1.2 * peak / len(runs)
        end = self.last + 1 if logits else max((at for _, at in wanted), default=layer) + 1
        share = (end - layer) / (self.last + 1) * frozen.columns.shape[1] / self.batch.tokens.shape[1]
        self._forwards += len(runs) * share
        return found

    def _copies(self, frozen: Frozen, logits: bool) -> int:
        """How many senders go side by side. Raises BadInput where not even one fits into the memory."""
        known = self._row_bytes.get((_key(frozen.columns), logits))
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
        return max(1, min(fits, tokens_a_pass(self.model) // frozen.columns.numel()))

    def _keep(self, columns: Tensor) -> Frozen:
        key = _key(columns)
        if key not in self._frozen:
            mlps = self.paths.hold_mlps or any(one.kind == "mlp" for one in self.paths.receivers)
            self._frozen[key] = Frozen.of(self.model, self.prompts, columns, mlps=mlps)
            self._forwards += 1
        return self._frozen[key]

    def _columns(self, receiver: Receiver) -> Tensor:
        """[example, r] the tokens at which something arrives: where it is sent, or for logits those that are read."""
        if receiver.kind == "logits" or (receiver.kind == "mlp" and receiver.layers[0] == self.last):
            return self.logit_positions
        places = self.positions[receiver.name]
        n, length = self.batch.tokens.shape
        columns = torch.arange(length)[None] if places is None else places
        return columns.expand(n, -1)

    def _score(self, logits: Tensor) -> Array:
        found: Array = self.paths.sweep.metric.score(logits.cpu(), self.replay.reads[1]).double().numpy()
        return found

    def _exists(self, places: Tensor | None) -> NDArray[np.bool_]:
        """[example] whether it has a token at the positions."""
        if places is None:
            return np.ones(len(self.batch), dtype=bool)
        places = places.expand(len(self.batch), -1)
        found: NDArray[np.bool_] = ((places >= 0) & self.batch.mask.gather(1, places.clamp(min=0))).any(1).numpy()
        return found


def _wants(receiver: Receiver, layer: int) -> list[Want]:
    """What has to be noted for a receiver when something is sent from `layer`."""
    if receiver.kind == "logits":
        return []
    return [(receiver.kind, at) for at in receiver.layers if at > layer or receiver.kind == "mlp"]


def _key(columns: Tensor) -> bytes:
    return bytes(columns.cpu().contiguous().numpy().tobytes())
