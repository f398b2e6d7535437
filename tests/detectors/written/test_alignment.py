"""Detectors of alignment beside loops over the models' own eager cross-attention, and the translation toy's own error rate."""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch

from headatlas.detector import find_detector
from headatlas.detectors._measures.links import REACH, STEPS, beside_diagonal, found_links, settled
from headatlas.detectors.alignment_copy import _same
from headatlas.errors import UnfitTask
from headatlas.heads import HeadId
from headatlas.lab.planting import find_planting
from headatlas.lab.translation.checks import alignment_error
from headatlas.lab.translation.model import Translator
from headatlas.methods.measured_by.choice import metric_on
from headatlas.mining.attention_example import attention_examples
from headatlas.mining.own import lacking
from headatlas.mining.planning import misfit
from headatlas.mining.scan import scan, scan_task
from headatlas.model import attach
from headatlas.model.families.tiny_models import family
from headatlas.task import Batch, find_task
from headatlas.task.encoders import own_output_loss
from headatlas.tasks._sentences import RELATIONS
from headatlas.treebanks.language_pair import SOURCE, TARGET, UNKNOWN, WORDS, Language, Sentences, meaning
from tests import toys

TINY = ["t5", "bart", "marian"]


def linked(seed=0) -> Batch:
    """Random tokens of different lengths for both stacks, and random links between them."""
    draw = torch.Generator().manual_seed(seed)

    def side(length: int, least: int) -> Batch:
        lengths = torch.tensor([length, least, length - 1])
        mask = torch.arange(length) < lengths[:, None]
        return Batch(torch.randint(5, 60, (3, length), generator=draw) * mask, mask)

    read, written = side(9, 6), side(7, 5)
    word = torch.where(read.mask, torch.arange(9), -1)
    word[:, 0] = word[torch.arange(3), read.mask.sum(1) - 1] = -1  # a start and an end token
    target, source = torch.tensor([[1, 2, 6, 0], [1, 4, 3, -1], [5, 2, -1, 1]]), torch.tensor(
        [[1, 7, 3, 2], [4, 1, 2, 3], [2, 6, 3, -1]]
    )  # fmt: skip
    return dataclasses.replace(
        written,
        positions={"aligned": target},
        encoder=dataclasses.replace(read, positions={"aligned": source}, marks={"word": word}),
    )


def eager(hf, batch: Batch) -> list[torch.Tensor]:
    """The model's own cross-attention, [example, head, query, key] by layer."""
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        found = hf(
            input_ids=batch.encoder.tokens, attention_mask=batch.encoder.mask.long(), decoder_input_ids=batch.tokens,
            decoder_attention_mask=batch.mask.long(), output_attentions=True,
        )  # fmt: skip
    return list(found.cross_attentions)


def by_loops(pattern: torch.Tensor, batch: Batch, e: int, head: int) -> tuple[list[float], dict[int, float]]:
    """(share of links found by the step that writes, and that reads, a word; share at each offset) of one example."""
    hits, places, total = [0, 0], {}, 0
    text = [j for j, word in enumerate(batch.encoder.marks["word"][e].tolist()) if word >= 0]
    links = zip(batch.positions["aligned"][e].tolist(), batch.encoder.positions["aligned"][e].tolist(), strict=True)
    for i, j in links:
        if i < 1 or j < 0:
            continue
        total += 1
        places[j - i] = places.get(j - i, 0) + 1
        for step, query in enumerate((i - 1, i)):
            row = pattern[e, head, query]
            hits[step] += max(text, key=lambda key, row=row: float(row[key])) == j
    return [hit / total for hit in hits], {offset: n / total for offset, n in places.items()}


@pytest.mark.parametrize("kind", TINY)
def test_links_found_are_those_of_loops_over_the_models_own_attention(kind):
    hf = family(kind).build()
    model, batch = attach(hf), linked()
    target, source = batch.positions["aligned"], batch.encoder.positions["aligned"]
    seen = {}

    def watch(layer):
        if layer.stack == "cross":
            seen[layer.index] = found_links(layer, batch, target, source)

    model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    expected = eager(hf, batch)
    assert len(seen) == len(expected)
    for index, pattern in enumerate(expected):
        assert seen[index].shape == (3, pattern.shape[1], len(STEPS) + 2 * REACH + 1)
        for e in range(3):
            for head in range(pattern.shape[1]):
                steps, offsets = by_loops(pattern, batch, e, head)
                assert seen[index][e, head, :2].tolist() == pytest.approx(steps)
                found = seen[index][e, head, 2:]
                assert {int(i) - REACH: float(found[i]) for i in found.nonzero().flatten()} == pytest.approx(offsets)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("name", ["alignment", "alignment-copy"])
def test_scores_depend_on_neither_padding_nor_the_examples_beside(kind, name):
    model, detector = attach(family(kind).build()), find_detector(name)
    batch = detector.task(toys.vocabulary_for(detector).within(40), 6, seed=1)

    def fold(part: Batch) -> Batch:
        inner = fold(part.encoder) if part.encoder is not None else None
        kept = {key: value % 50 + 5 for key, value in part.labels.items()} if "kept" in part.labels else {}
        return dataclasses.replace(part, tokens=part.tokens % 50 + 5, control=None, encoder=inner, labels=kept)

    batch = fold(batch)
    whole = scan(model, [detector], batch, size=6).scores[name]
    cross = [i for i, head in enumerate(whole.heads) if head.stack == "cross"]
    assert not np.isnan(whole.values[1::2][:, cross]).all()
    assert np.isnan(np.delete(whole.values, cross, axis=1)).all(), "asked of nothing but cross-attention"
    for other in (scan(model, [detector], batch, size=1), scan(model, [detector], batch.padded(right=3), size=4)):
        np.testing.assert_allclose(other.scores[name].values, whole.values, atol=1e-6)
        np.testing.assert_allclose(other.scores[name].control, whole.control, atol=1e-6)


@functools.cache
def toy():
    """The translator as it is before training, and the model that its folder opens as."""
    torch.manual_seed(0)
    made = Translator().eval()
    return made, attach(copy.deepcopy(made.marian), tokenizer=toys.translation_vocabulary())


def test_the_score_is_one_less_the_toys_own_alignment_error_rate():
    made, model = toy()
    batch = find_task("translation")(model.tokenizer, 24, seed=5)
    given = Sentences.of(Language(np.random.default_rng(5)).pairs(24))
    with torch.no_grad():
        made(given)
    pattern = made.cross_attention.pattern[:, 0].clone()
    found = {}

    def watch(layer):
        if layer.stack == "cross":
            found["share"] = find_detector("alignment").score(layer, batch)[:, 0, 0]

    model.forward(batch, watch=watch)
    for e, one in enumerate(given.pairs):
        alone = dataclasses.replace(given, pairs=[one])
        assert found["share"][e].item() == pytest.approx(1 - alignment_error(pattern[e : e + 1], alone)[0])
    assert 0 < found["share"].mean() < 0.9


def test_the_toys_task_is_its_language_word_for_word():
    words = toys.translation_vocabulary()
    batch, pairs = find_task("translation")(words, 12, seed=3), Language(np.random.default_rng(3)).pairs(12)
    for e, one in enumerate(pairs):
        hidden = [[word if word < TARGET else UNKNOWN for word in side] for side in (one.source, one.target)]
        assert batch.encoder.tokens[e][batch.encoder.mask[e]].tolist() == [*hidden[0], words.start_end.back[0]]
        assert batch.tokens[e][batch.mask[e]].tolist() == [words.start_end.decoder_start, *hidden[1]]
        places = zip(
            batch.positions["aligned"][e].tolist(), batch.encoder.positions["aligned"][e].tolist(), strict=True
        )
        assert [(i - 1, j) for i, j in places if i >= 0] == list(one.links)
        asked = [batch.tokens[e, at + 1].item() for at in batch.positions["predict"][e].tolist() if at >= 0]
        assert asked == [word for word in one.target if word < TARGET], "names are not asked for"
        for i, j in one.links:
            if one.target[i] < TARGET:
                assert meaning(one.target[i]) == meaning(one.source[j])
        heads = [(i, head) for i, head in enumerate(batch.encoder.labels["heads"][e].tolist()) if head >= 0]
        assert heads == [one.subject[::-1]], "the subject depends on the verb"
        assert RELATIONS[batch.encoder.labels["relation"][e, one.subject[1]]] == "nsubj"
    assert len(set(WORDS)) == TARGET
    assert [words.single(f" {word}") for word in WORDS[SOURCE:]] == list(range(SOURCE, TARGET))
    control = batch.control.encoder.tokens
    assert torch.equal(control.sort(1).values, batch.encoder.tokens.sort(1).values)
    assert not torch.equal(control, batch.encoder.tokens)


def test_subjects_found_are_those_of_loops_over_the_encoders_own_attention():
    _, model = toy()
    batch, pairs = find_task("translation")(model.tokenizer, 12, seed=3), Language(np.random.default_rng(3)).pairs(12)
    model.hf.set_attn_implementation("eager")
    read = batch.encoder
    with torch.no_grad():
        patterns = model.hf.model.encoder(
            read.tokens, attention_mask=read.mask.long(), output_attentions=True
        ).attentions
    seen = {}

    def watch(layer):
        if layer.stack != "cross":
            seen[layer.stack, layer.index] = find_detector("dependency").score(layer, batch.side(layer.stack))

    model.forward(batch, watch=watch)
    places = [RELATIONS.index("nsubj") * 2 + way for way in (0, 1)]
    for index, pattern in enumerate(patterns):
        for e, one in enumerate(pairs):
            verb, subject = one.subject
            words = range(len(one.source))
            for head in range(4):
                map_ = pattern[e, head]
                to = max((i for i in words if i != subject), key=lambda i, m=map_, s=subject: float(m[s, i]))
                back = max((i for i in words if i != subject), key=lambda i, m=map_, s=subject: float(m[i, s]))
                assert seen["encoder", index][e, head, places].tolist() == [float(to == verb), float(back == verb)]
    assert bool(seen["decoder", 0].isnan().all()), "of the translation no syntax is known"


def test_reordered_texts_hold_the_same_sentences_and_links_of_equal_tokens():
    words = toys.two_stack_vocabulary()
    batch = find_task("reordered")(words, 8, seed=2)
    for e in range(8):
        read, written = (
            words.decode(side.tokens[e][side.mask[e]].tolist()[1:-1] if side is batch.encoder else
                         side.tokens[e][side.mask[e]].tolist()[2:]).split(".")[:-1]
            for side in (batch.encoder, batch)
        )  # fmt: skip
        assert sorted(map(str.strip, read)) == sorted(map(str.strip, written))
        assert list(map(str.strip, read)) != list(map(str.strip, written))
    target, source = _same(batch)
    there = (target >= 0) & (source >= 0)
    assert bool((there.sum(1) >= 6).all())
    one, other = batch.tokens.gather(1, target.clamp(min=0)), batch.encoder.tokens.gather(1, source.clamp(min=0))
    assert torch.equal(one[there], other[there])
    for e, ids in enumerate(one):
        for token in ids[there[e]].tolist():
            assert (batch.tokens[e] == token).sum() == (batch.encoder.tokens[e] == token).sum() == 1


def test_a_translator_is_asked_on_what_it_writes_by_itself():
    made = find_planting("alignment-copy").make(3)
    model, detector = made.model, find_detector("alignment-copy")
    batch = detector.task(model.tokenizer, 6, seed=0)
    assert metric_on(model, detector.task) is own_output_loss
    found = scan_task(model, detector.task, [detector], batch).detectors[0]
    read = batch.encoder
    with torch.no_grad():
        written = model.hf.generate(
            input_ids=read.tokens, attention_mask=read.mask.long(), do_sample=False, num_beams=1, max_new_tokens=24
        )
    read_back = Batch(written, torch.ones_like(written, dtype=torch.bool), encoder=read)
    pattern = eager(model.hf, read_back)[0]
    told = {}
    for head in range(4):
        column = model.heads.index(HeadId(0, head, "cross"))
        shares = np.zeros((6, 2))
        for e in range(6):
            row, source = written[e].tolist(), read.tokens[e].tolist()
            links = [
                (row.index(token), source.index(token))
                for token in batch.labels["kept"][e].tolist()
                if token >= 0 and row[:-1].count(token) == 1 == source.count(token) and row.index(token) > 0
            ]
            for which, back in enumerate((1, 0)):
                hits = [int(pattern[e, head, i - back, 1:].argmax()) + 1 == j for i, j in links]
                shares[e, which] = np.mean(hits)
        scored = found.values[1::2, column]
        assert any(np.allclose(scored, shares[1::2, which], atol=1e-6) for which in (0, 1))
        if (words := found.told.get(model.heads[column], "")) != "":
            told[column] = words.partition(" 100%")[0]
            np.testing.assert_allclose(scored, shares[1::2, STEPS.index(told[column])], atol=1e-6)
    assert {model.heads[column] for column in told} == made.positives
    assert sorted(told.values()) == ["as input", "as output"]


def test_chance_is_the_best_offset_of_the_examples_that_are_scored():
    draw = torch.Generator().manual_seed(0)
    found = torch.rand(10, 3, len(STEPS) + 2 * REACH + 1, generator=draw)
    found[..., 2:] = found[:, :1, 2:]  # offsets know no head
    best = int(found[1::2, 0, 2:].mean(0).argmax())
    expected = found[1::2, 0, 2 + best]
    values = settled(found)
    for head in range(3):
        torch.testing.assert_close(values.control[1::2, head], expected)
    assert bool(values.values[::2].isnan().all()), "half chooses, half is scored"
    assert beside_diagonal(found, found).shape == (10, 3, 4)


def test_only_models_with_cross_attention_are_asked():
    for name in ("alignment", "alignment-copy"):
        detector = find_detector(name)
        assert "decoder to an encoder" in misfit(detector, toys.model("gqa"))
        assert "decoder to an encoder" in misfit(detector, toys.model("encoder"))
        assert misfit(detector, toy()[1]) == ""
        with pytest.raises(UnfitTask, match="made for"):
            detector.task(toys.smollm2_vocabulary(), 4, 0)
    gold = find_detector("alignment")
    bare = Batch(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool))
    assert "encoder reads" in lacking(gold, bare)
    assert lacking(gold, linked()) == ""
    assert "aligned" in lacking(gold, dataclasses.replace(linked(), positions={}))


def test_a_tokenizer_that_tells_no_names_apart_is_refused():
    with pytest.raises(UnfitTask, match="tell apart"):
        find_task("reordered")(toys.translation_vocabulary(), 4, 0)


def test_the_example_of_a_head_between_stacks_shows_both_texts_as_one():
    made = find_planting("alignment-copy").make(3)
    model, detector = made.model, find_detector("alignment-copy")
    batch = dataclasses.replace(detector.task(model.tokenizer, 3, seed=0), control=None)
    (head,) = [one for one in made.positives if one.head == sorted(made.positives)[0].head]
    shown = attention_examples(model, {"alignment-copy": [head]}, batch)["alignment-copy"]
    read, written = batch.encoder.mask[0].sum().item(), batch.mask[0].sum().item()
    assert list(shown.tokens) == [
        *model.tokenizer.pieces(batch.encoder.tokens[0, :read].tolist()),
        *model.tokenizer.pieces(batch.tokens[0, :written].tolist()),
    ]
    pattern = eager(model.hf, batch)[0][0, head.head]
    for query, key, weight in shown.heads[head]:
        assert read <= query < read + written
        assert key < read
        assert weight == pytest.approx(pattern[query - read, key].item(), abs=6e-4)
    assert len(shown.heads[head]) >= written / 2
