"""Small attention-only transformers trained here until an induction head forms: truth by training, not by construction."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.construct import targets
from headatlas.lab.construct.transformer import save
from headatlas.lab.construct.words import tokenizer, words
from headatlas.lab.measure import attend, logits_of, without
from headatlas.lab.toy.curve import Curve, Point, draw
from headatlas.lab.toy.data import counting_losses, markov_chains, repeated_tokens
from headatlas.registry import lookup
from headatlas.store import new_folder

_SCHEMA = "headatlas/toy/1"
_HELD_OUT, _EXAMPLES = 777, 64


@dataclass(frozen=True)
class ToyRecipe:
    """How a toy is trained. data(n, length, vocab, generator) -> tokens; worded: tokens are words of the lab's list."""

    name: str
    data: Callable[[int, int, int, torch.Generator], Tensor]
    vocab: int
    length: int
    width: int
    n_heads: int
    learning_rate: float
    batch: int
    steps: int
    every: int
    worded: bool
    early: slice
    late: slice


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        ToyRecipe(
            "repeated", repeated_tokens, 128, 96, 128, 2, 1e-3, 32, 1200, 20, True, slice(1, 8), slice(-32, None)
        ),
        ToyRecipe("markov", markov_chains, 3, 101, 32, 2, 3e-3, 32, 1500, 20, False, slice(1, 9), slice(-20, None)),
    )
}


@dataclass(frozen=True)
class Toy:
    """A trained toy. model: an ordinary GPT2LMHeadModel with two layers and MLPs at zero.

    effects: what switching a head off adds to the loss of late tokens, for each head and for all of a layer together.
    """

    recipe: ToyRecipe
    seed: int
    model: Any
    curve: Curve
    effects: Mapping[str, float]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model, its tokenizer where it has words, curve.json and curve.svg, whole or not at all."""
        target = Path(folder)
        with new_folder(target) as partial:
            save(self.model, partial)
            if self.recipe.worded:
                tokenizer(words(self.recipe.vocab), self.recipe.length).save_pretrained(partial)
            facts = {"schema": _SCHEMA, "kind": self.recipe.name, "seed": self.seed, "effects": dict(self.effects)}
            text = json.dumps(
                facts | asdict(self.curve) | {"phase": self.curve.phase, "fall": self.curve.fall}, indent=1
            )
            (partial / "curve.json").write_text(text + "\n", encoding="utf-8")
            (partial / "curve.svg").write_text(draw(self.curve), encoding="utf-8")
        return target


def train_toy(kind: str, *, seed: int = 0, steps: int | None = None, say: Callable[[Point], None] | None = None) -> Toy:
    """Train the toy called `kind` (repeated or markov) from `seed`; about a minute on two cores.

    say: told each measured point of the curve. Trained on one thread, which is as fast for so small a model and makes
    the same toy of the same seed whatever else the machine is set to.
    """
    recipe = lookup(_RECIPES, kind, "toy", f"Known: {', '.join(_RECIPES)}.")
    if steps is not None and steps < 1:
        raise BadInput(f"A toy needs at least 1 step, got {steps}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained(recipe, seed, steps or recipe.steps, say)
    finally:
        torch.set_num_threads(threads)


def _trained(recipe: ToyRecipe, seed: int, steps: int, say: Callable[[Point], None] | None) -> Toy:
    model = _model(recipe, seed)
    generator = torch.Generator().manual_seed(seed)
    held_out = recipe.data(_EXAMPLES, recipe.length, recipe.vocab, torch.Generator().manual_seed(_HELD_OUT + seed))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    points = []
    for step in range(steps + 1):
        if step % recipe.every == 0 or step == steps:
            points.append(_measured(model, recipe, held_out, step))
            if say is not None:
                say(points[-1])
        if step < steps:
            tokens = recipe.data(recipe.batch, recipe.length, recipe.vocab, generator)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / 50)
            logits = model(tokens).logits
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
    levels = (
        counting_losses(held_out, recipe.vocab) if recipe.name == "markov" else {"uniform": math.log(recipe.vocab - 1)}
    )
    matching = _matching(held_out)
    chance = float((matching / targets.causal(held_out).sum(-1, keepdim=True)).sum(-1)[matching.any(-1)].mean())
    curve = Curve(f"{recipe.name}, seed {seed}", tuple(points), levels, chance)
    return Toy(recipe, seed, model.eval(), curve, _effects(model, recipe, held_out))


def _model(recipe: ToyRecipe, seed: int) -> Any:
    """Two layers of attention and nothing else: the MLPs have one unit, stay at zero and are not trained."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=recipe.vocab,
        n_positions=recipe.length,
        n_embd=recipe.width,
        n_layer=2,
        n_head=recipe.n_heads,
        n_inner=1,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=0 if recipe.worded else None,
        eos_token_id=0 if recipe.worded else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if ".mlp." in name:
            parameter.data.zero_()
            parameter.requires_grad_(False)
    return model


def _matching(tokens: Tensor) -> Tensor:
    """[example, query, key] the keys an induction head attends to: those whose predecessor equals the current token."""
    return targets.same(tokens, targets.before(tokens)) & (targets.distance(tokens) > 0)


def _measured(model: Any, recipe: ToyRecipe, tokens: Tensor, step: int) -> Point:
    patterns, logits = attend(model, tokens)
    losses = _losses(logits, tokens)
    matching, back = _matching(tokens), targets.back(tokens, 1)
    early, late = losses[:, recipe.early].mean(), losses[:, recipe.late].mean()
    return Point(
        step=step,
        loss=float(losses.mean()),
        early=float(early),
        late=float(late),
        prefix_matching=tuple(_shares(pattern, matching) for pattern in patterns),
        previous_token=tuple(_shares(pattern, back) for pattern in patterns),
    )


def _shares(pattern: Tensor, wanted: Tensor) -> tuple[float, ...]:
    """Each head's mean share of attention on the wanted keys, over queries that have one."""
    shares = (pattern * wanted[:, None]).sum(-1).transpose(0, 1)[:, wanted.any(-1)]
    return tuple(float(share) for share in shares.mean(1))


def _losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """[example, pos] loss of each next token."""
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


def _effects(model: Any, recipe: ToyRecipe, tokens: Tensor) -> dict[str, float]:
    heads = [[HeadId(layer, head) for head in range(recipe.n_heads)] for layer in range(2)]
    sets: dict[str, tuple[HeadId, ...]] = {str(head): (head,) for layer in heads for head in layer}
    sets |= {f"layer {layer}": tuple(members) for layer, members in enumerate(heads)}
    whole = _losses(logits_of(model, tokens), tokens)[:, recipe.late].mean()
    effects = {}
    for name, members in sets.items():
        with without(model, *members):
            effects[name] = float(_losses(logits_of(model, tokens), tokens)[:, recipe.late].mean() - whole)
    return effects
