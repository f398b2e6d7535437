"""Where the pages' code runs: in an empty folder with the files that pages name, on a narrow model with the real tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pages

FILES = {
    "prompts.jsonl": "methods/prompts.md",
    "reviews.jsonl": "methods/probing.md",
    "capitals.jsonl": "recipes/own-prompts.md",
    "chat.json": "recipes/instruct-model.md",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that pages name, from their first block of JSON."""
    monkeypatch.chdir(tmp_path)
    for name, page in FILES.items():
        Path(name).write_text(pages.blocks(page, "json")[0])
    return tmp_path


@pytest.fixture
def narrow(place: Path, load_gives_narrow_smollm2: None) -> Path:
    """The same, where every model that is opened is the narrow one."""
    return place
