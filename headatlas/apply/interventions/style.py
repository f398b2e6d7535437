"""Style: heads that tell styled from plain answers of the same meaning are pushed to the style. Ma et al. 2025 (DRESS)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.choosing import answered, last_told
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.pushing import Pushing, push
from headatlas.apply.recipe.recipe import Recipe
from headatlas.apply.steering.direction import Steering
from headatlas.edits.move import Key
from headatlas.heads import HeadId
from headatlas.methods.probing import outputs
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Vocabulary
from headatlas.task.answers import demand_measurable, truth_margin
from headatlas.tasks._prompts import halved, shuffled

# Question, plain answer, the same in the English of old plays.
FORMS = (
    ("Where is the {thing}?", "It is in the {place}, where you have left it.", "'Tis in the {place}, where thou hast left it."),
    ("Do you know this {place}?", "Yes, you have shown it to me with your {thing}.", "Aye, thou hast shown it me with thy {thing}."),
    ("May I take the {thing}?", "You may take it before you go to the {place}.", "Thou mayst take it ere thou goest to the {place}."),
    ("Who has my {thing}?", "I do not know; he who comes from the {place} has it.", "I know not; he that cometh from the {place} hath it."),
    ("Shall we go to the {place}?", "Perhaps; your {thing} does not please me.", "Perchance; thy {thing} doth not please me."),
    ("What do you want in the {place}?", "I ask you to give me your {thing}.", "I prithee give me thy {thing}."),
)  # fmt: skip
THINGS = ("sword", "letter", "horse", "ring", "book", "lamp", "coat", "crown", "key", "cup", "knife", "map")
PLACES = (
    "garden",
    "castle",
    "forest",
    "church",
    "market",
    "tower",
    "kitchen",
    "harbor",
    "valley",
    "village",
    "stable",
    "library",
)


@intervention(
    metrics=("truth-margin", "mc1"),
    takes=("heads", "pick", "alpha"),
    control="directions",
    papers=("dress-style-subspace-editing",),
)
def style(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Push the heads that tell styled from plain answers of the same meaning to the style.

    z + alpha * (mean of styled - mean of plain answers), within the subspace of the differences of pairs, at the last token of the prompt and
    at each generated one. Heads: those with the most accurate linear probes for style at the answer's last token (`pick`; 1 in
    20). alpha: tried on questions held back, by the margin: mean log-probability of the styled answer's tokens, less that of the plain one's.
    MC1: share of questions to which the styled answer is the likelier one. Its own prompts: questions with answers in plain English and in that of old plays (label
    right: styled); the halves share neither forms nor words. Differs: the paper's strength along each axis changes with what the model is at, here it is constant.
    """
    demand_measurable(truth_margin, batch)
    how = Pushing("right", truth_margin, alphas=(2.0, 5.0, 10.0, 20.0), sized=_within_pairs)
    return push("style", model, batch, options, progress, how)


def _within_pairs(model: Model, steering: Steering, batch: Batch, seed: int) -> Steering:
    """The difference of means itself, within the half of the axes along which the pairs of answers differ most."""
    heads = sorted(key for key in steering.directions if isinstance(key, HeadId))
    right, group = batch.labels["right"] == 1, batch.labels["group"]
    sides = [((group == one) & right, (group == one) & ~right) for one in group.unique()]
    sides = [both for both in sides if bool(both[0].any()) and bool(both[1].any())]
    moved = dict[Key, Tensor]()
    at = torch.arange(batch.tokens.shape[1]) == last_told(batch)  # [example, token]
    for head, z in outputs(model, batch, heads, at.float()):
        pairs = torch.stack([z[styled].mean(0) - z[plain].mean(0) for styled, plain in sides])
        axes = torch.linalg.svd(pairs, full_matrices=False).Vh[: max(1, pairs.shape[1] // 2)]
        moved[head] = axes.T @ (axes @ pairs.mean(0))
    sizes = {head: float(one.norm()) for head, one in moved.items()}
    return replace(steering, directions={head: one / sizes[head] for head, one in moved.items()}, spread=sizes)


def prompts(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str) -> Batch:
    """`n` questions, each with a styled and a plain answer."""
    return answered(tokenizer, _items(n, rng, half))


def _items(n: int, rng: np.random.Generator, half: str) -> Iterator[tuple[str, str, bool, int]]:
    every = itertools.product(*(halved(one, half) for one in (FORMS, THINGS, PLACES)))
    for number, (form, thing, place) in enumerate(shuffled(every, rng)[:n]):
        question, plain, styled = (text.format(thing=thing, place=place) for text in form)
        prompt = f"Question: {question}\nAnswer:"
        yield from ((prompt, answer, answer == styled, number) for answer in (styled, plain))
