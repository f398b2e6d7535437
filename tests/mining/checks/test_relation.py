"""The check at a relation's words: what is masked, what removal costs there by a plain run, and what is said of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as T

from headatlas.detector import find_detector
from headatlas.edits import Zero
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import prepared
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.mining.checks.relation import AtRelation, outcome, split
from headatlas.model import Tokenizer, attach
from headatlas.model.sources.resolve import resolve
from headatlas.task import next_token_loss
from headatlas.task.encoders import denoising_loss, masked_token_loss, span_corruption_loss
from headatlas.tasks._sentences import RELATIONS
from headatlas.tasks.syntax import syntax
from headatlas.treebanks.sentences import ROOT

DEPENDENCY = find_detector("dependency")
TOLD = "obj to head 78% (39%), nmod:poss from head 40% (20%)"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    config = T.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=96, initializer_range=0.3,
    )  # fmt: skip
    words = Tokenizer.load(resolve("minilm-l6").folder, causal=False, context=96, vocab_size=30522)
    return attach(T.BertForMaskedLM(config).eval(), tokenizer=words)


@pytest.fixture(scope="module")
def batch(model):
    return syntax(model.tokenizer, 6, 5)


def test_the_words_of_a_head_are_the_pieces_of_its_relations_dependents(batch):
    found = DEPENDENCY.works_at(batch, TOLD)
    wanted = {RELATIONS.index("obj"), RELATIONS.index("nmod:poss")}
    for e in range(len(batch)):
        for place, word in enumerate(batch.marks["word"][e].tolist()):
            mine = (
                word >= 0
                and int(batch.labels["relation"][e, word]) in wanted
                and int(batch.labels["heads"][e, word]) != ROOT
            )
            assert bool(found[e, place]) == mine
    assert DEPENDENCY.works_at(batch, "nothing of the kind") is None


def test_as_many_words_are_masked_elsewhere_as_at_the_relation(model, batch):
    places = DEPENDENCY.works_at(batch, TOLD)
    parts = split(model, masked_token_loss, batch, places)
    for e in range(len(batch)):
        at, ids, inside = parts.at[e], parts.ids[e], parts.inside[e]
        real = at >= 0
        words = batch.marks["word"][e][at[real]]
        assert len(words[inside[real]].unique()) == len(words[~inside[real]].unique()) > 0
        assert bool((places[e][at[real]] == inside[real]).all())
        assert ids[real].tolist() == batch.tokens[e][at[real]].tolist()
        changed = (parts.batch.tokens[e] != batch.tokens[e]).nonzero().flatten().tolist()
        assert changed == sorted(at[real].tolist())
        assert 0 < len(changed) <= 0.3 * int(batch.mask[e].sum())


def test_the_value_is_the_difference_of_plain_runs(model):
    zero = SetAblation(
        model, prepared(model, masked_token_loss, syntax(model.tokenizer, 4, 9)), masked_token_loss, Zero
    )
    free = (HeadId(0, 1, "encoder"), HeadId(1, 2, "encoder"))
    bench = SimpleNamespace(removal=zero, controls=SimpleNamespace(heads=free))
    asked = AtRelation(model, syntax, masked_token_loss, 0)
    head, other = HeadId(1, 0, "encoder"), HeadId(1, 3, "encoder")
    found = asked.check(DEPENDENCY, {head: TOLD, other: ""}, [head, other], bench)
    assert found[other].outcome == "does not apply"
    texts = asked._texts
    parts = split(model, masked_token_loss, texts, DEPENDENCY.works_at(texts, TOLD))
    clean, gone = (model.forward(parts.batch, edits=edits) for edits in ([], [Zero([head])]))
    rises = []
    for e in range(len(texts)):
        sides = {True: [], False: []}
        for place, token, inside in zip(
            parts.at[e].tolist(), parts.ids[e].tolist(), parts.inside[e].tolist(), strict=True
        ):
            if place >= 0:
                a, b = (-logits[e, place].log_softmax(-1)[token].item() for logits in (gone, clean))
                sides[inside].append(a - b)
        if sides[True]:
            rises.append(np.mean(sides[True]) - np.mean(sides[False]))
    assert found[head].value == pytest.approx(np.mean(rises), abs=1e-5)
    assert found[head].low <= found[head].value <= found[head].high
    assert set(found[head].parts) == {"at its words", "elsewhere", "random heads"}


def test_what_is_no_masked_loss_or_no_dependency_is_not_asked(model):
    bench = SimpleNamespace(removal=None, controls=None)
    head = HeadId(0, 0, "encoder")
    (found,) = AtRelation(model, syntax, next_token_loss, 0).check(DEPENDENCY, {head: TOLD}, [head], bench).values()
    assert found.outcome == "does not apply"
    assert AtRelation(model, syntax, masked_token_loss, 0).check(find_detector("block"), {}, [head], bench) == {}


def test_outcomes_need_certainty_and_more_than_random_heads():
    rng = np.random.default_rng(0)
    large = np.stack([1 + 0.2 * rng.normal(size=32), 0.1 * rng.normal(size=32)], 1)
    assert outcome(large, [0.2, -0.1]).outcome == "passed"
    assert outcome(large, [0.2, 1.5]).outcome == "weakened"
    assert outcome(large[:, ::-1], []).outcome == "failed"
    assert outcome(0 * large, []).outcome == "failed"


def bart():
    config = T.BartConfig(
        vocab_size=30522, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=98, init_std=0.3, pad_token_id=0, bos_token_id=101,
        eos_token_id=102, decoder_start_token_id=102,
    )  # fmt: skip
    words = Tokenizer.load(
        resolve("minilm-l6").folder, causal=True, context=96, vocab_size=30522, two_stacks=True, decoder_start=102
    )
    return attach(T.BartForConditionalGeneration(config).eval(), tokenizer=words)


def t5(folder):
    """A T5 that reads MiniLM's words, with sentinels behind them."""
    words = T.AutoTokenizer.from_pretrained(resolve("minilm-l6").folder)
    words.add_special_tokens({"additional_special_tokens": [f"<extra_id_{i}>" for i in range(40)]})
    words.save_pretrained(folder)
    size = len(words)
    config = T.T5Config(
        vocab_size=size, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4, initializer_factor=2.0, pad_token_id=0,
        eos_token_id=102, decoder_start_token_id=0,
    )  # fmt: skip
    known = Tokenizer.load(folder, causal=True, context=96, vocab_size=size, two_stacks=True, decoder_start=0)
    return attach(T.T5ForConditionalGeneration(config).eval(), tokenizer=known)


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_encoder_decoders_are_asked_at_the_words_that_they_write(kind, stack, tmp_path):
    """Each text alone through the plain model, with the head's columns at zero: what its own logits say of each hidden word."""
    torch.manual_seed(2)
    model, metric = (bart(), denoising_loss) if kind == "bart" else (t5(tmp_path), span_corruption_loss)
    head = HeadId(1, 0, stack)
    zero = SetAblation(model, prepared(model, metric, syntax(model.tokenizer, 4, 9)), metric, Zero)
    bench = SimpleNamespace(removal=zero, controls=SimpleNamespace(heads=()))
    asked = AtRelation(model, syntax, metric, 0)
    found = asked.check(DEPENDENCY, {head: TOLD}, [head], bench)[head]
    texts = asked._texts
    places = DEPENDENCY.works_at(texts, TOLD)
    parts = split(model, metric, texts, places)
    name = {"bart": "self_attn.out_proj", "t5": "SelfAttention.o"}[kind]
    own = next(
        module for path, module in model.hf.named_modules()
        if path.endswith(name) and f"{stack}." in path and (".block.1." in path or ".layers.1." in path)
    ).weight[:, :8]  # fmt: skip

    def losses(e):
        real, source = parts.batch.mask[e], parts.batch.encoder.mask[e]
        with torch.no_grad():
            logits = model.hf(
                input_ids=parts.batch.encoder.tokens[e : e + 1, source], decoder_input_ids=parts.batch.tokens[e : e + 1, real]
            ).logits[0]  # fmt: skip
        return -logits.log_softmax(-1)

    rises = []
    for e in range(len(texts)):
        clean, kept = losses(e), own.detach().clone()
        with torch.no_grad():
            own.zero_()
            gone = losses(e)
            own.copy_(kept)
        sides, standing = {True: [], False: []}, []
        for at, token, inside in zip(*(x[e].tolist() for x in (parts.at, parts.ids, parts.inside)), strict=True):
            if token >= 0:
                sides[inside].append(float(gone[at, token] - clean[at, token]))
                standing.append(token)
                written = parts.batch.tokens[e, at + 1] if kind == "bart" else parts.batch.labels["written"][e, at]
                assert int(written) == token
        assert not set(standing) - set(texts.tokens[e].tolist())
        if sides[True]:
            rises.append(np.mean(sides[True]) - np.mean(sides[False]))
    assert abs(np.mean(rises)) > 1e-4
    assert found.value == pytest.approx(np.mean(rises), abs=2e-5)
