"""What the prompts say: each task's text is read back from its tokens and its answer worked out independently."""

import re

import pytest
import torch

from headatlas.model import Tokenizer
from headatlas.task import Batch, accuracy, exact_match, find_task, logit_lead, logit_margin, probability_difference
from headatlas.tasks._prompts import table
from tests import toys


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return toys.smollm2_vocabulary()


def text(tokenizer: Tokenizer, part: Batch, i: int) -> str:
    return tokenizer.decode(part.tokens[i][part.mask[i]].tolist()[1:])


def said(tokenizer: Tokenizer, part: Batch, role: str, i: int) -> str:
    places = part.positions[role][i].reshape(-1)
    return tokenizer.decode(part.tokens[i][places[places >= 0]].tolist()).strip()


def answers(tokenizer: Tokenizer, ids: torch.Tensor) -> list[str]:
    return [tokenizer.decode([one]).strip() for one in ids.reshape(-1).tolist() if one >= 0]


def test_years_above_are_right_and_years_below_are_wrong(tokenizer):
    batch = find_task("greater-than")(tokenizer, 12)
    for i in range(12):
        start, end = re.fullmatch(
            r"The \w+ lasted from the year (\d{4}) to the year (\d\d)", text(tokenizer, batch, i)
        ).groups()
        assert start[:2] == end
        tens = int(start[2])
        assert said(tokenizer, batch, "year", i) == start[2]
        assert [int(a) for a in answers(tokenizer, batch.answer[i])] == list(range(tens + 1, 10))
        assert [int(a) for a in answers(tokenizer, batch.wrong[i])] == list(range(tens))
        assert re.search(r"year \d\d0\d to", text(tokenizer, batch.counterfactual, i))
        assert said(tokenizer, batch.control, "year", i) != start[2]


def test_the_next_member_follows_the_last_one_shown(tokenizer):
    batch = find_task("succession")(tokenizer, 30)
    series = [entry["members"] for entry in table("succession")["series"].values()]
    for i in range(30):
        members = series[int(batch.labels["series"][i])]
        shown = [said(tokenizer, batch, role, i) for role in ("first", "second", "last")]
        places = [members.index(member) for member in shown]
        following = [(places[0] + k) % len(members) for k in range(4)]
        assert places == following[:3]
        assert answers(tokenizer, batch.answer[i]) == [members[following[3]]]
        assert answers(tokenizer, batch.wrong[i]) == [shown[2]]
        loose = [said(tokenizer, batch.control, role, i) for role in ("first", "second", "last")]
        assert not {members[following[3]], shown[2]} & set(loose)


def test_facts_are_those_of_the_table_and_controls_have_another_object(tokenizer):
    batch = find_task("facts")(tokenizer, 24)
    relations = list(table("facts")["relations"].values())
    for i in range(24):
        pairs = relations[int(batch.labels["relation"][i])]["pairs"]
        own, rival, third = (
            pairs[said(tokenizer, part, "subject", i)] for part in (batch, batch.counterfactual, batch.control)
        )
        assert own.startswith(answers(tokenizer, batch.answer[i])[0])
        assert rival.startswith(answers(tokenizer, batch.wrong[i])[0])
        assert len({own, rival, third}) == 3
        assert text(tokenizer, batch, i).endswith(said(tokenizer, batch, "relation", i))


def test_the_halves_of_the_facts_share_no_subject(tokenizer):
    halves = []
    for name in ("capitals", "capitals-held-out"):
        batch = find_task(name)(tokenizer, 100)
        every = (batch, batch.counterfactual, batch.control)
        halves.append({said(tokenizer, part, "subject", i) for part in every for i in range(100)})
    assert len(halves[0]) > 20
    assert not halves[0] & halves[1]


def test_the_context_claims_what_it_should(tokenizer):
    batch = find_task("knowledge-conflict")(tokenizer, 12)
    capitals = table("facts")["relations"]["country-capital"]["pairs"]
    for i in range(12):
        truth = capitals[said(tokenizer, batch, "country", i)]
        claims = [said(tokenizer, part, "claim", i) for part in (batch, batch.counterfactual, batch.control)]
        assert claims[1] == truth
        assert len(set(claims)) == 3
        assert claims[0].startswith(answers(tokenizer, batch.answer[i])[0])
        assert truth.startswith(answers(tokenizer, batch.wrong[i])[0])


def test_acronyms_go_letter_by_letter(tokenizer):
    batch = find_task("acronyms")(tokenizer, 12)
    for i in range(12):
        words = [said(tokenizer, batch, role, i) for role in ("first", "second", "third")]
        letter = int(batch.labels["letter"][i])
        assert text(tokenizer, batch, i) == f"The {' '.join(words)} ({''.join(word[0] for word in words[:letter])}"
        assert answers(tokenizer, batch.answer[i]) == [words[letter][0]]
        assert len(answers(tokenizer, batch.wrong[i])) == 25
        strangers = [said(tokenizer, batch.control, role, i) for role in ("first", "second", "third")]
        assert words[letter][0] not in {word[0] for word in strangers}


def test_moods_and_reviews_have_the_class_of_their_words(tokenizer):
    story, review = find_task("mood-story")(tokenizer, 12), find_task("movie-review")(tokenizer, 12)
    moods, words = table("mood_story"), table("movie_review")
    for i in range(12):
        asked = said(tokenizer, story, "asked", i)
        own = "first" if asked == said(tokenizer, story, "first", i) else "second"
        likes = said(tokenizer, story, f"{own}_taste", i) in moods["tastes"]["likes"]
        assert bool(story.labels["positive"][i]) == likes
        assert answers(tokenizer, story.answer[i])[0] in moods["answers"]["positive" if likes else "negative"]
        stranger = said(tokenizer, story.control, "asked", i)
        assert stranger not in (said(tokenizer, story, "first", i), said(tokenizer, story, "second", i))
        kind = "positive" if review.labels["positive"][i] else "negative"
        for role in ("adjective", "verb"):
            assert said(tokenizer, review, role, i) in words[f"{role}s"][kind]["find"]
        assert answers(tokenizer, review.answer[i])[0] in words["answers"][kind]
        ends = text(tokenizer, review, i).rpartition(said(tokenizer, review, "summary", i))[2]
        assert said(tokenizer, review, "summary", i) not in ends


def test_examples_are_pairs_and_lose_their_outputs(tokenizer):
    batch = find_task("icl-antonym")(tokenizer, 6)
    pairs = table("icl/antonym")["pairs"]
    shot = re.compile(r"Q: (\S+)\nA: (\S+)\n\n")
    for i in range(6):
        shown, mixed = (dict(shot.findall(text(tokenizer, part, i))) for part in (batch, batch.counterfactual))
        assert len(shown) == 10
        assert all(pairs[given] == wanted for given, wanted in shown.items())
        assert all(mixed[given] != wanted for given, wanted in shown.items())
        assert sorted(mixed.values()) == sorted(shown.values())
        query = said(tokenizer, batch, "query", i)
        assert query not in shown
        assert text(tokenizer, batch, i).endswith(f"Q: {query}\nA:")
        assert pairs[query].startswith(answers(tokenizer, batch.answer[i])[0])
        assert answers(tokenizer, batch.answer[i]) != answers(tokenizer, batch.wrong[i])[:1]
        assert pairs[said(tokenizer, batch.control, "query", i)] != pairs[query]


def test_the_needle_is_in_the_hay_at_its_depth_and_the_answer_at_the_end(tokenizer):
    batch = find_task("needle")(tokenizer, 20)
    assert batch.facts["length"] == 512
    assert 440 < int(batch.mask.sum(1).min()) <= batch.tokens.shape[1] <= 512
    for i in range(20):
        answer = said(tokenizer, batch, "needle", i)
        assert said(tokenizer, batch, "answer", i) == answer
        assert text(tokenizer, batch, i).count(answer) == 2
        assert said(tokenizer, batch, "city", i) == said(tokenizer, batch, "asked", i)
        place = int(batch.positions["needle"][i, 0]) / int(batch.mask[i].sum())
        assert place == pytest.approx(int(batch.labels["depth"][i]) / 9 * 0.9 + 0.03, abs=0.12)
        predict = batch.positions["predict"][i]
        wanted = batch.tokens[i][predict[predict >= 0] + 1].tolist()
        assert tokenizer.decode(wanted).strip() == answer
        assert batch.tokens[i][batch.positions["end"][i] + 1] == batch.answer[i]
        for part in (batch.counterfactual, batch.control):
            assert answer not in said(tokenizer, part, "needle", i)
    assert find_task("needle")(tokenizer.within(200), 4).facts["length"] == 200


def test_words_of_several_tokens_stand_in_both_copies_and_the_control_mixes_what_is_around_them(tokenizer):
    names = {
        str(name).removeprefix("the ")
        for one in table("facts")["relations"].values()
        for pair in one["pairs"].items()
        for name in pair
    }
    seen: dict[str, set[str]] = {}
    for task in (find_task("repeated-words"), find_task("repeated-words-held-out"), find_task("repeated-words").second):
        batch = task(tokenizer, 12)
        sizes = set()
        for i in range(12):
            row, at = batch.tokens[i].tolist(), {name: value[i].tolist() for name, value in batch.positions.items()}
            length = at["word_query"][0] + 1 - at["word_first"][0]
            assert row[1:55] == row[1 + length : 55 + length]
            assert tokenizer.decode(row[55 : 1 + length]) == "\n"
            for query, first, last in zip(at["word_query"], at["word_first"], at["word_last"], strict=True):
                sizes.add(last - first)
                word = tokenizer.decode(row[first : last + 1])
                assert word[0] == " "
                assert word[1:] in names if task is not find_task("repeated-words").second else word[1:].islower()
                seen.setdefault(task.name, set()).add(word)
                assert row[query + 1 : query + 2 + last - first] == row[first : last + 1]
                assert row[query] == row[first - 1]
            # The loss is that of the words' tokens in the second copy, and of nothing else.
            predicted = [one + 1 for one in at["predict"] if one >= 0]
            spans = [
                (q + 1, q + 1 + last - first)
                for q, first, last in zip(at["word_query"], at["word_first"], at["word_last"], strict=True)
            ]
            assert predicted == [one for low, high in spans for one in range(low, high + 1)]
            for query, first, last in zip(at["run_query"], at["run_first"], at["run_last"], strict=True):
                assert row[query : query + 2 + last - first] == row[first - 1 : last + 1]
                assert last - first == at["word_last"][0] - at["word_first"][0]
            mixed = batch.control.tokens[i].tolist()
            assert sorted(mixed) == sorted(row)
            assert mixed[: 1 + length] == row[: 1 + length]
            assert all(mixed[q + 1] == row[q + 1] for q in [*at["word_query"], *at["run_query"]])
            assert all(
                mixed[one] != row[one]
                for one in [*at["word_query"], *at["run_query"], *(one for one in at["rest"] if one >= 0)]
            )
        assert sizes == ({1, 2} if task is find_task("repeated-words").second else {1, 2, 3, 4})
    assert not seen["repeated-words"] & seen["repeated-words-held-out"]


def test_one_of_the_documents_has_both_the_kind_and_the_city_that_are_asked_for(tokenizer):
    for task in (find_task("documents"), find_task("documents-held-out"), find_task("documents").second):
        batch = task(tokenizer, 12)
        assert set(batch.labels["kind"].tolist()) == {0, 1, 2}
        assert len(set(batch.labels["gold"].tolist())) > 2
        for i in range(12):
            texts = [said(tokenizer, batch, f"doc_{number}", i) for number in range(1, 7)]
            city = said(tokenizer, batch, "asked", i)
            right, wrong = (answers(tokenizer, one)[0] for one in (batch.answer[i], batch.wrong[i]))
            of_city = [number for number, one in enumerate(texts) if city in one]
            gold = int(batch.labels["gold"][i])
            assert len(of_city) == 3
            assert gold in of_city
            assert texts[gold].rstrip(".").split()[-1].startswith(right)
            # The same said of the other city is what the counterfactual asks for.
            other = said(tokenizer, batch.counterfactual, "asked", i)
            (rival,) = [one for one in texts if one.rstrip(".").split()[-1].startswith(wrong)]
            assert re.sub(r"^\S+ ", "", texts[gold]).split(city)[0] == re.sub(r"^\S+ ", "", rival).split(other)[0]
            absent = said(tokenizer, batch.control, "asked", i)
            assert not any(absent in one for one in texts)
            assert said(tokenizer, batch.control, "doc_1", i) == texts[0]


def test_lines_follow_one_rule_and_the_answer_is_what_it_asks_for(tokenizer):
    for task in (find_task("identity-rules"), find_task("identity-rules-held-out"), find_task("identity-rules").second):
        batch = task(tokenizer, 8)
        assert sorted(batch.labels["rule"].tolist()) == [0] * 4 + [1] * 4
        for i in range(8):

            def lines(part, i=i):
                return [re.findall(r"\w+", line) for line in text(tokenizer, part, i).split("\n")]

            def rules(found):
                return {0 if c == a else 1 if c == b else None for a, b, c in found}

            *shown, asked = lines(batch)
            rule = int(batch.labels["rule"][i])
            assert len(shown) == 4
            assert rules(shown) == {rule}
            words = [word for line in [*shown, asked] for word in line[:2]]
            assert len(set(words)) == 10
            assert answers(tokenizer, batch.answer[i]) == [asked[rule]]
            assert answers(tokenizer, batch.wrong[i]) == [asked[1 - rule]]
            *others, turned = lines(batch.counterfactual)
            assert rules(others) == {1 - rule}
            assert [line[2] for line in others] == [line[2] for line in shown]
            assert turned == asked[::-1]
            assert turned[1 - rule] == asked[rule]  # the other rule's answer to the other prompt
            *loose, same = lines(batch.control)
            assert rules(loose) == {0, 1}
            assert same == asked


def test_one_item_is_of_the_kind_asked_for_and_none_of_the_controls(tokenizer):
    classes, more = table("abstract_patterns")["classes"], table("filter_list")["more"]

    def kinds(word):
        return {kind for kind, members in {**classes, **more}.items() if word in members}

    for task in (find_task("filter-list"), find_task("filter-list-held-out"), find_task("filter-list").second):
        batch = task(tokenizer, 10)
        assert sorted(batch.labels["place"].tolist()) == sorted([0, 1, 2, 3, 4] * 2)
        for i in range(10):
            parts = (batch, batch.counterfactual, batch.control)
            items, others, same = (said(tokenizer, part, "item", i).split() for part in parts)
            asked, other, absent = (said(tokenizer, part, "kind", i) for part in parts)
            assert len(items) == len(set(items)) == 5
            assert [word for word in items if asked in kinds(word)] == answers(tokenizer, batch.answer[i])
            assert items.index(answers(tokenizer, batch.answer[i])[0]) == int(batch.labels["place"][i])
            wrong = answers(tokenizer, batch.wrong[i])
            assert set(wrong) == set(items) - set(answers(tokenizer, batch.answer[i]))
            assert [word for word in items if other in kinds(word)] == wrong[:1]
            assert others == same
            assert not set(others) & set(items)
            assert sum(other in kinds(word) for word in others) == sum(absent in kinds(word) for word in others) == 1
            assert not any(absent in kinds(word) for word in items)


def test_options_stand_behind_their_labels(tokenizer):
    for name, options in (("mcqa-2", 2), ("mcqa-4-3-shot", 4)):
        batch = find_task(name)(tokenizer, 8)
        known = {q["question"]: q["options"][0] for group in table("mcqa")["questions"].values() for q in group}
        for i in range(8):
            right = known[said(tokenizer, batch, "question", i)]
            shown = {
                said(tokenizer, batch, f"option{k + 1}", i): said(tokenizer, batch, f"label{k + 1}", i)
                for k in range(options)
            }
            assert answers(tokenizer, batch.answer[i]) == [shown[right]]
            assert sorted([*answers(tokenizer, batch.wrong[i]), shown[right]]) == sorted(shown.values())
            assert said(tokenizer, batch.counterfactual, f"option{int(batch.labels['right'][i]) + 1}", i) != right
            assert known[said(tokenizer, batch.control, "question", i)] not in shown


def test_truth_and_yes_are_those_of_the_tables(tokenizer):
    for name, field, label in (("statements", "statements", "truth"), ("yes-no", "yes_no", "yes")):
        topics = table(field)["topics"]
        true, false = ({pair[k] for pairs in topics.values() for pair in pairs} for k in (0, 1))
        batch = find_task(name)(tokenizer, 20)
        for i in range(20):
            sentences = []
            for part in (batch, batch.counterfactual, batch.control):
                stop = int(part.positions["stop"][i])
                whole = tokenizer.decode(part.tokens[i][1 : stop + 1].tolist())
                sentences.append(whole.rpartition("Question: ")[2])
            good = bool(batch.labels[label][i])
            assert (sentences[0] in true, sentences[0] in false) == (good, not good)
            assert (sentences[1] in true, sentences[1] in false) == (not good, good)
            assert sentences[2] not in true | false


def test_metrics_of_answers_against_plain_arithmetic():
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 7)
    at = {"end": torch.tensor([1, 1]), "predict": torch.tensor([[0, 1], [0, -1]])}
    labels = {"answer": torch.tensor([[1, 2], [3, -1]]), "wrong": torch.tensor([[0, 6], [5, 4]])}
    batch = Batch(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.ones(2, 3, dtype=torch.bool), at, labels=labels)
    one, two = logits[0, 0], logits[1, 0]
    expected = torch.stack([max(one[1], one[2]) - max(one[0], one[6]), two[3] - max(two[5], two[4])])
    torch.testing.assert_close(logit_margin.score(logits, batch), expected)
    rest = torch.stack([max(one[1], one[2]) - one[[0, 3, 4, 5, 6]].max(), two[3] - two[[0, 1, 2, 4, 5, 6]].max()])
    torch.testing.assert_close(logit_lead.score(logits, batch), rest)
    torch.testing.assert_close(accuracy.score(logits, batch), (rest > 0).float())
    p, q = one.softmax(-1), two.softmax(-1)
    mass = torch.stack([p[1] + p[2] - p[0] - p[6], q[3] - q[5] - q[4]])
    torch.testing.assert_close(probability_difference.score(logits, batch), mass)
    written = torch.zeros(2, 2, 7)
    written[0, 0, 2], written[0, 1, 3], written[1, 0, 5], written[1, 1, 0] = 1, 1, 1, 1
    assert exact_match.score(written, batch).tolist() == [1, 1]  # the second example has one position only
    written[0, 1, 4] = 2
    assert exact_match.score(written, batch).tolist() == [0, 1]
