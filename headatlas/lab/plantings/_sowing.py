"""Makes a planting's result of planted heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headatlas.heads import HeadId
from headatlas.lab.grid import Reader
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel
from headatlas.lab.planting import Sown
from headatlas.model import Tokenizer, attach


def sown(
    planted: PlantedModel,
    positives: Iterable[Head],
    look_alikes: Iterable[Head] = (),
    undecided: Iterable[Head] = (),
    gone: Iterable[Head] = (),
    stand_ins: bool = False,
) -> Sown:
    """The planted model with its heads sorted by what a detector should make of them.

    stand_ins: words that the vocabulary lacks are read as other words (`headatlas.lab.grid.Reader`) and not as unknown.
    """

    def ids(heads: Iterable[Head]) -> frozenset[HeadId]:
        return frozenset(head.id for head in heads)

    config: Any = planted.model.config
    planted.tokenizer.model_max_length = 1 << 30  # texts are cut to the context by the tasks
    words = (Reader if stand_ins else Tokenizer)(
        causal=True,
        context=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        hf=planted.tokenizer,
        bos="auto",
    )
    return Sown(attach(planted.model, tokenizer=words), ids(positives), ids(look_alikes), ids(undecided), ids(gone))
