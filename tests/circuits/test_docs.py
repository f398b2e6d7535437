"""What the pages on paths and circuits say runs, and what the commands answer to wrong input."""

import json
import re
import shlex
from pathlib import Path

import pytest

import headatlas as ha
from headatlas.cli import main
from headatlas.model import attach
from tests import toys

DOCS = Path(__file__).parents[2] / "docs" / "methods"
PAGES = ["path-patching.md", "circuits.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def small() -> ha.Model:
    """Thirty layers of nine heads in three groups, as SmolLM2 has, but narrow."""
    sizes = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 36}
    return attach(toys.llama(vocab_size=49152, **sizes), tokenizer=toys.smollm2_vocabulary())


@pytest.fixture(autouse=True)
def place(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("headatlas.model.load", lambda *_, **__: small)
    monkeypatch.setattr(ha, "load", lambda *_, **__: small, raising=False)


def run(command: str, capsys) -> tuple[int, str, str]:
    force = "" if "--force" in command or " compare " in command else " --force"
    try:
        main(shlex.split(command + force)[1:])
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page):
    assert blocks(page, "python")
    exec("\n".join(blocks(page, "python")), {})


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, capsys):
    commands = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert commands
    for command in commands:
        code, out, err = run(command, capsys)
        assert code == 0, (command, err)
        assert re.search("effect|recover|Jaccard", out), command


def test_results_are_printed_as_json_and_written(capsys, tmp_path):
    path = "headatlas path m --task ioi --n 4 --positions end --senders '0.1 2.3' --receivers logits --receivers q:2.4"
    code, out, _ = run(f"{path} --json --out kept", capsys)
    data = json.loads(out)
    assert (code, data["schema"], data["positions"]) == (0, "headatlas/effects/1", ["logits", "q:2.4"])
    assert (data["measured"], data["unmeasured"]) == (3, 1)
    assert json.loads((tmp_path / "kept" / "effects.json").read_text())["run"]["receivers"] == ["logits", "q:2.4"]
    _, table, _ = run(path, capsys)
    assert "receiver" in table
    assert "1 senders do not come before their receiver" in table
    code, out, _ = run(
        "headatlas circuit test m '2.1@end' --task ioi --n 4 --ablation resample --criteria none --json --out t.json",
        capsys,
    )
    data = json.loads(out)
    assert (code, data["schema"]) == (0, "headatlas/circuit-test/1")
    assert (data["protocol"]["ablation"], data["protocol"]["positions"]) == ("resample", ["end"])
    assert json.loads((tmp_path / "t.json").read_text()) == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "t.json"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("headatlas path m --task ioi --n 2 --receivers v:2.1", "shared with 2.0, 2.2"),
        ("headatlas path m --task ioi --n 2 --receivers w:2.1", "'w:2.1' is no receiver"),
        ("headatlas path m", "Say what the prompts are"),
        ("headatlas circuit find m --task ioi --n 2 --target 2 --ablation zero", "must lie between 0 and 1"),
        ("headatlas circuit test m nothing.json --task ioi --n 2", "nothing.json cannot be read"),
        ("headatlas circuit test m ioi --task ioi --n 2", "found in GPT-2 small"),
        ("headatlas circuit test m '77.1' --task ioi --n 2 --ablation zero", "no attention layer 77"),
        ("headatlas circuit compare ioi ioy", "no circuit called 'ioy'"),
    ],
)
def test_wrong_input_ends_with_1_and_says_what_is_wrong(command, text, capsys, tmp_path):
    code, out, err = run(command, capsys)
    assert (code, out) == (1, "")
    assert text in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
