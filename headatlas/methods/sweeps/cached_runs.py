"""Many changed runs of the same prompts at the cost of what the changes touch.

A clean run is cached. A changed run enters at the first changed layer with the clean residual stream; where nothing before
some token changes, earlier tokens are taken from the clean run and only later ones computed; runs that start at the same
layer share one pass, side by side along the batch; and logits are computed at the positions, and for the tokens, that the
metric reads. The numbers are those of one whole run per change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import OnHeads, Scale
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.heads import HeadId
from headatlas.methods.sweeps.memory_budget import peak_of, show_size
from headatlas.model import Model
from headatlas.model.core.forward_pass import Tap
from headatlas.model.core.pass_context import Tokens
from headatlas.model.runs.cached_forward import PartialForward, few_logits
from headatlas.model.runs.cached_run import AT_ONCE, CachedRun, cache_run
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric
from headatlas.task.answers import answers_only

if TYPE_CHECKING:
    from headatlas.model.core.forward_pass import Edit
    from headatlas.model.core.view import LayerView

GB = 1 << 30


def tokens_a_pass(model: Model) -> int:
    """Tokens of several runs side by side beyond which a device gets no faster."""
    return 2048 if model.device.type == "cpu" else 1 << 16


class SideBySide:
    """Edits of one component of several runs that lie side by side in a batch: each acts on its own run's rows."""

    def __init__(self, component: str, runs: Sequence[Sequence[Edit]]) -> None:
        self.component = component
        self.runs = [[edit for edit in edits if edit.component == component] for edits in runs]
        everything = [edit for edits in self.runs for edit in edits]
        self.heads: tuple[HeadId, ...] = tuple({head for edit in everything for head in edit.heads})
        self.layers = frozenset(key for edit in everything for key in edit.layers)

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        """The rows of each run changed by its own edits."""
        parts = list(x.split(len(x) // len(self.runs)))
        for i, edits in enumerate(self.runs):
            for edit in edits:
                if (layer.stack, layer.index) in edit.layers:
                    parts[i] = edit(layer, parts[i]).to(x.dtype)
        return torch.cat(parts)


def side_by_side(runs: Sequence[Sequence[Edit]]) -> list[Edit]:
    """Edits that carry out several runs in one batch."""
    return [
        SideBySide(component, runs) for component in dict.fromkeys(edit.component for edits in runs for edit in edits)
    ]


@dataclass(frozen=True)
class Beside:
    """A run under `edits` beside which others are measured; differ: for each of these, edits where it is not like that run.

    Up to the first layer that these change both runs are the same one, so that the others are begun there.
    """

    edits: Sequence[Edit]
    differ: Sequence[Sequence[Edit]]


class CachedRuns:
    """The metric of one batch under any number of changes, measured exactly.

    run_on: other prompts of the same shape that are run in place of the batch's own, which still says what is scored.
    within: [example, n] the only positions that changes will act on, -1 for none: less is kept of long texts then.
    clean: [example] the metric of the unchanged run. memory: bytes that may be used beside the weights.
    forwards: the cost of the work so far, in forward passes of the whole model.
    """

    def __init__(
        self,
        model: Model,
        batch: Batch,
        metric: Metric,
        *,
        run_on: Batch | None = None,
        within: Tensor | None = None,
        memory: int = 4 * GB,
    ) -> None:
        self.model, self.batch, self.metric, self.memory = model, batch, metric, memory
        self.prompts = run_on if run_on is not None else batch
        self.forwards = 1.0
        self._notes: list[str] = []
        self._positions = metric.positions(batch).expand(len(batch), -1)
        self._last = torch.where(self._positions >= 0, self._positions, -1).amax(1)
        self._first = torch.where(self._positions >= 0, self._positions, batch.tokens.shape[1]).amin(1)
        self._ids, self._reading = answers_only(batch, metric)
        self._late = model.kind == "decoder" and model.stacks == ("decoder",) and all(s.causal for s in model.layers)
        self._tried = False
        self._row_bytes: dict[tuple[str, int], float] = {}
        if model.restarts:
            self._cached, logits = cache_run(
                model,
                self.prompts,
                logit_positions=self._positions,
                attention=self._late,
                positions=self._positions_within(within),
            )
        else:
            self._late = False
            self._note("whole runs: this model's runs cannot start at a layer")
            given = Tokens.of(self.prompts).each(lambda x: x.to(model.device))
            self._cached = CachedRun(given.tokens, given.mask, encoder=given.encoder)
            logits = model.forward(self.prompts, logit_positions=self._positions)
        self.clean = self._score(logits, self.batch)
        if self._ids is not None and not self._answers_suffice():
            self._ids, self._reading = None, batch
            self._note("all logits are computed: the model does more with them than read them one by one")
        if within is not None:
            self._check_late()
        if not self._late and self._cached.positions is not None:  # whole runs need the whole stream
            self._cached, _ = cache_run(model, self.prompts, logit_positions=self._positions, attention=False)

    @property
    def notes(self) -> list[str]:
        """What could not be shortened, and why."""
        self._check_late()
        return self._notes

    @property
    def restarts(self) -> bool:
        """Whether all changes of heads may be measured `beside` a run: those of a model of one stack whose runs start at layers."""
        return self.model.restarts and len(self.model.stacks) == 1

    @property
    def reads(self) -> tuple[Tensor | None, Batch]:
        """Ids whose logits suffice for the metric, None for all; and the batch to score those logits with."""
        return self._ids, self._reading

    # ---- measuring ----------------------------------------------------------------------------------------------
    def measure(
        self, runs: Sequence[Sequence[Edit]], *, beside: Beside | None = None, progress: Progress | None = None
    ) -> Array:
        """The metric [run, example] under each list of edits. `progress` is told of the runs after each pass.

        beside: a run that all of these are like up to a layer, where each then starts.
        """
        progress = progress or Silent()
        runs = [self.model.require_edits(edits) for edits in runs]
        starts = [self._start_layer(edits if beside is None else beside.differ[i]) for i, edits in enumerate(runs)]
        result = np.full((len(runs), len(self.batch)), np.nan)
        plans: dict[tuple[Any, bytes], list[int]] = {}
        computed: dict[bytes, Tensor | None] = {}
        for i, edits in enumerate(runs):
            chosen = self._to_compute(edits)
            self._demand_within(edits, chosen)
            key = b"" if chosen is None else chosen.numpy().tobytes()
            computed[key] = chosen
            plans.setdefault((starts[i], key), []).append(i)
        shared = self._cached if beside is None else self._changed(beside.edits, plans, computed)
        for start, key in sorted(plans, key=lambda plan: (self._depth(plan[0]), plan[1])):
            members = plans[start, key]
            while members:
                size = self._copies(computed[key], start)
                now, members = members[:size], members[size:]
                result[now] = self._pass([runs[i] for i in now], start, computed[key], shared)
                progress.advance("runs", len(now), of=len(runs))
        return result

    def effect(self, edits: Sequence[Edit]) -> Array:
        """How much the metric changes [example] under `edits`."""
        change: Array = self.measure([edits])[0] - self.clean
        return change

    def _start_layer(self, edits: Sequence[Edit]) -> LayerKey | None:
        """The first (stack, layer) that changes and at which a run can start; None for the whole model."""
        touched = {key for edit in edits for key in edit.layers}
        main = self.model.stacks[-1] if len(self.model.stacks) == 1 else "decoder"
        if not self.model.restarts or not touched or any(stack not in (main, "cross") for stack, _ in touched):
            return None
        return min(((main, layer) for _, layer in touched), key=self._depth)

    def _depth(self, start: LayerKey | None) -> int:
        return 0 if start is None else self.model.block_index(*start)

    def _to_compute(self, edits: Sequence[Edit]) -> Tensor | None:
        """[example, r] the tokens to compute, -1 for fillers; None for all."""
        given = [getattr(edit, "positions", None) for edit in edits]
        if not given or any(one is None for one in given):
            return None
        self._check_late()
        return self._from(self._first, [one for one in given if one is not None])

    def _demand_within(self, edits: Sequence[Edit], positions: Tensor | None) -> None:
        cached = self._cached.positions
        if cached is not None and (positions is None or bool((positions[:, 0] < cached[:, 0].cpu()).any())):
            raise BadInput(
                f"{', '.join(map(repr, edits)) or 'No edit at all'} needs tokens before those kept.",
                "Name all positions that changes act on in `within`, or leave it out.",
            )

    def _positions_within(self, within: Tensor | None) -> Tensor | None:
        """The tokens that any run may compute, one more in front for the trial of late tokens; None for all."""
        return None if within is None else self._from((self._first - 1).clamp(min=0), [within])

    def _from(self, start: Tensor, positions: Sequence[Tensor]) -> Tensor | None:
        """[example, r] the tokens from the first of start [example] and positions to the last that is read; None for all."""
        n, length = self.batch.tokens.shape
        for one in positions:
            start = torch.minimum(start, torch.where(one >= 0, one.cpu(), length).amin(1).expand(n))
        width = int((self._last - start).max()) + 1
        if not self._late or width > 0.75 * length:
            return None
        chosen = start[:, None] + torch.arange(width)
        return torch.where(chosen <= self._last[:, None], chosen, -1)

    # ---- running ------------------------------------------------------------------------------------------------
    def _changed(
        self,
        edits: Sequence[Edit],
        plans: Iterable[tuple[LayerKey | None, bytes]],
        computed: Mapping[bytes, Tensor | None],
    ) -> CachedRun:
        """The cached run with the residual stream as it is under edits, for the tokens that are computed."""
        start, positions = self._start_layer(edits), self._to_compute(edits)
        key = b"" if positions is None else positions.numpy().tobytes()
        if start is None or any(first is None for first, _ in plans) or set(computed) != {key}:
            raise BadInput("These runs have no start in common.", "Measure them without `beside`.")
        found = dict(self._cached.residuals)
        where = None if positions is None else positions.to(self.model.device)

        def keep(place: LayerKey, x: Tensor) -> None:
            if self._depth(place) < self._depth(start):
                return
            if where is not None:
                stream, index = found[place].clone(), self._cached.index_of(where)
                example, column = (where >= 0).nonzero(as_tuple=True)
                stream[example, index[example, column]] = x[example, column]
                x = stream
            found[place] = x

        self._pass([[*edits, Tap(found, keep)]], start, positions, self._cached)
        return replace(self._cached, residuals=found)

    def _pass(
        self, runs: Sequence[Sequence[Edit]], start: LayerKey | None, positions: Tensor | None, cached: CachedRun
    ) -> Array:
        """One pass over several runs side by side: [run, example]."""
        width = self.batch.tokens.shape[1] if positions is None else positions.shape[1]
        where = positions.to(self.model.device) if positions is not None else None
        read = self._positions.to(self.model.device)
        job = PartialForward(cached, len(runs), read, start, where, self._ids)
        kind = ("whole" if start is None else "restart" if positions is None else "late", width)
        work: Callable[[], Tensor] = lambda: job.logits(self.model, side_by_side(runs))  # noqa: E731
        if kind in self._row_bytes:
            logits = work()
        else:  # the first of its kind runs alone and tells how much memory a run takes
            logits, peak = peak_of(work, self.model.hf.parameters())
            self._row_bytes[kind] = 1.2 * peak / len(self.batch)
        depth = len(self.model.decoder_blocks()) if self.model.restarts else 1
        share = 1.0 - self._depth(start) / depth
        self.forwards += len(runs) * share * width / self.batch.tokens.shape[1]
        return np.stack([self._score(one, self._reading) for one in logits])

    def _score(self, logits: Tensor, batch: Batch) -> Array:
        found: Array = self.metric.score(logits.cpu(), batch).double().numpy()
        return found

    def _copies(self, positions: Tensor | None, start: LayerKey | None) -> int:
        """How many runs go side by side. Raises BadInput where not even one fits into the memory."""
        width = self.batch.tokens.shape[1] if positions is None else positions.shape[1]
        known = self._row_bytes.get(("whole" if start is None else "restart" if positions is None else "late", width))
        if known is None:
            return 1
        left = self.memory - self._cached.bytes
        fits = int(left / max(known * len(self.batch), 1))
        if fits < 1:
            need = show_size(int(self._cached.bytes + known * len(self.batch)))
            raise BadInput(
                f"One run of {len(self.batch)} examples needs about {need}, {show_size(self.memory)} are allowed.",
                "Allow more with --memory, or use fewer or shorter prompts.",
            )
        return max(1, min(fits, tokens_a_pass(self.model) // (width * len(self.batch))))

    # ---- exactness ----------------------------------------------------------------------------------------------
    def _answers_suffice(self) -> bool:
        """Whether the logits of the answers alone are those of the whole vocabulary; tried on one example."""
        one = self._reading.rows(slice(0, 1))
        try:
            with few_logits(self.model, self._ids):
                logits = self.model.forward(self.prompts.rows(slice(0, 1)), logit_positions=self._positions[:1])
            return self._same(self._score(logits, one), self.clean[:1])
        except (ValueError, TypeError, RuntimeError, AttributeError, LookupError):
            return False  # the model's own code stumbled over a vocabulary that small

    def _same(self, first: Array, second: Array) -> bool:
        half = self.model.dtype not in (torch.float32, torch.float64)
        limit = (5e-2 if half else 1e-4) * max(1.0, float(np.abs(self.clean).max()))
        return bool(np.abs(first - second).max() <= limit)

    def _check_late(self) -> None:
        """Late tokens computed alone must give what whole runs give, under a change that is felt; otherwise they are not.

        Tried once, when the first change asks for it: changes that act everywhere need all tokens anyway.
        """
        if self._tried or not self._late:
            return
        self._tried = True
        n, length = self.batch.tokens.shape
        start = self._first - 1
        if int(start.min()) < 0 or int((self._last - start).max()) + 1 > 0.75 * length:
            return
        layer = self.model.layers[0]  # what it changes passes through every later block
        edit = Scale(layer.heads, 0.5, positions=start[:, None].expand(n, 1))
        # Examples differ in length and in how much of them is late: the extremes of both stand for the others.
        sizes = (self.batch.mask.sum(1), self._last - start)
        extremes = [one(size) for size in sizes for one in (torch.argmin, torch.argmax)]
        rows = torch.stack(extremes).unique()[: max(1, AT_ONCE // length)]
        whole = self._trial(edit, rows, None, None)
        try:
            late = self._trial(edit, rows, (layer.stack, layer.index), self._to_compute([edit]))
            exact, why = self._same(late, whole), "they depend on more than earlier keys and values"
        except (HeadAtlasError, ValueError, TypeError, RuntimeError, AttributeError, LookupError) as error:
            exact, why = False, f"the model's own code does not take them, {type(error).__name__}"
        if not exact:
            self._late = False
            self._note(f"late tokens cannot be computed alone ({why}); whole sequences instead")

    def _trial(self, edit: OnHeads, rows: Tensor, start: LayerKey | None, positions: Tensor | None) -> Array:
        """The metric of the examples in `rows` under an edit."""
        where = positions[rows].to(self.model.device) if positions is not None else None
        read = self._positions[rows].to(self.model.device)
        job = PartialForward(self._cached.rows(rows), 1, read, start, where, self._ids)
        return self._score(job.logits(self.model, [edit.rows(rows)])[0], self._reading.rows(rows))

    def _note(self, text: str) -> None:
        self._notes.append(text)
