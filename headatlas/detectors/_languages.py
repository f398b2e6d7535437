"""For which languages each head is among the most important, by the slope of the loss in a mask on its output: LAHIS of Liu et al. 2025."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from headatlas.detector import Measured
from headatlas.errors import UnfitTask
from headatlas.model import LayerView
from headatlas.model.runs.shared_pass import Watch
from headatlas.ops.types import LayerKey
from headatlas.task import Batch, next_token_loss

QUANTILE = 0.96  # of the importances of all heads in one language; those above it are its heads
GENERAL = 4  # languages whose heads a general head is among, at least

Settle = Callable[[Tensor], Measured]


class LanguageHeads:
    """In which of the languages of each set of parallel texts a head is among the most important ones, from passes over a batch's parts.

    settle(found [set, language, head] bool) -> Measured of [set, head].
    """

    metric, slopes = next_token_loss, True

    def __init__(self, settle: Settle, languages: int) -> None:
        self._settle, self._languages = settle, languages
        self._found: list[Tensor] = []  # of each part, [text, head]
        self._z: dict[LayerKey, Tensor] = {}  # of the part that is read now

    def looking(self, part: Batch) -> AbstractContextManager[Watch]:
        return nullcontext(self._watch)

    def _watch(self, layer: LayerView) -> None:
        self._z[layer.stack, layer.index] = layer.z.detach().float()

    def passed(self, part: Batch, logits: Tensor, slopes: Mapping[LayerKey, Tensor]) -> None:
        # With a mask m = 1 on z, dL/dm = z . dL/dz, summed over the text; what lowers the loss counts.
        felt = [(self._z.pop(key) * slopes[key].float()).sum((1, 3)).cpu() for key in list(self._z)]
        self._found.append(torch.cat(felt, 1).neg().clamp(min=0))

    def measured(self) -> Measured:
        importance = torch.cat(self._found)
        sets = len(importance) // self._languages
        if sets < 2:
            raise UnfitTask(
                f"Heads of a language are asked in two sets of {self._languages} parallel texts or more, got {len(importance)} texts."
            )
        importance = importance[: sets * self._languages].unflatten(0, (sets, self._languages))
        bar = torch.quantile(importance, QUANTILE, dim=-1, keepdim=True)
        return self._settle(importance > bar)


def specific(found: Tensor) -> Measured:
    """Whether a head is one of its language, and of fewer than GENERAL languages in all; chance: of any language.

    A head's language is the one of the other half of the sets whose heads it is among most often.
    """
    one_of_few = found & (found.sum(1, keepdim=True) < GENERAL)
    values = torch.zeros(len(found), found.shape[2])
    for half in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - half.start, None, 2)
        language = one_of_few[other].sum(0).argmax(0)  # [head]
        values[half] = one_of_few[half].gather(1, language.expand(len(values[half]), 1, -1))[:, 0].float()
    return Measured(values, one_of_few.float().mean(1))


def general(found: Tensor) -> Measured:
    """Whether a head is one of GENERAL languages or more; chance: as many hits fallen on each language's heads at random."""
    n, share = found.shape[1], found.float().mean(-1)  # [set, language]
    none = torch.zeros(len(found), n + 1)
    none[:, 0] = 1
    for one in share.unbind(1):  # the number of languages of which a head would be one, [set, number]
        none = none * (1 - one[:, None]) + none.roll(1, 1) * one[:, None]
    chance = none[:, GENERAL:].sum(1, keepdim=True)
    return Measured((found.sum(1) >= GENERAL).float(), chance.expand(-1, found.shape[2]))
