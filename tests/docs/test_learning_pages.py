"""What the pages for learning show runs: Python, terminal and what is typed at a prompt. What is printed there, test_printed.py compares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import headatlas as ha
from tests import pages

PYTHON = ["recipes/own-prompts.md", "recipes/from-claim-to-verdict.md", "recipes/instruct-model.md", "citing.md"]
COMMANDS = [*PYTHON, "first-hour.md"]


@pytest.mark.parametrize("page", PYTHON)
def test_python_blocks_run(page, narrow):
    pages.run_python(page)


@pytest.mark.parametrize("page", COMMANDS)
def test_commands_run(page, narrow, capsys):
    for command in pages.commands(page):
        code, out, err = pages.run(capsys, *command)
        assert code == 0, (command, err)
        assert out.strip(), command


def test_the_detector_of_the_recipe_finds_what_was_planted_and_nothing_else(place):
    ((name, code),) = pages.files("recipes/from-idea-to-detector.md")
    Path(name).write_text(code)
    pages.run_python("recipes/from-idea-to-detector.md")  # it asserts what it found


def test_every_method_is_in_the_table_of_methods():
    table = pages.text("which-method.md")
    measuring = {
        name for name, module in ha._PUBLIC.items() if module.split(".")[1] in ("methods", "circuits", "apply")
    }
    named = {
        "mine",
        "ask",
        "check",
        "replicate",
        "calibrate",
        "plant",
        "toy",
        *(one for one in measuring if one[0].islower()),
    }
    named -= {"labels_of"}  # how prompts are labelled is no question
    assert {name for name in named if f"`{name}`" not in table} == set()
    lines = [line for line in table.splitlines() if line.startswith("|") and not line.startswith("|--")]
    assert {line.count(" | ") for line in lines} == {4}  # question, method, price, answers, does not


COUNTED = {
    "papers": lambda: len(ha_catalogue().papers),
    "head types": lambda: len(ha_catalogue().heads),
    "claims": lambda: len(ha_catalogue().claims),
    "circuits": lambda: len(ha_catalogue().circuits),
}


def ha_catalogue():
    from headatlas.catalogue import load

    return load()


def prose(path: Path) -> str:
    """A page without its blocks of code and output."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_readme_counts_the_catalogue_right():
    text = prose(pages.ROOT / "README.md")
    for what, count in COUNTED.items():
        assert f"{count()} {what}" in text
