"""Probing: can a label be read off a head's output alone? A small classifier per head, tested on texts that it never saw.

Li et al. 2023 (ITI) probe each head's output at the last token with logistic regression; Hoscilowicz et al. 2024 (NL-ITI) with a
small network on the mean over several tokens. A probe shows that something can be read there, not that the model does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from headatlas.choices import PROBE
from headatlas.edits import OnHeads
from headatlas.edits.collect import pieces, read
from headatlas.errors import BadInput
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.methods.classifiers import as_far_as_luck, balance, balanced, fitted, right_on_others, splits_of
from headatlas.methods.former import former_arguments
from headatlas.methods.labels import LabelledPrompts, Labels, labelled, shuffled
from headatlas.methods.labels import labels_of as labels_of
from headatlas.methods.sweeps.cached_runs import GB
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.start_end import said_of
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Progress, Silent
from headatlas.renamed import old_names
from headatlas.scores import HeadScore, HeadScores
from headatlas.task import Batch


@dataclass(frozen=True)
class CrossValidation:
    """How examples are split into those that train a probe and those that test it; groups are never parted.

    folds: of the cross-validation that ranks heads. shuffles: control probes on shuffled labels (groups exchange theirs). test: share of the groups held back from the ranking. seed: of splits and shuffles.
    """

    folds: int = 5
    shuffles: int = 3
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shuffles < 1 or not 0 <= self.test < 1 or self.folds < 2:
            raise BadInput(
                "Probing needs 2 folds, 1 shuffle and a test share from 0 to below 1.", "Check the numbers given."
            )


@dataclass(frozen=True)
class Probes:
    """What probes of each head found.

    scores: HeadScores with a row per group: each head's mean is its balanced accuracy in cross-validation (0.5 for two
    classes by chance), the control the same with shuffled labels. test: [head] balanced accuracy of probes trained on all
    of these on groups that had no part in the ranking; None where none were held back. n_examples, n_test: their numbers.
    facts: how they were trained.
    """

    scores: HeadScores
    test: Array | None
    labels: Labels
    n_examples: int
    n_test: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """The heads that were probed."""
        return self.scores.heads

    def __repr__(self) -> str:
        best = ", ".join(f"{line.head} {line.score:.2f}" for line, _ in self.top(3))
        classes = " | ".join(self.labels.classes)
        return f"Probes({classes}: {len(self.heads)} heads, {self.n_examples} examples; most accurate {best})"

    def top(self, k: int) -> list[tuple[HeadScore, float | None]]:
        """The k heads with the highest accuracy in cross-validation, each with its accuracy on the held-back groups."""
        held = {} if self.test is None else dict(zip(self.heads, self.test.tolist(), strict=True))
        return [(line, held.get(line.head)) for line in self.scores.top(k)]


def tokens_read(batch: Batch, position: str = "end", last: int = 1) -> Tensor:
    """[example, token] weights that average over the `last` tokens up to a named position; a start token is left out.

    Texts with fewer tokens are averaged over those they have. Raises BadInput.
    """
    if last < 1:
        raise BadInput(f"There is no mean over {last} tokens.", "Give 1 or more.")
    columns = torch.arange(batch.tokens.shape[1])
    if position == "end" and "end" not in batch.positions:
        ends = torch.where(batch.mask, columns, -1).amax(1)
    elif position in batch.positions and batch.positions[position].reshape(len(batch), -1).shape[1] == 1:
        ends = batch.positions[position].reshape(len(batch))
    else:
        known = ", ".join(sorted({"end", *(name for name, value in batch.positions.items() if value[0].numel() == 1)}))
        raise BadInput(f"These prompts have no single position '{position}'.", f"Choose one of {known}.")
    if bool((ends < 0).any()):
        raise BadInput(
            f"Example {int((ends < 0).long().argmax())} has no position '{position}'.", "Choose another position."
        )
    inside = (columns > ends[:, None] - last) & (columns <= ends[:, None]) & batch.mask
    if batch.facts.get("bos") is not None:
        start = batch.mask.long().argmax(1)
        inside &= (columns != start[:, None]) | (ends == start)[:, None]
    return inside.float() / inside.sum(1, keepdim=True)


def outputs(
    model: Model, batch: Batch, heads: Sequence[HeadId], weight: Tensor | Mapping[str, Tensor], memory: int = GB
) -> Iterator[tuple[HeadId, Tensor]]:
    """(head, z [example, d_value] averaged with weight [example, token], one for all or by stack) of each head in float32.

    As many layers a pass as fit `memory` bytes.
    """
    model.require(heads)
    places = list(dict.fromkeys((head.stack, head.layer) for head in heads))
    weights = {stack: weight if isinstance(weight, Tensor) else weight[stack] for stack, _ in places}
    size = {
        place: 4 * len(batch) * model.layer(place[1], place[0]).n_heads * model.layer(place[1], place[0]).d_value
        for place in places
    }
    while places:
        together = [places.pop(0)]
        while places and sum(size[place] for place in (*together, places[0])) <= memory:
            together.append(places.pop(0))
        mine = [head for head in heads if (head.stack, head.layer) in together]
        found = _averaged(model, batch, OnHeads(mine), weights)
        for head in mine:
            yield head, found[head.stack, head.layer][:, head.head]


def _averaged(model: Model, batch: Batch, what: OnHeads, weights: Mapping[str, Tensor]) -> dict[LayerKey, Tensor]:
    """(stack, layer) -> [example, head, d_value] of z averaged over tokens."""
    parts: dict[LayerKey, list[Tensor]] = {place: [] for place in what.layers}
    rows = slice(0, 0)

    def keep(place: LayerKey, z: Tensor) -> None:
        parts[place].append(
            torch.einsum("et,ethd->ehd", weights[place[0]][rows].to(z.device), z.detach().float()).cpu()
        )

    for part in pieces(batch):
        rows = slice(rows.stop, rows.stop + len(part))
        read(model, part, what, keep)
    return {place: torch.cat(found) for place, found in parts.items()}


@former_arguments(CrossValidation, "validation", at="position")
def probe(
    model: Model,
    batch: Inputs | LabelledPrompts,
    labels: Labels | Sequence[str | int] | None = None,
    heads: Heads | None = None,
    *,
    kind: str = "linear",
    position: str = "end",
    last: int = 1,
    validation: CrossValidation | None = None,
    progress: Progress | None = None,
) -> Probes:
    """Train a classifier on each head's output and test it on other groups of examples.

    batch: prompts as `model.forward` takes them, or `LabelledPrompts`. labels: the classes of the examples, or a name or number for
    each; default those that the prompts have. heads: default every head. kind: linear
    (logistic regression) or mlp (16 hidden units), both on outputs centred and divided by one number, their root mean square
    over the training examples: dimensions one by one would depend on the basis of a head's values, which is arbitrary, since
    W_V and W_O can be turned against each other without any effect. position, last:
    the tokens whose outputs are averaged (see `tokens_read`). Raises BadInput.
    """
    validation = validation or CrossValidation()
    PROBE.demand(kind)
    read, known = labelled(model, batch, labels)
    progress = progress or Silent()
    folds, shuffles, test, seed = validation.folds, validation.shuffles, validation.test, validation.seed
    chosen = model.heads if heads is None else parse_heads(heads, model.heads)
    ranking, held = _held_back(known, test, folds, seed)
    y, group = known.y[ranking], known.group[ranking]
    _demand(y, group, known, folds)
    rng = np.random.default_rng(seed)
    runs = [y, *(shuffled(known, ranking, folds, rng) for _ in range(shuffles))]
    splits = [splits_of(run, group, folds, seed) for run in runs]
    rows = np.unique(group, return_inverse=True)[1]
    # A row per group, such that the mean over groups is the balanced accuracy over examples.
    values, control = np.empty((2, int(rows.max()) + 1, len(chosen)))
    tested = np.full(len(chosen), np.nan)
    weight = {stack: tokens_read(read.side(stack), position, last) for stack in dict.fromkeys(h.stack for h in chosen)}
    for number, (_, z) in enumerate(outputs(model, read, chosen, weight)):
        x = z.double().numpy()
        inside = x[ranking]
        right = right_on_others(kind, inside, runs, splits, seed)
        means, moved = zip(*(balanced(hits, run) for hits, run in zip(right, runs, strict=True)), strict=True)
        own, *others = np.stack([np.bincount(rows, one) for one in moved]) * (len(values) / len(y))
        values[:, number] = means[0] + own
        control[:, number] = np.mean(means[1:]) + as_far_as_luck(own, np.stack(others))
        if len(held):
            guess = fitted(kind, inside, y, seed).predict(x[held])
            tested[number] = float(((guess == known.y[held]) * balance(known.y[held])).mean())
        progress.advance("probe", of=len(chosen))
    scores = HeadScores(chosen, values, control)
    facts = {
        "model": model.name,
        "kind": kind,
        "at": position,
        "last": last,
        "seed": seed,
        "start_end": said_of(read.facts),
    }
    return Probes(scores, tested if len(held) else None, known, len(ranking), len(held), facts)


def _held_back(labels: Labels, share: float, folds: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(examples that rank the heads, examples held back), without a group in both."""
    everything = np.arange(len(labels.y))
    if share == 0:
        return everything, everything[:0]
    parts = max(2, round(1 / share))
    _demand(labels.y, labels.group, labels, max(parts, folds))
    inside, held = next(
        iter(StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(everything, labels.y, labels.group))
    )
    return inside, held


def _demand(y: NDArray[np.int64], group: NDArray[np.int64], labels: Labels, folds: int) -> None:
    """Raise BadInput unless every class is found in as many groups as there are parts."""
    if len(labels.classes) < 2:
        raise BadInput("All prompts have one label; there is nothing to tell apart.", "Give at least two labels.")
    for number, name in enumerate(labels.classes):
        n = len(np.unique(group[y == number]))
        if n < folds:
            raise BadInput(
                f"Label '{name}' is found in {n} group(s) of prompts, and {folds} parts are to be made.",
                "Give more prompts (texts that are alike count once), fewer --folds, or a smaller --test share.",
            )


def data_of(found: Probes) -> dict[str, Any]:
    """The numbers as plain values, heads with the highest accuracy first."""
    groups = len(found.scores.values)
    lines = [
        {"head": str(line.head), "accuracy": line.score, "low": line.low, "high": line.high, "shuffled": line.chance, "p": line.p,
         "q": line.q, "held_back": held}
        for line, held in found.top(len(found.heads))
    ]  # fmt: skip
    return {
        **found.facts, "classes": list(found.labels.classes), "n_examples": found.n_examples, "n_groups": groups, "n_test": found.n_test,
        "n_found": sum(line.q < 0.01 for line in found.scores.summary()), "heads": lines,
    }  # fmt: skip


__getattr__ = old_names(__name__)
