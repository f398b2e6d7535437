"""Models whose heads are known because we wrote their weights: the yardstick for everything that looks for heads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.construct.make_plan import make_plan
from headatlas.lab.construct.plan import Geometry
from headatlas.lab.construct.positions import rotary_base
from headatlas.lab.construct.stream import Stream
from headatlas.lab.construct.transformer import build, save
from headatlas.lab.construct.words import Words, tokenizer, words
from headatlas.lab.head import Head
from headatlas.lab.spec import PlantSpec, facts
from headatlas.store import new_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TRUTH = "truth.json"
_SCHEMA = "headatlas/truth/1"


@dataclass(frozen=True)
class PlantedModel:
    """An ordinary transformers model with its tokenizer, and what each of its heads is.

    truth: every head of the model; heads that were not asked for are of kind noise or dormant.
    coherence: the largest overlap of two different token codes (0 would be perfect).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    truth: Mapping[HeadId, Head]
    spec: PlantSpec
    words: Words
    coherence: float
    seed: int

    @property
    def planted(self) -> tuple[Head, ...]:
        """The heads that were asked for."""
        return self.spec.heads

    def of(self, *kinds: str) -> tuple[HeadId, ...]:
        """The heads of these kinds."""
        return tuple(head for head, truth in self.truth.items() if truth.kind in kinds)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write model, tokenizer and truth.json into a new folder, whole or not at all. Raises StoreError."""
        target = Path(folder)
        with new_folder(target) as partial:
            save(self.model, partial)
            self.tokenizer.save_pretrained(partial)
            record = {
                "schema": _SCHEMA,
                "seed": self.seed,
                "noise": self.spec.noise,
                "coherence": self.coherence,
                "heads": [facts(head) for head in self.truth.values()],
            }
            (partial / TRUTH).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return target


def plant(
    spec: PlantSpec,
    *,
    architecture: str = "gpt2",
    n_layers: int = 2,
    n_heads: int = 4,
    n_kv_heads: int | None = None,
    width: int = 128,
    d_head: int | None = None,
    vocab: int | Words = 256,
    context: int = 256,
    seed: int = 0,
) -> PlantedModel:
    """Write a model whose heads do exactly what `spec` says.

    How exact: one large constant in the stream makes norms a fixed factor to within 0.05 % for each code that heads
    add, token codes overlap by at most `coherence`, and rotary dimensions that compare contents turn by at most a
    quarter radian over the context. The attention of a noise-free head is off its strength by about 0.01 (0.05 for
    heads that both compare contents and exclude distances, and for windows); docs/lab.md has the measured table.

    architecture: gpt2 (learned positions, LayerNorm) or llama (rotary, RMSNorm, shared keys and values).
    vocab: how many words, or the vocabulary itself (`headatlas.lab.construct.words.words_of` makes one of texts).
    d_head: dimensions of a head; width / n_heads unless given (llama only; there at least 32 by default).
    Raises BadInput where heads do not fit, or one reads what no earlier layer writes.
    """
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    geometry = _geometry(architecture, n_layers, n_heads, n_kv_heads, width, d_head, context)
    heads = _filled(spec, geometry)
    vocabulary = words(vocab) if isinstance(vocab, int) else vocab
    for head in spec.heads:
        if head.tokens is not None:
            vocabulary.members(head.tokens)
    plan = make_plan(geometry, vocabulary, heads)
    generator = torch.Generator().manual_seed(seed)
    stream = Stream(plan, spec.noise, generator)
    truth = {head.id: head for head in sorted(heads, key=lambda head: head.id)}
    return PlantedModel(
        build(plan, stream), tokenizer(vocabulary, context), truth, spec, vocabulary, plan.coherence, seed
    )


def _filled(spec: PlantSpec, geometry: Geometry) -> list[Head]:
    """One head for each place: those of the spec, and its kind of rest everywhere else."""
    asked = {head.id: head for head in spec.heads}
    places = [(layer, head) for layer in range(geometry.n_layers) for head in range(geometry.n_heads)]
    for head in asked.values():
        if (head.layer, head.head) not in places:
            raise BadInput(
                f"The {head} does not fit a model of {geometry.n_layers} layers with {geometry.n_heads} heads.",
                f"Write 0.0 to {geometry.n_layers - 1}.{geometry.n_heads - 1}.",
            )
    return [asked.get(HeadId(*place), Head(*place, spec.rest)) for place in places]


def _geometry(
    architecture: str, n_layers: int, n_heads: int, n_kv_heads: int, width: int, d_head: int | None, context: int
) -> Geometry:
    if architecture not in ("gpt2", "llama"):
        raise BadInput(f"architecture='{architecture}' is not known.", "Write gpt2 or llama.")
    for name, value, least, most in (
        ("n_layers", n_layers, 1, 64),
        ("n_heads", n_heads, 1, 64),
        ("width", width, 64, 2048),
        ("context", context, 64, 4096),
    ):
        if not least <= value <= most:
            raise BadInput(f"{name}={value} is out of range.", f"Write {least} to {most}.")
    if width % n_heads:
        raise BadInput(f"width={width} cannot be divided among {n_heads} heads.", "Choose a multiple.")
    if architecture == "gpt2":
        if d_head not in (None, width // n_heads) or n_kv_heads != n_heads:
            raise BadInput("GPT-2 has width / n_heads dimensions a head and no shared keys.", "Use llama for others.")
        size, theta, fast = width // n_heads, 0.0, 0
    else:
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise BadInput(f"{n_heads} heads cannot share {n_kv_heads} KV heads evenly.", "Choose a divisor.")
        size = max(width // n_heads, 32) if d_head is None else d_head
        theta, fast = rotary_base(size, context)
    if size < 16 or size % 2:
        raise BadInput(f"{size} dimensions a head are too few or odd.", "Plan for an even number of at least 16.")
    return Geometry(architecture, n_layers, n_heads, n_kv_heads, size, width, context, theta, fast)
