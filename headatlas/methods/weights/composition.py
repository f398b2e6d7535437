"""Composition read off the weights: how much of what an earlier head writes do a later head's queries, keys or values read?

Frobenius norms, |W_OV1 W_2| / (|W_OV1| |W_2|) with W_2 the later head's QK (queries), its transpose (keys) or its OV
(values). Elhage et al. 2021. The chance level comes from random rotations of the stream between the two heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.weights.qk_ov import Circuits, circuits_of
from headatlas.model import Model
from headatlas.ops.types import Array, LayerKey
from headatlas.ops.weights import Factored, compositions, random_rotation

KINDS = ("q", "k", "v")


@dataclass(frozen=True)
class Link:
    """One pair of heads: score in [0, 1], the mean of its random rotations, and how many of their deviations lie between."""

    first: HeadId
    second: HeadId
    kind: str
    score: float
    chance: float
    deviations: float


@dataclass(frozen=True)
class Compositions:
    """scores: kind (q, k, v) -> [first, second], NaN where the first head is not in an earlier layer.

    random: kind -> [draw, first, second], the same with the stream between the heads turned at random. floor: its root mean
    square in theory, d_model**-0.5, whatever the heads.
    """

    first: tuple[HeadId, ...]
    second: tuple[HeadId, ...]
    scores: Mapping[str, Array]
    random: Mapping[str, Array]
    floor: float

    def links(self, kinds: Sequence[str] = KINDS) -> list[Link]:
        """All pairs, the furthest above their chance level first."""
        found = []
        for kind in kinds:
            score, drawn = self.scores[kind], self.random[kind]
            mean, spread = drawn.mean(0), drawn.std(0, ddof=1)
            for i, j in zip(*np.nonzero(~np.isnan(score)), strict=True):
                above = float((score[i, j] - mean[i, j]) / spread[i, j])
                found.append(Link(self.first[i], self.second[j], kind, float(score[i, j]), float(mean[i, j]), above))
        return sorted(found, key=lambda link: -(link.score - link.chance))


def compose(
    model: Model,
    first: Sequence[HeadId] | None = None,
    second: Sequence[HeadId] | None = None,
    *,
    kinds: Sequence[str] = KINDS,
    offset: int | None = None,
    draws: int = 10,
    seed: int = 0,
) -> Compositions:
    """Composition scores of all pairs of a `first` head and a `second` head in a later layer of the same stack.

    first, second: default all heads. offset: how many tokens back the key stands, for models with rotary embeddings (None:
    positions left out). draws: random rotations for the chance level, the same for all pairs. Raises BadInput,
    UnsupportedModel.
    """
    writers, readers = tuple(model.heads if first is None else first), tuple(model.heads if second is None else second)
    model.require([*writers, *readers])
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise BadInput(f"Unknown composition '{', '.join(unknown)}'.", f"Choose of {', '.join(KINDS)}.")
    if draws < 2:
        raise BadInput(f"{draws} random rotations give no chance level.", "Draw 2 or more.")
    generator = torch.Generator().manual_seed(seed)
    rotations = [random_rotation(model.d_model, generator).to(model.device) for _ in range(draws)]
    shape = (len(writers), len(readers))
    scores = {kind: np.full(shape, np.nan) for kind in kinds}
    random = {kind: np.full((draws, *shape), np.nan) for kind in kinds}
    writes = {key: (rows, _writes(model, key, rows, writers)) for key, rows in _by_layer(writers).items()}
    for key, columns in _by_layer(readers).items():
        earlier = {
            (stack, layer): found for (stack, layer), found in writes.items() if stack == key[0] and layer < key[1]
        }
        if not earlier:
            continue
        circuits = circuits_of(model, key[1], key[0], offset=offset)
        reads = _reads(circuits, [readers[j] for j in columns])
        for rows, written in earlier.values():
            for kind in kinds:
                block = np.ix_(rows, columns)
                scores[kind][block] = compositions(written, reads[kind]).cpu().numpy()
                for draw, rotation in enumerate(rotations):
                    random[kind][draw][block] = _turned(written, reads[kind], rotation)
    return Compositions(writers, readers, scores, random, model.d_model**-0.5)


def _turned(written: Factored, read: Factored, rotation: Tensor) -> Array:
    found: Array = compositions(written, read, rotation).double().cpu().numpy()
    return found


def _by_layer(heads: Sequence[HeadId]) -> dict[LayerKey, list[int]]:
    """(stack, layer) -> numbers of its heads."""
    found: dict[LayerKey, list[int]] = {}
    for i, head in enumerate(heads):
        found.setdefault((head.stack, head.layer), []).append(i)
    return found


def _writes(model: Model, key: LayerKey, rows: Sequence[int], heads: Sequence[HeadId]) -> Factored:
    return circuits_of(model, key[1], key[0]).only([heads[i] for i in rows])[1]


def _reads(circuits: Circuits, heads: Sequence[HeadId]) -> dict[str, Factored]:
    qk, ov = circuits.only(heads)
    return {"q": qk, "k": qk.T, "v": ov}
