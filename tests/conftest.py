"""What tests of several folders share: one browser for all that open pages, and a narrow model in SmolLM2's place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from headatlas.model import Model

# Before torch is imported. The models are tiny, and a process forked from one whose OpenMP threads have worked waits for
# them forever at its first product of matrices.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("No Chromium on this machine (Debian: apt-get install chromium), so pages cannot be opened.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def openings_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What opening models found out is kept for this run of the tests alone."""
    from headatlas.model.sources import openings

    place = tmp_path_factory.mktemp("opened")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openings, "folder", lambda: place)
        yield


@pytest.fixture(scope="session")
def narrow_smollm2() -> Model:
    """Thirty layers of nine heads in three groups and the tokenizer, as SmolLM2 has, but narrow and with random weights."""
    from headatlas.model import attach
    from tests import toys

    sizes = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 36}
    return attach(toys.llama(vocab_size=49152, **sizes), tokenizer=toys.smollm2_vocabulary())


@pytest.fixture
def load_gives_narrow_smollm2(narrow_smollm2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever model a command or a page loads, it gets the narrow one."""
    import headatlas

    monkeypatch.setattr("headatlas.model.load", lambda *_, **__: narrow_smollm2)
    monkeypatch.setattr(headatlas, "load", lambda *_, **__: narrow_smollm2, raising=False)
