"""The report with hostile data, and what every reader must be able to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from headatlas.render.palette import STAGES
from headatlas.report import html
from tests.report import synthetic
from tests.report.conftest import Open, unpack
from tests.report.synthetic_words import extras, hostile_extras

# Contrast of every visible text with what lies behind it, after WCAG 2; returns those below 4.5 (3 for large text).
CONTRAST = """
() => {
  const parse = (text) => {
    const n = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = text.startsWith("color(") ? 1 : 255;
    return [n[0] / scale, n[1] / scale, n[2] / scale, n[3] === undefined ? 1 : n[3]];
  };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3])).concat(1);
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
    return layers.reduce((under, top) => over(top, under), [1, 1, 1, 1]);
  };
  const light = (c) => c.slice(0, 3).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const style = getComputedStyle(node);
    const exempt = "noscript, script, svg, :disabled, option, [aria-hidden=true], .hidden, [hidden], .skip";
    if (!own || node.closest(exempt) || !node.checkVisibility()) continue;
    const under = behind(node);
    const [a, b] = [light(over(parse(style.color), under)), light(under)].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) bad.push([node.className, node.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return bad;
}
"""


def test_hostile_names_tokens_and_links_do_nothing(open_report: Open) -> None:
    atlas = synthetic.hostile()
    page = open_report(atlas, hostile_extras(atlas))
    name = atlas["model"]["name"]
    expect(page.locator("h1")).to_have_text(name.replace("\u2028", " "), use_inner_text=False)
    assert page.title().startswith("</script><img")
    for key in sorted({f"{row['layer']}.{row['head']}" for entry in atlas["detectors"] for row in entry["heads"]})[:4]:
        page.evaluate("key => { location.hash = `head=${key}` }", key)
        expect(page.locator("#card h2")).to_have_text(f"Head {key}")
        for summary in page.locator("#card .papers summary").all():
            summary.click()
    expect(page.locator("#texts .token").first).to_contain_text("</script><img")
    page.locator("#colour-by").select_option(index=1)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    assert page.locator("script").count() == 2


def test_a_hostile_address_is_ignored(open_report: Open) -> None:
    page = open_report(
        synthetic.atlas(), fragment="head=99.99&stage=%3Cimg%3E&by=__proto__&type=constructor&sort=toString"
    )
    expect(page.locator("#card h2")).to_have_text("What was found")
    expect(page.locator("#filter-count")).to_contain_text("42 heads")


def test_the_policy_lets_no_other_script_run(browser: Browser, tmp_path: Path) -> None:
    atlas = synthetic.atlas(2, 2, per_detector=1)
    file = tmp_path / "report.html"
    file.write_text(html(atlas).replace("</body>", "<script>window.hacked = 1</script></body>"), encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    expect(page.locator("#card h2")).to_have_text("What was found")
    assert page.locator("script").count() == 3
    assert page.evaluate("window.hacked") is None
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(scheme: str, open_report: Open) -> None:
    page = open_report(synthetic.atlas(), fragment="head=23.0&by=name-mover", color_scheme=scheme)
    # A token that gets all the attention, behind text in the colour of each stage.
    page.locator("#texts .token:enabled").nth(2).evaluate("token => token.style.setProperty('--weight', 1)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 300) == (scheme == "dark")
    for stage in STAGES:
        page.locator("#texts .tokens").evaluate(
            "(text, stage) => { text.className = `tokens tint-${stage}` }", stage.id
        )
        assert page.evaluate(CONTRAST) == []
    page.locator("#card button[aria-label='Close the card']").click()
    assert page.evaluate(CONTRAST) == []


def test_the_colour_button_overrules_the_system(open_report: Open) -> None:
    page = open_report(synthetic.atlas(2, 2, per_detector=1), color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    page.locator("#theme").click()
    expect(page.locator("#theme")).to_contain_text("dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert "theme=dark" in page.url


def test_everything_that_can_be_used_has_a_name_and_a_place_in_the_order(open_report: Open) -> None:
    page = open_report(synthetic.atlas(), fragment="head=17.4")
    unnamed = page.locator("button, select, input, a[href], [tabindex='0']").evaluate_all(
        """nodes => nodes.filter((node) => !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby")
          || node.textContent.trim() || (node.labels && node.labels.length))).map((node) => node.outerHTML)"""
    )
    assert unnamed == []
    assert page.locator("[tabindex]").evaluate_all("nodes => nodes.every((node) => node.tabIndex <= 0)")
    ids = page.locator("[id]").evaluate_all("nodes => nodes.map((node) => node.id)")
    assert len(ids) == len(set(ids))
    # From the top: where a link to a head has scrolled the page, newer Chromiums go on from there.
    page = open_report(synthetic.atlas())
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()


def test_printing_shows_all_rows_on_white_and_fits_the_paper(open_report: Open) -> None:
    page = open_report(synthetic.atlas(), fragment="theme=dark", width=794)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#heads tbody tr").count() == 56
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("nav")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 794


def test_a_full_atlas_stays_under_three_quarters_of_a_megabyte() -> None:
    atlas = synthetic.atlas(per_detector=25)
    once = atlas["detectors"]
    atlas["detectors"] = [entry | {"name": f"{entry['name']}-{copy}"} for copy in range(4) for entry in once][:40]
    words = extras(atlas)
    for entry in atlas["detectors"]:
        example = words["examples"][entry["name"]]
        links = next(iter(example["heads"].values()))
        example["heads"] = {f"{row['layer']}.{row['head']}": links for row in entry["heads"]}
        example["tokens"] = example["tokens"] * 4
    page = html(atlas, words)
    assert 200_000 < len(page.encode()) < 750_000
    assert len(unpack(page)["seen"]["score"]) == 40 * 25
