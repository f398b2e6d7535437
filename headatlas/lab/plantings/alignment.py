"""Heads of a decoder that find the word they translate, and heads that only keep step with the source."""

from __future__ import annotations

import torch

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._translator import CODE, HEADS, SHARP, SOFT, crossing, translator
from headatlas.lab.translation.spelling import tokenizer
from headatlas.treebanks.language_pair import BOS, SOURCE, TARGET, WORDS, meaning


@planting("alignment")
def alignment(seed: int) -> Sown:
    """Two heads attend to the source word of the same meaning once the target word is read, one with less of its mass; beside them one on the diagonal and a random one."""
    generator = torch.Generator().manual_seed(seed)
    by_meaning = torch.nn.functional.normalize(torch.randn(TARGET, CODE, generator=generator), dim=-1)
    # Words of either language that mean the same share a code, but for their number.
    codes = by_meaning[torch.tensor([meaning(word) for word in range(TARGET)])]
    codes[SOURCE:] += 0.3 * torch.randn(TARGET - SOURCE, CODE, generator=generator) / CODE**0.5
    codes = torch.nn.functional.normalize(codes, dim=-1)
    strong, weak, straight, _ = torch.randperm(HEADS, generator=generator).tolist()
    steps = torch.arange(32)
    model = translator(
        tokenizer(), len(WORDS), {strong: (None, SHARP), weak: (None, SOFT), straight: (steps, SHARP)},
        start=BOS, codes=codes, seed=seed,
    )  # fmt: skip
    return Sown(model, crossing([strong, weak]), crossing([straight]))
