"""Texts, chats and files of one's own on the command line: each command measures what the library measures on them."""

import json

import pytest

import headatlas as ha
from tests import toys
from tests.pages import run

TEXT, OTHER = "The capital of France is", "The capital of Japan is"
ROWS = [
    {"prompt": f"{i}. The capital of {country} is", "answer": f" {city}", "wrong": " Rome", "spans": {"land": country}}
    for i, (country, city) in enumerate(
        [("France", "Paris"), ("Japan", "Tokyo"), ("Egypt", "Cairo"), ("Peru", "Lima")] * 3
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama with SmolLM2's tokenizer and a chat template, as a folder."""
    place = tmp_path_factory.mktemp("model")
    hf = toys.llama(vocab_size=49152)
    hf.save_pretrained(place)
    words = toys.smollm2_vocabulary()._hf
    words.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    words.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder):
    return ha.load(str(folder))


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("one.json", TEXT), ("other.json", OTHER)):
        (tmp_path / name).write_text(json.dumps([{"role": "user", "content": text}]))
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path


def told(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def effects(found):
    return {(row["heads"], row["position"]): row["effect"] for row in found["effects"]}


@pytest.mark.parametrize("form", ["text", "chat"])
def test_ablate_and_patch_measure_a_text_as_the_library_does(form, folder, model, files, capsys):
    if form == "text":
        words, given = ("--text", TEXT), TEXT
        more = (*words, "--counterfactual", OTHER)
    else:
        words, given = ("--chat", "one.json"), [{"role": "user", "content": TEXT}]
        more = (*words, "--counterfactual", "other.json")
    found = told(capsys, "ablate", folder, *words, "--heads", "1.*", "--metric", "rank")
    own = ha.ablate(model, given, "1.*", metric="rank")
    assert found["metric"]["changed_run"] == pytest.approx(float(own.base.mean()))
    assert [row["effect"] for row in sorted(found["effects"], key=lambda row: row["heads"])] == pytest.approx(
        own.effects[:, :, 0].mean(0).tolist()
    )
    other = OTHER if form == "text" else [{"role": "user", "content": OTHER}]
    pair = ha.prompts(model, [{"prompt": given, "counterfactual": other}])
    own = ha.patch(model, pair, "1.*")
    found = told(capsys, "patch", folder, *more, "--heads", "1.*")
    assert [row["effect"] for row in sorted(found["effects"], key=lambda row: row["heads"])] == pytest.approx(
        own.effects[:, :, 0].mean(0).tolist(), rel=1e-4
    )
    assert found["run"]["start_end"].startswith("<|im_start|>")


@pytest.mark.parametrize(
    "command",
    [
        ("path", "--senders", "0.*", "--positions", "end", "--counterfactual", OTHER),
        ("attribute", "--metric", "logit-difference"),
        ("attribute", "--method", "atp", "--counterfactual", OTHER),
        ("circuit", "find", "--largest", "1", "--text", OTHER, "--text", "The sea is " + TEXT, "--text", "A " + OTHER),
        ("circuit", "test", "0.* 1.1@end", "--criteria", "none"),
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_the_other_commands_take_texts(command, folder, files, capsys):
    at = 2 if command[0] == "circuit" else 1
    found = told(capsys, *command[:at], folder, *command[at:], "--text", TEXT)
    facts = found.get("run") or found.get("facts")
    assert facts["start_end"].startswith("<|im_start|>")


def test_positions_are_named_by_the_spans_of_a_file(folder, model, files, capsys):
    found = told(capsys, "ablate", folder, "--prompts", "own.jsonl", "--heads", "1.*", "--positions", "land", "--force")
    own = ha.ablate(model, ha.Prompts(prompts="own.jsonl", force=True), "1.*", positions="land")
    assert {row["position"] for row in found["effects"]} == {"land"}
    assert [row["effect"] for row in sorted(found["effects"], key=lambda row: row["heads"])] == pytest.approx(
        own.effects[:, :, 0].mean(0).tolist()
    )


def test_mine_takes_a_file_and_knows_its_finished_run_by_the_file_s_content(folder, files, capsys, monkeypatch):
    monkeypatch.setenv("HEADATLAS_HOME", str(files / "home"))
    words = ("mine", folder, "--prompts", "own.jsonl", "--n", 4, "--metric", "log-probability", "--no-verdict")
    found = told(capsys, *words, "--out", "run")
    assert {row["task"] for row in found["detectors"]} == {"own-prompts-1"}
    assert {row["baseline"]["metric"] for row in found["detectors"]} == {"log-probability"}
    assert "induction" in {row["detector"] for row in found["skipped"]}
    _, _, err = run(capsys, *words, "--out", "run")
    assert "the model was not opened" in err
    (files / "own.jsonl").write_text("\n".join(map(json.dumps, ROWS[::-1])))
    _, _, err = run(capsys, *words, "--out", "run")
    assert "the model was not opened" not in err


def test_one_prompt_prints_no_intervals_and_the_likeliest_token(folder, files, capsys):
    _, out, _ = run(capsys, "ablate", folder, "--text", TEXT, "--heads", "1.*")
    assert "nan" not in out
    assert "likeliest next: " in out
    assert "start and end tokens: <|im_start|>" in out
