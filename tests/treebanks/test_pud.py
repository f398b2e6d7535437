"""MiniLM on English PUD, against a run of its own made with other code, on one sentence at a time.

The treebank (CC BY-SA 3.0) is not part of the repository: set HEADATLAS_PUD to its file en_pud-ud-test.conllu.
"""

import os
from dataclasses import replace

import numpy as np
import pytest

import headatlas as ha
from headatlas.treebanks.surface import OFFSETS
from headatlas.treebanks.words import batches

PUD = os.environ.get("HEADATLAS_PUD")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PUD, reason="HEADATLAS_PUD names no file, so PUD is not read.")]

# relation: edges; % and head of "to head", "from head"; the best offset; % and head of "either"
EXPECTED = {
    "nsubj": (1393, 50.7, "2.8", 39.6, "2.11", 39.4, 1, 52.8, "2.8"),
    "obj": (877, 78.0, "2.0", 39.0, "1.7", 39.1, -2, 79.0, "2.0"),
    "det": (2052, 80.1, "2.8", 64.2, "4.7", 56.6, 1, 80.1, "2.8"),
    "amod": (1358, 83.3, "2.8", 78.4, "0.2", 78.4, 1, 84.2, "2.1"),
    "advmod": (847, 57.7, "2.1", 49.2, "0.2", 49.2, 1, 62.5, "2.1"),
    "aux": (410, 75.1, "2.8", 57.8, "2.11", 55.4, 1, 75.1, "2.8"),
    "nmod": (1234, 26.7, "2.1", 27.5, "2.2", 31.9, -2, 54.1, "1.7"),
    "compound": (773, 84.2, "4.9", 82.1, "0.2", 82.1, 1, 85.1, "1.9"),
    "mark": (560, 55.2, "1.4", 54.1, "2.11", 53.8, 1, 57.1, "0.5"),
    "xcomp": (271, 64.9, "1.6", 38.7, "3.1", 46.9, -2, 65.7, "1.6"),
    "ccomp": (178, 29.2, "3.2", 16.3, "5.10", 10.7, -3, 33.1, "5.10"),
    "nummod": (195, 82.1, "1.7", 73.8, "4.7", 70.3, 1, 89.2, "1.7"),
    "compound:prt": (70, 97.1, "0.5", 92.9, "1.8", 91.4, -1, 97.1, "0.5"),
    "all": (17732, 45.9, "2.8", 39.9, "4.7", 35.2, 1, 54.3, "2.8"),
}
MERGED = {"nmod:unmarked": "nmod", "nmod:desc": "nmod"}  # the other run counted these as nmod


@pytest.fixture(scope="module")
def sentences():
    return [
        replace(one, relations=tuple(MERGED.get(label, label) for label in one.relations))
        for one in ha.read_treebank(PUD)
    ]


@pytest.fixture(scope="module")
def model():
    return ha.load("minilm-l6")


@pytest.fixture(scope="module")
def found(model, sentences):
    return ha.syntax(model, sentences)


@pytest.mark.parametrize("relation", EXPECTED)
def test_best_heads(found, relation):
    n, to, to_head, back, back_head, chance, offset, either, either_head = EXPECTED[relation]
    result = found.dependencies
    column = result.relations.index(relation)
    assert result.n[column] == n
    for way, rate, head in (("to head", to, to_head), ("from head", back, back_head), ("either", either, either_head)):
        best, value = result.best(relation, way)
        assert 100 * value == pytest.approx(rate, abs=0.5)
        named = result.heads.index(ha.HeadId.parse(f"encoder:{head}"))
        here = 100 * result.rate[named, column, ("to head", "from head", "either").index(way)]
        assert best == result.heads[named] or here == pytest.approx(100 * value, abs=0.5)
    if relation != "ccomp":  # there an offset beyond the other run's three places is better
        assert result.offset[column, 0] == offset
        assert 100 * result.offset_rate[column, 0] == pytest.approx(chance, abs=0.5)


def test_relations_that_pass_voita(found):
    passed = {relation for _, relation, direction, _ in found.dependencies.passing(level=1.0) if direction == "to head"}
    assert {"nsubj", "obj", "det", "case", "aux", "aux:pass", "nmod:poss", "cop", "xcomp", "ccomp", "nummod", "nsubj:pass", "cc"} <= passed  # fmt: skip
    assert not passed & {"nmod", "amod", "compound", "mark"}


def test_roles_and_surface(found):
    local, delimiter = (found.sieve.roles.index(role) for role in ("local", "delimiter"))
    for threshold, near, ends in ((1, 62, 72), (2, 14, 67), (3, 3, 59)):
        p = found.sieve.p(threshold)
        assert abs(int((p[:, local] < 0.05).sum()) - near) <= 1
        assert abs(int((p[:, delimiter] < 0.05).sum()) - ends) <= 1
    ((head, offset, share),) = found.surface.positional()
    assert (str(head), offset) == ("encoder:0.2", -1)
    assert share > 0.999
    order = [str(found.surface.heads[i]) for i in np.argsort(-found.surface.pieces)[:4]]
    assert order == ["encoder:0.2", "encoder:1.8", "encoder:4.9", "encoder:1.9"]


def test_trees(model, sentences):
    trees = ha.syntax(model, sentences[:200], measures=["trees"], options=ha.SyntaxOptions(punctuation=True)).trees
    assert trees.n == 4084
    assert trees.chain == pytest.approx(0.385, abs=0.001)
    for way, head, value, layers in (
        (0, "4.7", 0.445, [0.38, 0.37, 0.38, 0.41, 0.44, 0.19]),
        (1, "2.8", 0.486, [0.35, 0.45, 0.49, 0.39, 0.40, 0.21]),
    ):
        assert str(trees.heads[int(trees.uuas[:, way].argmax())]) == f"encoder:{head}"
        assert trees.uuas[:, way].max() == pytest.approx(value, abs=0.002)
        assert np.allclose(trees.uuas[:, way].reshape(6, 12).max(1), layers, atol=0.008)


def test_likeness(model, sentences):
    apart = ha.syntax(model, sentences[:100], measures=["likeness"]).likeness.divergence
    layer = np.arange(72) // 12
    pairs = np.triu(np.ones((72, 72), dtype=bool), 1)
    assert apart[pairs].mean() == pytest.approx(0.231, abs=0.002)
    assert apart[pairs & (layer[:, None] == layer)].mean() == pytest.approx(0.194, abs=0.002)
    assert apart[pairs & (layer[:, None] != layer)].mean() == pytest.approx(0.238, abs=0.002)


def test_surface_beside_the_reference(found):
    surface = found.surface
    at = {str(head): i for i, head in enumerate(surface.heads)}
    for head, mass in (("0.2", 0.60), ("1.8", 0.48), ("4.9", 0.44), ("1.9", 0.37), ("2.11", 0.35)):
        assert surface.pieces[at[f"encoder:{head}"]] == pytest.approx(mass, abs=0.006)
    assert surface.entropy[at["encoder:0.2"]] < 0.01
    assert 100 * surface.at[at["encoder:1.8"], OFFSETS.index(1)] == pytest.approx(80.8, abs=0.5)
    assert surface.end.max() <= 0.105
    assert {str(surface.heads[i]) for i in np.argsort(-surface.end)[:3]} == {"encoder:3.11", "encoder:0.8", "encoder:0.5"}  # fmt: skip


def test_what_the_reference_averages_by_sentence(model, sentences):
    """[CLS] mass over all queries, special ones too, and ln T: the mean of each sentence, then over sentences."""
    parts, left_out = batches(model.tokenizer, sentences)
    start, confidence, lengths, split = np.zeros((6, 12)), np.zeros((6, 12)), [], 0
    for part in parts:
        mask, n = part.batch.mask, part.batch.mask.sum(1)
        lengths += n.tolist()
        split += sum(int((row[row >= 0].bincount()[row[row >= 0]] > 1).sum()) for row in part.word)

        def watch(layer, mask=mask, n=n, inside=part.word >= 0):
            each = (layer.pattern[..., 0] * mask[:, None]).sum(-1) / n[:, None]
            start[layer.index] += each.double().sum(0).numpy()
            most = layer.pattern.amax(-1) * inside[:, None]
            confidence[layer.index] += (most.sum(-1) / inside.sum(1)[:, None]).double().sum(0).numpy()

        model.forward(part.batch, watch=watch)
    assert (left_out, len(lengths), split) == ([], 1000, 2972)
    assert np.log(lengths).mean() == pytest.approx(3.150, abs=0.001)
    start, confidence = start / 1000, confidence / 1000
    assert (start[0].min(), start[0].max()) == pytest.approx((0.03, 0.24), abs=0.006)
    assert (start[2, 9], start[4, 5]) == pytest.approx((0.80, 0.81), abs=0.006)
    assert start.max() == start[4, 5]
    assert confidence[0, 2] == pytest.approx(1.0, abs=0.005)


def test_a_decoder_reaches_no_more_edges_than_lie_on_its_side(sentences):
    def share_left(some):
        edges = [
            head < i
            for one in some
            for i, (head, label) in enumerate(zip(one.heads, one.relations, strict=True))
            if head >= 0 and label.split(":")[0] != "punct"
        ]
        return float(np.mean(edges))

    assert share_left(sentences) == pytest.approx(0.319, abs=0.0005)
    some = sentences[:100]
    found = ha.syntax(ha.load("smollm2-135m"), some, measures=["dependencies"]).dependencies
    every, left = found.relations.index("all"), share_left(some)
    assert found.rate[:, every, 0].max() <= left
    assert found.rate[:, every, 1].max() <= 1 - left
    assert found.offset[every, 0] < 0 < found.offset[every, 1], "each beside the offset of its own side"
