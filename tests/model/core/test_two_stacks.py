"""Texts for encoder-decoders: the encoder gets what the tokenizer makes of them, the decoder starts as the model says.

The truth is the plain transformers model on the ids of its own tokenizer; `labels` make transformers itself shift them.
"""

import json
from dataclasses import dataclass

import pytest
import torch
import transformers as T
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, processors

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.prompts_file import read_prompts
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated
from tests import toys

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "<s>",
    "<go>",
    *["the", "capital", "of", "france", "italy", "is", "paris", "rome", "a"],
]
TEXTS = ["the capital of france is", "a capital"]
SIZES = {"vocab_size": 160, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
         "pad_token_id": 0, "eos_token_id": 1}  # fmt: skip
T5 = {"vocab_size": 160, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "pad_token_id": 0,
      "eos_token_id": 1, "decoder_start_token_id": 0}  # fmt: skip
FAMILIES = {
    "t5": (T.T5Config, T.T5ForConditionalGeneration, T5, "$A </s>"),
    "mt5": (T.MT5Config, T.MT5ForConditionalGeneration, {**T5, "decoder_start_token_id": 4}, "$A </s>"),
    "bart": (T.BartConfig, T.BartForConditionalGeneration, {**SIZES, "bos_token_id": 3, "decoder_start_token_id": 1}, "<s> $A </s>"),
    "marian": (T.MarianConfig, T.MarianMTModel, {**SIZES, "decoder_start_token_id": 0}, "$A </s>"),
    "pegasus": (T.PegasusConfig, T.PegasusForConditionalGeneration, {**SIZES, "decoder_start_token_id": 0}, "$A </s>"),
    # As mBART's: two tokens behind the text, so that the encoder's side is longer than the decoder's.
    "two ends": (T.T5Config, T.T5ForConditionalGeneration, T5, "$A </s> <go>"),
}  # fmt: skip


def tokenizer(template: str) -> T.PreTrainedTokenizerFast:
    backend = Fast(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(word, WORDS.index(word)) for word in ("<s>", "</s>", "<go>")]
    )
    return T.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>",
        additional_special_tokens=["<go>"],
    )  # fmt: skip


@dataclass
class Opened:
    model: ha.Model
    hf: torch.nn.Module  # an untouched copy
    tok: T.PreTrainedTokenizerFast


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request, tmp_path_factory) -> Opened:
    return made(request.param, tmp_path_factory.mktemp("two") / "model")


def made(name: str, folder) -> Opened:
    config, kind, sizes, template = FAMILIES[name]
    torch.manual_seed(0)
    hf, tok = kind(config(**sizes)).eval(), tokenizer(template)
    with torch.no_grad():  # these families begin with an output layer that nearly writes nothing
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    hf.save_pretrained(folder)
    tok.save_pretrained(folder)
    return Opened(ha.load(str(folder)), kind.from_pretrained(folder).eval(), tok)


def truth(one: Opened, text: str, n: int) -> torch.Tensor:
    """Logits at the first `n` of the decoder's positions: its start token, then what the tokenizer makes of the text."""
    ids = one.tok(text, return_tensors="pt").input_ids
    start = torch.tensor([[one.hf.config.decoder_start_token_id]])
    with torch.no_grad():
        return one.hf(input_ids=ids, decoder_input_ids=torch.cat([start, ids], 1)[:, :n]).logits[0]


def test_a_text_is_read_as_tokenizer_and_model_expect(opened):
    for text in TEXTS:
        found = opened.model.forward(text)[0]
        torch.testing.assert_close(found, truth(opened, text, len(found)))
        assert len(found) >= len(opened.tok(text, add_special_tokens=False).input_ids) + 1
    said = opened.model.read_as
    assert "decoder: " in said
    assert f"(id {opened.hf.config.decoder_start_token_id})" in said
    assert "</s> (id 1)" in said


def test_several_texts_give_what_each_gives_alone(opened):
    together = opened.model.forward(TEXTS)
    for row, text in zip(together, TEXTS, strict=True):
        alone = opened.model.forward(text)[0]
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_ids_are_the_encoders_as_given_and_the_decoder_reads_them_as_labels_would_be_read(opened):
    ids = opened.tok(TEXTS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        expected = opened.hf(input_ids=ids, labels=ids).logits
    for given in (ids, ids.tolist(), ids[0].tolist(), ids.numpy(), {"input_ids": ids}, opened.tok(TEXTS[0])):
        if isinstance(given, T.BatchEncoding):
            given = {name: [value] for name, value in given.items() if name != "token_type_ids"}
        torch.testing.assert_close(opened.model.forward(given), expected)
        assert opened.model.read_as.startswith(
            "ids as given, no start or end token added; the decoder reads them behind"
        )


def test_a_dictionary_with_a_decoder_of_its_own_is_taken_as_it_is(opened):
    ids, own = opened.tok(TEXTS[0], return_tensors="pt").input_ids, torch.tensor([[4, 9]])
    with torch.no_grad():
        expected = opened.hf(input_ids=ids, decoder_input_ids=own).logits
    torch.testing.assert_close(opened.model.forward({"input_ids": ids, "decoder_input_ids": own}), expected)
    assert opened.model.read_as == "ids as given, no start or end token added"


def hooked(one: Opened, text: str, stack: str, at: int, n: int) -> torch.Tensor:
    """The plain model's logits with head 0.1's output at one position of a stack set to zero, by a hook of our own."""
    name = {"encoder": "encoder", "decoder": "decoder"}[stack]
    layer = next(
        module for path, module in one.hf.named_modules()
        if f"{name}." in path and path.endswith(("0.self_attn.out_proj", "0.layer.0.SelfAttention.o"))
    )  # fmt: skip

    def zero(_, args):
        z = args[0].clone()
        z[:, at, 8:16] = 0
        return (z,)

    handle = layer.register_forward_pre_hook(zero)
    try:
        return truth(one, text, n)
    finally:
        handle.remove()


@pytest.mark.parametrize(("stack", "head"), [("encoder", "encoder:0.1"), ("decoder", "0.1")])
def test_positions_of_an_edit_count_in_the_stack_of_its_head(opened, stack: str, head: str):
    plain = opened.model.forward(TEXTS[0])[0]
    for at in (0, 2):
        found = opened.model.forward(TEXTS[0], edits=[ha.Zero(head, positions=[at])])[0]
        torch.testing.assert_close(found, hooked(opened, TEXTS[0], stack, at, len(found)), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, plain, atol=1e-6)


def test_logits_are_those_of_the_decoders_positions(opened):
    whole = opened.model.forward(TEXTS[0])
    torch.testing.assert_close(opened.model.forward(TEXTS[0], logit_positions=torch.tensor([0, 3])), whole[:, [0, 3]])


def test_named_positions_stand_at_the_same_words_in_both_stacks(opened):
    tok = opened.model.tokenizer
    rows = [tok.start_end.read(tok.encode(text)) for text in TEXTS]
    length = max(map(len, rows))
    word = torch.tensor([row.index(WORDS.index("capital")) for row in rows])
    batch = tok.complete(
        Batch(
            torch.tensor([row + [0] * (length - len(row)) for row in rows]),
            torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None],
            {"word": word, "gone": torch.tensor([-1, -1]), "start": torch.tensor([0, 0])},
        )
    )
    for i, text in enumerate(TEXTS):
        ids = opened.tok(text).input_ids
        side = batch.side("encoder")
        assert side.tokens[i][side.mask[i]].tolist() == ids
        assert int(side.positions["word"][i]) == ids.index(WORDS.index("capital"))
        assert int(side.positions["gone"][i]) == int(side.positions["start"][i]) == -1
    assert batch.side("cross") is batch.side("decoder") is batch
    assert batch.rows([1]).side("encoder").tokens[0].tolist() == batch.encoder.tokens[1].tolist()


def prompts(folder, **more) -> str:
    line = {
        "clean": "the capital of france is",
        "corrupted": "the capital of italy is",
        "answer": "paris",
        "wrong": "rome",
    }
    (folder / "p.jsonl").write_text(json.dumps({**line, **more}) + "\n")
    return str(folder / "p.jsonl")


def test_the_answer_to_a_prompt_is_the_first_token_that_the_decoder_writes(opened, tmp_path):
    paris, rome = WORDS.index("paris"), WORDS.index("rome")
    front = len(opened.model.tokenizer.front) - 1  # what the tokenizer itself puts before a text comes first
    logits = truth(opened, "the capital of france is", front + 1)[front]
    found = ha.ablate(
        opened.model, ha.Prompts(prompts=prompts(tmp_path), force=True), edit="zero", heads="encoder:0.1 0.1"
    )
    assert found.base.tolist() == pytest.approx([float(logits[paris] - logits[rome])], abs=1e-4)
    with torch.no_grad():
        edited = opened.model.forward("the capital of france is", edits=[ha.Zero("encoder:0.1")])[0, front]
    expected = float((edited[paris] - edited[rome]) - (logits[paris] - logits[rome]))
    assert found.values[0, 0, 0] - found.base[0] == pytest.approx(expected, abs=1e-4)
    assert "decoder: " in found.facts["start_end"]


def test_a_named_position_of_heads_of_both_stacks_is_refused(opened, tmp_path):
    given = ha.Prompts(prompts=prompts(tmp_path), force=True)
    with pytest.raises(BadInput, match="count positions apart"):
        ha.ablate(opened.model, given, edit="zero", heads="encoder:0.1 0.1", positions="end")
    if len(opened.model.tokenizer.front) == 1:
        with pytest.raises(BadInput, match="No example has a position 'end'"):
            ha.ablate(opened.model, given, edit="zero", heads="encoder:0.1", positions="end")


def test_patching_puts_each_stack_at_its_own_positions(opened, tmp_path):
    given = ha.Prompts(prompts=prompts(tmp_path), force=True)
    found = ha.patch(opened.model, given, heads="encoder:0.1", positions="each", direction="noising")
    clean, other = "the capital of france is", "the capital of italy is"
    kept = {}
    opened.model.forward(other, watch=lambda layer: kept.update({(layer.stack, layer.index): layer.z.clone()}))
    front = len(opened.model.tokenizer.front) - 1
    paris, rome = WORDS.index("paris"), WORDS.index("rome")
    base = truth(opened, clean, front + 1)[front]
    for at in range(len(opened.tok(clean).input_ids)):
        swap = ha.Resample("encoder:0.1", {("encoder", 0): kept["encoder", 0]}, positions=[at])
        logits = opened.model.forward(clean, edits=[swap])[0, front]
        expected = float((logits - base)[paris] - (logits - base)[rome])
        assert found.values[0, 0, at] - found.base[0] == pytest.approx(expected, abs=1e-4)


def test_mean_and_probing_read_each_stack_at_its_own_words(opened, tmp_path):
    file = tmp_path / "l.jsonl"
    file.write_text("\n".join(json.dumps({"text": text, "label": str(i)}) for i, text in enumerate(TEXTS)))
    batch = read_prompts(file, opened.model.tokenizer)
    mean = ha.Mean.over(opened.model, "encoder:0.1 0.1", batch)
    parts = {"encoder": [], "decoder": []}
    for text in TEXTS:
        opened.model.forward(
            text,
            watch=lambda layer: layer.index == 0 and layer.stack in parts and parts[layer.stack].append(layer.z[0]),
        )
    for stack, found in parts.items():
        torch.testing.assert_close(mean.values[stack, 0], torch.cat(found).mean(0), rtol=1e-4, atol=1e-5)


def test_tasks_have_their_start_token_in_the_decoder_and_their_text_in_the_encoder(tmp_path):
    hf = T.T5ForConditionalGeneration(T.T5Config(**{**T5, "vocab_size": 300})).eval()
    toys.with_tokenizer(hf, tmp_path / "model")
    model = ha.load(str(tmp_path / "model"))
    batch = repeated(model.tokenizer, 2, 0)
    assert (batch.tokens[:, 0] == 0).all()
    assert torch.equal(batch.encoder.tokens, batch.tokens[:, 1:])  # this tokenizer adds nothing
    assert torch.equal(batch.encoder.positions["second"], batch.positions["second"] - 1)
    assert torch.equal(batch.control.encoder.tokens, batch.control.tokens[:, 1:])
    with torch.no_grad():
        expected = hf(input_ids=batch.tokens[:, 1:], decoder_input_ids=batch.tokens).logits
    torch.testing.assert_close(model.forward(batch), expected, rtol=1e-4, atol=1e-5)
    atlas = ha.mine(model, ["previous-token"], n=4, out=tmp_path / "run")
    assert "decoder: [PAD] (id 0)" in json.loads((tmp_path / "run" / "atlas.json").read_text())["run"]["bos"]
    assert len(atlas.runs) == 1


def test_left_padding_that_an_encoder_cannot_take_is_refused_in_dictionaries_too(tmp_path):
    one = made("bart", tmp_path / "model")
    given = {"input_ids": torch.tensor([[0, 0, 3, 5, 1]]), "attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
    with pytest.raises(BadInput, match="counts positions from the left"):
        one.model.forward({**given, "decoder_input_ids": torch.tensor([[1]])})


def test_a_model_that_hears_refuses_text_in_words():
    config = T.WhisperConfig(
        vocab_size=160, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=20, max_target_positions=30, num_mel_bins=8, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    model = ha.load(T.WhisperForConditionalGeneration(config).eval())
    with pytest.raises(BadInput, match="reads input_features, not text"):
        model.forward(torch.tensor([[5, 6, 7]]))
    alone = ha.load(T.WhisperForCausalLM(config).eval())
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    for given in (Batch(ids, mask.bool()), {"input_ids": ids, "attention_mask": mask}):
        torch.testing.assert_close(alone.forward(given)[0, 2:], alone.hf(ids[:1, 2:]).logits[0], rtol=1e-4, atol=1e-5)
