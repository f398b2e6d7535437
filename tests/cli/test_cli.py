"""The command line as a user meets it: help everywhere, JSON shapes, one-line errors with exit code 1."""

import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers as T
import typer

import headatlas
from headatlas.cli import build
from tests import toys
from tests.pages import run


def commands() -> list[tuple[str, ...]]:
    """Every command and subcommand."""

    def walk(group, path):
        for name, command in group.commands.items():
            inner = getattr(command, "commands", None)
            yield from walk(command, (*path, name)) if inner else [(*path, name)]

    return list(walk(typer.main.get_command(build()), ()))


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(command, capsys):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "Example" in out, f"{' '.join(command)} --help shows no example"


def test_options_and_commands_of_before_are_understood_and_named(capsys):
    code, _, err = run(capsys, "patch", "nothing-here", "--task", "ioi", "--site=v")
    assert code == 1
    assert "--site is now called --component" in err
    assert "no model called" in one_line(err)
    code, _, err = run(capsys, "probe", "nothing-here", "--task", "statements", "--label", "truth", "--at", "stop")
    assert "--at is now called --position" in err
    code, out, err = run(capsys, "matrix", "llama", "--json")
    assert code == 0
    assert [row["family"] for row in json.loads(out)["families"]] == ["llama"]
    assert "matrix is now called families" in err
    for command in (("patch",), ("probe",), ()):
        _, out, _ = run(capsys, *command, "--help")
        assert not any(old in out for old in ("--site", "--at ", "matrix"))


def test_no_help_text_of_an_option_is_written_twice():
    """What several commands take stands in headatlas/cli/_options.py, so that it says the same everywhere."""
    calls = [
        node
        for folder in (Path(headatlas.__file__).parent / "cli", Path(headatlas.__file__).parent / "cli" / "circuit")
        for file in sorted(folder.glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "typer.Argument")
    ]
    texts = Counter(ast.unparse(word.value) for call in calls for word in call.keywords if word.arg == "help")
    assert len(texts) > 50
    assert [text for text, times in texts.items() if times > 1] == []


def test_every_command_stands_in_the_documentation():
    pages = [Path("README.md"), *Path("docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    missing = [" ".join(command) for command in commands() if f"headatlas {' '.join(command)}" not in text]
    assert missing == []


@pytest.mark.parametrize("what", ["detectors", "tasks", "models", "head-types", "methods", "interventions"])
def test_lists_are_json_with_names(what, capsys):
    code, out, _ = run(capsys, "list", what, "--json")
    rows = json.loads(out)[what.replace("-", "_")]
    assert code == 0
    assert rows
    assert all(row["name"] for row in rows)
    code, text, _ = run(capsys, "list", what)
    assert code == 0
    assert rows[0]["name"] in text


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    assert lines, "an error says something"
    assert lines[-1].startswith("headatlas: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    toys.with_tokenizer(toys.llama(vocab_size=400), place)
    return place


def test_unknown_names_get_a_suggestion(capsys, tmp_path):
    code, _, err = run(capsys, "mine", "smollm2-135n", "--out", tmp_path / "x")
    assert code == 1
    assert "Did you mean 'smollm2-135m'?" in one_line(err)
    code, _, err = run(capsys, "list", "detector")
    assert code == 1
    assert "Did you mean 'detectors'?" in one_line(err)
    code, _, err = run(capsys, "show", tmp_path / "nothing")
    assert code == 1
    assert "headatlas mine" in one_line(err)


def damage(folder: Path, how: str) -> None:
    if how == "config":
        (folder / "config.json").unlink()
    elif how == "weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif how == "pickle":
        torch.save(toys.llama(vocab_size=400).state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif how == "garbled":
        (folder / "config.json").write_text("{")
    elif how == "lacking":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        weights.pop("model.layers.1.self_attn.o_proj.weight")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("config", "config.json"),
        ("weights", "model.safetensors"),
        ("pickle", "safetensors"),
        ("garbled", "config.json"),
        ("lacking", "o_proj"),
    ],
)
def test_damaged_folders_are_named(folder, how, word, capsys, tmp_path):
    damage(folder, how)
    code, out, err = run(capsys, "mine", folder, "--out", tmp_path / "run")
    assert code == 1
    assert out == ""
    assert word in one_line(err)
    assert not (tmp_path / "run").exists()


def test_a_model_without_attention_heads(tmp_path, capsys):
    place = tmp_path / "mamba"
    torch.manual_seed(0)
    T.MambaForCausalLM(
        T.MambaConfig(vocab_size=160, hidden_size=32, num_hidden_layers=2, state_size=4)
    ).save_pretrained(place)
    code, _, err = run(capsys, "check", place)
    assert code == 1
    assert "has no attention heads" in one_line(err)


def test_a_truncated_gguf(tmp_path, capsys):
    place = tmp_path / "cut.gguf"
    place.write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\x00" * 40)
    code, _, err = run(capsys, "check", place)
    assert code == 1
    assert "cut.gguf" in one_line(err)


def test_mine_check_and_show_on_a_folder(folder, tmp_path, capsys):
    out = tmp_path / "run"
    code, printed, err = run(
        capsys, "mine", folder, "--n", 4, "--detector", "induction", "--detector", "attention-sink", "--out", out
    )
    assert code == 0, err
    assert "report.html" in printed
    code, printed, _ = run(capsys, "show", out, "--detector", "induction", "--json")
    assert code == 0
    assert json.loads(printed)["detectors"][0]["name"] == "induction"
    code, printed, _ = run(capsys, "show", tmp_path)
    assert code == 0
    assert "None of the 8 heads passed any of 2 detectors" in printed
    code, printed, _ = run(capsys, "check", folder, "--json")
    assert code == 0
    assert all(line["ok"] for line in json.loads(printed)["checks"])
    (out / "atlas.json").write_text("{}")
    code, _, err = run(capsys, "show", out)
    assert code == 1
    assert "mine again" in one_line(err)


def test_a_folder_without_tokenizer_still_gets_what_needs_no_text(folder, tmp_path, capsys):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    code, printed, err = run(capsys, "mine", folder, "--n", 4, "--no-verdict", "--out", tmp_path / "run", "--json")
    assert code == 0, err
    data = json.loads(printed)
    assert {found["name"] for found in data["detectors"]} >= {"induction", "previous-token"}
    assert any("no tokenizer" in row["reason"] for row in data["skipped"])


def test_usage_mistakes_exit_with_two(capsys):
    assert run(capsys, "mine")[0] == 2
    assert run(capsys, "mine", "x", "--n", "many")[0] == 2
    assert run(capsys, "nonsense")[0] == 2


def test_a_device_that_is_not_there(folder, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    code, _, err = run(capsys, "check", folder, "--device", "cuda")
    assert code == 1
    assert "--device cpu" in one_line(err)
    code, _, err = run(capsys, "check", folder, "--dtype", "float8")
    assert code == 1
    assert "bfloat16" in one_line(err)


def test_a_full_disk_is_said_and_leaves_no_run(folder, tmp_path, capsys, monkeypatch):
    import pyarrow.parquet as pq

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    code, _, err = run(capsys, "mine", folder, "--n", 4, "--detector", "induction", "--out", tmp_path / "run")
    assert code == 1
    assert "No space left" in one_line(err)
    assert not (tmp_path / "run").exists()
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_an_interruption_is_said_and_ends_with_130(folder, tmp_path, capsys, monkeypatch):
    import headatlas

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(headatlas, "mine", stopped, raising=False)
    code, _, err = run(capsys, "mine", folder, "--out", tmp_path / "run")
    assert code == 130
    assert "interrupted" in one_line(err)


@pytest.mark.parametrize("words", [(), ("circuit",), ("cache",), ("papers",)])
def test_a_group_without_a_command_shows_its_help_line_by_line(words, capsys):
    code, out, err = run(capsys, *words)
    text = out + err
    assert "\\n" not in text
    assert len(text.splitlines()) > 6
    assert text.startswith("Usage: ")
    assert code == 2


def test_a_command_reads_no_other_commands_module():
    """What is asked for is all that is read, so that a command begins as soon as it can."""
    code = (
        "import sys\nfrom headatlas.cli import main\n"
        "try: main(['lags', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('headatlas.cli.') and name.count('.') == 2 and '._' not in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['headatlas.cli.lags']"
