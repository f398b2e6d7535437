"""The list of papers in a browser, from the disk: search, facets, order, and the ways into it."""

from __future__ import annotations

import re

from headatlas.catalogue import load
from headatlas.catalogue.filters import Filters, select
from tests.catalogue.site.open_page import Visit, address, shown

SEARCHES = (
    ("olsson", "olsson-2022-induction-heads"),
    ("Neel Nanda", "nanda-2023-fact-finding"),
    ("induction head", "olsson-2022-induction-heads"),
    ("S-Inhibition", "wang-2023-ioi"),
    ("previous token", "wang-2023-ioi"),
    ("inducton", "olsson-2022-induction-heads"),
    ("sucessor", "gould-2024-successor-heads"),
    ("retr", "wu-2024-retrieval-head"),
    ("function vect", "todd-2024-function-vectors"),
    ("gpt2 acronyms", "garcia-carrasco-2024-acronyms"),
    ("2211.00593", "wang-2023-ioi"),
    ("García", "garcia-carrasco-2024-acronyms"),
    ("garcia", "garcia-carrasco-2024-acronyms"),
)


def test_search_finds_by_author_head_alias_word_and_typo(visit: Visit):
    page = visit("papers/index.html")
    assert len(shown(page)) == len(load().papers)
    for query, wanted in SEARCHES:
        page.fill("#q", query)
        found = shown(page)
        assert wanted in found, query
        assert len(found) < len(load().papers) / 4, query
        assert page.inner_text("#count") == f"{len(found)} of {len(load().papers)} papers"


def test_title_words_with_a_letter_left_out_are_understood(visit: Visit):
    page = visit("papers/index.html")
    typos = [
        (word[:2] + word[3:], paper.id)
        for paper in load().papers.values()
        for word in {word.lower() for word in re.findall(r"[A-Za-z]{6,}", paper.title)}
    ]
    find = """typos => { const find = headatlas.createSearch(headatlasIndex.papers, {name: 4, about: 2, summary: 1});
              return typos.filter(([typo, id]) => [...find(typo).scores.keys()].some((paper) => paper.id === id)).length; }"""
    assert len(typos) > 200
    assert page.evaluate(find, [list(typo) for typo in typos]) > 0.98 * len(typos)


def test_every_alias_finds_the_papers_of_its_head_type(visit: Visit):
    page = visit("papers/index.html")
    aliases = [(alias, head) for head in load().heads.values() for alias in head.aliases]
    assert aliases
    for alias, head in aliases:
        page.fill("#q", alias)
        assert {paper.id for paper in load().papers_for(head.id)} <= set(shown(page)), alias


def test_search_says_what_it_read_and_leads_to_pages_of_that_name(visit: Visit):
    page = visit("papers/index.html")
    page.fill("#q", "S-Inhibiton")
    assert "“inhibiton” read as “inhibition”" in page.inner_text("#understood")
    link = page.locator("#pages a", has_text="Inhibition Head").first
    link.click()
    assert page.url.endswith("/heads/inhibition-head.html")
    page.go_back()
    page.fill("#q", "zzzzzz")
    assert shown(page) == []
    assert "nothing has “zzzzzz”" in page.inner_text("#understood")
    page.click("#clear")
    assert len(shown(page)) == len(load().papers)


def test_an_author_who_was_cut_off_is_shown_when_asked_for(visit: Visit):
    paper = load().papers["olsson-2022-induction-heads"]
    page = visit("papers/index.html?q=" + paper.authors[-1].split()[-1])
    assert paper.authors[-1] in page.inner_text(f"li[data-id={paper.id}] .authors")


def test_facets_combine_with_each_other_and_the_search_and_survive_a_reload(visit: Visit):
    page = visit("papers/index.html")
    page.check("input[name=year][value='2024']")
    page.check("input[name=stage][value=lr]")
    both = {paper.id for paper in select(load(), Filters(year=2024, stage="lr"))}
    assert set(shown(page)) == both
    page.check("input[name=code]")
    wanted = {paper.id for paper in select(load(), Filters(year=2024, stage="lr", has_code=True))}
    assert set(shown(page)) == wanted
    assert 0 < len(wanted) < len(both)
    assert address(page) == {"year": ["2024"], "stage": ["lr"], "code": ["yes"]}
    page.check("input[name=year][value='2025']")
    more = {paper.id for paper in select(load(), Filters(year=2025, stage="lr", has_code=True))}
    assert set(shown(page)) == wanted | more
    page.fill("#q", "induction")
    before = shown(page)
    assert 0 < len(before) < len(wanted | more)
    page.reload()
    assert shown(page) == before
    assert page.input_value("#q") == "induction"
    assert page.is_checked("input[name=stage][value=lr]")
    assert page.locator("#chosen button").all_inner_texts() == ["2025", "2024", "Latent Reasoning", "Has code"]
    page.click("#chosen button >> text=Latent Reasoning")
    assert not page.is_checked("input[name=stage][value=lr]")
    assert "stage" not in address(page)


def test_counts_of_a_facet_say_what_choosing_the_value_would_give(visit: Visit):
    page = visit("papers/index.html?year=2024")
    box = page.locator("label:has(input[name=method][value=probing])")
    promised = int(box.locator(".count").inner_text())
    box.click()
    assert len(shown(page)) == promised
    assert promised == len(select(load(), Filters(year=2024, method="probing")))


def test_back_undoes_a_facet_and_nonsense_in_the_address_is_ignored(visit: Visit):
    page = visit("papers/index.html?year=1066&colour=red&stage=lr&sort=sideways")
    lr = {paper.id for paper in select(load(), Filters(stage="lr"))}
    assert set(shown(page)) == lr
    page.check("input[name=year][value='2024']")
    page.go_back()
    assert set(shown(page)) == lr
    assert not page.is_checked("input[name=year][value='2024']")


def test_the_order_can_be_turned(visit: Visit):
    page = visit("papers/index.html")
    newest = shown(page)
    page.select_option("#sort", "oldest")
    assert shown(page) == newest[::-1]
    page.reload()
    assert shown(page) == newest[::-1]


def test_a_value_of_a_long_facet_is_found_by_name(visit: Visit):
    page = visit("papers/index.html")
    facet = page.locator("fieldset[data-facet=head]")
    value = facet.locator("input[value=successor-head]")
    assert not value.is_visible()
    facet.locator("input.narrow").fill("succ")
    value.check()
    assert sorted(shown(page)) == sorted(paper.id for paper in load().papers_for("successor-head"))


def test_links_of_entries_into_the_list_choose_something(visit: Visit):
    page = visit("papers/garcia-carrasco-2024-acronyms.html")
    page.click("aside a >> text=GPT-2 small")
    page.wait_for_url("**/models/gpt-2-small.html")
    page.click("text=Its family in the list")
    page.wait_for_url("**/papers/index.html?*")
    assert "garcia-carrasco-2024-acronyms" in shown(page)
    assert len(shown(page)) < 40
    page = visit("heads/induction-head.html")
    page.click("text=in the list")
    page.wait_for_url("**/papers/index.html?*")
    assert len(shown(page)) == len(load().papers_for("induction-head"))


def test_the_home_page_searches(visit: Visit):
    page = visit("index.html")
    page.fill("#q", "name mover")
    page.press("#q", "Enter")
    page.wait_for_url("**/papers/index.html?q=name+mover")
    assert "wang-2023-ioi" in shown(page)


def test_the_list_is_usable_within_a_second(visit: Visit):
    times, longest = [], 0.0
    for _ in range(3):
        page = visit("papers/index.html")
        times.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
        type_ = """text => { const box = document.getElementById("q"); const start = performance.now();
                   box.value = text; box.dispatchEvent(new Event("input")); return performance.now() - start; }"""
        longest = max(longest, min(page.evaluate(type_, "inducton hed gpt") for _ in range(3)))
    assert min(times) < 1000
    assert longest < 200
