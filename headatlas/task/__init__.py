"""A task: seeded token batches in which a behaviour can be measured, and the metric that measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput, UnfitTask
from headatlas.registry import demand_parameters, discover, lookup
from headatlas.task.batch import Batch as Batch
from headatlas.task.batch import Vocabulary as Vocabulary
from headatlas.task.batch import complete
from headatlas.task.batch import edges as edges
from headatlas.task.benchmark import benchmark_task, is_benchmark


@dataclass(frozen=True)
class Metric:
    """How well a model does on a batch, per example.

    positions(batch) -> [example, n] positions whose logits are needed, -1 where an example has fewer.
    score(logits [example, n, vocab], batch) -> [example] float.
    compares: whether a value above 0 says that the answer is preferred to the wrong one; the share of such examples is
    then the model's accuracy between the two.
    settle(scores [prompt, ...], batch) -> [question, ...]: of metrics of questions whose answers are prompts of their own,
    what the scores of a question's prompts come to; None where each prompt stands for itself.
    level: whether it is at its best in the run without changes, so that its slope there is 0 and no gradient ranks heads.
    """

    name: str
    positions: Callable[[Batch], Tensor]
    score: Callable[[Tensor, Batch], Tensor]
    higher_is_better: bool
    unit: str
    compares: bool = False
    settle: Callable[[Any, Batch], Any] | None = None
    level: bool = False

    def __repr__(self) -> str:
        better = "higher" if self.higher_is_better else "lower"
        return f"Metric({self.name}{f' in {self.unit}' if self.unit else ''}, {better} is better)"

    def worse(self, change: Any) -> Any:
        """By how much a change of the metric is one for the worse."""
        return -change if self.higher_is_better else change

    def settled(self, scores: Any, batch: Batch) -> Any:
        """Scores [prompt, ...] of a whole batch as values [example, ...]: themselves, or what they come to for each question."""
        return scores if self.settle is None else self.settle(scores, batch)


def _loss(logits: Tensor, batch: Batch) -> Tensor:
    positions = batch.positions["predict"]
    target = batch.tokens.gather(1, (positions + 1).clamp(min=0))
    nll = -logits.float().log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    present = positions >= 0
    return (nll * present).sum(1) / present.sum(1)


def _values(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of [example, vocab] the values of each example's ids, [example, k], and which of them are ids at all."""
    ids = ids.reshape(len(ids), -1)
    return values.gather(-1, ids.clamp(min=0)), ids >= 0


def _difference(logits: Tensor, batch: Batch) -> Tensor:
    def mean(ids: Tensor) -> Tensor:
        taken, present = _values(logits[:, 0].float(), ids)
        return (taken * present).sum(1) / present.sum(1)

    return mean(batch.answer) - mean(batch.wrong)


def _margin(logits: Tensor, batch: Batch) -> Tensor:
    def best(ids: Tensor) -> Tensor:
        taken, present = _values(logits[:, 0].float(), ids)
        return taken.masked_fill(~present, -torch.inf).amax(1)

    return best(batch.answer) - best(batch.wrong)


def _probability_difference(logits: Tensor, batch: Batch) -> Tensor:
    probability = logits[:, 0].float().softmax(-1)

    def mass(ids: Tensor) -> Tensor:
        taken, present = _values(probability, ids)
        return (taken * present).sum(1)

    return mass(batch.answer) - mass(batch.wrong)


def _lead(logits: Tensor, batch: Batch) -> Tensor:
    logits = logits[:, 0].float()
    taken, present = _values(logits, batch.answer)
    answers = batch.answer.reshape(len(batch), -1)
    rest = logits.scatter(1, answers.where(present, answers[:, :1]), -torch.inf)
    return taken.masked_fill(~present, -torch.inf).amax(1) - rest.amax(1)


def _first(logits: Tensor, batch: Batch) -> Tensor:
    answers = batch.answer.reshape(len(batch), -1)
    return (logits[:, 0].argmax(-1, keepdim=True) == answers).any(1).float()


def _exact(logits: Tensor, batch: Batch) -> Tensor:
    positions = batch.positions["predict"]
    target = batch.tokens.gather(1, (positions + 1).clamp(min=0))
    return ((logits.argmax(-1) == target) | (positions < 0)).all(1).float()


def _end(batch: Batch) -> Tensor:
    return batch.positions["end"].reshape(-1, 1)


# Mean cross-entropy of the token after each position in positions["predict"].
next_token_loss = Metric("next-token loss", lambda batch: batch.positions["predict"], _loss, False, "nats")
# Logit of the answer minus logit of the wrong answer at positions["end"]; several ids are averaged.
logit_difference = Metric("logit difference", _end, _difference, True, "logits", compares=True)
# Logit of the best answer minus logit of the best wrong answer at positions["end"]: above 0 where the model would choose right.
logit_margin = Metric("logit margin", _end, _margin, True, "logits", compares=True)
# Logit of the best answer minus the highest logit of all other tokens: above 0 where greedy decoding would write it.
logit_lead = Metric("logit lead", _end, _lead, True, "logits", compares=True)
# Probability of all answers minus probability of all wrong answers at positions["end"] (greater-than: Hanna et al. 2023).
probability_difference = Metric("probability difference", _end, _probability_difference, True, "", compares=True)
# 1 where the most likely token of the whole vocabulary at positions["end"] is an answer.
accuracy = Metric("accuracy", _end, _first, True, "share")
# 1 where each token after the positions positions["predict"] is the most likely one: greedy decoding would write them all.
exact_match = Metric("exact match", lambda batch: batch.positions["predict"], _exact, True, "share")


@dataclass(frozen=True)
class Task:
    """A seeded generator of batches with its metric.

    margin: how far better than the floor the metric must be for the model to count as able. The floor is the metric on the
    control batch, or (floor="uniform") that of a uniform guess over the vocabulary, or (floor="even") 0: neither answer preferred.
    second: the same task in another family of prompts (other templates, words and format), on which is tried whether what
    was found is more than a habit of one; None where it has none. Its docstring says how it differs.
    twin: the task on other items, where no registered task is it.
    given: whether its prompts were given (a user's own, a published file's) and not made for one behaviour: all detectors
    that only look at layers may then be asked on them.
    paired: whether its batches hold what an encoder reads and what the decoder is asked for there, so that its metric is an encoder-decoder's too.
    """

    name: str
    build: Callable[[Vocabulary, int, np.random.Generator], Batch]
    metric: Metric | None
    version: int
    margin: float
    floor: str
    doc: str
    module: str
    second: Task | None = None
    twin: Task | None = None
    given: bool = False
    paired: bool = False

    def __repr__(self) -> str:
        measured = f"measured by {self.metric.name}" if self.metric is not None else "without a metric"
        return f"Task({self.name} v{self.version}, {measured})"

    def __call__(self, tokenizer: Vocabulary, n: int, seed: int = 0) -> Batch:
        """`n` examples; the same seed gives the same batch on any machine. Raises UnfitTask."""
        if n < 1:
            raise BadInput(f"A task needs at least 1 example, got {n}.")
        return complete(self.build(tokenizer, n, np.random.default_rng(seed)), tokenizer)


Build = Callable[[Vocabulary, int, np.random.Generator], Batch]
SECOND_FAMILY = "-second-family"


def task(
    *,
    metric: Metric | None,
    version: int,
    margin: float = 0.0,
    floor: str = "control",
    second: Build | None = None,
    paired: bool = False,
) -> Callable[[Build], Task]:
    """Make a Task of a function `(tokenizer, n, rng) -> Batch`; its name is the function's with dashes.

    paired: as in `Task`. second: the same of another family of prompts, whose docstring says how it differs. Raises HeadAtlasError for a function that takes something else.
    """

    def wrap(build: Build) -> Task:
        name = build.__name__.strip("_").replace("_", "-")
        for made in (build, *([] if second is None else [second])):
            demand_parameters(made, "tokenizer, n, rng", f"{build.__module__}: the task '{build.__name__}'")
        doc = (build.__doc__ or "").strip()
        own = Task(name, build, metric, version, margin, floor, doc, build.__module__, paired=paired)
        if second is None:
            return own
        return replace(own, second=_second_of(own, name, second, (second.__doc__ or "").strip()))

    return wrap


def _second_of(own: Task, name: str, build: Build, doc: str) -> Task:
    return replace(own, name=name + SECOND_FAMILY, build=build, doc=doc)


HELD_OUT = "-held-out"


def halves(
    name: str,
    build: Callable[..., Batch],
    *,
    metric: Metric | None,
    version: int,
    margin: float = 0.0,
    doc: str = "",
    second: str = "",
) -> tuple[Task, Task]:
    """Two tasks of one generator `(tokenizer, n, rng, half) -> Batch`: for finding heads, and for testing what was found.

    half is "find" for the task `name` and "test" for `name`-held-out; a generator must not use an item in both.
    second: how the prompts differ that the generator makes when it is given "second" as a fifth argument; "" where it knows
    one family only. Raises HeadAtlasError for a generator that takes something else.
    """
    parameters = "tokenizer, n, rng, half"
    for expected in (parameters, *([f"{parameters}, family"] if second else [])):
        demand_parameters(build, expected, f"{build.__module__}: the task '{name}'")

    def made(full: str, half: str, text: str) -> Task:
        own = Task(
            full, lambda tokenizer, n, rng: build(tokenizer, n, rng, half), metric, version, margin, "control", text,
            build.__module__,
        )  # fmt: skip
        if not second:
            return own
        other = _second_of(own, name, lambda tokenizer, n, rng: build(tokenizer, n, rng, "test", "second"), second)
        return replace(own, second=other)

    other = f"The task `{name}` with the other half of its items: for testing heads that were found on `{name}`."
    return made(name, "find", (doc or build.__doc__ or "").strip()), made(name + HELD_OUT, "test", other)


def tasks() -> Mapping[str, Task]:
    """Every task of the package and of its plugins, by name."""
    return discover("headatlas.tasks", Task)


def find_task(name: str) -> Task:
    """The task called `name`: a built-in one, a benchmark's ("toymoviereview"), or one read from files ("mmlu=PATH").

    Raises UnknownName, BadInput where a benchmark's files cannot be read.
    """
    if name not in tasks() and is_benchmark(name):
        found: Task = benchmark_task(name, find_task)
        return found
    return lookup(tasks(), name, "task", "See: headatlas list tasks")


def held_out(task: Task) -> Task | None:
    """The task's twin on items it does not use itself; None where it has none (random tokens: another seed will do)."""
    return task.twin or tasks().get(task.name + HELD_OUT)


def fitting(task: Task, tokenizer: Vocabulary, n: int, seed: int) -> Batch:
    """`n` examples, or as many as a task with few items has: a half, a quarter ... of `n`. Raises UnfitTask below 4."""
    while True:
        try:
            return task(tokenizer, n, seed)
        except UnfitTask:
            if n < 8:
                raise
            n //= 2
