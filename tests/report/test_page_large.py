"""The report of a model of 5,120 heads: how large it is, how soon it is there, and what it leaves out."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from headatlas.report import html
from tests.report import synthetic
from tests.report.conftest import Open, unpack
from tests.report.synthetic_words import extras

LAYERS, HEADS, DETECTORS = 80, 64, 31


@functools.cache
def large(share: float) -> tuple[dict[str, Any], dict[str, Any], str]:
    """An atlas in which that share of all pairs of detector and head was observed, its words with a text for each, the page."""
    count = round(share * LAYERS * HEADS)
    parts = [synthetic.atlas(LAYERS, HEADS, seed=seed, per_detector=count) for seed in range(3)]
    entries = [entry for part in parts for entry in part["detectors"]][:DETECTORS]
    for index, entry in enumerate(entries):
        entry["name"] = f"{entry['name']}-{index}"
    atlas = parts[0] | {"detectors": entries}
    words = extras(atlas)
    for entry in entries:
        example = words["examples"][entry["name"]]
        links = list(example["heads"].values())
        example["heads"] = {f"{row['layer']}.{row['head']}": links[i % 6] for i, row in enumerate(entry["heads"])}
    return atlas, words, html(atlas, words)


@pytest.mark.parametrize(
    ("share", "megabytes"), [(0.05, 4), pytest.param(0.3, 8, marks=pytest.mark.slow)], ids=["5%", "30%"]
)
def test_the_page_is_small_and_soon_there(share: float, megabytes: float, browser: Browser, tmp_path: Path) -> None:
    text = large(share)[2]
    assert len(text.encode()) < megabytes * 1e6
    assert len(unpack(text)["seen"]["score"]) == round(share * LAYERS * HEADS) * DETECTORS
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    seconds = []
    for _ in range(3):  # the machine may be busy: the best of three is the page's own time
        page = browser.new_page()
        began = time.perf_counter()
        page.goto((tmp_path / "report.html").as_uri())
        page.locator("#heads tbody tr").first.wait_for()
        seconds.append(time.perf_counter() - began)
        page.close()
    assert min(seconds) < 2, seconds


def test_texts_are_kept_for_the_strongest_heads_and_the_others_say_so(open_report: Open) -> None:
    atlas, words, text = large(0.05)
    shown = unpack(text)["examples"]
    assert sum(len(flat) for example in shown.values() for flat in example["heads"].values()) <= 3 * 120_000
    assert {len(example["heads"]) + example["left_out"] for example in shown.values()} == {256}
    entry = atlas["detectors"][0]
    others = {(row["layer"], row["head"]) for other in atlas["detectors"][1:] for row in other["heads"]}
    keys = [f"{row['layer']}.{row['head']}" for row in entry["heads"] if (row["layer"], row["head"]) not in others]
    page = open_report(atlas, words, f"head={keys[0]}")
    expect(page.locator("#texts h2")).to_have_text(f"What {keys[0]} reads")
    page.evaluate("key => { location.hash = `head=${key}` }", keys[-1])
    kept = len(shown[entry["name"]]["heads"])
    expect(page.locator("#texts")).to_contain_text(f"No text is kept for {keys[-1]}: only the strongest {kept} heads")


@pytest.mark.parametrize("width", [1280, 390])
def test_an_address_with_a_head_opens_at_its_card(width: int, open_report: Open) -> None:
    page = open_report(synthetic.atlas(), fragment="head=18.6", width=width)
    expect(page.locator("#card h2")).to_have_text("Head 18.6")
    expect(page.locator("#card h2")).to_be_in_viewport()
    assert page.evaluate("scrollY") > 0


def test_a_browser_that_cannot_unpack_says_what_can(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(html(synthetic.atlas(2, 2, per_detector=1)), encoding="utf-8")
    page = browser.new_page()
    problems: list[object] = []
    page.on("pageerror", lambda error: problems.append(error))
    page.add_init_script("delete window.DecompressionStream")
    page.goto((tmp_path / "report.html").as_uri())
    expect(page.locator("#unpacking")).to_contain_text("knows no DecompressionStream. Chrome from 80")
    expect(page.locator("h1")).to_have_text("smollm2-135m")
    assert problems == []
    page.close()
