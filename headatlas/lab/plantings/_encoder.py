"""A BERT of one layer whose heads attend by what a token is, from every token alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from headatlas.lab.construct.words import Words, tokenizer
from headatlas.lab.grid import Reader
from headatlas.model import Model, attach

D_HEAD = 8
FLAG = 1.0  # against embeddings of 0.02
LENGTH = 128


def encoder(
    vocabulary: Words,
    keys: Mapping[int, Iterable[int]],
    places: Mapping[int, Iterable[int]],
    gains: Mapping[int, float],
    *,
    heads: int,
    seed: int,
) -> Model:
    """A BERT that reads this vocabulary between [CLS] and [SEP], both written as the token that starts texts.

    keys: head -> the tokens that it attends to, evenly, from everywhere; places: head -> positions that it attends to. gains: head ->
    how much longer the way to them is than to other tokens, in logits. All other heads are random.
    """
    import transformers
    from tokenizers import processors

    hf: Any = tokenizer(vocabulary, LENGTH)
    start = vocabulary.tokens[vocabulary.bos]
    hf.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {start}", special_tokens=[(start, vocabulary.bos)]
    )
    hf.model_max_length = 1 << 30
    config: Any = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=heads * D_HEAD, num_hidden_layers=1, num_attention_heads=heads,
        intermediate_size=D_HEAD, max_position_embeddings=LENGTH, type_vocab_size=1,
    )  # fmt: skip
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = transformers.BertModel(config).eval()
    with torch.no_grad():
        table, place = model.embeddings.word_embeddings.weight, model.embeddings.position_embeddings.weight
        table[:, :heads], place[:] = 0.0, 0.0
        attention = model.encoder.layer[0].attention.self
        for head, gain in gains.items():
            table[list(keys.get(head, ())), head] = FLAG
            place[list(places.get(head, ())), head] = FLAG
            rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
            # The query is a constant, the key the token's flag.
            attention.query.weight[rows], attention.key.weight[rows] = 0.0, 0.0
            attention.query.bias[head * D_HEAD] = gain
            attention.key.weight[head * D_HEAD, head] = 1.0
    read = Reader(causal=False, context=LENGTH, vocab_size=len(vocabulary), hf=hf, bos="auto")
    return attach(model, tokenizer=read)
