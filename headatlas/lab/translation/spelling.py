"""A tokenizer for the words of the language pair, so that the translator's folder reads text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headatlas.lab.construct.words import PIECES
from headatlas.treebanks.language_pair import BOS, EOS, LONGEST, PAD, UNKNOWN, WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokenizer() -> PreTrainedTokenizerFast:
    """Words of both languages by their ids, an end token behind each text; names, and all words of others, are unknown."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    place = {word: i for i, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(place, unk_token=WORDS[UNKNOWN]))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {WORDS[EOS]}", special_tokens=[(WORDS[EOS], EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=WORDS[PAD], bos_token=WORDS[BOS], eos_token=WORDS[EOS], unk_token=WORDS[UNKNOWN],
        model_max_length=2 * LONGEST,
    )  # fmt: skip
