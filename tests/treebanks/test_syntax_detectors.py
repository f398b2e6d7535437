"""The detectors of syntax beside loops over words, and the gold of their tasks beside the words that tokens spell."""

import functools
import itertools

import numpy as np
import pytest
import torch

from headatlas.detectors._measures.gold_syntax import best_elsewhere, passing
from headatlas.detectors.block import block
from headatlas.detectors.coreference import coreference
from headatlas.detectors.dependency import NAMES, dependency
from headatlas.detectors.interrogation import interrogation
from headatlas.detectors.spanning_tree import spanning_tree
from headatlas.model import attach
from headatlas.model.synthetic_view import SyntheticLayer
from headatlas.tasks._sentences import RELATIONS
from headatlas.tasks.questions import questions
from headatlas.tasks.syntax import syntax
from headatlas.treebanks import _lexicon as lexicon
from headatlas.treebanks.trees import arborescences
from tests import toys


@functools.cache
def batch():
    return syntax(toys.smollm2_vocabulary(), 4, seed=2)


def random_layer(causal: bool, seed: int = 0) -> SyntheticLayer:
    tokens = batch().tokens
    scores = torch.randn(
        len(tokens), 2, tokens.shape[1], tokens.shape[1], generator=torch.Generator().manual_seed(seed)
    )
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    return SyntheticLayer((3 * scores).softmax(-1), valid=batch().mask, causal=causal, tokens=tokens)


def spelled(e: int) -> list[str]:
    """The words of an example as its tokens spell them."""
    word = batch().marks["word"][e].tolist()
    ids = batch().tokens[e].tolist()
    return [
        toys.smollm2_vocabulary().decode([one for one, at in zip(ids, word, strict=True) if at == i])
        for i in range(max(word) + 1)
    ]


def words_of(layer: SyntheticLayer, e: int, head: int) -> list[list[float]]:
    """Attention between words by loops: sums over pieces of the key, the last piece's row, or the mean over them."""
    word = batch().marks["word"][e].tolist()
    n = max(word) + 1
    rows = {i: [q for q, at in enumerate(word) if at == i] for i in range(n)}
    found = [[0.0] * n for _ in range(n)]
    for i, j in itertools.product(range(n), repeat=2):
        if batch().labels["sentence"][e, i] != batch().labels["sentence"][e, j]:
            continue
        queries = rows[i][-1:] if layer.causal else rows[i]
        found[i][j] = sum(float(layer.pattern[e, head, q, k]) for q in queries for k in rows[j]) / len(queries)
    return found


def test_gold_labels_stand_at_the_words_that_they_are_of():
    for e in range(4):
        words, labels = spelled(e), batch().labels
        texts = "".join(words)
        assert (
            texts.startswith(("The", "Some", "This", "Every", "These", *lexicon.WOMEN, *lexicon.MEN))
            or texts[0].isupper()
        )
        for i, text in enumerate(words):
            relation, head = int(labels["relation"][e, i]), int(labels["heads"][e, i])
            if relation >= 0 and RELATIONS[relation] == "det":
                assert text.strip().lower() in ("the", "these", "some", "this", "every")
                assert i < head
            if text.strip() in (".", ","):
                assert labels["spoken"][e, i] == 0
        known = labels["anaphor"][e] >= 0
        for pronoun, right, wrong in zip(
            *(labels[name][e, known].tolist() for name in ("anaphor", "antecedent", "rival")), strict=True
        ):
            women = words[pronoun].strip() == "she"
            assert (words[right].strip() in lexicon.WOMEN) == women
            assert (words[wrong].strip() in lexicon.WOMEN) != women


@pytest.mark.parametrize("causal", [True, False])
def test_dependencies_and_pronouns_against_loops(causal):
    layer = random_layer(causal)
    found, named = dependency.score(layer, batch()), coreference.score(layer, batch())
    offsets = batch().facts["offsets"]["causal" if causal else "bidirectional"]
    labels = batch().labels
    for e, head in itertools.product(range(2), range(2)):
        maps = words_of(layer, e, head)
        n = len(maps)
        hits, chance, count = np.zeros((17, 2)), np.zeros((17, 2)), np.zeros(17)
        for i in range(n):
            relation, goal = int(labels["relation"][e, i]), int(labels["heads"][e, i])
            if relation < 0 or goal < 0:
                continue
            others = [j for j in range(n) if j != i]
            to = max(others, key=lambda j, i=i: maps[i][j])
            back = max(others, key=lambda j, i=i: maps[j][i])
            hits[relation] += [to == goal and maps[i][to] > 0, back == goal and maps[back][i] > 0]
            chance[relation] += [goal - i == offset for offset in offsets[relation]]
            count[relation] += 1
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.concatenate([(hits / count[:, None]).ravel(), (chance / count[:, None]).ravel()])
        np.testing.assert_allclose(found[e, head].numpy(), expected, rtol=1e-5)
        places = [labels[name][e].tolist() for name in ("anaphor", "antecedent", "rival")]
        right = [maps[p][a] > maps[p][r] for p, a, r in zip(*places, strict=True) if p >= 0]
        assert named[e, head].item() == pytest.approx(np.mean(right))


def test_trees_against_the_library_sentence_by_sentence():
    layer = random_layer(False, 1)
    found = spanning_tree.score(layer, batch())
    maps, labels = np.array(words_of(layer, 0, 1)), batch().labels
    hits = total = 0
    for number in range(4):
        words = [i for i, one in enumerate(labels["sentence"][0].tolist()) if one == number]
        heads = {i: int(labels["heads"][0, i]) for i in words}
        root = next(i for i in words if heads[i] < 0)
        parents = arborescences(maps[np.ix_(words, words)].T, root - words[0])
        tree = {frozenset((words[i], words[p])) for i, p in enumerate(parents) if p >= 0}
        gold = {frozenset((i, heads[i])) for i in words if heads[i] >= 0 and labels["spoken"][0, i] == 1}
        hits += len(tree & gold)
        total += len(gold)
    assert found[0, 1, 1].item() == pytest.approx(hits / total)


def test_blocks_against_loops():
    layer = random_layer(True, 2)
    of, found = batch().marks["sentence"][1].tolist(), []
    for q, number in enumerate(of):
        own = [k for k in range(q + 1) if number >= 0 and of[k] == number]
        if len(own) >= 4:
            weights = layer.pattern[1, 0, q, own].double()
            share = weights / weights.sum()
            found.append(float(weights.sum() * -(share * share.log()).sum() / np.log(len(own))))
    assert block.score(layer, batch())[1, 0].item() == pytest.approx(np.mean(found), rel=1e-4)


def test_the_marks_of_questions_and_statements_are_where_they_are_said_to_be():
    words = toys.smollm2_vocabulary()
    made = questions(words, 3, seed=1)
    for name, mark in (("question", "?"), ("statement", ".")):
        keys = made.positions[f"{name}_key"]
        for e in range(3):
            told = keys[e][keys[e] >= 0]
            assert len(told) > 5
            assert {words.decode([int(made.tokens[e, k])]).strip() for k in told} == {mark}
    pattern = torch.zeros(3, 1, 128, 128)
    pattern[..., 0] = 0.5
    for e in range(3):
        for q, k in zip(made.positions["question_query"][e], made.positions["question_key"][e], strict=True):
            if q >= 0:
                pattern[e, 0, q, k] += 0.5
    layer = SyntheticLayer(pattern, valid=made.mask, causal=False, tokens=made.tokens)
    assert interrogation.score(layer, made)[:, 0].tolist() == pytest.approx([0.5] * 3)
    assert interrogation.control(layer, made)[:, 0].tolist() == pytest.approx([0.0] * 3)


def test_a_choice_is_made_on_other_examples_than_are_scored():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(200, 50, 30, generator=generator)
    found = torch.cat([noise, torch.full_like(noise, 0.5)], -1)
    chosen = best_elsewhere(found)
    assert bool(chosen.values[::2].isnan().all())
    excess = (chosen.values - chosen.control)[1::2].mean(0)
    assert abs(excess.mean().item()) < 0.01, "the best of thirty by luck is no better on the other half"
    real = found.clone()
    real[..., 7] += 0.3
    assert (best_elsewhere(real).values - 0.5).nanmean().item() == pytest.approx(0.3, abs=0.02)


def test_a_choice_that_few_examples_have_is_not_taken():
    found = torch.full((20, 1, 4), 0.5)
    found[:, 0, 0] = torch.nan
    found[2, 0, 0] = 1.0
    found[:, 0, 1] = 0.7
    chosen = best_elsewhere(found)
    assert chosen.values[1::2, 0].tolist() == pytest.approx([0.7] * 10)


def test_what_is_told_of_a_head_is_what_it_does_beyond_doubt():
    generator = torch.Generator().manual_seed(0)
    found = torch.cat([torch.rand(40, 3, 2, generator=generator), torch.full((40, 3, 2), 0.5)], -1)
    found[:, 1, 1] = 0.4 * found[:, 1, 1] + 0.6
    assert passing(found.double(), ["obj to head", "obj from head"])[::2] == ["", ""]
    assert passing(found.double(), ["obj to head", "obj from head"])[1].startswith("obj from head 8")
    assert len(NAMES) == 2 * len(RELATIONS)


def test_words_stand_in_the_line_of_a_head_and_in_the_kept_scan(tmp_path):
    from headatlas.detector import find_detector
    from headatlas.mining.scan import scan_task
    from headatlas.mining.task_scan import TaskScan, detector_json
    from headatlas.report.head_line import line_of

    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    found = scan_task(model, syntax, [find_detector("dependency")], syntax(model.tokenizer, 4, 0))
    from dataclasses import replace

    head = model.heads[0]
    made = replace(found.detectors[0], observed=(head,), told={head: "obj to head 78% (39%)"})
    found = replace(found, detectors=(made,))
    found.save(tmp_path)
    kept = TaskScan.load(tmp_path, "syntax")
    assert kept.detectors[0].told == made.told
    entry = detector_json(kept, kept.detectors[0])
    assert "obj to head 78% (39%)" in line_of(entry, entry["heads"][0])
