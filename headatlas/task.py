"""A task: seeded token batches in which a behaviour can be measured, and the metric that measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.registry import discover, lookup


class Vocabulary(Protocol):
    """What a task may ask of a tokenizer; `headatlas.model.Tokenizer` is the one implementation."""

    bos: int | None  # put in front of each text, None for no such token
    eos: int | None  # closes a text in encoders ([SEP]), None in decoders
    causal: bool  # False for encoders, which read both ways
    context: int  # longest input in tokens, bos and eos included

    def encode(self, text: str) -> list[int]:
        """Token ids without bos and eos."""

    def decode(self, ids: list[int] | int) -> str:
        """The text of one or more tokens."""

    def single(self, word: str) -> int | None:
        """The one id of `word` as given (with its leading space), or None."""

    def plain_ids(self) -> list[int]:
        """Ordinary text tokens, most frequent first; no special, byte or unused ids."""

    def word_starts(self, ids: list[int]) -> list[bool]:
        """Whether each token begins a word."""


@dataclass(frozen=True)
class Batch:
    """Token sequences with the places and answers that detectors and metrics need.

    tokens, mask: [example, pos]; mask is False on padding.
    at: name -> [example] or [example, k] positions in `tokens`, -1 where absent. Shifted by padding.
    marks: name -> [example, pos] labels of tokens (0 or -1 where nothing applies). Padded with -1.
    labels: name -> [example, ...] values that belong to an example (answer ids in `answer`, `wrong`, classes ...).
    facts: values of the whole batch (the period of a repetition, the task's settings).
    control: same words and lengths with the structure destroyed; its scores are the chance level.
    counterfactual: the same prompts with the deciding words changed, for resampling and patching.
    """

    tokens: Tensor
    mask: Tensor
    at: Mapping[str, Tensor] = field(default_factory=dict)
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    control: Batch | None = None
    counterfactual: Batch | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.shape != self.mask.shape:
            raise BadInput(
                f"tokens {tuple(self.tokens.shape)} and mask {tuple(self.mask.shape)} must both be [example, pos]."
            )
        for kind, values in (("at", self.at), ("marks", self.marks), ("labels", self.labels)):
            for name, value in values.items():
                if len(value) != len(self.tokens):
                    raise BadInput(
                        f"{kind}['{name}'] has {len(value)} rows, the batch has {len(self.tokens)} examples."
                    )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def answer(self) -> Tensor:
        """[example] or [example, k] token ids of the right answer."""
        return self.labels["answer"]

    @property
    def wrong(self) -> Tensor:
        """[example] or [example, k] token ids of the wrong answer."""
        return self.labels["wrong"]

    def rows(self, index: slice | Tensor | list[int]) -> Batch:
        """The examples at `index`, with their control and counterfactual rows."""

        def take(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value[index] for name, value in values.items()}

        return replace(
            self,
            tokens=self.tokens[index],
            mask=self.mask[index],
            at=take(self.at),
            marks=take(self.marks),
            labels=take(self.labels),
            control=self.control.rows(index) if self.control is not None else None,
            counterfactual=self.counterfactual.rows(index) if self.counterfactual is not None else None,
        )

    def chunks(self, size: int) -> list[Batch]:
        """The batch in pieces of at most `size` examples, in order."""
        return [self.rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def padded(self, left: int = 0, right: int = 0, token: int = 0) -> Batch:
        """The same examples with `left` and `right` padding positions added; positions move along."""

        def pad(value: Tensor, fill: int | bool) -> Tensor:
            return torch.nn.functional.pad(value, (left, right), value=fill)

        return replace(
            self,
            tokens=pad(self.tokens, token),
            mask=pad(self.mask, False),
            at={name: torch.where(value >= 0, value + left, value) for name, value in self.at.items()},
            marks={name: pad(value, -1) for name, value in self.marks.items()},
            control=self.control.padded(left, right, token) if self.control is not None else None,
            counterfactual=self.counterfactual.padded(left, right, token) if self.counterfactual is not None else None,
        )


@dataclass(frozen=True)
class Metric:
    """How well a model does on a batch, per example.

    positions(batch) -> [example, n] positions whose logits are needed, -1 where an example has fewer.
    score(logits [example, n, vocab], batch) -> [example] float.
    """

    name: str
    positions: Callable[[Batch], Tensor]
    score: Callable[[Tensor, Batch], Tensor]
    higher_is_better: bool
    unit: str


def _loss(logits: Tensor, batch: Batch) -> Tensor:
    positions = batch.at["predict"]
    target = batch.tokens.gather(1, (positions + 1).clamp(min=0))
    nll = -logits.float().log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    present = positions >= 0
    return (nll * present).sum(1) / present.sum(1)


def _difference(logits: Tensor, batch: Batch) -> Tensor:
    def mean(ids: Tensor) -> Tensor:
        ids = ids.reshape(len(ids), -1)
        taken = logits[:, 0].float().gather(-1, ids.clamp(min=0))
        return (taken * (ids >= 0)).sum(1) / (ids >= 0).sum(1)

    return mean(batch.answer) - mean(batch.wrong)


# Mean cross-entropy of the token after each position in at["predict"].
next_token_loss = Metric("next-token loss", lambda batch: batch.at["predict"], _loss, False, "nats")
# Logit of the answer minus logit of the wrong answer at at["end"]; several ids are averaged.
logit_difference = Metric("logit difference", lambda batch: batch.at["end"].reshape(-1, 1), _difference, True, "logits")


@dataclass(frozen=True)
class Task:
    """A seeded generator of batches with its metric.

    margin: how far better than the floor the metric must be for the model to count as able. The floor is the metric on the
    control batch, or (floor="uniform") that of a uniform guess over the vocabulary.
    """

    name: str
    build: Callable[[Vocabulary, int, np.random.Generator], Batch]
    metric: Metric | None
    version: int
    margin: float
    floor: str
    doc: str
    module: str

    def __call__(self, tokenizer: Vocabulary, n: int, seed: int = 0) -> Batch:
        """`n` examples; the same seed gives the same batch on any machine. Raises UnfitTask."""
        if n < 1:
            raise BadInput(f"A task needs at least 1 example, got {n}.")
        return self.build(tokenizer, n, np.random.default_rng(seed))


def task(
    *, metric: Metric | None, version: int, margin: float = 0.0, floor: str = "control"
) -> Callable[[Callable[[Vocabulary, int, np.random.Generator], Batch]], Task]:
    """Make a Task of a function `(tokenizer, n, rng) -> Batch`; its name is the function's with dashes."""

    def wrap(build: Callable[[Vocabulary, int, np.random.Generator], Batch]) -> Task:
        name = build.__name__.strip("_").replace("_", "-")
        return Task(name, build, metric, version, margin, floor, (build.__doc__ or "").strip(), build.__module__)

    return wrap


def tasks() -> Mapping[str, Task]:
    """Every task of the package and of its plugins, by name."""
    return discover("headatlas.tasks", Task)


def find_task(name: str) -> Task:
    """The task called `name`; raises UnknownName."""
    return lookup(tasks(), name, "task", "See: headatlas list tasks")
