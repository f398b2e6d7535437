"""Scaling to emphasise attention: one factor for each head, learned on a few samples. Lee et al. 2025 (SEAL)."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.learning import learn
from headatlas.apply.recipe.recipe import ALWAYS, Recipe, scaled
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.model.text.start_end import rule_of
from headatlas.progress import Progress
from headatlas.task import Batch, Vocabulary
from headatlas.task.answers import log_probability
from headatlas.tasks._prompts import first_id, halved, pick

STEPS = 12
RATE = 0.02
LINES = 12
COLORS = ("red", "blue", "green", "white", "black", "brown")
THINGS = ("box", "door", "card", "boat", "chair", "lamp", "coat", "cup")
CONTENTS = (
    "salt", "gold", "wood", "milk", "paper", "stone", "glass", "rice", "sand", "iron", "wool", "silk", "corn", "coal",
    "snow", "meat", "fish", "bread", "sugar", "water", "grass", "clay", "soap", "wine", "oil", "fruit", "steel", "cotton",
    "rain", "dust", "honey", "coffee",
)  # fmt: skip


@intervention(
    metrics=("accuracy", "log-probability"),
    takes=("heads", "steps", "rate"),
    control="shuffled",
    papers=("seal-long-context-retrieval",),
)
def seal(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Learn one factor for each head's output, by the answers of a few prompts in which something is looked up.

    SEAL-H: all heads (or `heads`), factors from 1 on, at every token, Adam; z is scaled, which is a scale of the columns of the
    output projection, so that heads that share keys and values keep factors of their own. Rivals: the learned factors in
    another order. Its own prompts: a list of things of two words each, whose parts other lines share, and what is in
    them; the paper has lines of up to 32,000 tokens, these have some 70.
    """
    heads = options.heads_of(model) or model.heads
    steps, rate = options.steps or STEPS, options.rate or RATE
    factors = {head: torch.ones(1, device=model.device, requires_grad=True) for head in heads}
    reached = learn(
        model, batch, log_probability, lambda: (factors, {}), list(factors.values()), steps=steps, rate=rate,
        seed=options.seed, progress=progress,
    )  # fmt: skip
    values = [float(one.detach()) for one in factors.values()]
    rng = np.random.default_rng(options.seed)

    def recipe(sizes: list[float]) -> Recipe:
        return Recipe("seal", scale=scaled(model, dict(zip(heads, sizes, strict=True))), when=ALWAYS)

    order = np.argsort(values)
    facts = {
        "steps": steps, "rate": rate, "log_probability": [round(reached[0], 4), round(reached[-1], 4)],
        "lowered": [[str(heads[i]), round(values[i], 3)] for i in order[:5]],
        "raised": [[str(heads[i]), round(values[i], 3)] for i in order[::-1][:5]],
    }  # fmt: skip
    rivals = tuple(recipe([values[i] for i in rng.permutation(len(values))]) for _ in range(options.draws))
    made = recipe(values)
    return Recipe("seal", made.scale, when=ALWAYS, facts=facts, rivals=rivals)


def prompts(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str) -> Batch:
    """`n` lists such as "The red box holds salt.", and the question what one of them holds; the halves share no content."""
    contents = halved(CONTENTS, half)
    things = list(itertools.product(COLORS, THINGS))
    rows, answers, wrong = [], [], []
    for _ in range(n):
        named, held = pick(things, rng, LINES), pick(contents, rng, LINES)
        asked = int(rng.integers(LINES))
        lines = [f"The {color} {thing} holds {what}." for (color, thing), what in zip(named, held, strict=True)]
        color, thing = named[asked]
        text = " ".join([*lines, f"The {color} {thing} holds"])
        rows.append([*rule_of(tokenizer).front, *tokenizer.encode(text)])
        answers.append([first_id(tokenizer, held[asked])])
        wrong.append([first_id(tokenizer, what) for what in held if what != held[asked]])
    return padded(
        rows, labels={"answer": torch.tensor(answers), "wrong": torch.tensor(wrong)}, facts={"bos": tokenizer.bos}
    )
