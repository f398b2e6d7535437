"""The bundled words, facts and passages keep what their files promise."""

import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.written import DATA, TABLES, TEXTS, halves, leaves, load, passages, slots


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(DATA)))
def test_a_table_names_its_source_and_second_reading_and_holds_text_only(path: Path) -> None:
    table = load(str(path.relative_to(DATA)))
    assert "written for this project" in table["source"]
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", table["checked"])
    for where, value in leaves(table):
        if where.endswith("/cyclic"):
            assert isinstance(value, bool)
        else:
            assert isinstance(value, str), f"{where}: {value!r} needs quotes"
            assert value.strip(), f"{where} is empty"
            assert not re.search("[\u2018\u2019\u201c\u201d]|  ", value), f"{where}: curly quote or double space"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(DATA)))
def test_words_for_finding_and_for_testing_are_apart(path: Path) -> None:
    for where, find, test in halves(load(str(path.relative_to(DATA)))):
        assert not find & test, where
        assert min(len(find), len(test)) >= 4, where
        assert max(len(find), len(test)) <= 1.3 * min(len(find), len(test)), where


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(DATA)))
def test_no_list_holds_an_item_twice(path: Path) -> None:
    def lists(value: Any, where: str) -> Iterator[tuple[str, list[Any]]]:
        if isinstance(value, list):
            yield where, value
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in children:
            yield from lists(inner, f"{where}/{key}")

    for where, items in lists(load(str(path.relative_to(DATA))), ""):
        twice = [item for item, count in Counter(map(str, items)).items() if count > 1]
        assert not twice, f"{where}: {twice}"


def test_prose_has_eight_registers_of_eight_long_passages() -> None:
    assert len(TEXTS) >= 8
    for path in TEXTS:
        counts = [len(text.split()) for text in passages(path)]
        assert len(counts) >= 8, path.name
        assert min(counts) >= 220, f"{path.name}: {counts}"


def test_prose_passages_share_no_run_of_eight_words() -> None:
    owner: dict[tuple[str, ...], tuple[str, int]] = {}
    for path in TEXTS:
        for index, text in enumerate(passages(path)):
            words = re.findall(r"\w+", text.lower())
            for start in range(len(words) - 7):
                run = tuple(words[start : start + 8])
                assert owner.setdefault(run, (path.name, index)) == (path.name, index), (run, path.name, index)


def test_prose_is_plain_ascii_without_markers_inside() -> None:
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        assert text.isascii(), path.name
        for passage in passages(path):
            assert "%%" not in passage
            assert passage == passage.lstrip()


def test_prose_words_vary() -> None:
    for path in TEXTS:
        for index, text in enumerate(passages(path)):
            words = re.findall(r"[a-z]+", text.lower())
            assert len(set(words)) > 0.3 * len(words), (path.name, index)


def test_code_passages_are_python() -> None:
    for index, text in enumerate(passages(DATA / "prose" / "code.txt")):
        compile(text, f"code passage {index}", "exec")


def test_ioi_templates_name_the_giver_twice_and_end_with_the_receiver() -> None:
    table = load("ioi.yaml")
    assert len(table["templates"]["baba"]) == len(table["templates"]["abba"]) == 15
    for baba, abba in zip(table["templates"]["baba"], table["templates"]["abba"], strict=True):
        assert abba == baba.replace("[B] and [A]", "[A] and [B]") != baba
        for template in (baba, abba):
            counts = Counter(re.findall(r"\[(\w+)\]", template))
            assert counts == {"A": 2, "B": 2, "PLACE": 1, "OBJECT": 1}
            assert template.endswith(" to [A]")
            assert all(template[match.start() - 1] == " " for match in re.finditer(r"\[", template))
    assert len(table["names"]["find"]) + len(table["names"]["test"]) >= 100
    for word in table["objects"]["find"] + table["objects"]["test"]:
        assert word[0] not in "aeiou", f"'a {word}'"


def test_acronym_words_are_capitalised_and_spread_over_the_letters() -> None:
    nouns = load("acronyms.yaml")["nouns"]
    assert len(nouns["find"]) + len(nouns["test"]) >= 120
    for words in nouns.values():
        assert all(re.fullmatch("[A-Z][a-z]+", word) for word in words)
        assert len({word[0] for word in words}) >= 20


def test_greater_than_fills_its_template() -> None:
    table = load("greater_than.yaml")
    assert slots(table["template"]) == {"noun", "century", "year"}
    assert table["template"].endswith("{century}")
    assert all(re.fullmatch("[0-9]{2}", century) for century in table["centuries"])
    assert sum(map(len, table["nouns"].values())) >= 50


def test_succession_series_are_in_order() -> None:
    series = load("succession.yaml")["series"]
    assert {"days", "months", "number-words", "letters", "ordinals"} <= set(series)
    assert series["letters"]["members"] == list(string.ascii_uppercase)
    assert [len(series[name]["members"]) for name in ("days", "months")] == [7, 12]
    assert [day[:3] for day in series["days"]["members"]] == series["short-days"]["members"]
    assert [month[:3] for month in series["months"]["members"]] == series["short-months"]["members"]
    assert [name for name, value in series.items() if value["cyclic"]] == [
        "days",
        "months",
        "short-days",
        "short-months",
    ]


def test_review_classes_are_of_one_size_and_answers_cannot_be_copied() -> None:
    table = load("movie_review.yaml")
    prompt_words: set[str] = set()
    for kind in ("adjectives", "verbs"):
        positive, negative = table[kind]["positive"], table[kind]["negative"]
        for half in ("find", "test"):
            assert len(positive[half]) == len(negative[half])
        both = [set(side["find"] + side["test"]) for side in (positive, negative)]
        assert min(map(len, both)) >= 20
        assert not both[0] & both[1]
        prompt_words |= both[0] | both[1]
    answers = table["answers"]
    assert len(answers["positive"]) == len(answers["negative"])
    assert not prompt_words & set(answers["positive"] + answers["negative"])
    for template in table["templates"]:
        assert slots(template["text"]) == {"adjective", "verb"}
        assert len(re.findall(rf"\b{template['summary']}\b", template["text"])) == 2


def test_mood_story_phrases_pair_up() -> None:
    table = load("mood_story.yaml")
    assert len(table["tastes"]["likes"]) == len(table["tastes"]["dislikes"])
    assert len(table["answers"]["positive"]) == len(table["answers"]["negative"])
    for template in table["templates"]:
        assert slots(template) == {"first", "second", "first_taste", "second_taste", "things", "event", "asked"}
        assert " {first} " in template, "a name at the start of a text has no space before it"


def test_facts_have_enough_relations_subjects_and_templates() -> None:
    relations = load("facts.yaml")["relations"]
    assert len(relations) >= 8
    for name, relation in relations.items():
        assert len(relation["pairs"]) >= 30, name
        assert len(relation["templates"]) >= 2, name
        for template in relation["templates"]:
            assert slots(template) == {"subject"}
        assert len(set(relation["pairs"].values())) >= 3, name
        for subject, value in relation["pairs"].items():
            assert " " not in value, f"{name}: {value}"
            assert value.lower() not in subject.lower().split(), f"{name}: '{subject}' gives the answer away"


def test_facts_agree_with_each_other() -> None:
    relations = load("facts.yaml")["relations"]
    countries = set(relations["country-capital"]["pairs"])
    capitals = set(relations["country-capital"]["pairs"].values())
    assert len(capitals) == len(countries)
    assert not capitals & set(relations["city-country"]["pairs"]), "a capital listed as an ordinary city"
    known = {
        country for name, relation in relations.items() if name.startswith("country-") for country in relation["pairs"]
    }
    for name in ("landmark-country", "city-country", "company-country"):
        unknown = set(relations[name]["pairs"].values()) - known
        assert not unknown, f"{name}: spelled differently elsewhere? {unknown}"


def test_conflicts_end_with_the_clean_question() -> None:
    table = load("conflict.yaml")
    assert table["relation"] in load("facts.yaml")["relations"]
    assert slots(table["clean"]) == {"country"}
    assert len(table["conflicts"]) >= 3
    for text in table["conflicts"].values():
        assert slots(text) == {"country", "claim"}
        assert text.lower().endswith(table["clean"].lower())


def in_context() -> dict[str, dict[str, str]]:
    relations = load("facts.yaml")["relations"]
    tables = {path.stem: load(f"icl/{path.name}") for path in sorted((DATA / "icl").glob("*.yaml"))}
    return {
        name: table["pairs"] if "pairs" in table else relations[table["relation"]]["pairs"]
        for name, table in tables.items()
    }


def test_in_context_tasks_are_many_and_large_enough() -> None:
    tasks = in_context()
    assert len(tasks) >= 16
    for name, pairs in tasks.items():
        assert len(pairs) >= 40, name
        assert all(given != wanted for given, wanted in pairs.items()), name


def test_in_context_rules_hold() -> None:
    tasks = in_context()
    rules = {
        "capitalize": str.capitalize,
        "uppercase": str.upper,
        "first-letter": lambda word: word[0],
        "last-letter": lambda word: word[-1],
    }
    for name, rule in rules.items():
        for given, wanted in tasks[name].items():
            assert wanted == rule(given), (name, given, wanted)
    for ending, name in (("ing", "verb-gerund"), ("s", "third-person")):
        assert all(wanted.endswith(ending) for wanted in tasks[name].values()), name
    inverse = {wanted: given for given, wanted in tasks["previous-item"].items() if given not in ("Monday", "January")}
    assert all(tasks["next-item"][given] == wanted for given, wanted in inverse.items())


def test_french_pairs_are_many_and_keep_to_their_relation() -> None:
    french = load("concepts.yaml")["french"]
    for name, pairs in french.items():
        assert len(pairs) >= 24, name
        assert all(given != wanted for given, wanted in pairs.items()), name
    assert all(wanted[-1] in "sx" for wanted in french["singular-plural"].values())
    assert all(wanted.endswith("ait") for wanted in french["present-past"].values())
    for name in ("antonym", "synonym"):
        found = french[name]
        assert all(found.get(wanted, given) == given for given, wanted in found.items()), name


def test_antonyms_that_occur_both_ways_agree() -> None:
    pairs = in_context()["antonym"]
    for given, wanted in pairs.items():
        if wanted in pairs:
            assert pairs[wanted] == given, (given, wanted, pairs[wanted])


def test_needles_stand_out_from_the_filler() -> None:
    table = load("needle.yaml")
    text = " ".join(table["fillers"])
    assert len(table["fillers"]) >= 200
    assert len(text.split()) >= 3500
    assert not re.search(r"\d", text)
    assert all(sentence.endswith(".") for sentence in table["fillers"])
    for kind in ("cities", "words", "meals"):
        for half in table[kind].values():
            for word in half:
                assert not re.search(rf"\b{word}\b", text, re.IGNORECASE), word
    for needle in table["needles"].values():
        assert slots(needle["text"]) == {"city", "answer"}
        assert slots(needle["question"]) == {"city"}
        assert needle["text"][: needle["text"].index("{answer}")].split()[-1] == needle["question"].split()[-1]
