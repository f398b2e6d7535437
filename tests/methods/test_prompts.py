"""Prompts of the user's own, the gate, and the commands that take them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import headatlas as ha
from headatlas.cli import main
from headatlas.errors import BadInput
from headatlas.methods.sweeps import effects_io
from headatlas.methods.sweeps.task_gate import gate_of_prompts, gate_of_task
from headatlas.prompts_file import read_prompts
from headatlas.task import find_task, logit_difference
from tests import toys

PAIR = {
    "clean": "The capital of France is",
    "corrupted": "The capital of Japan is",
    "answer": " Paris",
    "wrong": " Tokyo",
}


def written(place: Path, *lines) -> Path:
    place.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return place


def test_pairs_become_a_batch_with_positions_and_answers(tmp_path):
    vocabulary = toys.smollm2_vocabulary()
    longer = {
        **PAIR,
        "clean": "As all of us know, the capital of France is",
        "corrupted": "As all of us know, the capital of Japan is",
    }
    batch = read_prompts(written(tmp_path / "p.jsonl", PAIR, "", longer), vocabulary)
    assert len(batch) == 2
    for i, value in enumerate((PAIR, longer)):
        end = int(batch.positions["end"][i])
        assert vocabulary.decode(batch.tokens[i, 1 : end + 1].tolist()) == value["clean"]
        assert vocabulary.decode(batch.counterfactual.tokens[i, 1 : end + 1].tolist()) == value["corrupted"]
        assert int(batch.mask[i].sum()) == end + 1
    assert [vocabulary.decode(int(one)) for one in batch.answer] == [" Paris", " Paris"]
    assert batch.labels["line"].tolist() == [1, 3]
    assert batch.tokens[0, 0] == vocabulary.bos


def test_labelled_texts_become_a_batch_with_classes(tmp_path):
    lines = [
        {"text": "A fine day", "label": "good"},
        {"text": "A bad day at sea", "label": "bad"},
        {"text": "x", "label": "good"},
    ]
    batch = read_prompts(written(tmp_path / "p.jsonl", *lines), toys.smollm2_vocabulary())
    assert batch.facts["classes"] == ["bad", "good"]
    assert batch.labels["label"].tolist() == [1, 0, 1]
    numbered = read_prompts(
        written(tmp_path / "q.jsonl", {"text": "a", "label": 3}, {"text": "b", "label": 1}), toys.smollm2_vocabulary()
    )
    assert numbered.labels["label"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([PAIR, "{'clean'"], r"Line 2 of p\.jsonl is not JSON"),
        ([PAIR, "[1]"], r"Line 2 of p\.jsonl is not a JSON object"),
        ([PAIR, {"clean": "x", "answer": " a"}], "Line 2 of p.jsonl lacks wrong"),
        ([PAIR, {**PAIR, "anser": " a"}], "Line 2 of p.jsonl has anser"),
        ([PAIR, {k: v for k, v in PAIR.items() if k != "corrupted"}], "either all lines have 'corrupted' or none"),
        ([{**PAIR, "clean": ""}], "Line 1 of p.jsonl: 'clean' must be text"),
        ([PAIR, {**PAIR, "answer": 7}], "Line 2 of p.jsonl: 'answer' must be text, got 7"),
        ([{**PAIR, "answer": " Ouagadougou"}], "answer ' Ouagadougou' is 6 tokens"),
        ([{**PAIR, "wrong": "Tokyo"}], "Write ' Tokyo' with its leading space"),
        ([{**PAIR, "wrong": " Paris"}], "answer and wrong are the same token"),
        ([{"text": "a", "label": "x"}], "All texts of p.jsonl have the label 'x'"),
        ([""], "has no prompts"),
        ([{**PAIR, "clean": "word " * 9000}], "Line 1 of p.jsonl has 9001 tokens"),
    ],
)
def test_bad_lines_are_named_with_their_number(tmp_path, lines, text):
    with pytest.raises(BadInput, match=text):
        read_prompts(written(tmp_path / "p.jsonl", *lines), toys.smollm2_vocabulary())


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        read_prompts(tmp_path / "none.jsonl", toys.smollm2_vocabulary())
    (tmp_path / "p.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(BadInput, match="not UTF-8"):
        read_prompts(tmp_path / "p.jsonl", toys.smollm2_vocabulary())


# ---- the commands ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("model")
    toys.with_tokenizer(toys.llama(vocab_size=400, max_position_embeddings=160), place)
    return place


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """Prompts that the toy model happens to answer rightly: its own preferences are taken as answers."""
    model = ha.load(str(folder))
    one = [" a", " the", " of", " and", " to"]
    letters = [text for text in one + list("abcdefgh") if model.tokenizer.single(text) is not None]
    lines = []
    for clean, corrupted in [("a b a b a", "a c a b a"), ("the b a c a", "the d a c a"), ("d a d a d", "d b d a d")]:
        ids = model.tokenizer.encode(clean)
        front = [] if model.tokenizer.bos is None else [model.tokenizer.bos]
        logits = model.forward(torch.tensor([front + ids]))[0, -1]
        ranked = sorted(letters, key=lambda text, logits=logits: -float(logits[model.tokenizer.single(text)]))
        lines.append({"clean": clean, "corrupted": corrupted, "answer": ranked[0], "wrong": ranked[-1]})
    return written(tmp_path / "own.jsonl", *lines)


def test_ablate_and_patch_take_a_users_prompts(folder, own, tmp_path, capsys):
    main_ok(["ablate", str(folder), "--prompts", str(own), "--edit", "zero", "--positions", "end", "--json"])
    data = json.loads(capsys.readouterr().out)
    assert (data["kind"], data["measured"], data["n_examples"]) == ("ablation", 8, 3)
    best = data["effects"][0]
    model = ha.load(str(folder))
    batch = read_prompts(own, model.tokenizer)
    run = model.forward(batch, edits=[ha.Zero(best["heads"], positions=batch.positions["end"][:, None])])
    logits = run.gather(1, batch.positions["end"][:, None, None].expand(-1, 1, run.shape[-1]))
    base = gate_of_prompts(model, batch, logit_difference)
    moved = float(logit_difference.score(logits, batch).mean()) - base.value
    assert best["effect"] == pytest.approx(moved, abs=1e-5)
    out = tmp_path / "kept"
    main_ok(
        [
            "patch",
            str(folder),
            "--prompts",
            str(own),
            "--component",
            "v",
            "--triage",
            "2",
            "--out",
            str(out),
            "--top",
            "2",
        ]
    )
    text = capsys.readouterr().out
    assert "2 changes measured exactly" in text
    assert "2 left unmeasured" in text
    assert effects_io.load(out).kind == "denoising"


def main_ok(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (0, None)


def test_wrong_input_ends_with_one_line_and_code_1(folder, own, tmp_path, capsys):
    unequal = written(tmp_path / "u.jsonl", {"clean": "a b a", "corrupted": "a b a b", "answer": "a", "wrong": "b"})
    swapped = [json.loads(line) for line in own.read_text().splitlines()]
    hopeless = written(tmp_path / "h.jsonl", *[{**v, "answer": v["wrong"], "wrong": v["answer"]} for v in swapped])
    for arguments, text in [
        (["ablate", str(folder)], "Give either --task NAME"),
        (["ablate", str(folder), "--task", "prose", "--prompts", str(own)], "Give either --task NAME"),
        (["ablate", str(folder), "--task", "prosa"], "Did you mean 'prose'"),
        (["ablate", str(folder), "--prompts", str(own), "--memory", "much"], "not an amount of memory"),
        (["ablate", str(folder), "--prompts", str(own), "--heads", "7.1"], "no attention layer 7"),
        (["patch", str(folder), "--prompts", str(unequal), "--force"], "Line 1: the prompt has"),
        (["patch", str(folder), "--prompts", str(hopeless)], "insist with --force"),
        (["ablate", str(folder), "--task", "ioi"], "ioi needs 5 names of one token"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        assert ended.value.code == 1, arguments
        assert text in captured.err
        assert "Traceback" not in captured.err
    main_ok(["ablate", str(folder), "--prompts", str(hopeless), "--force", "--edit", "zero", "--json"])


def test_help_shows_an_example():
    for command in ("ablate", "patch"):
        text = subprocess.run(
            [sys.executable, "-m", "headatlas", command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert f"Example: headatlas {command} smollm2-135m" in " ".join(text.split())


def test_the_gate_compares_with_the_tasks_own_floor(folder):
    model = ha.load(str(folder))
    task = find_task("prose")
    batch = task(model.tokenizer, 3)
    gate = gate_of_task(model, task, batch)
    assert not gate.able  # random weights do not predict words
    with pytest.raises(BadInput, match="does not do prose"):
        gate.demand(model, "prose")
    assert gate.floor != gate.value
    easy = replace(task, margin=-100.0)
    assert gate_of_task(model, easy, batch).better >= -100
