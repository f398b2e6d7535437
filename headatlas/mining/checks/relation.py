"""Does a head matter where its relation is? What its removal costs at the words it should serve, beside what it costs elsewhere.

For models with a masked-token head, and encoder-decoders that write what was masked (BART) or replaced by sentinels (T5); the
verdict says whether a head matters on the whole. Of held-out texts some words that a
detector names (`works_at`: the dependents of the relation that a head follows) and as many others are masked in the same run, and
the head is removed as for the verdict; what is compared is the rise of the loss at either, text by text. Since words of some
relations lean on all heads more than others do, the same is measured for free heads.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Detector, LayerDetector
from headatlas.heads import HeadId
from headatlas.methods.measured_by.spans import corrupted
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.mining.checks.fresh import fresh
from headatlas.mining.checks.judging import Bench
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.records import Check, Outcome, RemovalEffect
from headatlas.model import Edit, Model
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, Task
from headatlas.task.encoders import (
    SHARE,
    denoising_loss,
    masked_token_loss,
    noised,
    replaced,
    span_corruption_loss,
    standing,
)

NAME = "relation"
EXAMPLES = 32
FREE = 6  # free heads that are removed too
FEWEST = 6  # texts that have such words
HIDING = (masked_token_loss, denoising_loss, span_corruption_loss)  # metrics of words that were taken from a text
SEED = 31  # of the texts, beside the run's


@dataclass(frozen=True)
class Split:
    """Texts with some words masked: batch; at, ids [example, n] where they are predicted and what stood there, -1 for none.

    inside [example, n]: whether it is of a word that the head should serve.
    """

    batch: Batch
    at: Tensor
    ids: Tensor
    inside: Tensor


class AtRelation:
    """The check on a task's held-out texts, which are drawn once."""

    def __init__(self, model: Model, task: Task, metric: Metric, seed: int) -> None:
        self.model, self.task, self.metric, self.seed = model, task, metric, seed
        self._known: dict[tuple[str, frozenset[HeadId]], Array] = {}
        self._splits: dict[str, Split | None] = {}

    @cached_property
    def _texts(self) -> Batch:
        return fresh(self.model, self.task, EXAMPLES, self.seed + SEED, EXAMPLES)

    def check(
        self, detector: Detector, told: Mapping[HeadId, str], heads: Sequence[HeadId], bench: Bench,
        progress: Progress | None = None,
    ) -> dict[HeadId, Check]:  # fmt: skip
        """By head: the rise of the loss at the words it should serve less that elsewhere, in nats; nothing for other detectors.

        Passed where that is certainly above 0 and above that of every free head, weakened where only the former holds.
        """
        hook = detector.works_at if isinstance(detector, LayerDetector) else None
        if hook is None:
            return {}
        removal = bench.removal
        if self.metric not in HIDING or not isinstance(removal, SetAblation) or removal.within is not None:
            none = Check(NAME, "does not apply", note="asked of models that predict masked tokens")
            return dict.fromkeys(heads, none)
        found = {}
        for head in heads:
            found[head] = self._one(hook, told.get(head, ""), head, bench)
            if progress is not None:
                progress.advance("verdict")
        return found

    def _one(self, hook: Callable[[Batch, str], Tensor | None], words: str, head: HeadId, bench: Bench) -> Check:
        if words not in self._splits:
            places = hook(self._texts, words) if words else None
            self._splits[words] = None if places is None else split(self.model, self.metric, self._texts, places)
        parts = self._splits[words]
        if parts is None:
            return Check(NAME, "does not apply", note="it follows no relation for certain")
        removal = bench.removal
        assert isinstance(removal, SetAblation)

        def rise(one: HeadId) -> Array:
            return self._losses(words, parts, [removal.change([one])], {one}) - self._losses(words, parts, [], set())

        drop = rise(head)
        known = ~np.isnan(drop).any(1)
        if known.sum() < FEWEST:
            return Check(NAME, "does not apply", note="too few texts have such words")
        free = [one for one in bench.controls.heads if one != head]
        order = np.random.default_rng(self.seed).permutation(len(free))[:FREE]
        others = [float(np.nanmean(rise(free[i])[known] @ [1.0, -1.0])) for i in order]
        return outcome(drop[known], others, self.seed)

    def _losses(self, words: str, parts: Split, edits: Sequence[Edit], key: set[HeadId]) -> Array:
        """[example, (inside, elsewhere)] mean loss of the masked tokens."""
        found = self._known.get((words, frozenset(key)))
        if found is None:
            logits = self.model.forward(parts.batch, edits=edits, logit_positions=parts.at)
            losses = -logits.float().log_softmax(-1).cpu().gather(-1, parts.ids.clamp(min=0)[..., None])[..., 0]
            present = parts.ids >= 0
            means = [
                torch.where(present & side, losses, torch.nan).nanmean(1) for side in (parts.inside, ~parts.inside)
            ]
            found = self._known[words, frozenset(key)] = torch.stack(means, 1).double().numpy()
        return found


def outcome(drop: Array, others: Sequence[float], seed: int = 0) -> Check:
    """The check's outcome: drop [text, (inside, elsewhere)] of the head, and the mean difference of each free head."""
    inside, elsewhere = drop.T
    apart = effect_of(inside - elsewhere, 1.0, None, seed)
    parts = {
        name: _ends(effect_of(x, 1.0, None, seed)) for name, x in (("at its words", inside), ("elsewhere", elsewhere))
    }
    if others:
        parts["random heads"] = float(np.median(others)), min(others), max(others)
    more = apart.low > 0
    above = not others or apart.effect > max(others)
    result: Outcome = "passed" if more and above else "weakened" if more else "failed"
    note = "matters at the words of its relation more than elsewhere" if result == "passed" else (
        "so does a random head" if result == "weakened" else ""
    )  # fmt: skip
    return Check(NAME, result, *_ends(apart), note, parts)


def _ends(effect: RemovalEffect) -> tuple[float, float, float]:
    return effect.effect, effect.low, effect.high


def split(model: Model, metric: Metric, batch: Batch, places: Tensor) -> Split | None:
    """Mask some words at `places` [example, pos] and as many others, SHARE of a text's tokens in all; None where no text has both.

    metric: of HIDING, which says how words are masked. Places are those of the stack that predicts tokens.
    Which words depends on the text alone. They are told by batch.marks["word"]; those without one are not masked.
    Raises UnfitTask.
    """
    word = batch.marks["word"]
    at, inside = [], []
    for row, of, wanted in zip(batch.tokens, word, places, strict=True):
        every = of[of >= 0].unique().tolist()
        mine = [one for one in every if bool(wanted[of == one].any())]
        rest = [one for one in every if one not in set(mine)]
        k = min(len(mine), len(rest), max(1, math.floor(SHARE * len(every) / 2)))
        generator = torch.Generator().manual_seed(zlib.crc32(row.numpy().tobytes()))
        chosen = [
            [among[i] for i in torch.randperm(len(among), generator=generator)[:k].tolist()] for among in (mine, rest)
        ]
        sides = [torch.isin(of, torch.tensor(one, dtype=of.dtype)).nonzero().flatten() for one in chosen]
        at.append(torch.cat(sides))
        inside.append(
            torch.cat([torch.ones(len(sides[0]), dtype=torch.bool), torch.zeros(len(sides[1]), dtype=torch.bool)])
        )
    if not any(map(len, at)):
        return None
    padded, sides_ = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler)
        for rows, filler in ((at, -1), (inside, False))
    )
    return Split(*_hidden(model, metric, replace(batch, control=None, counterfactual=None), padded), sides_)


def _hidden(model: Model, metric: Metric, batch: Batch, at: Tensor) -> tuple[Batch, Tensor, Tensor]:
    """The batch without the tokens at [example, n], where they are predicted, and their ids; -1 for none."""
    words = model.tokenizer
    if metric is span_corruption_loss:
        read = corrupted(batch, words, at)
        return read, read.positions["masked"], read.labels["masked"]
    assert words.mask is not None
    if metric is denoising_loss:
        read = noised(batch, words, words.mask, at)
        return read, read.positions["before masked"], read.labels["masked"]
    return replaced(batch, at, words.mask), at, standing(batch, at)
