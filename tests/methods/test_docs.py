"""What docs/methods says runs: every Python block and every command, on a small model with the real tokenizer."""

import re
import shlex
from pathlib import Path

import pytest

import headatlas as ha
from headatlas.cli import main
from headatlas.model import attach
from tests import toys

DOCS = Path(__file__).parents[2] / "docs" / "methods"
PAGES = ["edits.md", "ablation.md", "patching.md", "prompts.md"]


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
    (tmp_path / "prompts.jsonl").write_text(blocks("prompts.md", "json")[0])


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page):
    assert blocks(page, "python")
    exec("\n".join(blocks(page, "python")), {})


@pytest.mark.parametrize("page", ["ablation.md", "patching.md", "prompts.md"])
def test_commands_run(page, capsys):
    commands = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert commands
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([*shlex.split(command)[1:], *([] if "--force" in command else ["--force"])])
        assert ended.value.code in (0, None), command
    assert "effect" in capsys.readouterr().out
