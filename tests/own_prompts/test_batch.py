"""Prompts of one's own become a Batch: from whatever they are kept in, with answers, spans and counterfactuals."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.methods.sweeps.plan import metric_of
from headatlas.task.answers import METRICS
from tests import toys

ROWS = [
    {"prompt": "The capital of France is", "answer": " Paris", "wrong": " Tokyo", "counterfactual": "The capital of Japan is"},
    {"prompt": "As we know, the capital of Italy is", "answer": " Rome", "wrong": " Havana", "counterfactual": "As we know, the capital of Cuba is"},
]  # fmt: skip
WORDS = toys.smollm2_vocabulary()


@pytest.fixture(scope="module")
def model() -> ha.Model:
    from headatlas.model import attach

    return attach(toys.llama(vocab_size=49152), tokenizer=WORDS)


class Frame:
    """As pandas has it."""

    columns = tuple(ROWS[0])

    def to_dict(self, how: str) -> list[dict]:
        assert how == "records"
        return [{**row, "note": float("nan")} for row in ROWS]


class Streamed:
    """As `datasets` has it: an iterable of dictionaries with names of columns."""

    column_names = tuple(ROWS[0])

    def __iter__(self):
        return iter(ROWS)


def in_all_forms(folder):
    with (folder / "p.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(ROWS[0]))
        table.writeheader()
        table.writerows(ROWS)
    lines = ["\t".join(ROWS[0]), *("\t".join(row.values()) for row in ROWS)]
    (folder / "p.tsv").write_text("\ufeff" + "\r\n".join(lines))
    (folder / "p.json").write_text(json.dumps(ROWS))
    (folder / "columns.json").write_text(json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}))
    (folder / "p.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "p.parquet")
    kept = ["p.csv", "p.tsv", "p.json", "columns.json", "p.jsonl", "p.parquet"]
    return [*(folder / name for name in kept), pa.Table.from_pylist(ROWS), Frame(), Streamed(), tuple(ROWS)]


def test_every_form_gives_the_same_batch(tmp_path):
    wanted = ha.prompts(WORDS, ROWS)
    for form in in_all_forms(tmp_path):
        found = ha.prompts(WORDS, form)
        for mine, theirs in ((found, wanted), (found.counterfactual, wanted.counterfactual)):
            assert mine.tokens.equal(theirs.tokens)
            assert mine.mask.equal(theirs.mask)
            assert mine.positions["end"].equal(theirs.positions["end"])
        assert found.answer.equal(wanted.answer)
        assert found.wrong.equal(wanted.wrong)


def test_tokens_are_those_of_the_text_with_its_start():
    batch = ha.prompts(WORDS, ROWS)
    for i, row in enumerate(ROWS):
        for side, text in ((batch, row["prompt"]), (batch.counterfactual, row["counterfactual"])):
            assert side.tokens[i][side.mask[i]].tolist() == [WORDS.bos, *WORDS.encode(text)]
        assert int(batch.positions["end"][i]) == int(batch.mask[i].sum()) - 1
        assert batch.answer[i].tolist() == WORDS.encode(row["answer"])


def test_columns_are_mapped_and_texts_alone_are_prompts():
    renamed = [{"frage": row["prompt"], "antwort": row["answer"]} for row in ROWS]
    found = ha.prompts(WORDS, renamed, prompt="frage", answer="antwort")
    assert found.answer.equal(ha.prompts(WORDS, ROWS).answer)
    plain = ha.prompts(WORDS, [row["prompt"] for row in ROWS])
    assert plain.tokens.equal(found.tokens)
    assert "answer" not in plain.labels


def test_spans_by_words_characters_and_template_are_the_tokens_that_spell_them():
    text = "When Mary and John went out, John gave a drink to"
    by_words, by_characters = (
        ha.prompts(WORDS, [{"prompt": text, "spans": {"io": given}}]) for given in ("Mary", [5, 9])
    )
    twice = ha.prompts(WORDS, [{"prompt": text, "spans": {"s": [[14, 18], [29, 33]]}}])
    made = ha.prompts(WORDS, [{"a": "Mary", "b": "John"}], template="When {a} and {b} went out, {b} gave a drink to")
    assert by_words.tokens.equal(made.tokens)
    for batch, name, words in (
        (by_words, "io", [" Mary"]),
        (by_characters, "io", [" Mary"]),
        (twice, "s", [" John", " John"]),
        (made, "a", [" Mary"]),
        (made, "b", [" John", " John"]),
    ):
        at = batch.positions[name][0]
        assert [WORDS.decode(int(batch.tokens[0, p])) for p in at if p >= 0] == words


def test_a_template_changes_fields_for_the_counterfactual():
    batch = ha.prompts(WORDS, [{"a": "Mary", "counterfactual": {"a": "Tom"}}], template="{a} went to {{x}} with")
    assert WORDS.decode(batch.counterfactual.tokens[0, 1:].tolist()) == "Tom went to {x} with"
    assert batch.counterfactual.positions["a"].tolist() == batch.positions["a"].tolist() == [[1]]


def test_chats_are_written_by_the_tokenizers_template():
    chat = [{"role": "user", "content": "Hi there"}]
    text = WORDS._hf.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    found = ha.prompts(WORDS, [{"prompt": chat, "answer": "Hello", "spans": {"said": "there"}}])
    assert found.tokens[0].tolist() == WORDS.encode(text)
    assert [WORDS.decode(int(found.tokens[0, p])) for p in found.positions["said"][0]] == [" there"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROWS[0], {"prompt": "x"}], "Row 2 has no 'answer'"),
        ([{"prompt": "x", "answer": 5}], "Row 1, column 'answer': a text or a list of texts is wanted, got 5"),
        ([{"prompt": 5}], "Row 1, column 'prompt': a text or a chat is wanted, got 5"),
        ([{"text": "x"}], "Row 1 has no 'prompt'; its columns are text"),
        ([{"prompt": "a b a", "spans": {"s": "a"}}], "column 'spans', span 's': 'a' stands in the prompt more than once"),
        ([{"prompt": "a b", "spans": {"s": "c"}}], "span 's': 'c' does not stand in the prompt"),
        ([{"prompt": "a b", "spans": {"s": [0, 9]}}], "lies outside the prompt"),
        ([{"prompt": "a b", "spans": {"end": "a"}}], "'end' is a position that all prompts have"),
        ([{"prompt": "It is", "answer": [" Rome", " Rome, Italy"]}], "Row 1, column 'answer': ' Rome, Italy' begins with the right answer"),
        ([{"prompt": "It is", "answer": " New York", "wrong": " New Delhi"}], "begin with the same token ' New'"),
        ([{"prompt": "It is ", "answer": " Rome"}], "column 'answer': .* put two blanks together"),
        ([7], "Row 1 is int, not a dictionary"),
        ([], "This holds no prompts"),
        ("prompts.txt", "is no file of prompts"),
        ("missing.csv", "missing.csv cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_row_and_column(rows, said):
    with pytest.raises(BadInput, match=said):
        ha.prompts(WORDS, rows)


@pytest.mark.parametrize(
    ("row", "columns", "said"),
    [
        ({"prompt": "a b", " answer": " c"}, {}, "column ' answer' that nothing reads, and no 'answer'"),
        ({"prompt": "a b", "Answer": " c"}, {}, "column 'Answer'"),
        ({"prompt": "a b", "answre": " c"}, {}, "column 'answre'"),
        ({"prompt": "a b", "counter_factual": "a d"}, {}, "and no 'counterfactual'"),
        ({"prompt": "a b", "span": {"x": "a"}}, {}, "and no 'spans'"),
        ({"prompt": "a b", "label": " c"}, {"answer": "lable"}, "No row has a column 'lable'.*prompt, label.*'label'"),
        ({"prompt": "a b"}, {"spans": "where"}, "No row has a column 'where', which spans was said to be"),
    ],
)
def test_a_slip_in_a_columns_name_is_no_missing_column(row, columns, said):
    with pytest.raises(BadInput, match=said):
        ha.prompts(WORDS, [row], **columns)


def test_other_columns_and_fields_of_a_template_are_left_alone():
    rows = [{"prompt": "a b", "note": "x", "question": "y", "answer": " c", "answers": 3}]
    assert len(ha.prompts(WORDS, rows)) == 1
    assert len(ha.prompts(WORDS, [{"answers": "four"}], template="There are {answers} of")) == 1


def test_half_a_surrogate_pair_is_no_text():
    for row in (
        {"prompt": "a\ud800b"},
        {"prompt": "a", "answer": " \udc00"},
        {"prompt": "a\ud800b", "spans": {"x": "a"}},
    ):
        with pytest.raises(BadInput, match="half of a surrogate pair"):
            ha.prompts(WORDS, [row])


def test_a_line_with_too_few_fields_is_named(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,answer\nIt is, Rome\nIt is\n")
    with pytest.raises(BadInput, match=r"Line 3 of p\.csv has another number of fields"):
        ha.prompts(WORDS, tmp_path / "p.csv")


# ---- metrics, against the plain model's own numbers ---------------------------------------------------------------------
def plain(model: ha.Model, ids: list[int]) -> torch.Tensor:
    """[pos, vocab] log-probabilities of the unmodified model."""
    with torch.no_grad():
        return model.hf(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_a_long_answers_log_probability_is_that_of_its_tokens_one_by_one(model):
    rows = [{"prompt": "The capital is", "answer": " Ouagadougou"}, {"prompt": "As we know, it is", "answer": " Rome"}]
    batch = ha.prompts(model, rows)
    whole, mean = (metric_of(model, batch, METRICS[name]) for name in ("log-probability", "mean-log-probability"))
    for i, row in enumerate(rows):
        prompt, answer = [WORDS.bos, *WORDS.encode(row["prompt"])], WORDS.encode(row["answer"])
        found = plain(model, prompt + answer)
        each = [float(found[len(prompt) - 1 + k, token]) for k, token in enumerate(answer)]
        assert np.isclose(whole[i], sum(each), atol=1e-4)
        assert np.isclose(mean[i], sum(each) / len(each), atol=1e-4)


def test_sets_of_answers_rank_and_probability(model):
    batch = ha.prompts(model, [{"prompt": "It is", "answer": [" Rome", " Paris"], "wrong": " Tokyo"}])
    last = plain(model, [WORDS.bos, *WORDS.encode("It is")])[-1]
    ids = [WORDS.single(" Rome"), WORDS.single(" Paris")]
    assert np.isclose(metric_of(model, batch, METRICS["probability"])[0], float(last[ids].exp().sum()), rtol=1e-3)
    assert metric_of(model, batch, METRICS["rank"])[0] == 1 + int((last > last[ids].max()).sum())
    difference = float(last[ids].mean() - last[WORDS.single(" Tokyo")])
    assert np.isclose(metric_of(model, batch, METRICS["logit-difference"])[0], difference, atol=1e-4)


def test_without_answers_effects_are_kl_to_the_clean_run(model):
    found = ha.ablate(model, "The capital of France is", edit="zero")
    ids = [WORDS.bos, *WORDS.encode("The capital of France is")]
    clean = plain(model, ids)[-1]
    for i, head in enumerate(model.heads):
        with model.edited([ha.Zero(head)]):
            changed = plain(model, ids)[-1]
        kl = float((clean.exp() * (clean - changed)).sum())
        assert np.isclose(found.values[0, i, 0], kl, rtol=1e-2, atol=1e-6)
        before, after = int(clean.argmax()), int(changed.argmax())
        tokens = found.facts["top_token"]
        assert tokens["before"] == WORDS.pieces([before])
        assert tokens["after"].get(str(head), tokens["before"]) == WORDS.pieces([after])
    assert np.isnan(found.share()[0]).all()


def test_a_metric_that_cannot_be_read_is_refused(model):
    with pytest.raises(BadInput, match="no wrong answer, which the metric logit-difference reads"):
        ha.ablate(model, ha.prompts(model, [{"prompt": "It is", "answer": " Rome"}]), metric="logit-difference")
    with pytest.raises(ha.HeadAtlasError, match=r"no metric called 'kll'.*Did you mean 'kl'"):
        ha.ablate(model, "It is", metric="kll")
