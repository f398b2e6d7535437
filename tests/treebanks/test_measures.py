"""Each measure against values worked out by hand, loops, or the published unit checks."""

import itertools
import math

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.model import attach
from headatlas.treebanks.constituents import biased, branching, cut_spans, distances, f1, jensen_shannon, parse
from headatlas.treebanks.dependencies import predictions
from headatlas.treebanks.grammar import generated_sentences
from headatlas.treebanks.sentences import ROOT, Sentence
from headatlas.treebanks.sieve import p_above
from headatlas.treebanks.trees import arborescences
from tests import toys

MEASURES = ("dependencies", "trees", "constituents", "coreference", "sieve", "surface", "likeness")


@pytest.fixture(scope="module")
def model():
    return attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())


@pytest.fixture(scope="module")
def found(model):
    return ha.syntax(model, n=60, measures=MEASURES, options=ha.SyntaxOptions(tokens=256))


def word_maps(model, sentences):
    """[sentence][head, word, word] by one plain pass each, joined by loops."""
    from headatlas.treebanks.words import batches

    maps = []
    for one in sentences:
        (part,), _ = batches(model.tokenizer, [one])
        layers: list[torch.Tensor] = []
        model.forward(part.batch, watch=lambda layer, layers=layers: layers.append(layer.pattern[0].clone()))
        pattern = torch.cat(layers)
        n = len(one.words)
        joined = torch.zeros(len(pattern), n, n)
        word = part.word[0].tolist()
        for q, k in itertools.product(range(len(word)), repeat=2):
            if word[q] >= 0 and word[k] >= 0:
                joined[:, word[q], word[k]] += pattern[:, q, k] / word.count(word[q])
        maps.append(joined)
    return maps


def test_dependencies_against_loops(model, found):
    sentences = generated_sentences(60)
    maps = word_maps(model, sentences)
    result = found.dependencies
    for relation in ("det", "obj", "all"):
        column = result.relations.index(relation)
        hits, edges = np.zeros((len(result.heads), 3)), 0
        for one, map_ in zip(sentences, maps, strict=True):
            off = map_.clone()
            off.diagonal(dim1=-2, dim2=-1).zero_()
            for i, (head, label) in enumerate(zip(one.heads, one.relations, strict=True)):
                if head == ROOT or (label != relation and not (relation == "all" and label != "punct")):
                    continue
                edges += 1
                for h in range(len(map_)):
                    to = off[h, i].max() > 0 and int(off[h, i].argmax()) == head
                    back = off[h, :, i].max() > 0 and int(off[h, :, i].argmax()) == head
                    of_head = off[h, head].max() > 0 and int(off[h, head].argmax()) == i
                    hits[h] += [to, back, to or of_head]
        assert result.n[column] == edges
        assert np.allclose(result.rate[:, column], hits / edges)


def test_offsets_are_those_that_causal_attention_can_take(found):
    offset, rate = found.dependencies.offset, found.dependencies.offset_rate
    assert (offset[:, 0] < 0).all()
    assert (offset[:, 1] > 0).all()
    column = found.dependencies.relations.index("det")  # a determiner stands before its noun
    assert rate[column, 1] > 0.5 > rate[column, 0]


def test_nothing_is_predicted_where_nothing_is_attended():
    maps = torch.zeros(1, 1, 3, 3)
    maps[0, 0, 1, 0] = 1.0
    told = predictions(maps, torch.tensor([[ROOT, 0, 1]]))
    assert told[0, 0].tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert predictions(maps, torch.tensor([[1, ROOT, 0]]))[0, 0].tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_a_head_that_points_to_subjects_is_found_and_its_neighbours_are_not():
    """Maps in which one of three heads attends from each dependent to its head, one a word back, one everywhere."""
    from headatlas.heads import HeadId
    from headatlas.treebanks.dependencies import DependencyCounts

    sentences = generated_sentences(200)
    counts = DependencyCounts(tuple(HeadId(0, i) for i in range(3)), sentences, causal=False)

    class Part:
        def __init__(self, index, one):
            self.sentences, self.index, self.valid = (one,), (index,), torch.ones(1, len(one.words), dtype=torch.bool)

    for index, one in enumerate(sentences):
        n = len(one.words)
        maps = torch.full((1, 3, n, n), 1 / n)
        for i, head in enumerate(one.heads):
            maps[0, 0, i] = torch.nn.functional.one_hot(torch.tensor(max(head, 0)), n)
            maps[0, 1, i] = torch.nn.functional.one_hot(torch.tensor(max(i - 1, 0)), n)
        counts.begin(Part(index, one))
        counts.add(slice(0, 3), maps)
    result = counts.result()
    assert np.allclose(result.rate[0, :, 0], 1)
    passed = {(str(head), direction) for head, _, direction, _ in result.passing()}
    assert {head for head, direction in passed if direction == "to head"} == {"0.0"}
    assert np.allclose(result.held_out[:, 0], 1)
    assert "0.1" not in {head for head, _ in passed}


def test_arborescence_against_all_trees():
    rng = np.random.default_rng(0)
    for n in (2, 3, 4, 5):
        for _ in range(8):
            weights, root = rng.random((n, n)), int(rng.integers(n))
            best = -1.0
            others = [i for i in range(n) if i != root]
            for parents in itertools.product(range(n), repeat=n - 1):
                tree = dict(zip(others, parents, strict=True))
                if any(child == parent for child, parent in tree.items()) or not all(
                    _leads(i, tree, root) for i in others
                ):
                    continue
                best = max(best, sum(weights[parent, child] for child, parent in tree.items()))
            found = arborescences(weights, root)
            assert found[root] == ROOT
            assert all(_leads(i, {c: int(found[c]) for c in others}, root) for i in others)
            assert sum(weights[found[i], i] for i in others) == pytest.approx(best)


def _leads(node, parents, root):
    for _ in range(len(parents) + 1):
        if node == root:
            return True
        node = parents[node]
    return False


def test_arborescence_breaks_a_cycle_of_best_parents():
    weights = np.array([[0, 0.1, 0.2], [0, 0, 0.9], [0, 0.9, 0]])  # 1 and 2 each prefer the other
    assert arborescences(weights, 0).tolist() == [ROOT, 2, 0]


def test_trees_against_loops(model, found):
    sentences = generated_sentences(60)
    hits, total = 0, 0
    for one, map_ in zip(sentences, word_maps(model, sentences), strict=True):
        gold = {frozenset((i, h)) for i, h in enumerate(one.heads) if h != ROOT and one.relations[i] != "punct"}
        weights = (map_[1] + map_[1].T).double().numpy()
        tree = {frozenset((i, int(p))) for i, p in enumerate(arborescences(weights, one.root)) if p != ROOT}
        hits, total = hits + len(gold & tree), total + len(gold)
    assert found.trees.n == total
    assert found.trees.uuas[1, 0] == pytest.approx(hits / total)
    assert found.trees.uuas[1, 0] == found.trees.uuas[1, 1]  # symmetric maps have one orientation


def test_distances_and_trees_as_published():
    one_hot, uniform = torch.eye(4)[:2], torch.full((2, 4), 0.25)
    assert float(jensen_shannon(one_hot[0], one_hot[1])) == pytest.approx(math.log(2))
    assert float(jensen_shannon(uniform[0], uniform[1])) == 0
    assert distances(one_hot).tolist() == [1.0]
    assert distances(uniform).tolist() == [0.0]
    assert parse(np.array([1.0, 3.0, 2.0])) == {(0, 3), (0, 1), (2, 3)}
    assert parse(np.array([3.0, 2.0, 1.0])) == branching(4, "right-branching")
    assert parse(np.array([1.0, 2.0, 3.0])) == branching(4, "left-branching")
    assert parse(np.array([1.0, 1.0, 1.0])) == branching(4, "right-branching")  # the leftmost of equals
    assert parse(biased(np.array([1.0, 1.1, 1.0]), 10.0)) == branching(4, "right-branching")
    assert parse(np.array([])) == frozenset()
    with pytest.raises(BadInput, match="no distance"):
        distances(uniform, "cosine")


@pytest.mark.parametrize("cuts", [0, 1, 2, 9])
def test_spans_of_all_cuts_at_once_are_those_of_cutting_one_by_one(cuts: int):
    found = np.random.default_rng(cuts).integers(0, 5, (3, 40, cuts)).astype(float)  # with equal ones
    found[0, :7, 1:2] = np.nan
    found[1, :7, :1] = np.inf
    first, last = cut_spans(found)
    for row, a, b in zip(found.reshape(120, cuts), first.reshape(120, cuts), last.reshape(120, cuts), strict=True):
        assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == sorted(parse(row))


def test_f1_counts_neither_the_whole_nor_single_words():
    one = Sentence(tuple("abcd"), (True,) * 4, spans=frozenset({(0, 3, "S"), (0, 1, "NP"), (0, 1, "X"), (2, 2, "VP")}))
    assert f1(frozenset({(0, 3), (0, 1), (2, 3)}), one) == pytest.approx(2 * 0.5 / 1.5)
    assert f1(frozenset({(0, 3)}), one) == 0
    flat = Sentence(tuple("ab"), (True,) * 2, spans=frozenset({(0, 1, "S")}))
    assert f1(frozenset({(0, 1)}), flat) == 1


def test_a_right_branching_treebank_is_what_it_says():
    sentences = [
        Sentence(tuple("abcde"), (True,) * 5, spans=frozenset((i, 4, "X") for i in range(4))),
        Sentence(tuple("abc"), (True,) * 3, spans=frozenset((i, 2, "X") for i in range(2))),
    ]
    assert np.mean([f1(branching(len(s.words), "right-branching"), s) for s in sentences]) == 1


def test_sieve_tests_as_published():
    assert p_above(np.array(4.0), np.array(0.0), np.array(20), 3.0) == 0
    assert p_above(np.array(2.0), np.array(0.0), np.array(20), 3.0) == 1
    assert np.isnan(p_above(np.array(4.0), np.array(1.0), np.array(1), 3.0))


@pytest.mark.parametrize("causal", [True, False])
def test_uniform_attention_scores_one_in_every_role_and_has_the_entropy_it_must(causal):
    make = toys.llama if causal else toys.bert
    hf = make(vocab_size=49152)
    for name, weight in hf.named_parameters():
        if "q_proj" in name or "query" in name:
            torch.nn.init.zeros_(weight)
    model = attach(hf, tokenizer=toys.smollm2_vocabulary())
    found = ha.syntax(model, n=20, measures=("sieve", "surface", "likeness"))
    known = found.sieve.n > 0
    assert known[:2].sum() >= 1
    assert np.allclose(found.sieve.mean[:, known], 1, atol=1e-4)
    assert np.allclose(found.surface.entropy, found.surface.uniform, atol=1e-3)
    assert np.allclose(found.likeness.divergence, 0, atol=1e-5)


def test_likeness_is_a_symmetric_divergence(found):
    apart = found.likeness.divergence
    assert np.allclose(apart, apart.T)
    assert np.allclose(apart.diagonal(), 0)
    assert 0 < apart[0, 1] < math.log(2)
    assert found.likeness.map().shape == (len(found.heads), 2)


def test_coreference_against_loops(model):
    sentences = generated_sentences(60)
    result = ha.syntax(model, sentences, measures=("coreference",)).coreference
    right, n, nearest = np.zeros(len(result.heads)), 0, 0
    for one, map_ in zip(sentences, word_maps(model, sentences), strict=True):
        if len(one.mentions) == 3:  # two names and a pronoun of one of them
            (a, first), (b, second), (word, who) = one.mentions
            right += ((map_[:, word, a] >= map_[:, word, b]) == (who == first)).numpy()
            n, nearest = n + 1, nearest + (who == second)
    assert result.n == n > 5
    assert np.allclose(result.accuracy, right / n)
    assert result.nearest == nearest / n


def test_batches_change_nothing(model, found):
    other = ha.syntax(model, n=60, measures=MEASURES, options=ha.SyntaxOptions(tokens=4096))
    assert np.allclose(found.dependencies.rate, other.dependencies.rate)
    assert np.allclose(found.constituents.f1, other.constituents.f1, atol=1e-6)
    assert np.allclose(found.sieve.mean, other.sieve.mean, atol=1e-4)
    assert np.allclose(found.surface.entropy, other.surface.entropy, atol=1e-4)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"measures": ["syntax"]}, "no measure 'syntax'"),
        ({"measures": "tree"}, "no measure 'tree'"),
        ({"measures": []}, "No measure is named"),
        ({"n": 0}, "0 sentences"),
        ({"sentences": [Sentence(("a",), (True,))]}, "None of these 1 sentences has dependencies"),
        ({"sentences": "/nowhere.conllu"}, "nowhere.conllu cannot be read"),
    ],
)
def test_wrong_input_is_told_before_the_model_runs(model, keywords, said):
    with pytest.raises(BadInput, match=said):
        ha.syntax(model, **keywords)
    with pytest.raises(BadInput, match="cannot be its 'first'"):
        ha.SyntaxOptions(rows="first")
