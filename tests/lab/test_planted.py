"""Planted heads do what their kind says: read from the model's own eager attention and by switching heads off."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headatlas.cli import main
from headatlas.errors import BadInput, HeadAtlasError, StoreError, UnknownName
from headatlas.heads import HeadId
from headatlas.lab.accuracy import COPYING, FETCHING, MODELS, NAMES, STRENGTHS, Row, accuracy_table, weakened
from headatlas.lab.construct.targets import keys_in, member
from headatlas.lab.head import Head
from headatlas.lab.measure import Reading, attend, logits_of, loss_of, read, read_all, without
from headatlas.lab.planted import plant
from headatlas.lab.probe import probe
from headatlas.lab.spec import PlantSpec, kinds, parse_head

ARCHITECTURES = ({"architecture": "gpt2"}, {"architecture": "llama"})


def spec(heads, strength=1.0, **options):
    return PlantSpec(weakened(heads, strength), **options)


def test_every_kind_is_planted_and_measured_here():
    used = {head.kind for head in (*COPYING, *FETCHING, *NAMES)}
    sown = {
        "copier",
        "fetcher",
        "backup-mover",
        "alert",
        "merger",
        "broadcaster",
    }  # these are measured in test_plantings.py
    assert used == set(kinds()) - {"noise"} - sown


@pytest.mark.parametrize(
    ("heads", "sizes"),
    [
        *((heads, sizes) for heads in MODELS for sizes in ARCHITECTURES),
        *((heads, {"architecture": "llama", "n_kv_heads": 2, "width": 256}) for heads in (FETCHING, NAMES)),
    ],
)
def test_full_heads_put_their_attention_on_the_target(heads, sizes):
    planted = plant(spec(heads), n_layers=3, **sizes)
    for head, reading in read_all(planted).items():
        # Members of a sequence that stand side by side share a little; a rotary window is rounded at its edge.
        least = 0.9 if reading.head.kind == "successor" else 0.96
        assert reading.attention > least, (head, reading)


@pytest.mark.parametrize("sizes", ARCHITECTURES, ids=("gpt2", "llama"))
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
def test_strength_is_the_share_of_attention_on_the_target(strength, sizes):
    for heads in MODELS:
        planted = plant(spec(heads, strength), n_layers=3, **sizes)
        for head, reading in read_all(planted, n=24).items():
            if reading.head.strength == strength:
                assert reading.attention == pytest.approx(strength, abs=0.08), (head, reading)


@pytest.mark.parametrize("sizes", ARCHITECTURES, ids=("gpt2", "llama"))
def test_copying_heads_move_logits_and_others_do_not(sizes):
    sign = {"copies": 1.0, "advances": 1.0, "suppresses": -1.0}
    for heads in MODELS:
        planted = plant(spec(heads), n_layers=3, **sizes)
        for head, reading in read_all(planted).items():
            outcome = kinds()[reading.head.kind].outcome
            if outcome in sign:
                assert sign[outcome] * reading.logit > 4.0, (head, reading)
            elif reading.head.kind not in ("inhibition", "duplicate"):  # these two steer the mover above them
                assert abs(reading.logit) < 0.5, (head, reading)


@pytest.mark.parametrize("sizes", ARCHITECTURES, ids=("gpt2", "llama"))
def test_induction_pair_predicts_repeats_and_the_fake_one_has_no_part_in_it(sizes):
    planted = plant(spec(COPYING[:7]), n_layers=2, **sizes)
    material = probe("repeated", planted.words, 256, 16, 3)
    whole = loss_of(logits_of(planted.model, material.tokens), material)

    def rise(*heads):
        with without(planted.model, *heads):
            return loss_of(logits_of(planted.model, material.tokens), material) - whole

    assert whole < 0.05
    assert rise(HeadId(1, 0)) > 4.0
    assert rise(HeadId(0, 0)) > 4.0  # the partner, whose note the match reads
    assert abs(rise(HeadId(1, 1))) < 0.05
    assert abs(rise(HeadId(0, 1), HeadId(0, 2), HeadId(0, 3), HeadId(1, 2))) < 0.1


@pytest.mark.parametrize("finds", ["duplicate", "recent"])
@pytest.mark.parametrize("sizes", ARCHITECTURES, ids=("gpt2", "llama"))
def test_inhibition_turns_the_mover_to_the_other_name(sizes, finds):
    heads = (Head(0, 0, "duplicate"), Head(1, 0, "inhibition", finds=finds), Head(2, 2, "mover"))
    planted = plant(PlantSpec(heads), n_layers=3, **sizes)
    material = probe("names", planted.words, 256, 32, 0)
    named = keys_in(material.tokens, member(material.tokens, planted.words.names))
    answer = material.tokens[:, -1]
    receiver = named & (material.tokens == answer[:, None])[:, None, :]

    def share():
        pattern = attend(planted.model, material.tokens)[0][2][:, 2, -2]
        return float((pattern * receiver[:, -2]).sum(-1).mean() / (pattern * named[:, -2]).sum(-1).mean())

    assert share() > 0.95
    with without(planted.model, HeadId(1, 0)):
        assert share() == pytest.approx(1 / 3, abs=0.02)  # the giver is named twice
    assert read(planted, heads[1]).loss > 0.5


def test_heads_may_stand_anywhere():
    planted = plant(
        PlantSpec((Head(3, 6, "previous"), Head(5, 7, "induction", strength=0.6), Head(4, 0, "positional"))),
        architecture="gpt2",
        n_layers=6,
        n_heads=8,
        width=256,
        vocab=128,
    )
    readings = read_all(planted)
    assert readings[HeadId(3, 6)].attention > 0.99
    assert readings[HeadId(5, 7)].attention == pytest.approx(0.6, abs=0.03)
    assert readings[HeadId(4, 0)].attention > 0.99


@pytest.mark.parametrize(
    ("architecture", "width", "n_heads", "vocab"),
    [("gpt2", 64, 4, 128), ("gpt2", 512, 8, 512), ("llama", 64, 4, 128), ("llama", 512, 8, 256)],
)
def test_small_and_large_widths_work(architecture, width, n_heads, vocab):
    heads = (Head(0, 0, "previous"), Head(0, 1, "duplicate"), Head(1, 0, "induction"), Head(1, 1, "current"))
    planted = plant(PlantSpec(heads), architecture=architecture, width=width, n_heads=n_heads, vocab=vocab)
    readings = read_all(planted, n=16)
    assert min(reading.attention for reading in readings.values()) > 0.97
    assert readings[HeadId(1, 0)].loss > 3.0


def test_heads_of_one_group_share_keys_where_they_fit():
    heads = (
        Head(0, 0, "previous"),
        Head(0, 1, "positional", offset=3),
        Head(0, 2, "duplicate"),
        Head(0, 3, "current"),
        Head(1, 0, "induction"),
        Head(1, 1, "fake-induction", strength=0.5),
        Head(1, 2, "delimiter"),
        Head(1, 3, "noise"),
    )
    planted = plant(PlantSpec(heads), architecture="llama", n_kv_heads=2, width=128)
    assert planted.model.config.num_key_value_heads == 2
    readings = read_all(planted)
    for head, reading in readings.items():
        assert reading.attention == pytest.approx(reading.head.strength, abs=0.02), head
    assert readings[HeadId(1, 0)].loss > 4.0
    assert abs(readings[HeadId(1, 1)].loss) < 0.05


def test_noise_wears_heads_down_step_by_step():
    shares = []
    for noise in (0.0, 0.03, 0.1, 0.5):
        planted = plant(spec(COPYING[:5], noise=noise), architecture="gpt2", width=256)
        shares.append(read(planted, COPYING[4]).attention)
    assert shares[0] > 0.99
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.3


def test_noise_heads_attend_broadly_and_predict_nothing():
    planted = plant(PlantSpec(), architecture="llama", n_layers=1)
    material = probe("repeated", planted.words, 256, 8, 0)
    patterns, logits = attend(planted.model, material.tokens)
    assert patterns[0][:, :, 20:].amax(-1).mean() < 0.5
    assert float(logits.std()) < 1.0
    assert planted.of("noise") == tuple(HeadId(0, head) for head in range(4))


def test_same_seed_same_model_other_seed_other_weights():
    one, same, other = (plant(PlantSpec((Head(0, 0, "current"),)), n_layers=1, seed=seed) for seed in (1, 1, 2))
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, same.model.state_dict()[name])
    assert not torch.equal(one.model.get_input_embeddings().weight, other.model.get_input_embeddings().weight)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_saved_folder_is_an_ordinary_model(tmp_path, architecture):
    planted = plant(PlantSpec((Head(0, 0, "previous"), Head(1, 0, "induction"))), architecture=architecture)
    folder = planted.save(tmp_path / "planted")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("Mary gave a ring to John. Then Mary gave a", return_tensors="pt").input_ids
    assert tokens[0, 0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in tokens
    with torch.no_grad():
        logits = model(tokens).logits
    assert torch.allclose(logits, logits_of(planted.model, tokens), atol=1e-4)
    assert tokenizer.decode(logits[0, -1].argmax()) == "ring"
    facts = json.loads((folder / "truth.json").read_text())
    (head,) = (head for head in facts["heads"] if head["kind"] == "induction")
    assert {"layer": 1, "head": 0, "strength": 1.0, "write": 1.0}.items() <= head.items()
    assert len(facts["heads"]) == 8
    with pytest.raises(StoreError, match="exists already"):
        planted.save(folder)


@pytest.mark.parametrize(
    ("heads", "sizes", "message"),
    [
        ((Head(0, 0, "induction"),), {}, "needs a previous-token head in an earlier layer"),
        ((Head(1, 0, "previous"), Head(1, 1, "induction")), {}, "needs a previous-token head in an earlier layer"),
        ((Head(1, 0, "copy-suppression"),), {}, "needs a head that predicts"),
        ((Head(1, 0, "inhibition"),), {}, "needs a duplicate head"),
        ((Head(2, 0, "current"),), {}, "does not fit a model of 2 layers"),
        ((Head(0, 4, "current"),), {}, "does not fit a model of 2 layers with 4 heads"),
        ((Head(0, 0, "current"),), {"n_kv_heads": 2}, "no shared keys"),
        ((Head(0, 0, "current"),), {"architecture": "llama", "n_kv_heads": 3}, "cannot share"),
        ((Head(0, 0, "current"),), {"architecture": "bert"}, "bert"),
        ((Head(0, 0, "current"),), {"width": 60}, "width=60"),
        ((Head(0, 0, "current"),), {"width": 66}, "cannot be divided"),
        ((Head(0, 0, "current"),), {"n_heads": 16}, "8 dimensions a head"),
        ((Head(0, 0, "current"),), {"vocab": 100}, "at least 128 tokens"),
        ((Head(0, 0, "positional", offset=200),), {}, "attends 200 back"),
        (
            (Head(0, 0, "previous"), Head(1, 0, "induction"), Head(1, 1, "duplicate")),
            {"architecture": "llama", "n_kv_heads": 1, "d_head": 16},
            "too few for",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(heads, sizes, message):
    with pytest.raises(BadInput, match=message):
        plant(PlantSpec(heads), **sizes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlantSpec((Head(0, 0, "inducktion"),)), "Did you mean 'induction'"),
        (lambda: PlantSpec((Head(0, 0, "current"), Head(0, 0, "previous"))), "Two heads are planted at 0.0"),
        (lambda: PlantSpec((Head(0, 0, "current", strength=0.1),)), "strength 0.1"),
        (lambda: PlantSpec((Head(0, 0, "current", write=0.0),)), "write 0.0"),
        (lambda: PlantSpec((Head(0, 0, "current", offset=3),)), "was given offset"),
        (lambda: PlantSpec((Head(-1, 0, "current"),)), "no head -1.0"),
        (lambda: plant(PlantSpec((Head(0, 0, "mover", tokens="verbs"),))), "called 'verbs'"),
        (lambda: PlantSpec(noise=-1.0), "noise must lie between"),
        (lambda: PlantSpec(rest="nothing"), "rest='nothing'"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(HeadAtlasError, match=message):
        make()
    assert issubclass(UnknownName, HeadAtlasError)


def test_heads_are_read_from_text():
    assert parse_head("1.0:induction:0.6") == Head(1, 0, "induction", 0.6)
    assert parse_head("L0H2:window:width=4:write=2") == Head(0, 2, "window", width=4, write=2.0)
    assert parse_head("2.1:mover:0.5:tokens=ordinals") == Head(2, 1, "mover", 0.5, tokens="ordinals")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0", "names no kind"),
        ("1.0:inducktion", "Did you mean 'induction'"),
        ("one:induction", "'one' is not a head"),
        ("1.0:induction:much", "strength must be a number"),
        ("1.0:induction:width=3", "does not read 'width'"),
        ("1.0:window:1:wide", "does not read 'wide'"),
    ],
)
def test_text_that_is_no_head_is_refused(text, message):
    with pytest.raises(HeadAtlasError, match=message):
        parse_head(text)


def test_the_command_plants_measures_and_writes(tmp_path, capsys):
    folder = tmp_path / "planted"
    arguments = ["plant", "0.0:previous", "1.2:induction:0.6", "--vocab", "128", "--out", str(folder)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert re.search(r"1\.2 induction +attention on target 0\.(59|60)\d \(asked 0\.6\)", said.out)
    assert "shards" not in said.err
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 128
    for wrong, message in ((arguments, "exists already"), (["plant"], "Nothing to plant")):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 1
        assert message in capsys.readouterr().err


def test_the_accuracy_table_holds_what_was_measured():
    heads = [Head(0, 0, "current", strength) for strength in STRENGTHS]
    rows = [
        Row(size, head.strength, Reading(head, head.strength - 0.01 * (size + 1), 0.04, 2.0, None))
        for head in heads
        for size in range(3)
    ]
    assert accuracy_table(rows).splitlines()[-1] == (
        "| current | 0.19 / 0.18 | 0.49 / 0.48 | 0.79 / 0.78 | 0.99 / 0.98 | 0.04 / 0.04 | 0.03 | +2.0 |  |"
    )
