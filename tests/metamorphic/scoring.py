"""Scores of every detector of the registry on a model, with what is drawn at random held fast."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from headatlas.heads import HeadId
from headatlas.mining.planning import Plan, plan
from headatlas.mining.scan import scan
from headatlas.model import Model, Tokenizer, attach
from headatlas.scores import HeadScores
from headatlas.task import Batch
from tests import toys
from tests.metamorphic import transformations as change
from tests.metamorphic.renumbered import renumber
from tests.metamorphic.transformations import Moved, Transformation
from tests.metamorphic.weights import make

EXAMPLES, CONTEXT = 4, 640
MOVERS = (HeadId(1, 1), HeadId(1, 2))  # stand in for name movers, which a random model does not have
_PATCHED = ("backup_name_mover", "s_inhibition", "letter_mover", "_measures.name_movers")


@contextmanager
def defined(movers: tuple[HeadId, ...]) -> Iterator[None]:
    """Random models do no task, so shares of what they know are undefined: here of the mean size, and with these movers.

    Detectors that draw prompts draw the same ones: their seed is made of token ids, which change where those are renumbered.
    """

    def size(values: np.ndarray) -> float:
        return float(np.abs(values).mean())

    fixed = {
        "effect_unit": size,
        "find_name_movers": lambda model: movers,
        "find_name_heads": lambda model: movers,
        "seed_of": lambda batch: 5,
    }
    with ExitStack() as stack:
        for name in (*_PATCHED, "function_vector", "truthfulness"):
            module = importlib.import_module(f"headatlas.detectors.{name}")
            for what in fixed:
                if hasattr(module, what):
                    stack.enter_context(patch.object(module, what, fixed[what]))
        yield


Found = tuple[Mapping[str, HeadScores], Plan]
Rebatch = Callable[[Batch], Batch]


def scores(model: Model, moved: Moved, *, rebatch: Rebatch = lambda batch: batch, size: int = 8) -> Found:
    """(detector -> its scores, the plan): of every detector that this model can be asked."""
    planned = plan(model, None, None, EXAMPLES, 0)
    found: dict[str, HeadScores] = {}
    with defined(tuple(moved[head] for head in MOVERS)):
        for task, group in planned.by_task.items():
            found |= scan(model, group, rebatch(planned.batches[task]), size=size).scores
    return found, planned


def vocabulary() -> Tokenizer:
    return toys.smollm2_vocabulary().within(CONTEXT)


@functools.cache
def model_of(kind: str) -> nn.Module:
    return make(kind)


@functools.cache
def original(kind: str) -> tuple[Model, Found]:
    model = attach(model_of(kind), tokenizer=vocabulary())
    return model, scores(model, {head: head for head in model.heads})


SINGLE: dict[str, Transformation] = {
    "values scaled": change.values_scaled,
    "values turned": change.values_turned,
    "queries scaled": change.queries_scaled,
    "rotary pairs turned": change.rotary_pairs_turned,
    "heads and groups permuted": change.heads_permuted,
    "groups expanded": change.groups_expanded,
    "gains folded": change.gains_folded,
    "stream turned": change.stream_turned,
    "logits shifted": change.logits_shifted,
    "layer inserted first": change.layer_inserted(0),
    "layer inserted between": change.layer_inserted(2),
    "layer inserted last": change.layer_inserted(3),
}
REBATCHED: dict[str, tuple[Rebatch, int]] = {
    "one at a time": (lambda batch: batch, 1),
    "padded right": (lambda batch: batch.padded(right=5), 2),
    "padded left": (lambda batch: batch.padded(left=4), 3),
}
MOVING = ("heads and groups permuted", "layer inserted", "everything")  # random heads are drawn among others then


@functools.cache
def changed(kind: str, what: str) -> tuple[Found, Moved]:
    """The scores after a change of the model or of its batches, and where its heads then are."""
    hf, tokenizer = model_of(kind), vocabulary()
    still = {head: head for head in original(kind)[0].heads}
    if what in REBATCHED:
        rebatch, size = REBATCHED[what]
        return scores(original(kind)[0], still, rebatch=rebatch, size=size), still
    moved = still
    if what == "everything":
        names = [name for name in SINGLE if not (kind == "gpt2" and name == "groups expanded")]
        hf, moved = change.all_of(*(SINGLE[name] for name in names if not name.startswith("layer")))(hf)
        hf, later = change.layer_inserted(1)(hf)
        moved = {start: later[end] for start, end in moved.items()}
    elif what != "ids renumbered":
        hf, moved = SINGLE[what](hf)
    if what in ("everything", "ids renumbered"):
        hf, tokenizer, _ = renumber(hf, tokenizer)
    return scores(attach(hf, tokenizer=tokenizer), moved), moved


def lines(found: HeadScores, heads: tuple[HeadId, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(values, control) [example, head] of these heads, in this order."""
    index = [found.heads.index(head) for head in heads]
    return found.values[:, index], found.control[:, index]


def logits(hf: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return hf(tokens).logits
