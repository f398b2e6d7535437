"""The grid of planted models and controls on which detectors are measured."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headatlas.lab.controls import sharp, untrained, weight_shuffled
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.spec import PlantSpec
from headatlas.model import Model, Tokenizer, attach, load

TUNING = (0, 1)  # seeds on which detectors and thresholds may be chosen
CHANCE = 20  # models of each kind on which p-values are counted
QUICK, FRESH = (50,), (100, 101)  # seeds that are reported, on the quick and the full grid
SOWN = tuple(range(100, 110))  # seeds of plantings that are reported in full


def half_of(seed: int) -> str:
    """The part of the grid that a seed belongs to: "tuning" or "reported"."""
    return "tuning" if seed in TUNING else "reported"


@dataclass(frozen=True)
class Cell:
    """One planted model of the grid."""

    architecture: str
    n_kv_heads: int | None
    width: int
    strength: float
    noise: float
    seed: int

    @property
    def half(self) -> str:
        """Whether the cell is for choosing thresholds ("tuning") or for what is reported ("reported")."""
        return half_of(self.seed)

    @property
    def name(self) -> str:
        """Such as `llama gqa 128 0.8 noise 0.1 seed 3`."""
        groups = "gqa" if self.n_kv_heads else "mha"
        return f"{self.architecture} {groups} {self.width} {self.strength} noise {self.noise} seed {self.seed}"


def grid(*, quick: bool) -> list[Cell]:
    """The cells: both architectures, MHA and GQA, widths 64 to 512, strengths 0.2 to 1, two noise levels, several seeds."""
    shapes = [("gpt2", None, 128), ("llama", None, 128), ("llama", 2, 256)]
    strengths: tuple[float, ...] = (0.4, 1.0)
    noises: tuple[float, ...] = (0.03,)
    if not quick:
        shapes += [("gpt2", None, 64), ("gpt2", None, 512)]
        strengths, noises = (0.2, 0.6, 1.0), (0.0, 0.03)
    return [
        Cell(*shape, strength, noise, seed)
        for shape in shapes
        for strength in strengths
        for noise in noises
        for seed in seeds(quick)
    ]


def seeds(quick: bool) -> tuple[int, ...]:
    """The seeds of the grid."""
    return (TUNING[0], *QUICK) if quick else (*TUNING, *FRESH)


def planted(cell: Cell) -> PlantedModel:
    """The model of a cell: every kind that detectors look for, at places drawn by the seed, among noise heads."""
    rng = np.random.default_rng(cell.seed)
    n_layers, n_heads = 4, 4 if cell.width < 256 else 8
    first = ["previous", "duplicate", "current"]
    later = ["induction", "fake-induction", "positional", "window", "sink", "delimiter", "dormant", "copy-suppression"]
    # Heads that others build on stand in layer 0 at full strength; the rest anywhere above it.
    low = [(0, int(head)) for head in rng.permutation(n_heads)]
    high = [(layer, head) for layer in range(1, n_layers) for head in range(n_heads)]
    order = [high[i] for i in rng.permutation(len(high))][: len(later)]
    # A head that suppresses what others predict stands above a head that predicts.
    lowest, highest = min(order), max(order)
    order = [lowest, *(place for place in order if place not in (lowest, highest)), highest]
    heads = [Head(*low[i], kind) for i, kind in enumerate(first)]
    offset = int(rng.integers(2, 8))
    for place, kind in zip(order, later, strict=False):
        options: dict[str, Any] = {"offset": offset} if kind == "positional" else {}
        options["strength"] = cell.strength
        if kind == "copy-suppression":
            options["write"] = 0.5
        heads.append(Head(place[0], place[1], kind, **options))
    spec = PlantSpec(tuple(_fitting(heads, cell.n_kv_heads, n_heads)), noise=cell.noise)
    return plant(
        spec,
        architecture=cell.architecture,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=cell.n_kv_heads,
        width=cell.width,
        vocab=256,
        context=160,
        seed=cell.seed,
    )


def _fitting(heads: Sequence[Head], n_kv_heads: int | None, n_heads: int) -> list[Head]:
    """With shared keys and values only one head of a group is planted; the others of the group are left out."""
    if n_kv_heads is None:
        return list(heads)
    size, taken, kept = n_heads // n_kv_heads, set(), []
    for head in heads:
        group = (head.layer, head.head // size)
        if group not in taken:
            taken.add(group)
            kept.append(head)
    needed = {head.kind for head in kept}
    return [
        head
        for head in kept
        if "previous" in needed or head.kind not in ("induction", "fake-induction", "copy-suppression")
    ]


class Reader(Tokenizer):
    """The tokenizer of a planted model, for texts with words that it lacks: each such word is always the same known one.

    Without it nearly all of a real text would be one unknown token, and heads would see little but that and punctuation.
    """

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, without bos."""
        assert self._hf is not None
        encoded = self._hf(text, add_special_tokens=False, return_offsets_mapping=True)
        return [
            self._stand_in(text[start:end]) if one == self._hf.unk_token_id else one
            for one, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _stand_in(self, piece: str) -> int:
        assert self._hf is not None
        if not piece.isalpha():
            return int(self._hf.get_vocab()[","])
        plain = self.plain_ids()
        return plain[zlib.crc32(piece.encode()) % len(plain)]


def model_of(planted_model: PlantedModel) -> Model:
    """The planted model as a Model with its own tokenizer."""
    config: Any = planted_model.model.config
    planted_model.tokenizer.model_max_length = 1 << 30
    words = Reader(
        causal=True,
        context=int(config.max_position_embeddings),
        vocab_size=int(config.vocab_size),
        hf=planted_model.tokenizer,
        bos="auto",
    )
    return attach(planted_model.model, tokenizer=words)


def controls(quick: bool) -> Iterator[tuple[Callable[[], Model], int, str]]:
    """Models in which nothing is to be found, and planted ones on texts without structure: (make, seed, what)."""
    shapes = [("gpt2", None, 128), ("llama", 2, 256)]
    if not quick:
        shapes += [("llama", None, 128), ("gpt2", None, 512)]
    for shape in shapes:
        for seed in seeds(quick):
            cell = Cell(*shape, 1.0, 0.03, seed)
            yield functools.partial(_untrained, cell), seed, "untrained"
            yield functools.partial(_noise, cell), seed, "noise heads only"
            yield functools.partial(lambda cell: model_of(planted(cell)), cell), seed, "no structure"
    if not quick:
        yield functools.partial(_shuffled, "smollm2-135m", 0), 0, "weight-shuffled"
        yield functools.partial(_shuffled, "smollm2-135m", FRESH[0]), FRESH[0], "weight-shuffled"


def chance(quick: bool) -> Iterator[tuple[Callable[[], Model], int, str]]:
    """Models of random weights, 32 heads each, on which the shares of small p-values are counted: (make, seed, what)."""
    for number in range(2 if quick else CHANCE):
        cell = Cell("llama", 2, 256, 1.0, 0.03, FRESH[-1] + 1 + number)
        yield functools.partial(_untrained, cell), cell.seed, "untrained"
        yield functools.partial(_untrained, cell, sharp), cell.seed, "sharp"


def _untrained(cell: Cell, make: Callable[..., Any] = untrained) -> Model:
    source = planted(cell)
    return model_of(replace(source, model=make(source.model.config, seed=cell.seed)))


def _noise(cell: Cell) -> Model:
    heads = 8 if cell.width >= 256 else 4
    spec = PlantSpec((), noise=cell.noise)
    made = plant(spec, architecture=cell.architecture, n_layers=4, n_heads=heads, n_kv_heads=cell.n_kv_heads,
                 width=cell.width, vocab=256, context=160, seed=cell.seed)  # fmt: skip
    return model_of(made)


def _shuffled(name: str, seed: int) -> Model:
    source: Any = load(name)
    mixed = weight_shuffled(source.hf, seed=seed)
    return attach(mixed, tokenizer=source.tokenizer)
