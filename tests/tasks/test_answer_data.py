"""The written data of tasks with answers: statements, questions, multiple choice, colours, neutral sentences."""

import re
from collections import Counter

from tests.tasks.written import TEXTS, load, slots


def differing(first: str, second: str) -> tuple[list[str], list[str]]:
    """The words at the places where two sentences of one length differ."""
    left, right = first.rstrip(".?").split(), second.rstrip(".?").split()
    assert len(left) == len(right), (first, second)
    apart = [(a, b) for a, b in zip(left, right, strict=True) if a != b]
    return [a for a, _ in apart], [b for _, b in apart]


def test_statements_differ_in_one_word_that_is_balanced_over_the_topic() -> None:
    topics = load("statements.yaml")["topics"]
    assert len(topics) >= 6
    assert sum(2 * len(pairs) for pairs in topics.values()) >= 320
    everything = [sentence for pairs in topics.values() for pair in pairs for sentence in pair]
    assert len(set(everything)) == len(everything)
    for topic, pairs in topics.items():
        true_words: Counter[str] = Counter()
        false_words: Counter[str] = Counter()
        for true, false in pairs:
            right, wrong = differing(true, false)
            assert len(right) == 1, (true, false)
            true_words.update(right)
            false_words.update(wrong)
        assert true_words == false_words, topic


def test_questions_are_balanced_between_yes_and_no() -> None:
    table = load("yes_no.yaml")
    topics = table["topics"]
    assert sum(2 * len(pairs) for pairs in topics.values()) >= 160
    everything = [question for pairs in topics.values() for pair in pairs for question in pair]
    assert len(set(everything)) == len(everything)
    assert all(question.endswith("?") for question in everything)
    for topic, pairs in topics.items():
        words_of_yes: Counter[str] = Counter()
        words_of_no: Counter[str] = Counter()
        for yes, no in pairs:
            right, wrong = differing(yes, no) if topic != "sizes" else (yes.split(), no.split())
            assert right != wrong
            words_of_yes.update(word.rstrip("?") for word in right)
            words_of_no.update(word.rstrip("?") for word in wrong)
        assert words_of_yes == words_of_no, topic
    for instruction in table["instructions"]:
        assert slots(instruction) == {"first", "second"}


def test_no_true_statement_is_listed_as_false_elsewhere() -> None:
    topics = load("statements.yaml")["topics"]
    true = {pair[0] for pairs in topics.values() for pair in pairs}
    false = {pair[1] for pairs in topics.values() for pair in pairs}
    capitals = load("facts.yaml")["relations"]["country-capital"]["pairs"]
    assert not true & false
    for country, capital in capitals.items():
        assert f"The capital of {country} is {capital}." not in false
    for sentence in (pair[0] for pair in topics["capitals"]):
        match = re.fullmatch(r"The capital of (.+) is (.+)\.", sentence)
        assert match is not None
        assert capitals[match[1]] == match[2]


def test_multiple_choice_has_four_options_of_which_the_wrong_ones_are_used_evenly() -> None:
    table = load("mcqa.yaml")
    questions = [item for group in table["questions"].values() for item in group]
    assert len(questions) >= 80
    assert len({item["question"] for item in questions}) == len(questions)
    for item in questions:
        assert len(set(item["options"])) == 4, item
        right = item["options"][0]
        assert right.lower() not in re.findall(r"\w+", item["question"].lower()), item
    for labels in table["labels"].values():
        assert len(set(labels)) == 4
    for name, group in table["questions"].items():
        right = {item["options"][0] for item in group}
        wrong = Counter(option for item in group for option in item["options"][1:])
        assert set(wrong) <= right, f"{name}: an option that is never right gives itself away"


def test_colored_objects_take_the_article_a() -> None:
    table = load("colored_objects.yaml")
    assert all(color[0] not in "aeiou" for color in table["colors"])
    wanted = {"place", "seen", "asked", *(f"{kind}{i}" for kind in ("color", "object") for i in (1, 2, 3))}
    assert slots(table["template"]) == wanted
    assert slots(table["shot_end"]) == {"answer"}
    words = [*table["colors"], *table["objects"]["find"], *table["objects"]["test"]]
    assert len(set(words)) == len(words)


def test_neutral_sentences_are_fifty_and_unlike_the_passages() -> None:
    sentences = load("neutral.yaml")["sentences"]
    assert len(sentences) >= 50
    assert all(8 <= len(sentence.split()) <= 25 for sentence in sentences)
    prose = " ".join(path.read_text(encoding="utf-8") for path in TEXTS)
    assert not [sentence for sentence in sentences if sentence in prose]
