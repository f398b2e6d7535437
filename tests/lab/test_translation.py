"""The translator: its parts beside published values and loops, and (slow) what training makes of it."""

from collections import Counter

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.lab.construct.transformer import save
from headatlas.lab.translation import gates
from headatlas.lab.translation.checks import Check, alignment_error, rates, removed, roles
from headatlas.lab.translation.model import Translator, entmax
from headatlas.lab.translation.spelling import tokenizer
from headatlas.lab.translation.training import trained
from headatlas.treebanks.language_pair import (
    EOS,
    NAMES,
    PAD,
    SIZE,
    SOURCE,
    TARGET,
    UNSEEN,
    Language,
    Sentences,
)


def of(z, alpha, dtype=torch.float32):
    return entmax(torch.tensor(z, dtype=dtype), torch.tensor([alpha], dtype=dtype))


@pytest.mark.parametrize(
    ("z", "alpha", "expected"),
    [
        ([-2, 0, 0.5], 2.0, [0, 0.25, 0.75]),
        ([-2, 0, 0.5], 1.5, [0, 0.3260, 0.6740]),
        ([-1, 0, 0.5], 1.33, [0.0460, 0.3276, 0.6264]),
        ([1, 2, 3.5], 1.33, [0.0026, 0.1012, 0.8963]),
    ],
)
def test_entmax_gives_the_published_values(z, alpha, expected):
    torch.testing.assert_close(of(z, alpha), torch.tensor(expected, dtype=torch.float32), atol=6e-5, rtol=0)


def test_entmax_is_what_its_definition_asks():
    z = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha = torch.tensor([[1.1], [1.3], [1.5], [1.8], [2.0]], dtype=torch.float64)
    p = entmax(z, alpha)
    torch.testing.assert_close(p.sum(-1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(entmax(z + 3.0, alpha), p)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(entmax(z[:, order], alpha), p[:, order])
    low = z.clone()
    low[:, 2] = torch.finfo(torch.float32).min
    assert bool((entmax(low, alpha)[:, 2] == 0).all())
    near = entmax(z, torch.full((5, 1), 1.001, dtype=torch.float64))
    torch.testing.assert_close(near, z.softmax(-1), atol=2e-3, rtol=0)
    assert bool(entmax(z, torch.ones(5, 1, dtype=torch.float64)).isfinite().all()), "alpha is kept off 1"


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.75, 2.25])
def test_entmax_has_the_slopes_of_small_differences(alpha):
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    one = torch.full((1, 3, 1), alpha, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entmax, (z, one), eps=1e-6, atol=1e-5)


def test_the_slope_in_alpha_is_the_published_one():
    alpha = torch.tensor([1.33], dtype=torch.float64, requires_grad=True)
    entmax(torch.tensor([-1, 0, 0.5], dtype=torch.float64), alpha)[0].backward()
    assert alpha.grad.item() == pytest.approx(-0.2562, abs=2e-4)


def test_gates_open_as_often_as_the_penalty_says():
    assert gates.open_probability(torch.tensor(0.0)).item() == pytest.approx(0.688, abs=5e-4)
    assert gates.settled(torch.tensor([-10.0, 10.0])).tolist() == [0, 1]
    generator = torch.Generator().manual_seed(0)
    for log_a in (-1.0, 0.0, 1.0):
        drawn = gates.sampled(torch.full((100_000,), log_a), generator)
        share = (drawn > 0).double().mean().item()
        assert share == pytest.approx(gates.open_probability(torch.tensor(log_a)).item(), abs=0.01)


def texts(n=8, **how) -> Sentences:
    return Sentences.of(Language(np.random.default_rng(0), **how).pairs(n))


@pytest.fixture(scope="module")
def untrained() -> Translator:
    torch.manual_seed(0)
    return Translator().eval()


def test_probabilities_of_generating_and_copying_share_one_normaliser(untrained):
    given = texts()
    with torch.no_grad():
        probability, copied = untrained(given)
        memory, _, states = untrained.states(given)
    torch.testing.assert_close(probability.sum(-1), torch.ones(probability.shape[:2]))
    for e, t in ((0, 0), (3, 2)):  # by loops, as the paper writes it
        scores = {}
        for word in [EOS, *range(SOURCE, TARGET)]:
            scores[word] = torch.exp(untrained.marian.lm_head.weight[word] @ states[e, t]).item()
        total = sum(scores.values())
        for place, word in enumerate(given.source[e].tolist()):
            if word not in (PAD, EOS):
                one = torch.exp(torch.tanh(untrained.copying(memory[e, place])) @ states[e, t]).item()
                scores[word] = scores.get(word, 0.0) + one
                total += one
        found = [scores.get(word, 0.0) / total for word in range(SIZE)]
        np.testing.assert_allclose(probability[e, t].numpy(), found, atol=1e-6)
        assert copied[e, t].item() == pytest.approx(
            1 - sum(probability[e, t, [EOS, *range(SOURCE, TARGET)]].tolist()), abs=1e-5
        )


def test_without_copy_weights_every_source_word_scores_alike(untrained):
    given = texts(1)
    kept = untrained.copying.weight.detach().clone()
    with torch.no_grad():
        untrained.copying.weight.zero_()
        probability, copied = untrained(given)
        untrained.copying.weight.copy_(kept)
    words = [one for one in given.source[0].tolist() if one not in (PAD, EOS)]
    each = copied[0, 0].item() / len(words)
    for word in set(words):
        assert probability[0, 0, word].item() == pytest.approx(each * words.count(word), rel=1e-4)


def test_a_closed_gate_is_a_head_whose_output_is_gone(untrained):
    given = texts()
    module = untrained.encoder_attention[1]
    with torch.no_grad():
        module.gate = torch.tensor([1.0, 1.0, 0.0, 1.0])
        closed, _ = untrained(given)
        del module.gate
        handle = module.out_proj.register_forward_pre_hook(
            lambda _, inputs: (torch.cat([inputs[0][..., :32], 0 * inputs[0][..., 32:48], inputs[0][..., 48:]], -1),)
        )
        cut, _ = untrained(given)
        handle.remove()
    torch.testing.assert_close(closed, cut)


def test_the_languages_reorder_agree_and_hold_names_back():
    for one in Language(np.random.default_rng(1)).pairs(200):
        places = [source for _, source in one.links]
        assert len(set(places)) == len(places) == len(one.target)
        verb, subject = one.subject
        assert one.links[0] == (0, verb), "the verb comes first"
        assert subject < verb
        number = (one.target[0] - SOURCE) % 2
        assert number == int(one.plural)
        head = next(one.target[i] for i, source in one.links if source == subject)
        assert one.plural == (head < TARGET and (head - SOURCE) % 2 == 1)
        for i, source in one.links:
            if one.target[i] >= TARGET:
                assert one.target[i] == one.source[source] < SIZE - UNSEEN
    for one in Language(np.random.default_rng(1), unseen=True).pairs(50):
        names = [word for word in one.target if word >= TARGET]
        assert names
        assert min(names) >= TARGET + NAMES - UNSEEN


def test_alignment_errors_and_roles_are_counted(untrained):
    given = texts(4)
    gold = torch.zeros(*given.write.shape[:2], given.source.shape[1])
    for e, one in enumerate(given.pairs):
        for i, j in one.links:
            gold[e, i, j] = 1.0
    assert alignment_error(gold, given)[0] == 0
    assert 0 < alignment_error(gold.roll(1, -1), given)[0] <= 1
    with torch.no_grad():
        found, offset = roles(untrained, given)
    assert len(found) == 8
    assert 0.25 <= offset <= 1
    assert 0 <= rates(untrained, given).sentences <= 1


def test_a_removed_head_is_one_whose_write_is_cut_and_comes_back(untrained):
    given = texts(20)
    before, _ = untrained(given)
    found = {str(one.head): one.rates for one in removed(untrained, given)}
    assert len(found) == 10
    assert list(found)[-2:] == ["0.0", "cross:0.0"]
    torch.testing.assert_close(untrained(given)[0], before)
    module = untrained.cross_attention
    handle = module.out_proj.register_forward_pre_hook(lambda _, inputs: (0 * inputs[0],))
    expected = rates(untrained, given)
    handle.remove()
    assert found["cross:0.0"] == expected


def test_rare_words_are_the_sentences_least_frequent(untrained):
    given = texts(12)
    found, _ = roles(untrained, given)
    seen = Counter(word for one in given.pairs for word in one.source)
    hits = total = 0
    for map_, one in zip(untrained.encoder_attention[0].pattern[:, 1], given.pairs, strict=True):
        n = len(one.source)
        counts = [seen[word] for word in one.source]
        hits += int((map_[:n, :n].argmax(-1) == counts.index(min(counts))).sum())
        total += n
    assert found[1].rare == pytest.approx(hits / total)


def test_a_number_that_is_none_keeps_no_bound():
    assert not Check("x", float("nan"), 1.0, "at least").passed
    assert not Check("x", float("nan"), 1.0, "at most").passed
    assert str(Check("x", 0.5, 0.4, "at least")) == "passed  x: 0.500 (at least 0.4)"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_all_that_must_come_out_does_and_the_folder_opens(seed, tmp_path):
    made = ha.translation_toy(seed=seed)
    assert [str(check) for check in made.checks if not check.passed] == []
    model = ha.load(str(made.save(tmp_path / "toy")))
    assert model.stacks == ("encoder", "decoder", "cross")
    assert len(model.heads) == 10


@pytest.mark.slow
def test_mining_finds_the_head_that_was_guided_and_that_it_matters(tmp_path):
    made = trained(3, 400, lambda _: None)
    save(made.marian, tmp_path / "toy")
    tokenizer().save_pretrained(tmp_path / "toy")
    atlas = ha.mine(ha.load(str(tmp_path / "toy")), n=16, out=tmp_path / "run")
    heads = {one["name"]: one["heads"] for one in atlas.data["detectors"]}
    (found,) = heads["alignment"]
    assert (found["stack"], found["layer"], found["head"], found["verdict"]) == ("cross", 0, 0, "causal")
    assert found["score"] > 0.95
    assert "as output" in found["told"]
    assert atlas.data["model"]["stack_heads"] == {"encoder": [4, 4], "decoder": [1], "cross": [1]}
    asked = ha.mine(ha.load(str(tmp_path / "toy")), tasks=["translation"], n=16, out=tmp_path / "asked")
    assert {one["name"] for one in asked.data["detectors"]} == {"alignment", "dependency"}
    told = {one["detector"]: one["reason"] for one in atlas.data["skipped"]}
    assert "tell apart" in told["alignment-copy"]
    assert "needs" in told["positional"]
    assert "needs" in told["rare-words"]


def test_the_folders_marian_writes_no_word_of_the_first_language(untrained):
    bias = untrained.marian.final_logits_bias[0]
    assert (bias == 0).nonzero().flatten().tolist() == [EOS, *range(SOURCE, TARGET)]
