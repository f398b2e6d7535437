"""Verdicts of encoder-decoders by stack, and what removing heads changes in T5, BART and Marian, beside plain hooks on the model."""

import functools

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers as T

import headatlas as ha
from headatlas.detector import find_detector
from headatlas.edits import Zero
from headatlas.heads import HeadId
from headatlas.lab.construct.transformer import save
from headatlas.lab.construct.words import tokenizer, words
from headatlas.methods.measured_by.choice import metric_on, prepared
from headatlas.methods.sweeps.set_ablation import SetAblation, ablated
from headatlas.mining.scan import scan, scan_task
from headatlas.mining.verdicts import judge_task
from headatlas.model import Tokenizer, attach
from headatlas.model.families.tiny_models import family
from headatlas.model.sources.resolve import resolve
from headatlas.progress import Silent
from headatlas.store import read_json
from headatlas.task import Batch, find_task, next_token_loss
from headatlas.task.encoders import denoising_loss, noised

PROSE = find_task("prose")
START = 102  # the decoder's start token


@functools.cache
def model():
    """A tiny BART that reads MiniLM's words, with large random weights; one head of each stack writes nothing."""
    torch.manual_seed(1)
    config = T.BartConfig(
        vocab_size=30522, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=80, init_std=0.3, pad_token_id=0, bos_token_id=101,
        eos_token_id=102, decoder_start_token_id=START,
    )  # fmt: skip
    hf = T.BartForConditionalGeneration(config).eval()
    with torch.no_grad():
        for module in projections(hf).values():
            module.weight[:, 8:16] = 0.0
    words = Tokenizer.load(
        resolve("minilm-l6").folder, causal=True, context=64, vocab_size=30522, two_stacks=True, decoder_start=START
    )
    return attach(hf, tokenizer=words)


def projections(hf):
    """(stack, layer) -> the output projection of each attention module, by the names that transformers gives them."""
    found = {}
    for name, module in hf.named_modules():
        parts = name.split(".")
        end = ".".join(parts[-2:])
        stack = {"self_attn.out_proj": parts[1:2], "encoder_attn.out_proj": ["cross"], "SelfAttention.o": parts[:1],
                 "EncDecAttention.o": ["cross"]}.get(end)  # fmt: skip
        if stack:
            found[stack[0], int(next(part for part in parts if part.isdigit()))] = module
    return found


def bare(hf, batch, off=()):
    """Logits of the model itself with z of heads replaced by vectors: off = ((HeadId, vector), ...)."""
    where, handles = projections(hf), []
    for head, vector in off:

        def replace(module, inputs, head=head, vector=vector):
            z = inputs[0].clone()
            width = len(vector)
            z[..., head.head * width : (head.head + 1) * width] = vector
            return (z, *inputs[1:])

        handles.append(where[head.stack, head.layer].register_forward_pre_hook(replace))
    read = batch.encoder
    with torch.no_grad():
        found = hf(
            input_ids=read.tokens, attention_mask=read.mask.long(), decoder_input_ids=batch.tokens,
            decoder_attention_mask=batch.mask.long(),
        )  # fmt: skip
    for handle in handles:
        handle.remove()
    return found.logits


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_ablation_by_stack_is_that_of_plain_hooks(name):
    hf = family(name).build()
    one = attach(hf)
    generator = torch.Generator().manual_seed(0)
    text, target = (torch.randint(5, 60, (3, n), generator=generator) for n in (9, 7))
    reads = Batch(text, torch.ones_like(text, dtype=torch.bool))
    batch = Batch(
        target, torch.ones_like(target, dtype=torch.bool), {"predict": torch.arange(6).expand(3, -1)}, encoder=reads
    )
    heads = [HeadId(1, 2, stack) for stack in ("encoder", "decoder", "cross")]
    removal = SetAblation(one, batch, next_token_loss, Zero)
    clean = next_token_loss.score(bare(hf, batch)[:, :6], batch)
    width = one.layer(1, "cross").d_head
    for head in heads:
        changed = next_token_loss.score(bare(hf, batch, [(head, torch.zeros(width))])[:, :6], batch)
        assert float((changed - clean).abs().max()) > 1e-6
        np.testing.assert_allclose(removal.metric_drop([head]), (changed - clean).double().numpy(), atol=2e-5)
    swept = ha.ablate(one, ha.Prompts(batch=batch, metric="next-token-loss"), heads, edit="zero")
    assert {line.name for line in swept.top(3)} == {str(head) for head in heads}


def test_the_encoder_reads_masked_what_the_decoder_is_asked_for():
    words = model().tokenizer
    batch = PROSE(words, 4)
    found = noised(batch, words, words.mask)
    assert torch.equal(found.tokens, batch.tokens), "the decoder reads the text whole"
    for e in range(4):
        at = found.positions["masked"][e]
        at = at[at >= 0]
        assert len(at) > 3
        assert found.tokens[e, at].tolist() == found.labels["masked"][e][: len(at)].tolist()
        assert found.positions["before masked"][e][: len(at)].tolist() == (at - 1).tolist()
        hidden = (found.encoder.tokens[e] == words.mask).nonzero().flatten()
        plain = prepared_without_mask(batch, words).tokens[e]
        assert plain[hidden].tolist() == found.tokens[e, at].tolist(), "the same words stand there without the mask"


def prepared_without_mask(batch, words):
    from dataclasses import replace

    return words.complete(replace(batch, encoder=None)).encoder


def test_verdicts_by_stack_rest_on_what_plain_hooks_give():
    one = model()
    assert metric_on(one, PROSE) is denoising_loss
    scan = scan_task(one, PROSE, [find_detector("local")], PROSE(one.tokenizer, 4))
    batch = prepared(one, denoising_loss, PROSE(one.tokenizer, 3, 5))
    removal = ablated(one, batch, denoising_loss, scan.mean_z)

    def loss(off=()):
        at = batch.positions["before masked"].clamp(min=0)[..., None].expand(-1, -1, 30522)
        return denoising_loss.score(bare(one.hf, batch, off).gather(1, at), batch).double().numpy()

    for head in (HeadId(0, 2, "encoder"), HeadId(1, 3, "decoder"), HeadId(1, 0, "cross")):
        expected = loss([(head, scan.mean_z[head.stack, head.layer][head.head])]) - loss()
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(removal.metric_drop([head]), expected, atol=5e-5)
    for stack in ("encoder", "decoder", "cross"):
        assert not removal.metric_drop([HeadId(1, 1, stack)]).any(), "a head that writes nothing changes nothing"


def test_means_of_each_stack_are_over_its_own_tokens():
    one = model()
    batch = PROSE(one.tokenizer, 3)
    found = scan_task(one, PROSE, [find_detector("local")], batch)
    kept = {}
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, key=key: kept.__setitem__(key, inputs[0]))
        for key, module in projections(one.hf).items()
    ]
    bare(one.hf, one.tokenizer.complete(batch))
    for handle in handles:
        handle.remove()
    for (stack, layer), z in kept.items():
        side = one.tokenizer.complete(batch).side(stack)
        expected = z[side.mask].mean(0).unflatten(0, (4, -1))
        torch.testing.assert_close(found.mean_z[stack, layer], expected, rtol=1e-4, atol=1e-5)


def test_a_run_of_both_stacks_gets_verdicts():
    from dataclasses import replace

    one = model()
    detector = find_detector("local")
    scan = scan_task(one, PROSE, [detector], PROSE(one.tokenizer, 4))
    heads = (HeadId(0, 2, "encoder"), HeadId(1, 1, "decoder"))
    known = replace(scan.detectors[0], observed=heads)
    baseline = replace(scan.baseline, able=True, smallest=0.0) if hasattr(scan.baseline, "smallest") else scan.baseline
    scan = replace(scan, detectors=(known,), smallest=0.0, baseline=baseline)
    verdict = judge_task(one, PROSE, [detector], scan, n=4, seed=0, progress=Silent(), examples=4)
    found = verdict.detectors["local"].heads
    assert found[heads[1]].verdict == "refuted", "it writes nothing"
    assert found[heads[0]].alone.effect != 0
    assert verdict.detectors["local"].metric == "denoising loss"


@pytest.mark.parametrize("name", ["positional", "dependency"])
def test_detectors_that_settle_do_so_in_each_stack_by_its_own_choices(name):
    """An encoder's heads have offsets to both sides to choose from, a decoder's to one; each beside a pass of that stack alone."""
    one, detector = model(), find_detector(name)
    batch = one.tokenizer.complete(detector.task(one.tokenizer, 8, 3))
    found = scan(one, [detector], batch, size=3).scores[name]
    widths = {}
    for stack in ("encoder", "decoder"):
        layers = {}

        def watch(layer, stack=stack, layers=layers):
            if layer.stack == stack:
                layers[layer.index] = detector.score(layer, batch.side(stack))

        one.forward(batch, watch=watch)
        every = torch.cat([layers[index] for index in sorted(layers)], 1).double()
        alone, widths[stack] = detector.settle(every), every.shape[-1]
        place = [i for i, head in enumerate(found.heads) if head.stack == stack]
        np.testing.assert_allclose(found.values[:, place], alone.values.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.control[:, place], alone.control.numpy(), rtol=1e-4, atol=1e-6)
    assert np.isnan(found.values[:, [i for i, head in enumerate(found.heads) if head.stack == "cross"]]).all()
    assert (widths["encoder"] > widths["decoder"]) == (name == "positional")


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_a_folder_without_a_mask_token_is_mined_by_stack(kind, tmp_path):
    known = tokenizer(words(256), 128)
    known.add_special_tokens({"pad_token": "<unk>"})
    shared = {"vocab_size": 256, "d_model": 32, "decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": 0}
    if kind == "t5":
        config = T.T5Config(**shared, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=4)
        hf = T.T5ForConditionalGeneration(config)
    else:
        config = T.MarianConfig(
            **shared, decoder_vocab_size=256, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=128,
            bos_token_id=0, forced_eos_token_id=0,
        )  # fmt: skip
        hf = T.MarianMTModel(config)
    save(hf.eval(), tmp_path / "model")
    known.save_pretrained(tmp_path / "model")
    ha.mine(ha.load(str(tmp_path / "model")), ["positional", "local", "induction"], n=4, out=tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    known = {(row["detector"], row["stack"]) for row in rows if row["score"] is not None}
    both = {(name, stack) for name in ("positional", "local") for stack in ("encoder", "decoder")}
    assert known == {*both, ("induction", "decoder")}
    data = read_json(tmp_path / "out" / "atlas.json")
    assert {entry["untested"] for entry in data["detectors"]} == {"the model does not do the task"}
    assert {entry["baseline"]["metric"] for entry in data["detectors"]} == {"loss of its own greedy output"}
