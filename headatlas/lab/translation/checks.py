"""What must come out of the translator, with bounds that were written down before; each is printed as passed or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.lab.translation.model import HEADS, LAYERS, Translator, alpha_of
from headatlas.treebanks.language_pair import PAD, TARGET, Sentences


@dataclass(frozen=True)
class Check:
    """A number and the bound that it must keep."""

    name: str
    value: float
    bound: float
    keeps: Literal["at least", "at most"]

    @property
    def passed(self) -> bool:
        """Whether it does; a number that is none does not."""
        return self.value >= self.bound if self.keeps == "at least" else self.value <= self.bound

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'failed'}  {self.name}: {self.value:.3f} ({self.keeps} {self.bound})"


@dataclass(frozen=True)
class Rates:
    """Shares of held-out sentences and words: whole sentences, verbs, all other words, names; copy mass at names and elsewhere."""

    sentences: float
    verbs: float
    others: float
    names: float
    copied: float
    copied_elsewhere: float


@torch.no_grad()
def rates(model: Translator, texts: Sentences) -> Rates:
    """How well a model translates. A sentence whose every word is the likeliest behind the right ones is what greedy decoding writes."""
    probability, copied = model(texts)
    right, real = probability.argmax(-1) == texts.write, texts.write != PAD
    name = texts.write >= TARGET
    verb = torch.zeros_like(real)
    verb[:, 0] = True

    def share(of: Tensor, where: Tensor) -> float:
        return float(of[where].double().mean())

    return Rates(
        float((right | ~real).all(1).double().mean()), share(right, verb), share(right, real & ~verb), share(right, name),
        share(copied, name), share(copied, real & ~name),
    )  # fmt: skip


def alignment_error(pattern: Tensor, texts: Sentences) -> tuple[float, float]:
    """(AER of a head's links, AER of the diagonal); pattern [sentence, target place, source place].

    1 - 2 |A and S| / (|A| + |S|) (Och and Ney 2003, all gold links sure): each target word is linked to one source word.
    """
    hits = diagonal = total = 0
    for weights, one in zip(pattern, texts.pairs, strict=True):
        n, m = len(one.source), len(one.target)
        chosen = weights[:m, :n].argmax(-1).tolist()
        gold = set(one.links)
        hits += len(set(enumerate(chosen)) & gold)
        diagonal += len({(i, round(i * (n - 1) / max(m - 1, 1))) for i in range(m)} & gold)
        total += m
    return 1 - hits / total, 1 - diagonal / total  # as many links are made as there are


@dataclass(frozen=True)
class Role:
    """An encoder head: shares of verbs whose most attended other word is their subject, of words at its best fixed offset, and of words that attend most to the sentence's rarest."""

    head: HeadId
    subject: float
    offset: int
    at_offset: float
    rare: float


@torch.no_grad()
def roles(model: Translator, texts: Sentences) -> tuple[list[Role], float]:
    """Every encoder head's roles (Voita et al. 2019; the end token left out), and the best fixed offset from verb to subject."""
    model(texts)
    found = []
    seen = Counter(word for one in texts.pairs for word in one.source)
    rarest = [min(range(len(one.source)), key=lambda i, one=one: seen[one.source[i]]) for one in texts.pairs]  # type: ignore[misc]
    for layer, module in enumerate(model.encoder_attention):
        for head in range(HEADS):
            offsets: Counter[int] = Counter()
            hits = rare = 0
            for map_, one, place in zip(module.pattern[:, head], texts.pairs, rarest, strict=True):
                n = len(one.source)
                words = map_[:n, :n].clone()
                offsets.update((words.argmax(-1) - torch.arange(n)).tolist())
                rare += int((words.argmax(-1) == place).sum())
                verb, subject = one.subject
                words[verb, verb] = 0.0
                hits += int(words[verb].argmax()) == subject
            offset, most = offsets.most_common(1)[0]
            share = hits / len(texts.pairs)
            found.append(
                Role(HeadId(layer, head, "encoder"), share, offset, most / offsets.total(), rare / offsets.total())
            )
    places = Counter(subject - verb for verb, subject in (one.subject for one in texts.pairs))
    return found, places.most_common(1)[0][1] / len(texts.pairs)


@dataclass(frozen=True)
class Removed:
    """What the model still does without one head."""

    head: HeadId
    rates: Rates


def removed(model: Translator, texts: Sentences) -> tuple[Removed, ...]:
    """Every head of both stacks and of the attention between them, taken out alone."""
    found = []
    stacks = [("encoder", i) for i in range(LAYERS)] + [("decoder", 0), ("cross", 0)]
    for (stack, layer), module in zip(stacks, model.attention, strict=True):
        for head in range(module.num_heads):
            module.gate = torch.ones(module.num_heads)
            module.gate[head] = 0.0
            found.append(Removed(HeadId(layer, head, stack), rates(model, texts)))
            del module.gate
    return tuple(found)


@dataclass(frozen=True)
class PrunedPoint:
    """A point of the pruning curve: penalty, gates [layer][head], what the model still does, and the best open head's subjects."""

    penalty: float
    gates: tuple[tuple[float, ...], ...]
    rates: Rates
    subject: float

    @property
    def open(self) -> int:
        """How many encoder heads are open."""
        return sum(gate > 0 for row in self.gates for gate in row)


def pruned_point(model: Translator, penalty: float, gates: Tensor, texts: Sentences) -> PrunedPoint:
    """Measure a pruned model."""
    found, _ = roles(model, texts)
    kept = [role.subject for role in found if gates[role.head.layer, role.head.head] > 0]
    return PrunedPoint(penalty, tuple(map(tuple, gates.tolist())), rates(model, texts), max(kept, default=float("nan")))


@torch.no_grad()
def sparsity(model: Translator, texts: Sentences) -> tuple[Mapping[str, tuple[float, ...]], float]:
    """alpha of every head by attention, and the share of exact zeros among the source words that the decoder can see."""
    model(texts)
    cross = model.cross_attention.pattern
    words = (texts.source != PAD)[:, None, None] & (texts.write != PAD)[:, None, :, None]
    zeros = float((cross == 0)[words.expand_as(cross)].double().mean())
    names = [f"encoder {layer}" for layer in range(LAYERS)] + ["decoder", "cross"]
    alphas = {
        name: tuple(np.round(alpha_of(module.raw_alpha).tolist(), 4).tolist())
        for name, module in zip(names, model.attention, strict=True)
    }
    return alphas, zeros


def checks_of(
    whole: Rates, unseen: Rates, error: float, diagonal: float, best: Role, offset: float, curve: list[PrunedPoint],
    alphas: Mapping[str, tuple[float, ...]], zeros: float, sparse: Rates, without_cross: Rates,
) -> tuple[Check, ...]:  # fmt: skip
    """The checks of a trained translator."""
    able = [point for point in curve if point.open and point.rates.sentences >= whole.sentences - 0.02]
    fewest = min(able, key=lambda point: point.open, default=None)
    closed = curve[-1]
    return (
        Check("held-out sentences translated", whole.sentences, 0.95, "at least"),
        Check("names that training had not, copied", unseen.names, 0.95, "at least"),
        Check("copy mass at names", unseen.copied, 0.9, "at least"),
        Check("copy mass elsewhere", unseen.copied_elsewhere, 0.1, "at most"),
        Check("alignment error of the cross head", error, 0.1, "at most"),
        Check("the diagonal's alignment error above it", diagonal - error, 0.2, "at least"),
        Check(f"verb to subject by encoder head {best.head.layer}.{best.head.head}, above the best offset", best.subject - offset, 0.1, "at least"),
        Check("encoder heads open of 8, at the strongest penalty within 2 points of the whole", fewest.open if fewest else float("nan"), 4, "at most"),
        Check("verb to subject by one that is left, above the best offset", fewest.subject - offset if fewest else float("nan"), 0.1, "at least"),
        Check("encoder heads open at the largest penalty", closed.open, 0, "at most"),
        Check("verbs lost there", whole.verbs - closed.rates.verbs, 0.1, "at least"),
        Check("other words lost there", whole.others - closed.rates.others, 0.02, "at most"),
        Check("held-out sentences translated with entmax", sparse.sentences, 0.95, "at least"),
        Check("alpha of the cross head", max(alphas["cross"]), 1.3, "at least"),
        Check("exact zeros among the cross head's weights", zeros, 0.5, "at least"),
    )  # fmt: skip
