"""Which heads matter for a prompt: against a twin that removes each head with plain edits, and what an atlas says of heads."""

import json

import pytest
import torch

import headatlas as ha
from headatlas.asking import ask, known_kinds
from headatlas.errors import BadInput, StoreError
from tests import toys
from tests.pages import run

TEXTS = ["Mary gave the book to John and then", "When it rained"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "toy"
    toys.with_tokenizer(toys.llama(vocab_size=400), place)
    return place


@pytest.fixture(scope="module")
def model(folder):
    return ha.load(str(folder))


def twin(model, text, edit):
    """{head: (KL, probability of the clean answer, most likely token)} by one whole run per head."""
    clean = model.forward(text)[0, -1].double().log_softmax(-1)
    answer = int(clean.argmax())
    found = {}
    for head in model.heads:
        removed = ha.Zero([head]) if edit == "zero" else ha.Mean.over(model, [head], ha.Texts(text).read(model))
        changed = model.forward(text, edits=[removed])[0, -1].double().log_softmax(-1)
        kl = float((clean.exp() * (clean - changed)).sum())
        found[head] = (kl, float(changed.exp()[answer]), int(changed.argmax()))
    return found, float(clean.exp()[answer])


@pytest.mark.parametrize("edit", ["mean", "zero"])
def test_numbers_are_those_of_one_whole_run_per_head(model, edit):
    expected, before = twin(model, TEXTS[0], edit)
    found = ask(model, TEXTS[0], top=len(model.heads), edit=edit)
    assert found.n_heads == len(model.heads) == len(found.heads)
    assert [row.kl for row in found.heads] == sorted((row.kl for row in found.heads), reverse=True)
    for row in found.heads:
        kl, after, token = expected[row.head]
        assert row.kl == pytest.approx(kl, abs=1e-5)
        assert row.after == pytest.approx(after, abs=1e-5)
        assert row.before == pytest.approx(before, abs=1e-5)
        assert row.becomes == (model.tokenizer.decode(token),)
    assert found.total == pytest.approx(sum(kl for kl, _, _ in expected.values()), abs=1e-4)


def test_heads_are_ordered_by_another_metric_where_one_is_asked_for(model, folder, capsys):
    found = ask(model, TEXTS, top=3, edit="zero", metric="logit-difference")
    by = ha.ablate(model, TEXTS, edit="zero", metric="logit-difference")
    assert [row.head for row in found.heads] == [line.head for line in by.top(3)]
    assert [row.effect for row in found.heads] == pytest.approx([line.effect for line in by.top(3)], abs=1e-6)
    plain = {row.head: row.kl for row in ask(model, TEXTS, top=99, edit="zero").heads}
    assert [row.kl for row in found.heads] == pytest.approx([plain[row.head] for row in found.heads], abs=1e-6)
    code, out, _ = run(capsys, "ask", str(folder), "--text", TEXTS[0], "--metric", "logit-difference", "--top", "2")
    assert code == 0
    assert "change of logit difference in logits, KL in nats" in " ".join(out.split())


def test_several_prompts_give_means_over_them(model):
    both = ask(model, TEXTS, top=len(model.heads), edit="zero")
    each = [{row.head: row.kl for row in ask(model, text, top=99, edit="zero").heads} for text in TEXTS]
    for row in both.heads:
        assert row.kl == pytest.approx((each[0][row.head] + each[1][row.head]) / 2, abs=1e-5)
        assert len(row.becomes) == 2


def test_a_dead_head_changes_nothing(tmp_path):
    hf = toys.llama(vocab_size=400)
    size = hf.config.hidden_size // hf.config.num_attention_heads
    with torch.no_grad():
        hf.model.layers[0].self_attn.o_proj.weight[:, :size] = 0
    toys.with_tokenizer(hf, tmp_path / "toy")
    found = {str(row.head): row for row in ask(ha.load(str(tmp_path / "toy")), TEXTS[0], top=99, edit="zero").heads}
    assert found["0.0"].kl == pytest.approx(0, abs=1e-9)
    assert found["0.0"].after == pytest.approx(found["0.0"].before, abs=1e-6)
    assert max(row.kl for row in found.values()) > 1e-6


def test_a_run_that_is_not_finished_is_no_atlas_to_look_heads_up_in(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "atlas" / "model" / "0123456789ab.partial").mkdir(parents=True)
    assert ask(model, TEXTS[0], top=2).atlas is None
    with pytest.raises(StoreError, match="no finished run"):
        ask(model, TEXTS[0], top=2, atlas="atlas")


def test_texts_take_exactly_one_source(model):
    with pytest.raises(BadInput, match="--text TEXT"):
        ha.Texts()
    with pytest.raises(BadInput, match="--text TEXT"):
        ha.Texts("a", task="ioi")
    assert len(ha.Texts(TEXTS).read(model)) == 2


@pytest.fixture(scope="module")
def atlas(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("atlas")
    ha.mine(ha.load(str(folder)), ["attention-sink", "positional"], n=4, verdict=False, out=place / "run")
    data = json.loads((place / "run" / "atlas.json").read_text())
    row = {
        "layer": 1,
        "head": 0,
        "stack": "decoder",
        "score": 0.5,
        "low": 0.4,
        "high": 0.6,
        "chance": 0.1,
        "p": 1e-9,
        "q": 1e-8,
    }
    for entry, verdict, score in zip(data["detectors"], ("untested", "causal"), (0.9, 0.5), strict=True):
        entry["head_type"] = "positional-head"
        entry["heads"] = [{**row, "score": score, "verdict": verdict}]
    (place / "run" / "atlas.json").write_text(json.dumps(data))
    return place


def test_a_head_has_one_entry_per_head_type_that_of_the_strongest_verdict(model, atlas):
    told, folder = known_kinds(model, atlas)
    assert folder == str(atlas)
    assert list(told) == ["1.0"]
    assert [(kind.head_type, kind.verdict, kind.score, kind.chance) for kind in told["1.0"]] == [
        ("positional-head", "causal", 0.5, 0.1)
    ]


def test_other_weights_are_not_looked_up(atlas, tmp_path):
    toys.with_tokenizer(toys.llama(vocab_size=400, hidden_size=64), tmp_path / "toy")
    told, folder = known_kinds(ha.load(str(tmp_path / "toy")), atlas)
    assert (told, folder) == ({}, None)


def test_the_screen_fits_80_columns(folder, atlas, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for more in ([], ["--atlas", atlas], ["--text", "Another text"]):
        code, out, err = run(capsys, "ask", folder, "--text", TEXTS[0], "--top", 8, *more)
        assert code == 0, err
        lines = out.splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 24
        assert ("Positional" in out) == ("--atlas" in more)
    code, out, _ = run(capsys, "ask", folder, "--text", TEXTS[0], "--json")
    assert json.loads(out)["schema"] == "headatlas/ask/1"


def test_lens_and_flow_read_texts_chats_and_files(folder, capsys, tmp_path):
    (tmp_path / "own.jsonl").write_text(
        '{"text": "Mary gave", "label": "a"}\n{"text": "When it rained", "label": "b"}\n'
    )
    code, out, err = run(capsys, "lens", folder, "--prompts", tmp_path / "own.jsonl", "--json")
    assert code == 0, err
    assert len(json.loads(out)["prompts"]) == 2
    code, out, err = run(capsys, "lens", folder, "--text", TEXTS[0], "--position", "end", "--json")
    assert code == 0, err
    named = json.loads(out)
    code, out, err = run(capsys, "lens", folder, "--text", TEXTS[0], "--json")
    assert json.loads(out) == named
    code, out, err = run(capsys, "flow", folder, "--text", TEXTS[0], "--text", TEXTS[1], "--json")
    assert code == 0, err
    assert json.loads(out)["n_examples"] == 2
    (tmp_path / "chat.json").write_text('[{"role": "user", "content": "hello"}]')
    code, _, err = run(capsys, "lens", folder, "--chat", tmp_path / "chat.json")
    assert code == 1
    assert "template" in err
