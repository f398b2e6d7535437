"""Plantings of heads that recall, judge and answer: what was written is found, look-alikes are not, and verdicts say what plain hooks say."""

import pytest
import torch

from headatlas.lab.measure import attend
from headatlas.lab.planting import find_planting
from headatlas.lab.planting_rates import measure_planting
from headatlas.lab.plantings._conflict import conflict
from headatlas.lab.plantings._facts import facts
from headatlas.lab.plantings._writing import CONSTANT, NOISES
from headatlas.mining.attention_example import attention_examples
from headatlas.task import find_task

SEED = 50  # no threshold was chosen on it, and it has the most noise

# The others, found by scans in test_plantings.py, are judged in the long suite.
QUICK = ("relation", "sentiment-summarizer", "summary-reader")
LONG = (
    "context",
    "memory",
    "subject",
    "correct-letter",
    "negative",
    "function-vector",
    "truthfulness",
    "correct",
    "content-gatherer",
    "constant",
    "single-letter",
    "amplification",
    "mover",
    "direct-effect",
    "vulnerable",
    "in-context",
    "accuracy",
    "coherence",
    "semantic-induction",
    "symbolic-induction",
    "symbol-abstraction",
    "filter",
    "concept-induction",
    "task-recognition",
    "task-learning",
    "concept-vector",
)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_what_was_written_is_found_and_judged_and_its_look_alikes_are_not(name: str):
    assert NOISES[SEED % len(NOISES)] == max(NOISES)
    tally = measure_planting(find_planting(name), [SEED])
    rates = tally.rates()
    assert (rates["recall"], rates["precision"]) == (1.0, 1.0)
    assert rates["auc"] == 1.0
    assert tally.look_alikes
    assert not any(tally.look_alikes)
    assert sum(tally.controls) <= 0.01 * len(tally.controls)
    assert tally.verdicts
    assert all(matters == (word != "refuted") for word, matters in tally.verdicts), tally.verdicts


@pytest.mark.parametrize("seed", [0, SEED])
def test_heads_of_a_written_model_attend_where_they_were_told_to(seed: int):
    """By the model's own eager attention: subject heads at the end are on the subject, relation heads on the wording behind it."""
    made = facts(seed)
    batch = find_task("facts")(made.model.tokenizer, 12, seed)
    patterns, _ = attend(made.model.hf, batch.tokens)
    for role, heads in (("subject", made.subject), ("relation", made.relation)):
        for head in heads:
            shares = []
            for e, end in enumerate(batch.positions["end"].tolist()):
                places = batch.positions[role][e]
                shares.append(float(patterns[head.layer][e, head.head, end, places[places >= 0]].sum()))
            assert sum(share > 0.9 for share in shares) >= 10, (role, shares)


def test_norms_of_a_written_model_are_nearly_a_fixed_factor():
    made = facts(0)
    lengths = made.model.hf.model.embed_tokens.weight.detach().norm(dim=1)
    assert float(lengths.min()) >= CONSTANT * 0.99
    assert float((lengths / CONSTANT - 1).abs().max()) < 0.05
    assert torch.isfinite(lengths).all()


def test_the_strongest_keys_of_a_padded_text_are_shown_though_rounding_orders_the_rest():
    made = conflict(0)
    batch = find_task("knowledge-conflict")(made.model.tokenizer, 16, 0)
    assert not bool(batch.mask[0].all())
    assert set(attention_examples(made.model, {"context": sorted(made.context)}, batch)) == {"context"}
