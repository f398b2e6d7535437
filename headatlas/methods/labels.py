"""Prompts with labels: which class each example has, and which examples must not be parted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.reading import as_batch
from headatlas.prompts_file import read_prompts
from headatlas.task import Batch, find_task

TRIES = 20  # shuffles of labels, of which the first is taken that can be probed


@dataclass(frozen=True)
class Labels:
    """The class of each example and the group that it must not be parted from.

    y [example] numbers of `classes`; group [example] numbers: a question with all its answers, say. Examples of one group
    never stand on both sides of a split. within [example] numbers: where given, chance is probes whose labels were shuffled among
    examples of one number only, so that what tells these numbers apart, and with them often the classes, counts for chance.
    """

    y: NDArray[np.int64]
    group: NDArray[np.int64]
    classes: tuple[str, ...]
    within: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class LabelledPrompts:
    """Which labelled prompts a model reads: those of a built-in task or of a file, or a batch of one's own.

    task: a built-in task whose prompts have labels, of which `n` are drawn with `seed`. prompts: a JSONL file with text,
    label, and group if wanted. label: which label; a file's is "label". group: label of what must not be parted; default
    "group" where there is one. Raises BadInput unless exactly one source is given.
    """

    task: str | None = None
    prompts: str | Path | None = None
    label: str | None = None
    group: str | None = None
    n: int = 200
    seed: int = 0
    batch: Inputs | None = None

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.task, self.prompts, self.batch)) != 1:
            raise BadInput(
                "Say what the prompts are.",
                "Give either --prompts FILE.jsonl with text and label, or --task NAME --label NAME.",
            )


def labelled(
    model: Model, given: Inputs | LabelledPrompts, labels: Labels | Sequence[str | int] | None = None
) -> tuple[Batch, Labels]:
    """The prompts as a model reads them, with their classes and groups.

    labels: the classes, or one name or number for each prompt, where the prompts do not have them. Raises BadInput, UnknownName.
    """
    given = given if isinstance(given, LabelledPrompts) else LabelledPrompts(batch=given)
    if given.batch is not None:
        batch = as_batch(given.batch, model.tokenizer)
        if isinstance(labels, Labels):
            return batch, labels
        if labels is not None:
            batch = with_labels(batch, labels)
        return batch, labels_of(batch, given.label or "label", given.group)
    if labels is not None and not isinstance(labels, Labels):
        raise BadInput(
            "Prompts of a task or a file have labels of their own.", "Leave labels out, or give a list of texts."
        )
    batch, own = _kept_somewhere(model, given)
    return batch, own if labels is None else labels


def with_labels(batch: Batch, labels: Sequence[str | int]) -> Batch:
    """The batch with labels["label"], numbered in the order of facts["classes"]. Raises BadInput for another number of them."""
    if len(labels) != len(batch):
        raise BadInput(f"There are {len(labels)} labels for {len(batch)} prompts.", "Give one for each.")
    names = [str(one) for one in labels]
    classes = sorted(set(names))
    numbers = torch.tensor([classes.index(one) for one in names])
    return replace(batch, labels={**batch.labels, "label": numbers}, facts={**batch.facts, "classes": classes})


def _kept_somewhere(model: Model, given: LabelledPrompts) -> tuple[Batch, Labels]:
    """Prompts of a file or a task."""
    if given.prompts is not None:
        batch = read_prompts(given.prompts, model.tokenizer)
        if "label" not in batch.labels:
            raise BadInput(f"{given.prompts} has no labelled texts.", 'Lines need "text" and "label".')
        return batch, labels_of(batch, given.label or "label", given.group)
    task = find_task(str(given.task))
    batch = task(model.tokenizer, given.n, given.seed)
    if given.label is None:
        known = ", ".join(name for name, value in batch.labels.items() if value.ndim == 1) or "none"
        raise BadInput(f"Task {task.name} needs --label.", f"Its labels are: {known}.")
    return batch, labels_of(batch, given.label, given.group)


def labels_of(batch: Batch, label: str = "label", group: str | None = None) -> Labels:
    """The classes and groups of a batch by the names of its labels; equal prompts always share a group. Raises BadInput.

    group: default "group" where the batch has such labels, else every prompt is its own group.
    """
    for name in (label, group):
        if name is not None and name not in batch.labels:
            known = ", ".join(name for name, value in batch.labels.items() if value.ndim == 1) or "none"
            raise BadInput(f"These prompts have no label '{name}'.", f"Their labels are: {known}.")
    value = batch.labels[label]
    if value.ndim != 1 or value.is_floating_point():
        raise BadInput(
            f"Label '{label}' does not name classes: one whole number an example is needed.", "Choose another label."
        )
    found, y = np.unique(value.numpy(), return_inverse=True)
    names = batch.facts.get("classes") if label == "label" else None
    classes = tuple(str(names[i]) if names is not None else str(i) for i in found)
    same = torch.where(batch.mask, batch.tokens, -1)
    own = _by_appearance(same.unique(dim=0, return_inverse=True)[1])
    group = group or ("group" if "group" in batch.labels else None)
    return Labels(y, _joined(own, batch.labels[group]) if group is not None else own.numpy(), classes)


def _by_appearance(numbers: Tensor) -> Tensor:
    """The same groups, numbered as they first appear: folds are made by number, and must not hang on the tokens' ids."""
    place = torch.arange(len(numbers))
    first = torch.full((int(numbers.max()) + 1,), len(numbers)).scatter_reduce(0, numbers, place, "amin")
    return first[numbers].unique(return_inverse=True)[1]


def _joined(first: Tensor, second: Tensor) -> NDArray[np.int64]:
    """[example] groups in which all examples with an equal first or an equal second number come together."""
    group = first.clone()
    while True:
        before = group.clone()
        for numbers in (second, first):
            _, index = numbers.unique(return_inverse=True)
            least = torch.full((int(index.max()) + 1,), int(group.max()) + 1).scatter_reduce(0, index, group, "amin")
            group = least[index]
        if torch.equal(group, before):
            return np.unique(group.numpy(), return_inverse=True)[1]


def shuffled(labels: Labels, ranking: NDArray[np.int64], fewest: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels of the examples `ranking` in which each group has those of another one, in random order.

    Labels that are alike within groups stay so: a probe of nothing is then right or wrong about whole groups, and scatters more
    than one of labels that all changed places. Within each number of `labels.within` the labels stay those of that number:
    groups change places with others that have the same numbers, those that are like no other among themselves, and where the
    other has no example of a number, labels come from all that do. Labels of groups that differ in size may become rare; each is to be found in `fewest` groups.
    """
    y, group = labels.y[ranking], np.unique(labels.group[ranking], return_inverse=True)[1]
    within = np.zeros(len(y), np.int64) if labels.within is None else labels.within[ranking]
    kinds = [tuple(np.unique(within[group == i]).tolist()) for i in range(group.max() + 1)]
    like = Counter(kinds)
    alike = [[i for i, one in enumerate(kinds) if one == kind] for kind, n in like.items() if n > 1]
    alike.append([i for i, one in enumerate(kinds) if like[one] == 1])
    own = y.copy()
    for _ in range(TRIES):
        other = dict(pair for mine in alike for pair in zip(mine, rng.permutation(mine).tolist(), strict=True))
        for i, number in ((i, number) for i, kind in enumerate(kinds) for number in kind):
            there = within == number
            pool = y[there & (group == other[i])]
            to = there & (group == i)
            own[to] = np.resize(rng.permutation(pool if len(pool) else y[there]), int(to.sum()))
        if all(len(np.unique(group[own == one])) >= fewest for one in np.unique(y)):
            return own
    for number in np.unique(within):
        own[within == number] = rng.permutation(y[within == number])
    return own
