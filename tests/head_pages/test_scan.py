"""The scan counts exactly what loops over the model's own attentions count, and goes on where it was interrupted."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model import attach
from headatlas.pages import scan as scanning
from headatlas.pages.corpus import Corpus, read_corpus
from headatlas.pages.kinds import ELSEWHERE, OFFSETS, PAIRS, columns, relations_of
from headatlas.pages.scan import Settings, batches, mean_z, sampled, scan
from headatlas.pages.structure import CLASSES
from tests.head_pages import twin
from tests.head_pages.conftest import KINDS, OTHER, TEXT

SETTINGS = Settings(every=5, seed=3, sample=64)


def corpus_for(model, length=64) -> Corpus:
    return read_corpus(model.tokenizer, [TEXT, OTHER], length=length)


def last(model, corpus, settings=SETTINGS, **more):
    *_, found = scan(model, corpus, settings, **more)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_counts_equal_those_of_loops_over_the_model_s_own_attentions(kind, opened, eager):
    model = opened[kind]
    corpus = corpus_for(model)
    found = last(model, corpus)
    window = {0: 24} if kind == "window" else None
    n, total = twin.counted(eager[kind], corpus, SETTINGS, causal=kind != "encoder", window=window)
    heads, at = len(model.heads), columns()
    assert found.n[0] == n > 40

    def same(values, name):
        np.testing.assert_allclose(values, twin.as_array(total, name, heads), atol=2e-4, err_msg=name)

    for name in ("rest", "start", "entropy", "uniform"):
        same(getattr(found, name), name)
    for i, name in enumerate((*PAIRS, *ELSEWHERE)):
        same(found.mass[:, at["partition"]][:, 1 + i], f"partition {name}")
    for i, name in enumerate(PAIRS):
        same(found.mass[:, at["pairs"]][:, i], f"pairs {name}")
        same(found.chance[:, at["pairs"]][:, i], f"chance {name}")
        for column, what in enumerate(("met", "hit", "rests")):
            same(found.met[:, i, column], f"{what} {name}")
        same(found.met[:, i, 3], f"pairs {name}")
    same(found.mass[:, at["known"]][:, 0], "known")
    for i, name in enumerate(OFFSETS):
        same(found.mass[:, at["offsets"]][:, i], f"offset {name}")
    for i, name in enumerate(CLASSES):
        same(found.mass[:, at["classes"]][:, i], f"class {name}")


def test_every_kind_occurs_in_the_corpus_that_the_twin_is_compared_on(opened):
    found = last(opened["gqa"], read_corpus(opened["gqa"].tokenizer, [TEXT]), Settings(every=1))
    able = dict(zip(PAIRS, found.met[0, :, 0], strict=True))
    assert {name for name, times in able.items() if times == 0} == {"next"}  # which only encoders can see


@pytest.mark.parametrize("kind", KINDS)
def test_strongest_and_random_events_are_those_of_the_whole_corpus(kind, opened, eager):
    model = opened[kind]
    corpus = corpus_for(model)
    found = last(model, corpus)
    strengths: dict[tuple[int, int], np.ndarray] = {}
    for number, numbers in enumerate(batches(corpus)):
        batch = corpus.batch(numbers)
        queries = sampled(batch.tokens.shape[1], number, SETTINGS)
        seen = []

        kind_of = corpus.column(numbers, "kind", batch.tokens.shape[1])
        of_text = kind_of >= 0
        free = of_text & (torch.arange(kind_of.shape[1]) != 0)

        def watch(layer, seen=seen, free=free, of_text=of_text):
            lengths = (layer.repeat(layer.v) @ layer.W_O).norm(dim=-1)  # [window, head, key]
            usual = lengths.masked_fill(~of_text[:, None], torch.nan).nanmedian(-1, keepdim=True).values
            resting = ~free[:, None] | (lengths < 0.25 * usual)
            rest = (layer.pattern * resting[:, :, None]).sum(-1)
            seen.append(((1 - rest).clamp(min=0) * layer.writes().norm(dim=-1).transpose(1, 2)).numpy())

        model.forward(batch, watch=watch)
        values = np.concatenate(seen, 1)  # [window, head, position]
        for row, window in enumerate(numbers):
            for q in queries.tolist():
                if free[row, q]:
                    strengths[window, q] = values[row, :, q]
    assert len(strengths) == found.n[0]
    for head in range(len(model.heads)):
        best = sorted(strengths, key=lambda event: -strengths[event][head])[: found.top.shape[1]]
        np.testing.assert_allclose(found.top[head], [strengths[event][head] for event in best], rtol=1e-4)
        assert {tuple(event) for event in found.top_event[head].tolist()} == set(best)
    events = [tuple(event) for event in found.pool_event.tolist()]
    assert len(set(events)) == 64
    assert set(events) <= set(strengths)
    own = (1 - found.pool_rest) * found.pool_write
    np.testing.assert_allclose(own.T, [strengths[event] for event in events], rtol=1e-3, atol=1e-5)


def test_an_interrupted_scan_goes_on_to_the_same_counts(opened):
    model = opened["gqa"]
    corpus = corpus_for(model, 40)
    whole = last(model, corpus)
    corpus_batches = len(list(batches(corpus, 80)))
    assert corpus_batches > 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanning, "batches", lambda corpus: batches(corpus, 80))
        one = last(model, corpus)
        part = next(iter(scan(model, corpus, SETTINGS)))
        again = last(model, corpus, counts=copy.deepcopy(part))
    assert again.batches == one.batches == corpus_batches > whole.batches
    for name, values in one.arrays.items():
        assert torch.equal(values, again.arrays[name]), name


def test_what_is_kept_of_a_scan_does_not_grow_with_the_corpus(opened):
    model = opened["gqa"]
    short, long = (read_corpus(model.tokenizer, [TEXT, OTHER] * times, length=64) for times in (3, 12))
    sizes = [{name: x.nbytes for name, x in last(model, one).arrays.items()} for one in (short, long)]
    assert long.n_tokens == 4 * short.n_tokens
    assert sizes[0] == sizes[1]


def test_columns_that_stand_once_in_the_products_come_back_to_their_places(opened):
    """Every column of `columns()` is that of its own rule, pair by pair, for weights that tell the keys apart."""
    model = opened["gqa"]
    corpus = corpus_for(model)
    windows = range(len(corpus.windows))
    tokens = corpus.batch(windows).tokens
    queries = torch.arange(1, tokens.shape[1], 3)
    what = relations_of(corpus, windows, tokens, queries)
    weights = torch.randn(len(what.kinds), 2, tokens.shape[1], dtype=torch.float64)
    found = replace(what, kinds=what.kinds.double(), places=what.places.double()).sums(weights)
    at, back = columns(), queries[:, None] - torch.arange(tokens.shape[1])
    active = ~what.resting[:, None].expand(-1, len(queries), -1)
    distances = [back < 0, back == 0, back == 1, back == 2, (back == 3) | (back == 4)]
    flat = weights.unflatten(0, (len(windows), len(queries)))
    for i, one in enumerate(distances):
        expected = (flat * (active & one)[:, :, None]).sum(-1).flatten(0, 1)
        torch.testing.assert_close(found[..., at["offsets"]][..., i], expected)
    pairs, part = found[..., at["pairs"]], found[..., at["partition"]]
    for name, one in {"self": back == 0, "previous": back == 1, "next": back == -1}.items():
        expected = (flat * (active & one)[:, :, None]).sum(-1).flatten(0, 1)
        torch.testing.assert_close(pairs[..., list(PAIRS).index(name)], expected)
        torch.testing.assert_close(part[..., 1 + list(PAIRS).index(name)], expected)
    torch.testing.assert_close(found[..., at["known"]][..., 0], part[..., 1 : 1 + len(PAIRS)].sum(-1))
    torch.testing.assert_close(part.sum(-1), weights.sum(-1))  # each pair counts once
    everything = part[..., 1:].sum(-1)
    for group in ("offsets", "classes"):
        torch.testing.assert_close(found[..., at[group]].sum(-1), everything)
    torch.testing.assert_close(
        what.chance(weights.float()), found[..., : at["known"].stop].float(), atol=1e-4, rtol=1e-4
    )


def test_the_mean_output_of_heads_is_that_of_the_sampled_tokens(opened):
    model = opened["gqa"]
    corpus = corpus_for(model)
    settings = Settings(every=1)
    found = mean_z(model, last(model, corpus, settings))
    batch = corpus.batch(range(len(corpus.windows)))
    kept = (corpus.column(range(len(corpus.windows)), "kind", batch.tokens.shape[1]) >= 0) & (
        torch.arange(batch.tokens.shape[1]) > 0
    )
    seen = {}
    model.forward(batch, watch=lambda layer: seen.update({(layer.stack, layer.index): layer.z[kept].mean(0)}))
    for key, value in found.items():
        torch.testing.assert_close(value, seen[key], atol=1e-5, rtol=1e-4)


def test_what_cannot_be_read_is_told(opened, tmp_path):
    tokenizer = opened["gqa"].tokenizer
    with pytest.raises(BadInput, match="no file or folder"):
        read_corpus(tokenizer, "./nowhere.txt")
    with pytest.raises(BadInput, match="Windows of 1000 tokens"):
        read_corpus(tokenizer, [TEXT], length=1000)
    with pytest.raises(BadInput, match="no text of 16 tokens"):
        read_corpus(tokenizer, ["short"])
    (tmp_path / "rows.jsonl").write_text('{"text": 3}')
    with pytest.raises(BadInput, match=r"rows\.jsonl"):
        read_corpus(tokenizer, tmp_path / "rows.jsonl")
    import transformers as T

    torch.manual_seed(0)
    both = attach(
        T.T5ForConditionalGeneration(
            T.T5Config(vocab_size=160, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        ).eval()
    )
    with pytest.raises(UnsupportedModel, match="stacks of attention"):
        next(scan(both, corpus_for(opened["gqa"]), SETTINGS))


def test_a_folder_is_read_by_name_and_a_table_by_its_column(opened, tmp_path):
    (tmp_path / "b.txt").write_text(OTHER)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": OTHER}))
    found = read_corpus(opened["gqa"].tokenizer, tmp_path)
    assert [text.name for text in found.texts] == ["a.jsonl, row 1", "b.txt"]
    assert found.texts[0].text == found.texts[1].text.strip()
    assert found.texts[0].ids.tolist() == found.texts[1].ids[: len(found.texts[0].ids)].tolist()
