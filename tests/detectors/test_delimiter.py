"""Special tokens and punctuation are two head types: on an encoder in which heads of both are written, and by plain sums."""

import numpy as np
import pytest
import torch
import transformers

from headatlas.detector import find_detector
from headatlas.detectors.delimiter import THRESHOLD, delimiter
from headatlas.detectors.punctuation import punctuation
from headatlas.lab.construct.words import tokenizer, words
from headatlas.lab.grid import Reader
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.model.synthetic_view import SyntheticLayer
from headatlas.tasks.prose import prose
from tests import toys

SPECIAL, MARK, BESIDE, NOISE = range(4)  # heads of the written layer


@pytest.fixture(scope="module")
def encoder():
    """One layer: a head on the special tokens, one on punctuation, one on the tokens beside the special ones, one at random."""
    from tokenizers import processors

    vocabulary, length = words(256), 128
    hf = tokenizer(vocabulary, length)
    start = vocabulary.tokens[vocabulary.bos]
    hf.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {start}", special_tokens=[(start, vocabulary.bos)]
    )
    config = transformers.BertConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8,
        max_position_embeddings=length, type_vocab_size=1, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        table, place = model.embeddings.word_embeddings.weight, model.embeddings.position_embeddings.weight
        table[:, :3] = 0.0
        place.zero_()
        table[vocabulary.bos, SPECIAL] = 1.0
        table[list(vocabulary.delimiters), MARK] = 1.0
        place[[1, length - 2], BESIDE] = 1.0
        attention = model.encoder.layer[0].attention.self
        for head in (SPECIAL, MARK, BESIDE):  # the query is a constant, the key the token's flag
            rows = slice(head * 8, head * 8 + 8)
            attention.query.weight[rows], attention.key.weight[rows] = 0.0, 0.0
            attention.query.bias[head * 8] = 10.0
            attention.key.weight[head * 8, head] = 2.0

    hf.model_max_length = 1 << 30
    read = Reader(causal=False, context=length, vocab_size=256, hf=hf, bos="auto")
    return attach(model, tokenizer=read)


def test_heads_on_special_tokens_and_on_punctuation_are_told_apart(encoder):
    batch = prose(encoder.tokenizer, 16, 0)
    assert bool((batch.positions["special"] == torch.tensor([0, 127])).all())
    scores = scan(encoder, [delimiter, punctuation], batch).scores
    found = {
        name: {line.head.head for line in scores[name].observed(find_detector(name).minimum_effect)} for name in scores
    }
    assert found == {"delimiter": {SPECIAL}, "punctuation": {MARK}}


def test_scores_are_sieve_bias_scores_of_plain_sums():
    batch = prose(toys.smollm2_vocabulary(), 3, 0)
    n, length = batch.tokens.shape
    drawn = torch.rand(n, 2, length, length, generator=torch.Generator().manual_seed(0))
    pattern = drawn / drawn.sum(-1, keepdim=True)
    layer = SyntheticLayer(pattern, valid=batch.mask, causal=False)
    values, control = delimiter.score(layer, batch), delimiter.control(layer, batch)
    for e in range(n):
        special = [int(p) for p in batch.positions["special"][e] if p >= 0]
        beside = [int(p) for p in batch.positions["beside"][e] if p >= 0]
        assert len(special) == len(beside) > 0
        assert not set(special) & set(beside)
        for head in range(2):
            rows = pattern[e, head].numpy()
            sieve = np.mean([row[special].mean() / row.mean() for row in rows])
            assert values[e, head].item() == pytest.approx(sieve * len(special) / length, rel=1e-4)
            expected = max(THRESHOLD * len(special) / length, np.mean([row[beside].sum() for row in rows]))
            assert control[e, head].item() == pytest.approx(expected, rel=1e-4)
