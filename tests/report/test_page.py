"""The report in a browser: what a reader clicks, types and sees."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from headatlas.render.numbers import number, signed
from tests.report import synthetic
from tests.report.conftest import Open
from tests.report.synthetic_words import extras

ATLAS = synthetic.atlas()


def line(atlas: dict[str, Any], detector: str, layer: int, head: int) -> dict[str, Any]:
    entry = next(entry for entry in atlas["detectors"] if entry["name"] == detector)
    return next(line for line in entry["heads"] if (line["layer"], line["head"]) == (layer, head))


def observations(atlas: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry | line for entry in atlas["detectors"] for line in entry["heads"]]


def first_causal_cell(page: Page) -> tuple[float, float]:
    """Where on the screen the first head with a solid border lies."""
    path = page.locator("#map path.border-causal").first.get_attribute("d") or ""
    x, y, w, h = map(float, re.match(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)", path).groups())  # type: ignore[union-attr]
    frame = page.locator("#map svg").first.bounding_box()
    assert frame is not None
    return frame["x"] + x + w / 2, frame["y"] + y + h / 2


@pytest.mark.parametrize(
    "atlas",
    [synthetic.encoder(), synthetic.hybrid(), synthetic.nothing(), synthetic.atlas(1, 1, per_detector=1)],
    ids=["encoder", "hybrid", "nothing", "one-head"],
)
def test_every_shape_of_model_opens_without_errors_and_fits_the_screen(
    atlas: dict[str, Any], open_report: Open
) -> None:
    page = open_report(atlas)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        expect(page.locator("#map svg")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    n_seen = len({(row["layer"], row["head"]) for row in observations(atlas)})
    expect(page.locator("#filter-count")).to_contain_text(f"{n_seen} head")


def test_without_extras_the_page_still_opens(open_report: Open) -> None:
    page = open_report(ATLAS, {}, "head=18.6")
    expect(page.locator("#card h2")).to_have_text("Head 18.6")
    expect(page.locator("#texts")).to_be_hidden()


def test_a_click_on_a_head_opens_its_card_with_the_atlas_numbers(open_report: Open) -> None:
    page = open_report(ATLAS)
    expect(page.locator("#card h2")).to_have_text("What was found")
    page.locator("#map").scroll_into_view_if_needed()
    page.mouse.click(*first_causal_cell(page))
    expect(page.locator("#card h2")).to_have_text("Head 2.1")
    found = line(ATLAS, "previous-token", 2, 1)
    card = page.locator("#card .finding").first
    expect(card).to_contain_text("Previous Head")
    expect(card.locator(".verdict")).to_have_text("causal")
    expect(card).to_contain_text(f"Score {number(found['score'])} {number(found['low'])} to {number(found['high'])}")
    expect(card).to_contain_text(f"Chance {number(found['chance'])}")
    expect(card).to_contain_text(f"next-token loss gets worse by {number(found['effect'])}")
    expect(card).to_contain_text(f"less than {number(found['random_effect'])}")
    rows = page.locator("#card .all-scores tbody tr")
    expect(rows).to_have_count(len(ATLAS["detectors"]))
    entry = next(entry for entry in ATLAS["detectors"] if entry["name"] == "memory")
    row = rows.filter(has_text="memory")
    expect(row.locator("td").first).to_have_text(number(entry["scores"][2][1]))


def test_a_head_that_works_against_the_answer_is_said_to_make_it_better_when_off(open_report: Open) -> None:
    atlas = synthetic.atlas()
    line(atlas, "negative-name-mover", 24, 4).update(effect=-0.4, effect_low=-0.5, effect_high=-0.35)
    page = open_report(atlas, fragment="head=24.4")
    card = page.locator("#card .finding").filter(has_text="Negative Head")
    expect(card).to_contain_text("logit difference gets better by 0.40 (95% 0.35 to 0.50)")


def test_papers_are_linked_and_a_head_of_several_types_shows_all(open_report: Open) -> None:
    page = open_report(ATLAS, fragment="head=23.0")
    expect(page.locator("#card .finding h3")).to_have_text(["Name Mover Head", "Memory Head", "Function Vector"])
    expect(page.locator("#card > .chips .stage")).to_have_count(3)
    page.locator("#card .papers summary").last.click()
    links = page.locator("#card .papers").last.locator("a")
    assert links.first.get_attribute("href") == "https://arxiv.org/abs/2209.11895"


def test_pages_of_heads_on_text_are_linked_in_cards_and_below_the_table(open_report: Open) -> None:
    told = {"href": "../my%20pages/pages/18.6.html", "told": "rests 80%; <b>follows-same</b> in 11% of events"}
    pages = {"told": "600 tokens of notes", "index": "../my%20pages/index.html", "heads": {"18.6": told}}
    page = open_report(ATLAS, {**extras(ATLAS), "pages": [pages]}, "head=18.6")
    card = page.locator("#card .on-text")
    expect(card).to_contain_text("On 600 tokens of notes: rests 80%; <b>follows-same</b> in 11% of events. Its page")
    assert card.locator("a").get_attribute("href") == told["href"]
    index = page.locator("#heads .pages a")
    expect(index).to_have_text("On 600 tokens of notes")
    assert index.get_attribute("href") == pages["index"]
    page.evaluate("location.hash = 'head=2.1'")
    expect(page.locator("#card h2")).to_have_text("Head 2.1")
    expect(card).to_have_count(0)  # it has no page


def test_the_keyboard_walks_the_map_opens_a_card_and_comes_back(open_report: Open) -> None:
    page = open_report(ATLAS)
    page.locator("#reset").focus()
    page.locator("#map").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    score = number(line(ATLAS, "previous-token", 2, 1)["score"])
    expect(page.locator("#announcer")).to_contain_text(f"Head 2.1: Previous Head, causal, score {score}")
    page.keyboard.press("Enter")
    expect(page.locator("#card h2")).to_have_text("Head 2.1")
    expect(page.locator("#card h2")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#card h2")).to_have_text("What was found")
    expect(page.locator("#map")).to_be_focused()


def test_layers_without_attention_are_stepped_over(open_report: Open) -> None:
    page = open_report(synthetic.hybrid())
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#card h2")).to_have_text("Head 7.0")


def test_filters_combine_on_map_table_and_address_and_survive_a_reload(open_report: Open) -> None:
    page = open_report(ATLAS)
    page.locator("[data-filter=stage][data-value=lr]").click()
    page.locator("[data-filter=verdict][data-value=causal]").click()
    kept = [row for row in observations(ATLAS) if row["stage"] == "lr" and row["verdict"] == "causal"]
    assert 0 < len(kept) < len(observations(ATLAS))
    count = f"{len({(row['layer'], row['head']) for row in kept})} heads"
    expect(page.locator("#filter-count")).to_have_text(count)
    expect(page.locator("#heads tbody tr")).to_have_count(len(kept))
    expect(page.locator("#map path.fill-lr.sure")).to_have_count(1)
    expect(page.locator("#map path.fill-ici.sure, #map path.fill-lr.faded")).to_have_count(0)
    assert "stage=lr" in page.url
    assert "verdict=causal" in page.url
    page.reload()
    expect(page.locator("#filter-count")).to_have_text(count)
    page.locator("#type-filter").select_option("successor-head")
    expect(page.locator("#filter-count")).to_have_text("1 head")
    page.locator("#reset").click()
    expect(page.locator("#filter-count")).to_contain_text(
        f"{len({(row['layer'], row['head']) for row in observations(ATLAS)})} heads"
    )
    assert "stage" not in page.url


def test_the_table_sorts_both_ways_and_is_searched(open_report: Open) -> None:
    page = open_report(ATLAS)
    heading = page.locator("th[data-sort=effect]")
    effects = page.locator("#heads tbody tr td:nth-child(8) b")
    sizes = sorted((abs(row["effect"]) for row in observations(ATLAS) if row["effect"] is not None), reverse=True)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert effects.all_text_contents()[:20] == [signed(size) for size in sizes[:20]]
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert effects.all_text_contents()[:10] == [signed(size) for size in sizes[::-1][:10]]
    page.locator("#more-rows").click()
    assert page.locator("#heads tbody tr").count() == len(observations(ATLAS))
    assert effects.all_text_contents()[-1] == "–"  # not measured comes last in either order
    page.locator("#search").fill("induction 17. causal")
    expect(page.locator("#heads tbody tr")).to_have_count(2)
    page.locator("#heads tbody button").first.click()
    expect(page.locator("#card h2")).to_have_text(re.compile(r"Head 17\.[34]"))


def test_the_heat_map_shows_one_detector_for_all_heads(open_report: Open) -> None:
    page = open_report(ATLAS)
    expect(page.locator("#heat-legend")).to_be_hidden()
    page.locator("#colour-by").select_option("successor")
    expect(page.locator("#heat-legend")).to_contain_text("score of successor")
    cells = page.locator("#map path[class^=heat-], #map path.absent").evaluate_all(
        "paths => paths.map(path => [path.getAttribute('class'), path.getAttribute('d').split('M').length - 1])"
    )
    assert sum(count for _, count in cells) == 270
    assert dict(cells)["absent"] == 9  # the layer for which it has no score
    page.locator("#map").scroll_into_view_if_needed()
    page.mouse.move(*first_causal_cell(page))
    score = number(line(ATLAS, "successor", 21, 2)["score"])
    expect(page.locator("#tooltip .line").first).to_contain_text(f"successor{score}")
    page.locator("[data-thumbnail='2']").click()
    expect(page.locator("#colour-by")).to_have_value("induction")


def test_an_example_shows_what_the_chosen_token_reads(open_report: Open) -> None:
    words = extras(ATLAS)
    page = open_report(ATLAS, words, "head=17.4")
    example = words["examples"]["induction"]
    links = example["heads"]["17.4"]
    query = 9
    key, weight = max(((k, w) for q, k, w in links if q == query), key=lambda link: link[1])
    page.locator(f"#texts [data-token='{query}']").click()
    caption = page.locator("#texts .reads")
    expect(caption).to_contain_text(f"({query}) reads “{example['tokens'][key].strip()}” ({key}) {number(weight)}")
    page.keyboard.press("ArrowRight")
    expect(caption).to_contain_text(f"({query + 1}) reads")
    expect(page.locator(f"#texts [data-token='{query + 1}']")).to_be_focused()
    page.locator("#texts select").select_option("retrieval")
    expect(page.locator("#texts .token")).to_have_count(len(example["tokens"]))


def test_encoder_and_decoder_heads_do_not_collide(open_report: Open) -> None:
    atlas = synthetic.atlas(4, 4, seed=4, per_detector=3)
    atlas["model"]["stacks"] = ["encoder", "decoder"]
    for index, entry in enumerate(atlas["detectors"]):
        for row in entry["heads"]:
            row["stack"] = "encoder" if index else "decoder"
    page = open_report(atlas, fragment="head=encoder:1.1")
    expect(page.locator("#map .stack h3")).to_have_text(["encoder", "decoder"])
    expect(page.locator("#card h2")).to_have_text("Head encoder:1.1")
    page.locator("#map").focus()
    page.keyboard.press("PageDown")
    page.keyboard.press("Enter")
    expect(page.locator("#card h2")).to_have_text("Head 0.0")


def test_a_map_of_5120_heads_is_drawn_with_few_elements(open_report: Open) -> None:
    page = open_report(synthetic.atlas(80, 64, per_detector=60))
    expect(page.locator("#map svg")).to_be_visible()
    assert page.locator("#map svg *").count() < 250
    page.locator("#colour-by").select_option("induction")
    assert page.locator("#map svg *").count() < 250
    expect(page.locator("#heads tbody tr")).to_have_count(25)


def test_a_tap_on_a_phone_brings_the_card_into_view(open_report: Open) -> None:
    page = open_report(ATLAS, width=390, has_touch=True, is_mobile=True)
    page.locator("#map").evaluate("map => map.scrollIntoView({block: 'start'})")
    page.touchscreen.tap(*first_causal_cell(page))
    expect(page.locator("#card h2")).to_have_text("Head 2.1")
    expect(page.locator("#card h2")).to_be_in_viewport()
    expect(page.locator("#tooltip")).to_be_hidden()


def test_without_scripts_the_map_is_there_as_a_picture(open_report: Open) -> None:
    page = open_report(ATLAS, java_script_enabled=False)
    picture = page.locator("noscript svg")
    expect(picture).to_be_visible()
    assert page.locator("#provenance dt").filter(has_text="versions.torch").count() == 1


def test_a_table_says_which_tasks_the_model_does(open_report: Open) -> None:
    page = open_report(synthetic.atlas())
    rows = [row.inner_text().split("\t") for row in page.query_selector_all("#tasks tbody tr")]
    tasks = [entry["task"] for entry in synthetic.atlas()["detectors"]]
    assert [row[0] for row in rows] == sorted(set(tasks))
    done = {row[0]: row[1] for row in rows}
    assert done[tasks[-1]] == "no"
    assert done["repeated"] == "yes"
    assert rows[[row[0] for row in rows].index(tasks[-1])][5:7] == ["28%", "25%"]


def test_provenance_and_skipped_detectors_are_complete(open_report: Open) -> None:
    page = open_report(ATLAS)
    text = page.locator("#provenance").inner_text()
    for expected in ("bos", "<|im_start|>", "sha256", ATLAS["model"]["sha256"], "seconds.forward", "41.8", "seed"):
        assert expected in text
    skipped = page.locator("#detectors > dl").inner_text()
    assert all(item["detector"] in skipped and item["reason"] in skipped for item in ATLAS["skipped"])
    assert "the model cannot do the task" in (page.locator("#detectors").text_content() or "")
