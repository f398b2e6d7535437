"""What docs/methods says runs: every Python block and every command, on a small model with the real tokenizer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import pages

PAGES = [f"methods/{name}.md" for name in (
    "edits", "ablation", "patching", "prompts", "attribution", "lens", "flow", "weights", "probing", "steering",
    "path-patching", "circuits", "syntax", "copies", "pages",
)] + ["apply/index.md", "apply/pruning.md", "apply/cache.md", "scale.md"]  # fmt: skip
FORCED = {"ablate", "patch", "path", "attribute", "circuit find", "circuit test"}  # random weights do no task
# Smaller numbers than the page's: of an option that is given twice, the last counts.
FEWER = {
    "probe": ["--n", "40", "--heads", "18.6 20.0"],
    "steer": ["--n", "16", "--draws", "2"],
    "circuit find": ["--largest", "3"],
    "circuit test": ["--n", "2", "--reference", "30"],
    "syntax": ["--n", "20"],
    "protect": ["--n", "2"],
    "apply": ["--n", "8"],
    "chat": ["--tokens", "3"],
    "cache plan": ["--n", "2", "--recent", "32", "--tokens", "600"],
    "cache test": ["--task", "needle", "--n-prose", "0"],
    "cache write": ["--tokens", "3"],
    "lags": ["--n", "2"],
    "importance": ["--n", "1"],
    "prune": ["--n", "2", "--points", "1", "--draws", "1", "--steps", "2"],
    "page": ["--tokens", "600", "--length", "100", "--no-causal"],
}
PRINTED = {
    "ablate": "effect", "patch": "effect", "path": "effect", "attribute": "head|part|edge", "lens": "head", "flow": "head",
    "circuit find": "recover", "circuit test": "recover|effect", "circuit compare": "Jaccard",
}  # fmt: skip


def called(command: list[str]) -> str:
    """The words that name a command."""
    return " ".join(command[: 2 if command[0] in ("circuit", "cache") else 1])


def more(command: list[str]) -> list[str]:
    """What is added so that a command runs on random weights, and not longer than it must."""
    name = called(command)
    added = ["--force"] if name in FORCED and "--force" not in command else []
    if name == "steer" and not {"--heads", "--layers"} & set(command):
        added += ["--heads", "18.6 20.0"]  # picking heads by probes is tested elsewhere
    if command[:3] == ["apply", "seal", "fit"]:
        added += ["--steps", "2", "--draws", "2"]
    if "--copying" in command and "--words" not in command:  # of all heads and 140 names: tests/methods/test_weights.py
        added += ["--words", "Mary,Paris,Anna"]
    return [*added, *FEWER.get(name, [])]


def test_every_page_of_a_method_is_here():
    every = {f"methods/{path.name}" for path in (pages.ROOT / "docs" / "methods").glob("*.md")}
    assert every - set(PAGES) == {"methods/ioi-smollm2.md"}  # a result, made by examples/ioi_smollm2.py


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, narrow: Path):
    pages.run_python(page)


@pytest.mark.parametrize("page", PAGES[1:])  # edits have no command
def test_commands_run(page: str, narrow: Path, capsys: pytest.CaptureFixture[str]):
    for command in pages.commands(page):
        code, out, err = pages.run(capsys, *command, *more(command))
        assert code == 0, (command, err)
        assert re.search(PRINTED.get(called(command), r"\S"), out), command
