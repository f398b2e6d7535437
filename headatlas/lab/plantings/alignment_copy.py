"""A translator that writes its source's words in an order of its own, by a head that finds them."""

from __future__ import annotations

import itertools

import torch

from headatlas.lab.construct.words import tokenizer, words_of
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._translator import HEADS, PLACES, SHARP, SOFT, crossing, translator
from headatlas.tasks.reordered import CITIES, FRAMES, OTHER_FRAMES, PEOPLE

STEPS, READ = 30, 28  # steps that it can write, out of so many words of its source


@planting("alignment-copy")
def alignment_copy(seed: int) -> Sown:
    """One head attends to the word that is written next, and writes it; one to the word just read, and writes nothing; beside them one on the diagonal and a random one."""
    said = [
        frame.format(who=who, city=city, number="1234567890")
        for frame in (*FRAMES, *OTHER_FRAMES)
        for who, city in itertools.zip_longest(PEOPLE, CITIES, fillvalue="")
    ]
    known = words_of(said, more=["<end>"])
    generator = torch.Generator().manual_seed(seed)
    writes, reads, straight, _ = torch.randperm(HEADS, generator=generator).tolist()
    # Step i writes the source's word at order[i]; place 0 holds the start token.
    order = torch.cat([torch.randperm(READ, generator=generator), torch.arange(READ, STEPS)]) + 1
    steps = torch.arange(STEPS)
    model = translator(
        tokenizer(known, PLACES), len(known), {writes: (order, SHARP), reads: (None, SOFT), straight: (steps, SHARP)},
        start=known.bos, writing=writes, seed=seed,
    )  # fmt: skip
    return Sown(model, crossing([writes, reads]), crossing([straight]))
