"""Do detectors name the heads of trained toys that matter, and when these come to matter? Asked over many seeds.

What a head is worth is asked without a detector: all other heads of its layer are switched off, and its share is how much
of what the layer does it does alone. Heads of a layer stand in for each other, so that switching one off tells little.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.measure import without
from headatlas.lab.toy.study import Variant
from headatlas.lab.toys import read_toy, train_toy
from headatlas.mining.timeline.lives import Drop
from headatlas.mining.timeline.result import Timeline
from headatlas.mining.timeline.timeline import timeline
from headatlas.progress import Progress, Silent

DETECTORS = ("induction", "previous-token")
SHARE = 0.5  # of its layer's work that a head which matters does alone
LAYER = {"previous-token": 0, "induction": 1}  # in which layer of a two-layer toy a head of the type can be


@dataclass(frozen=True)
class HeadTruth:
    """One head of one trained toy. alone: the share of its layer's work that it does alone; passes: its detector names it at the end.

    after, born, low, high: see `Life`; None where it never passes.
    """

    seed: int
    head: HeadId
    detector: str
    alone: float
    passes: bool
    after: int | None
    born: int | None
    low: int | None
    high: int | None

    @property
    def matters(self) -> bool:
        """Whether it does at least half of what its layer does."""
        return self.alone >= SHARE


@dataclass(frozen=True)
class SeedTruth:
    """One trained toy: its heads, and when the loss of repeats fell."""

    seed: int
    heads: tuple[HeadTruth, ...]
    drop: Drop | None

    @property
    def born_in_drop(self) -> bool | None:
        """Whether the first induction head formed while the loss fell, by its interval; None where either is missing."""
        born = [one for one in self.heads if one.detector == "induction" and one.born is not None]
        if self.drop is None or not born:
            return None
        first = min(born, key=lambda one: one.born or 0)
        high = first.high if first.high is not None else self.drop.ends
        return (first.low or 0) <= self.drop.ends and high >= self.drop.begins


def alone(model: Any, variant: Variant, number: str, seed: int) -> dict[HeadId, float]:
    """For each head the share of its layer's work that it does without the others: 1 all of it, 0 none.

    number: a measured loss. NaN where switching the whole layer off costs less than 0.1.
    """
    measure, found = variant.measure(seed), {}
    config = model.config
    with torch.no_grad():
        whole = measure(model)[number]
        for layer in range(config.num_hidden_layers):
            heads = [HeadId(layer, head) for head in range(config.num_attention_heads)]
            with without(model, *heads):
                cost = measure(model)[number] - whole
            for head in heads:
                with without(model, *(other for other in heads if other != head)):
                    left = measure(model)[number] - whole
                found[head] = 1 - left / cost if cost > 0.1 else float("nan")
    return found


def truth_of(
    kind: str, seeds: Sequence[int], *, steps: int | None = None, n: int = 16, progress: Progress | None = None
) -> list[SeedTruth]:
    """Train a two-layer toy from each seed and ask ablation and detectors about its heads. Raises UnknownName, BadInput."""
    progress = progress or Silent()
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as place:
            train_toy(kind, seed=seed, steps=steps, out=Path(place) / "toy")
            found.append(truth_in(Path(place) / "toy", n=n))
        progress.advance("seeds", of=len(seeds))
    return found


def truth_in(folder: str | os.PathLike[str], *, n: int = 16) -> SeedTruth:
    """Ask ablation and detectors about the heads of a trained toy in its folder, n examples a task.

    Raises BadInput where no toy of two layers lies there whose heads can be switched off.
    """
    from transformers import AutoModelForCausalLM

    study, seed = read_toy(folder)
    if not study.ablated:
        raise BadInput(f"The toy {study.name} in {folder} has no heads to switch off.", "Take another toy.")
    lived = timeline(folder, DETECTORS, n=n)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if model.config.num_hidden_layers != 2:
        raise BadInput(f"The toy in {folder} has {model.config.num_hidden_layers} layers.", "Take one of two layers.")
    worth = alone(model, study.variants[0], study.ablated, seed)
    return SeedTruth(seed, tuple(_heads(seed, lived, worth)), lived.drops.get("repeated"))


def rates(found: Sequence[SeedTruth]) -> list[dict[str, Any]]:
    """What detectors did on trained toys, a row each.

    precision: the share of heads they name that do at least SHARE of their layer's work alone; recall: the share of those
    heads that they name; None where there are none. in_drop: of the toys in which one passes and the loss of repeats falls, the
    share in which the first induction head forms while it falls.
    """
    rows = []
    for detector in DETECTORS:
        heads = [one for toy in found for one in toy.heads if one.detector == detector and not math.isnan(one.alone)]
        named, matter = [one for one in heads if one.passes], [one for one in heads if one.matters]
        both = sum(one.passes for one in matter)
        timed = [toy.born_in_drop for toy in found if toy.born_in_drop is not None] if detector == "induction" else []
        rows.append(
            {
                "detector": detector,
                "toys": len(found),
                "heads": len(heads),
                "named": len(named),
                "matter": len(matter),
                "precision": both / len(named) if named else None,
                "recall": both / len(matter) if matter else None,
                "in_drop": sum(timed) / len(timed) if timed else None,
            }
        )
    return rows


def _heads(seed: int, lived: Timeline, worth: dict[HeadId, float]) -> list[HeadTruth]:
    found = []
    for detector, layer in LAYER.items():
        for head in (one for one in worth if one.layer == layer):
            lives = [life for life in lived.lives if life.head == head and life.detector == detector]
            first = lives[0] if lives else None
            told = (first.after, first.born, first.low, first.high) if first is not None else (None,) * 4
            passes = any(life.died is None for life in lives)
            found.append(HeadTruth(seed, head, detector, worth[head], passes, *told))
    return found
