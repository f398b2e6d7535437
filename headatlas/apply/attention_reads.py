"""What heads attend to at the end of a prompt, for recipes that read heads: whether a text is obeyed, which tokens are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headatlas.apply.recipe.pushing import end_of, up_to
from headatlas.apply.recipe.recipe import Recipe
from headatlas.apply.recipe.store import load_recipe
from headatlas.edits.collect import pieces
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.texts import texts_as_batch
from headatlas.model import LayerView, Model
from headatlas.model.text.reading import padded
from headatlas.model.text.start_end import rule_of
from headatlas.task import Batch, Vocabulary
from headatlas.tasks._prompts import Piece, laid_out, lists

TRACKER, EVALUATOR = "attention-tracker", "evaluator-compression"
SMALL = 1e-8  # keeps the share finite where a head attends to neither
LAST = 16  # tokens at the end whose attention says what is needed, and which are always kept
WINDOW = 8  # tokens over which that is averaged


@torch.no_grad()
def attention_from(model: Model, batch: Batch, queries: Tensor) -> Tensor:
    """[example, head, key] attention from queries [example, n] to each token, averaged over the queries there are (-1: none)."""
    found = []
    parts = list(pieces(batch))
    for part, at in zip(parts, queries.split([len(one) for one in parts]), strict=True):
        layers: list[Tensor] = []
        present = (at >= 0).float()

        def watch(layer: LayerView, at: Tensor = at, present: Tensor = present, layers: list[Tensor] = layers) -> None:
            rows = layer.rows(at.clamp(min=0).to(layer.q.device)).float().cpu()  # [example, head, query, key]
            layers.append(torch.einsum("ehqk,eq->ehk", rows, present / present.sum(1, keepdim=True)))

        model.forward(part, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
        found.append(torch.cat(layers, 1))
    return torch.cat(found)


def demand_one_stack(model: Model) -> None:
    """Raise BadInput for a model that does not read and write with one stack of causal layers."""
    if model.kind != "decoder":
        raise BadInput(f"{model.name} does not go on with a prompt.", "Use a decoder.")


# ---- is a text obeyed ------------------------------------------------------------------------------------------------
FRAME = ("Instruction:", "\nData:", "\nAnswer:")


def with_data(tokenizer: Vocabulary, pairs: Sequence[tuple[str, str]]) -> Batch:
    """Prompts of (instruction, data): an instruction, the data that it is about, and "Answer:"; positions instruction and data."""
    rows, spans, known = [], [], dict[str, list[int]]()
    for instruction, data in pairs:
        parts = [Piece(FRAME[0]), Piece(f" {instruction}", "instruction"), Piece(FRAME[1]), Piece(f" {data}", "data"), Piece(FRAME[2])]  # fmt: skip
        row, positions = laid_out(tokenizer, parts, known)
        rows.append(row)
        spans.append(positions)
    batch = padded(rows, facts={"bos": tokenizer.bos})
    named = {name: lists([one[name] for one in spans]) for name in ("instruction", "data")}
    return Batch(batch.tokens, batch.mask, {**batch.positions, **named}, facts=batch.facts)


def instruction_share(model: Model, batch: Batch) -> Tensor:
    """[example, head] attention at the end to the instruction, of that to instruction and data: 0 to 1."""
    given = attention_from(model, batch, end_of(batch))
    columns = torch.arange(batch.tokens.shape[1])
    on = [
        (given * (columns == batch.positions[name][..., None]).any(1)[:, None]).sum(-1)
        for name in ("instruction", "data")
    ]
    return on[0] / (on[0] + on[1] + SMALL)


def of_heads(model: Model, values: Tensor, heads: Sequence[HeadId]) -> Tensor:
    """[example] mean of values [example, head of the model] over some heads."""
    order = {head: number for number, head in enumerate(model.heads)}
    return values[:, [order[head] for head in heads]].mean(1)


@dataclass(frozen=True)
class Focus:
    """score: mean share of the heads' attention that stays on the instruction. injected: whether it is at most the threshold."""

    score: float
    threshold: float

    @property
    def injected(self) -> bool:
        """Whether the data is taken for an instruction."""
        return self.score <= self.threshold


def injection_focus(
    model: Model, recipe: Recipe | str | Path, instruction: str, data: str | Sequence[str], *, force: bool = False
) -> list[Focus]:
    """How far a model's attention stays on an instruction while it reads each text, and whether a text is taken for one.

    recipe: of `fit_recipe(model, "attention-tracker")`, or its folder. force: take a model of the same shape with other weights.
    Raises BadInput, StoreError.
    """
    recipe = _read(model, recipe, TRACKER, force)
    texts = [data] if isinstance(data, str) else list(data)
    if not texts or not instruction or not all(texts):
        raise BadInput("There is no instruction, or nothing that it is about.", "Give both as text.")
    batch = with_data(model.tokenizer, [(instruction, text) for text in texts])
    scores = of_heads(model, instruction_share(model, batch), recipe.reads)
    return [Focus(float(one), float(recipe.facts["threshold"])) for one in scores]


# ---- which tokens are needed -----------------------------------------------------------------------------------------
def attention_from_last(model: Model, batch: Batch) -> Tensor:
    """[example, head, token] attention from the last tokens up to each prompt's end, averaged over them."""
    return attention_from(model, batch, up_to(end_of(batch), LAST))


def utility(model: Model, batch: Batch, given: Tensor, heads: Sequence[HeadId]) -> Tensor:
    """[example, token] what some heads give of `attention_from_last`, smoothed over neighbours; -inf on padding and those last tokens."""
    ends, columns = end_of(batch), torch.arange(batch.tokens.shape[1])
    chosen = given[:, [i for i, head in enumerate(model.heads) if head in set(heads)]].sum(1)
    free = batch.mask & (columns <= ends - LAST)
    free[torch.arange(len(batch)), batch.mask.long().argmax(1)] = (
        False  # the first token takes attention whatever it is
    )
    pad = (WINDOW // 2, WINDOW - 1 - WINDOW // 2)

    def summed(values: Tensor) -> Tensor:
        """[example, token] over a window around each."""
        return torch.nn.functional.pad(values.float(), pad).unfold(1, WINDOW, 1).sum(-1)

    return (summed(chosen * free) / summed(free).clamp(min=1)).masked_fill(~free, -torch.inf)


def kept_of(batch: Batch, score: Tensor, keep: float) -> list[Tensor]:
    """By example the tokens that are kept, in order: the share `keep` of all up to the end, the best by score [example, token].

    The first token and the last ones are always among them; what stands behind the end is not counted, and kept.
    """
    found = []
    for row, mask, end in zip(score, batch.mask, batch.positions["end"].reshape(-1).tolist(), strict=True):
        free = torch.isfinite(row)
        always = mask & ~free
        n = round(keep * int(mask[: end + 1].sum())) - int(always[: end + 1].sum())
        best = row.masked_fill(~free, -torch.inf).topk(max(0, min(n, int(free.sum())))).indices
        always[best] = True
        found.append(always.nonzero().flatten())
    return found


def compress_prompt(
    model: Model, recipe: Recipe | str | Path, text: str | Sequence[str], *, keep: float = 0.3, force: bool = False
) -> list[str]:
    """Each text with the share `keep` of its tokens left: those that evaluator heads attend to from its end, and the last 16.

    recipe: of `fit_recipe(model, "evaluator-compression")`, or its folder. What is asked belongs to the end of the text. force:
    take a model of the same shape with other weights. Raises BadInput, StoreError.
    """
    recipe = _read(model, recipe, EVALUATOR, force)
    if not 0 < keep <= 1:
        raise BadInput(f"A share of {keep:g} cannot be kept.", "Give one above 0, up to 1.")
    batch = texts_as_batch(model, text)
    front = len(rule_of(model.tokenizer).front)
    kept = kept_of(batch, utility(model, batch, attention_from_last(model, batch), recipe.reads), keep)
    rows: list[Any] = [row[one][front:].tolist() for row, one in zip(batch.tokens, kept, strict=True)]
    return [model.tokenizer.decode(row) for row in rows]


def _read(model: Model, recipe: Recipe | str | Path, name: str, force: bool) -> Recipe:
    """A recipe of one intervention, of this model. Raises BadInput, StoreError."""
    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if found.intervention != name:
        raise BadInput(f"This is a recipe of {found.intervention}.", f"Give one of {name}.")
    demand_one_stack(model)
    found.demand_model(model, other_weights=force)
    return found
