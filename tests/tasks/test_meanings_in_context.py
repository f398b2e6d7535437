"""What prompts of in-context classification and of relations say, read back from their tokens."""

import re

from headatlas.task import find_task
from headatlas.tasks._prompts import table
from headatlas.tasks._word_kinds import word_kinds
from tests.tasks.test_meanings import answers, said, text, tokenizer

__all__ = ["tokenizer"]  # a fixture


def test_labels_are_the_kinds_of_their_words_or_other_kinds_or_follow_no_rule(tokenizer):
    kinds = {
        word: kind
        for half in ("find", "test")
        for kind, words in word_kinds(tokenizer, half, 1).items()
        for word in words
    }
    for task in (find_task("classification"), find_task("classification-held-out"), find_task("classification").second):
        batch = task(tokenizer, 9)
        assert sorted(batch.labels["right"].tolist()) == [0] * 3 + [1] * 3 + [2] * 3
        for i in range(9):
            parts = (batch, batch.counterfactual, batch.control)
            (words, *same), (labels, others, loose) = (
                [said(tokenizer, part, role, i).split() for part in parts] for role in ("word", "label")
            )
            query = said(tokenizer, batch, "query", i)
            assert same == [words, words]
            assert len({*words, query}) == 10
            assert labels == [kinds[word] for word in words]
            assert sorted(labels.count(one) for one in set(labels)) == [3, 3, 3]
            (right,) = answers(tokenizer, batch.answer[i])
            assert right == kinds[query] == list(dict.fromkeys(labels))[int(batch.labels["right"][i])]
            assert {right, *answers(tokenizer, batch.wrong[i])} == set(labels)
            assert len(set(zip(labels, others, strict=True))) == 3  # one name each
            assert len(set(others)) == 3
            assert not set(others) & set(labels)
            assert sorted(zip(labels, loose, strict=True)) == sorted((a, b) for a in set(labels) for b in set(labels))


def test_relations_are_shown_and_then_broken_with_the_same_words(tokenizer):
    form = table("concepts")
    for task in (find_task("concepts"), find_task("concepts-held-out"), find_task("concepts").second):
        batch = task(tokenizer, 24)
        kinds = list(zip(batch.labels["format"].tolist(), batch.labels["concept"].tolist(), strict=True))
        assert sorted(kinds) == sorted([(a, b) for a in range(3) for b in range(4)] * 2)
        for i, (number, concept) in enumerate(kinds):
            name, relation = form["formats"][number], form["concepts"][concept]
            pairs = form["french"][relation] if name == "french" else table(f"icl/{relation}")["pairs"]

            def shown(part, i=i):
                return [
                    re.split(r"\W* (?=\w)", line)[1:]
                    for line in re.findall(r"(?:Q|A|Input|Output|these|Options):.*", text(tokenizer, part, i))
                ]

            lines, broken, control = (shown(part) for part in (batch, batch.counterfactual, batch.control))
            step = 3 if name == "choice" else 2
            given, outputs, moved = (
                [line[0] for line in x]
                for x in (lines[::step], lines[step - 1 : -1 : step], broken[step - 1 : -1 : step])
            )
            assert outputs == [pairs[one] for one in given[:-1]]
            assert [line[0] for line in broken[::step]] == given
            assert all(pairs[one] != value for one, value in zip(given, moved, strict=False))
            assert answers(tokenizer, batch.answer[i])[0] in pairs[given[-1]]
            if name == "choice":
                options = lines[1::3]
                assert broken[1::3] == options == control[1::3]
                assert all(len(set(one)) == 4 and pairs[word] in one for one, word in zip(options, given, strict=True))
                assert all(value in one for one, value in zip(options, moved, strict=False))
            else:
                assert sorted(moved) == sorted(outputs)
            assert [line[0] for line in control[::step]][:-1] == given[:-1]
            assert control[::step][-1][0] not in given
