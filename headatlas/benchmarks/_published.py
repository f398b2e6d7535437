"""Published rows as a task: prompts with answers, wrong answers, classes and counterfactuals, in two halves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch

from headatlas.benchmarks._rows import Fields, Layout, rows_of_source
from headatlas.errors import BadInput, UnfitTask
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.own_prompts.control import disordered
from headatlas.own_prompts.make import prompts
from headatlas.task import HELD_OUT, Batch, Metric, Task, Vocabulary, logit_difference
from headatlas.task.benchmark import Benchmark

POOL = 512  # items that are looked at to find `n` of them that a tokenizer can express, and others of their length


@dataclass(frozen=True)
class Item:
    """One prompt of a benchmark.

    answers: right ones as they are written behind the prompt; the first counts where several have more than one token.
    wrong: wrong ones; None: the answer of another item of the same `kind`, empty: there are none. label: its class. group:
    items of one group never stand in both halves. spans: name -> words of the prompt (see `headatlas.prompts`). right:
    whether the answer is true, for items that are one of several answers to the question `group`; best: whether it is the best.
    """

    prompt: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...] | None = None
    label: str | None = None
    group: str = ""
    kind: str = ""
    spans: Mapping[str, Any] = field(default_factory=dict, compare=False)
    right: bool | None = None
    best: bool = False


Read = Callable[[Fields], Item | Iterable[Item]]


def published(
    *,
    layout: Layout,
    files: str,
    card: str,
    licence: str,
    hub: str = "",
    metric: Metric = logit_difference,
    metrics: Sequence[str] = (),
) -> Callable[[Read], Benchmark]:
    """Make a Benchmark of a function from one row to its items; its id is the function's name with dashes.

    See `headatlas.task.benchmark.Benchmark` for files, card, licence, hub and metrics. metric: of the task.
    """

    def made(read: Read) -> Benchmark:
        name, doc = read.__name__.replace("_", "-"), (read.__doc__ or "").strip()

        def load(source: str) -> Task:
            items = []
            for row in rows_of_source(source, layout, hub, files):
                found = read(row)
                items += [found] if isinstance(found, Item) else list(found)
            return _task(name, doc, read.__module__, items, metric)

        return Benchmark(name, read.__module__, doc, "", load, files, hub, card, licence, tuple(metrics))

    return made


def generated(name: str, task: str, about: str, *, metrics: Sequence[str] = (), licence: str = "") -> Benchmark:
    """A Benchmark that a task of ours makes, seeded, in place of files; about: how that differs from the papers."""
    module = f"headatlas.benchmarks.{name.replace('-', '_')}"
    return Benchmark(name, module, about, task, licence=licence, metrics=tuple(metrics))


def letters(question: str, options: Sequence[str], right: int, *, context: str = "", **more: Any) -> Item:
    """A question with lettered options, whose answer is a letter."""
    names = [chr(ord("A") + i) for i in range(len(options))]
    listed = "\n".join(f"{name}. {option}" for name, option in zip(names, options, strict=True))
    front = f"{context}\n\n" if context else ""
    wrong = tuple(f" {name}" for i, name in enumerate(names) if i != right)
    return Item(f"{front}{question}\n{listed}\nAnswer:", (f" {names[right]}",), wrong, names[right], **more)


def _task(name: str, doc: str, module: str, items: Sequence[Item], metric: Metric) -> Task:
    """The items as a task: every other group finds heads, the others test them."""
    if not items:
        raise BadInput(f"The files of {name} hold no items that can be asked.", "Is it the split with the answers?")
    version = int(hashlib.sha256(repr(items).encode()).hexdigest()[:8], 16)
    by_group: dict[str, list[Item]] = {}
    for item in dict.fromkeys(items):  # published files hold some prompts twice, which must not stand in both halves
        by_group.setdefault(item.group or item.prompt, []).append(item)
    order = np.random.default_rng(0).permutation(len(by_group)).tolist()
    groups = list(by_group.values())

    def of(half: int) -> Callable[[Vocabulary, int, np.random.Generator], Batch]:
        mine = [groups[i] for i in order[half::2]]

        def build(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
            if not tokenizer.causal:
                raise UnfitTask(f"{name} asks for the next word; this model has bidirectional attention.")
            size = max(POOL, 4 * n) if items[0].right is None else 2 * n + 16
            drawn = [mine[i] for i in rng.permutation(len(mine))[:size]]
            return _batch(name, [item for group in drawn for item in group], n, cast(Tokenizer, tokenizer))

        return build

    twin = Task(name + HELD_OUT, of(1), metric, version, 0.0, "control", doc, module, given=True)
    return Task(name, of(0), metric, version, 0.0, "control", doc, module, twin=twin, given=True)


@dataclass(frozen=True)
class _Fitted:
    """An item that the tokenizer can express. row: as `prompts` takes it. first: ids of its answers' first tokens."""

    item: Item
    row: dict[str, Any]
    length: int
    first: frozenset[int]


def _batch(name: str, items: Sequence[Item], n: int, tokenizer: Tokenizer) -> Batch:
    """`n` prompts (questions, where an item is one of several answers), those that have a counterfactual first."""
    read, reasons = [], [""]
    for item in items:
        try:
            read.append(_fitted(item, tokenizer))
        except BadInput as error:  # another item may do
            reasons.append(f": {error.message}")
    if items[0].right is not None:
        chosen = _questions(items, read, n)
    else:
        paired = [pair for one in read if (pair := _paired(one, read)) is not None]
        alike = [one for one in paired if "counterfactual" in one.row]
        chosen = (alike if len(alike) >= n else [*alike, *(one for one in paired if "counterfactual" not in one.row)])[
            :n
        ]
        if len(chosen) < n:
            chosen = []
    if not chosen:
        raise UnfitTask(
            f"{name} has fewer than {n} prompts in this half of its items that this tokenizer and context can express"
            f"{reasons[-1] or '.'}"
        )
    rows = [one.row for one in chosen]
    if not all("counterfactual" in row for row in rows):
        rows = [{key: value for key, value in row.items() if key != "counterfactual"} for row in rows]
    batch = _labelled(prompts(tokenizer, rows), [one.item for one in chosen])
    return replace(batch, control=disordered(batch, tokenizer))


def _fitted(item: Item, tokenizer: Tokenizer) -> _Fitted:
    """An item as `prompts` reads it, tried. Raises BadInput where this tokenizer or context cannot express it."""
    singles = [word for word in item.answers if tokenizer.single(word) is not None]
    first, *_ = item.answers
    row: dict[str, Any] = {"prompt": item.prompt, "answer": singles if first in singles else first}
    if item.spans:
        row["spans"] = dict(item.spans)
    if item.wrong:
        row["wrong"] = list(item.wrong) if len(item.wrong) > 1 else item.wrong[0]
    made = prompts(tokenizer, [row])
    return _Fitted(item, row, int(made.positions["end"][0]), frozenset(made.answer.flatten().tolist()))


def _paired(one: _Fitted, others: Sequence[_Fitted]) -> _Fitted | None:
    """The item with another's prompt as its counterfactual, and that one's answer as wrong where it has none of its own.

    A counterfactual has as many tokens, so that values can be put from one to the other. None where no wrong answer is found.
    """
    rivals = [two for two in others if two.item.kind == one.item.kind and not two.first & one.first]
    same = next((two for two in rivals if two.length == one.length), None)
    row = dict(one.row)
    if same is not None:
        row["counterfactual"] = same.item.prompt
    if one.item.wrong is None:
        if not rivals:
            return None
        row["wrong"] = (same or rivals[0]).item.answers[0]
    return replace(one, row=row)


def _questions(items: Sequence[Item], read: Sequence[_Fitted], n: int) -> list[_Fitted]:
    """All answers of the first `n` questions that the tokenizer can express whole; none where there are fewer."""
    wanted: dict[str, int] = {}
    for item in items:
        wanted[item.group] = wanted.get(item.group, 0) + 1
    found: dict[str, list[_Fitted]] = {}
    for one in read:
        found.setdefault(one.item.group, []).append(one)
    whole = [answers for group, answers in found.items() if len(answers) == wanted[group]]
    return [one for answers in whole[:n] for one in answers] if len(whole) >= n else []


def _labelled(batch: Batch, items: Sequence[Item]) -> Batch:
    """The batch with classes, groups and, of items that are one of several answers, which are right."""
    labels, facts = dict(batch.labels), dict(batch.facts)
    facts["prompts"] = "of a published benchmark"

    def numbered(names: Sequence[str]) -> torch.Tensor:
        known = sorted(set(names))
        return torch.tensor([known.index(one) for one in names])

    if all(item.label is not None for item in items):
        names = [str(item.label) for item in items]
        labels["label"], facts["classes"] = numbered(names), sorted(set(names))
    if all(item.group for item in items):
        labels["group"] = numbered([item.group for item in items])
    if items[0].right is not None:
        labels["right"] = torch.tensor([int(bool(item.right)) for item in items])
        labels["best"] = torch.tensor([int(item.best) for item in items])
    return replace(batch, labels=labels, facts=facts)
