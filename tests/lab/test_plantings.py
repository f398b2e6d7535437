"""Plantings: each detector finds what was made for it and nothing that only looks like it."""

from __future__ import annotations

import pytest
import torch

from headatlas.detector import detectors, find_detector
from headatlas.heads import HeadId
from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.measure import attend
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, find_planting, plantings
from headatlas.lab.planting_rates import PlantingTally, beside, measure_planting
from headatlas.lab.spec import PlantSpec
from headatlas.mining.scan import scan_task
from headatlas.mining.verdicts import judge_task
from headatlas.progress import Silent
from tests.lab import test_plantings_answers

SEED = 0
DEAR = {
    "function-vector",
    "truthfulness",
    "accuracy",
    "coherence",
    "consistency",
    "block",
    "constituency",
    "spanning-tree",
    "query-retrieval",
    "language-specific",
    "language-general",
}  # seconds a scan; tests/detectors says what theirs measure
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name
    for name in plantings()
    if name not in test_plantings_answers.QUICK  # found there too
]
# Detectors whose metric a written model can move: of the positives, how many are causal and how many refuted.
VERDICTS = {
    "successor": (1, 0),
    "letter-mover": (1, 0),
    "retrieval": (1, 1),
    "duplicate-token": (1, 1),
    "induction": (0, 1),  # and two of a group
    "name-mover": (1, 0),
    "negative-name-mover": (1, 0),
    "backup-name-mover": (1, 0),
    "s-inhibition": (1, 0),
    "alignment-copy": (1, 1),
}


def scanned(name: str):
    one = find_planting(name)
    detector = find_detector(one.detector)
    made = one.make(SEED)
    batch = detector.task(made.model.tokenizer, one.examples, SEED)
    return made, detector, scan_task(made.model, detector.task, beside(detector, made.model), batch)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_made_for_a_detector_is_found_and_nothing_else(name):
    made, detector, scan = scanned(name)
    assert made.positives
    assert made.look_alikes
    assert not made.positives & made.look_alikes
    assert set(scan.observed[detector.name]) - made.undecided == made.positives
    if name in VERDICTS:
        assert scan.smallest is not None, scan.reason
        judged = judge_task(
            made.model, detector.task, [detector], scan, n=16, seed=SEED,
            progress=Silent(),
        )  # fmt: skip
        words = list(judged.detectors[detector.name].verdicts.values())
        assert (words.count("causal"), words.count("refuted")) == VERDICTS[name]


def test_every_planting_is_of_a_detector_that_knows_of_it():
    assert {one.detector for one in plantings().values()} == {
        name for name, one in detectors().items() if one.has_planting
    }
    assert all(one.detector in one.doc or len(one.doc) > 40 for one in plantings().values())


def test_rates_count_what_they_say():
    tally = PlantingTally(
        scores=[0.9, 0.8, 0.1, 0.5], labels=[True, True, False, False], observed=[True, False, False, True],
        look_alikes=[True, False], controls=[False, False, False, True], able=[True],
        verdicts=[("causal", True), ("causal", False), ("refuted", False), ("refuted", True), ("group", True)],
    )  # fmt: skip
    rates = tally.rates()
    assert (rates["auc"], rates["precision"], rates["recall"], rates["look_alikes_observed"]) == (1.0, 0.5, 0.5, 0.5)
    assert (rates["causal_precision"], rates["refuted_precision"], rates["group_precision"]) == (0.5, 0.5, 1.0)
    assert rates["verdict_recall"] == pytest.approx(2 / 3)
    assert (rates["false_discovery"], rates["positives"], rates["negatives"]) == (0.25, 2, 2)
    assert PlantingTally().rates()["auc"] is None


def test_a_planting_is_measured_with_its_verdicts_and_without_structure():
    rates = measure_planting(find_planting("duplicate-token"), [SEED]).rates()
    assert (rates["recall"], rates["look_alikes_observed"], rates["verdict_recall"]) == (1.0, 0.0, 1.0)
    assert rates["causal_precision"] == rates["refuted_precision"] == 1.0
    assert rates["false_discovery"] == 0.0
    assert (rates["positives"], rates["verdicts"], rates["able"]) == (2, 2, 1.0)


def test_heads_are_labelled_by_what_was_planted():
    one, two, three = HeadId(0, 0), HeadId(0, 1), HeadId(0, 2)
    made = Sown(None, frozenset({one}), frozenset({two}), frozenset({three}))
    assert [made.label(head) for head in (one, two, three, HeadId(1, 0))] == [True, False, None, False]


def test_a_vocabulary_of_texts_has_its_classes_and_features():
    known = words_of(["ape bee ape cat"], classes={"small": ["bee"]}, features={"initial": {"cat": {"C": 1.0}}})
    ape, bee, cat, letter = (known.tokens.index(word) for word in ("ape", "bee", "cat", "C"))
    assert ape < bee < cat < letter, "the commonest first, and words of no text last"
    assert known.members("small") == (bee,)
    assert known.features["initial"] == {cat: {letter: 1.0}}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_copier_raises_what_a_token_carries(architecture):
    animals = ["ape", "bee", "cat", "dog"]
    known = words_of(
        [" ".join(animals)], classes={"animals": animals},
        features={"initial": {animal: {animal[0].upper(): 1.0} for animal in animals}},
    )  # fmt: skip
    head = Head(0, 1, "copier", tokens="animals", reads="initial")
    planted = plant(PlantSpec((head,), rest="dormant"), architecture=architecture, n_layers=1, vocab=known)
    place = {token: i for i, token in enumerate(known.tokens)}
    tokens = torch.tensor([[0, place["."], place[animal], place[","]] for animal in animals])
    patterns, logits = attend(planted.model, tokens)
    assert patterns[0][:, 1, -1, 2].min() > 0.95
    assert logits[:, -1].argmax(-1).tolist() == [place[animal[0].upper()] for animal in animals]


def test_a_merger_looks_back_from_pieces_alone():
    known = words_of(["ape bee"], classes={"pieces": ["##s"]})
    planted = plant(PlantSpec((Head(0, 1, "merger"),)), architecture="llama", n_layers=1, vocab=known)
    ape, bee, piece = (known.tokens.index(word) for word in ("ape", "bee", "##s"))
    pattern = attend(planted.model, torch.tensor([[0, ape, piece, bee, ape]]))[0][0][0, 1]
    assert pattern[2, 1] > 0.95
    assert pattern[[3, 4], 0].min() > 0.95


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_broadcaster_writes_one_content_everywhere_and_what_it_leaves_over_is_the_token_s_own(architecture):
    head = Head(0, 1, "broadcaster", strength=0.75)
    planted = plant(PlantSpec((head,), rest="dormant"), architecture=architecture, n_layers=1)
    tokens = torch.cat([torch.tensor([[planted.words.bos]]), torch.arange(20, 40)[None]], 1)
    pattern = attend(planted.model, tokens)[0][0][0, 1]
    assert pattern[1:, 0] == pytest.approx(0.75 * torch.ones(20), abs=0.03)
    assert pattern.diagonal()[1:] == pytest.approx(0.25 * torch.ones(20), abs=0.03)
