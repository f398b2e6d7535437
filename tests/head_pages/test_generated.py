"""Traces that the model writes: which events count, receivers by kurtosis, retrieval by step; against plain loops and made-up cases."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.pages import written
from headatlas.pages.generated import (
    APART,
    measure_generated,
    sentences,
    stability,
    vertical_scores,
)
from headatlas.pages.result import summary_lines
from headatlas.pages.run import PageOptions, head_pages
from headatlas.pages.written import PROMPT, generated_corpus
from headatlas.progress import Silent
from tests.head_pages.conftest import OTHER, TEXT

NEW = 40


@pytest.fixture(scope="module")
def traces(opened):
    return generated_corpus(opened["gqa"], [TEXT, OTHER], 80, 128, NEW)


def test_traces_are_what_the_model_writes_by_itself(opened, eager, traces):
    model = opened["gqa"]
    for text, source in zip(traces.texts, (TEXT, OTHER), strict=True):
        ids = [*traces.front, *model.tokenizer.encode(source)[:PROMPT]]
        with torch.no_grad():
            for _ in range(len(text.ids) - PROMPT):
                ids.append(int(eager["gqa"](input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert text.ids.tolist() == ids[len(traces.front) :]
        assert "".join(text.text[a:b] for a, b in text.spans) == text.text


def test_a_trace_ends_where_the_model_ends_it(opened, traces, monkeypatch):
    model = opened["gqa"]
    first, second = (text.ids.tolist() for text in traces.texts)
    last = next(one for one in first[PROMPT + 1 :] if one not in second[PROMPT:])
    monkeypatch.setattr(model.hf.generation_config, "eos_token_id", [last, 1])
    monkeypatch.setattr(model.hf.generation_config, "pad_token_id", second[PROMPT + 3])  # what no end is known by
    found = generated_corpus(model, [TEXT, OTHER], 80, 128, NEW)
    assert found.texts[0].ids.tolist() == first[: first.index(last, PROMPT) + 1]
    assert found.texts[1].ids.tolist() == second


def test_texts_side_by_side_are_gone_on_with_as_each_by_itself(opened, monkeypatch):
    model, texts = opened["gqa"], [f"{word} {OTHER}" for word in ("One", "Two", "Three", "Four", "Five")]
    together = generated_corpus(model, texts, 5 * NEW, 128, NEW)
    monkeypatch.setattr(written, "AT_ONCE", 2)
    alone = generated_corpus(model, texts, 5 * NEW, 128, NEW)
    assert [text.ids.tolist() for text in together.texts] == [text.ids.tolist() for text in alone.texts]
    assert len(together.texts) == 5
    assert generated_corpus(model, texts, 2 * NEW + 1, 128, NEW).n_tokens == 3 * (PROMPT + NEW)


def test_what_was_written_before_an_interruption_is_not_written_again(opened, tmp_path, monkeypatch):
    model, texts = opened["gqa"], [f"{word} {OTHER}" for word in ("One", "Two", "Three")]
    options, out = PageOptions(tokens=3 * NEW, length=128, every=2, generate=NEW), tmp_path / "pages"
    told = Counted()
    ask = lambda out: head_pages(model, texts, "1.1", causal=False, options=options, out=out, progress=told)  # noqa: E731
    whole, real, begun = ask(tmp_path / "whole"), written._gone_on_with, []
    monkeypatch.setattr(written, "AT_ONCE", 1)

    def dies_at_the_third(model, prompts, *rest):
        begun.append(len(prompts))
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(model, prompts, *rest)

    monkeypatch.setattr(written, "_gone_on_with", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ask(out)
    assert not out.exists()
    found = ask(out)
    assert begun == [1, 1, 1, 1]
    assert told.steps.keys() == {"write", "read", "behaviours", "events", "traces"}
    assert told.steps["write"] == (3 + 2 + 3) * NEW  # whole; two of three, when it died; whole, two of them kept
    assert json.dumps(found.data) == json.dumps(whole.data)
    assert found.facts == whole.facts
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


class Counted(Silent):
    """How far each step moved."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        self.steps[step] += amount


def test_events_are_those_of_written_tokens_alone(opened):
    options = PageOptions(tokens=80, length=128, every=1, generate=NEW)
    found = head_pages(opened["gqa"], [TEXT, OTHER], "1.1", causal=False, options=options)
    assert found.counts.n[0] == found.facts["windows"] * (
        NEW + 1
    )  # and of the last token of the prompt, which is asked for the first
    assert found.generated is not None
    assert found.data["generated"]["steps"] == found.facts["windows"] * NEW


def test_what_was_measured_while_it_wrote_is_told_on_the_pages_and_in_the_terminal(opened, tmp_path):
    options = PageOptions(tokens=80, length=128, every=2, generate=NEW)
    found = head_pages(opened["gqa"], [TEXT, OTHER], "1.1", causal=False, options=options, out=tmp_path / "pages")
    written = replace(
        found.generated,
        copies=np.linspace(0, 0.7, 8),
        receiver=np.array([*range(7), np.nan], dtype=np.float32),
        size=2.5,
        jaccard=0.31,
    )
    lines = written.lines(found.heads)
    assert "2.50 heads a step" in lines[0]
    assert lines[0].endswith("1.3 (70%), 1.2 (60%), 1.1 (50%), 1.0 (40%), 0.3 (30%)")
    assert "neighbouring steps share 31%" in lines[1]
    assert lines[2].endswith("1.2 (6.00), 1.1 (5.00), 1.0 (4.00), 0.3 (3.00), 0.2 (2.00)")
    quiet = replace(written, copies=np.zeros(8), receiver=np.full(8, np.nan)).lines(found.heads)
    assert quiet[0].startswith("no head retrieves")
    assert "write more" in quiet[1]
    assert summary_lines(found, [])[0] == found.generated.lines(found.heads)[0]
    index, page = ((tmp_path / "pages" / name).read_text() for name in ("index.html", "pages/1.1.html"))
    assert "eceiver heads: " in index
    assert found.generated.of(found.heads.index(HeadId(1, 1))) in page


def test_retrieval_and_receivers_are_those_of_loops_over_the_model_s_own_attention(opened, eager, traces):
    found = measure_generated(opened["gqa"], traces)
    hits, uneven = [], []
    for number, text in enumerate(traces.texts):
        ids = traces.batch([number]).tokens[0].tolist()
        with torch.no_grad():
            rows = torch.cat(eager["gqa"](input_ids=torch.tensor([ids]), output_attentions=True).attentions, 1)[
                0
            ].numpy()
        for q in range(len(traces.front) + PROMPT - 1, len(ids) - 1):
            best = rows[:, q].argmax(-1)
            hits.append([k > 0 and ids[k] == ids[q + 1] for k in best])
        number_of = [-1] * len(traces.front) + sentences(text).tolist()
        scores = []
        for one in range(max(number_of) - APART + 1):
            values = [
                rows[:, q, k]
                for q in range(len(ids))
                for k in range(len(ids))
                if number_of[k] == one and number_of[q] >= one + APART
            ]
            scores.append(np.mean(values, 0))
        if len(scores) >= 8:
            uneven.append(kurtosis(np.array(scores), axis=0))
    np.testing.assert_allclose(found.copies, np.mean(hits, 0))
    assert found.steps == len(hits)
    if uneven:
        np.testing.assert_allclose(found.receiver, np.mean(uneven, 0), rtol=1e-3)
    else:
        assert np.isnan(found.receiver).all()


def test_a_head_that_reads_one_sentence_is_more_uneven_than_one_that_reads_all():
    sentence = np.repeat(np.arange(14), 3)
    even = np.tril(np.ones((42, 42)))
    one = np.zeros((42, 42))
    one[:, 6] = 1
    rows = np.stack([np.tril(even), np.tril(one) + 1e-9])
    rows /= rows.sum(-1, keepdims=True).clip(min=1e-12)
    scores = vertical_scores(rows, sentence)
    assert scores.shape == (2, 14 - APART)
    assert scores[1].argmax() == 2
    plain, receiver = kurtosis(scores, axis=1)
    assert receiver > plain + 3


def test_sets_that_stay_are_told_from_sets_that_change():
    always = np.zeros((6, 50), dtype=bool)
    always[:3] = True
    found = stability([always])
    assert (found.jaccard, found.shuffled, found.fixed, found.size) == (1, 1, 1, 3)
    turning = np.zeros((6, 60), dtype=bool)
    turning[np.arange(60) // 10, np.arange(60)] = True  # one head after the other, ten steps each
    found = stability([turning])
    assert found.jaccard == pytest.approx(54 / 59)
    assert found.shuffled < 0.4
    assert found.fixed == pytest.approx(1 / 6)
    none = stability([np.zeros((4, 10), dtype=bool)])
    assert none.size == 0
    assert np.isnan([none.jaccard, none.shuffled, none.fixed]).all()


def test_what_cannot_be_written_is_refused(opened):
    with pytest.raises(UnsupportedModel, match="writes no text"):
        generated_corpus(opened["encoder"], [TEXT], 80, 128, 10)
    with pytest.raises(BadInput, match="do not fit"):
        generated_corpus(opened["gqa"], [TEXT], 80, 64, 40)
    with pytest.raises(BadInput, match=f"no text of {PROMPT} tokens"):
        generated_corpus(opened["gqa"], ["short"], 80, 128, 10)
