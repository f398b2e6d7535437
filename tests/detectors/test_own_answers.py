"""Heads that tell something about the model's own answers: labels by plain runs, and chance that knows what else gives them away."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.detectors._measures.own_answers import chosen, probed
from headatlas.methods import probing
from headatlas.methods.labels import Labels
from headatlas.methods.probing import CrossValidation, probe
from headatlas.model import attach
from headatlas.task import Batch, find_task
from tests import toys


def test_the_chosen_answer_is_that_of_the_highest_logit_in_a_plain_run():
    hf = toys.llama(vocab_size=49152)
    batch = find_task("cross-lingual")(toys.smollm2_vocabulary().within(128), 6, 0)
    found = chosen(attach(hf), batch)
    for row in range(len(batch)):
        length = int(batch.mask[row].sum())
        with torch.no_grad():
            logits = hf(batch.tokens[row : row + 1, :length]).logits[0, -1]
        options = torch.cat([batch.answer[row].reshape(-1), batch.wrong[row].reshape(-1)])
        assert int(found[row]) == int(logits[options].argmax())


def prompts_of(n: int) -> tuple[Batch, torch.Tensor]:
    """Texts whose last token is one of two: which of them, and with it nine times of ten the label."""
    kind = torch.arange(n) % 2
    tokens = torch.randint(20, 100, (n, 6), generator=torch.Generator().manual_seed(0))
    tokens[:, -1] = 5 + kind
    label = kind.clone()
    label[::10] = 1 - label[::10]
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool)), label


def test_what_gives_the_label_away_without_being_it_is_part_of_chance():
    batch, label = prompts_of(120)
    model = toys.model("gqa")
    group, kind = torch.arange(120) // 2, batch.tokens[:, -1] - 5
    free = probed(model, batch, label, group, torch.zeros(120))
    within = probed(model, batch, label, group, kind)
    torch.testing.assert_close(free.values, within.values)
    best = free.values.mean(0).argmax()
    assert float(free.values.mean(0)[best]) > 0.7
    assert float(free.control.mean(0)[best]) < 0.6
    assert abs(float((within.values - within.control).mean(0)[best])) < 0.1


def test_labels_change_places_within_their_number_only(monkeypatch):
    batch, label = prompts_of(60)
    y, within = label.numpy(), np.arange(60) // 20
    labels = Labels(y, np.arange(60), ("no", "yes"), within)
    seen = []
    fit = probing.right_on_others

    def keep(kind, x, runs, splits, seed):
        seen.extend(runs)
        return fit(kind, x, runs, splits, seed)

    monkeypatch.setattr(probing, "right_on_others", keep)
    probe(toys.model("gqa"), batch, labels, heads=["0.0"], validation=CrossValidation(shuffles=3, test=0))
    own, *shuffled = seen
    assert np.array_equal(own, y)
    assert len(shuffled) == 3
    for run in shuffled:
        assert not np.array_equal(run, y)
        for number in range(3):
            assert run[within == number].sum() == y[within == number].sum()


def test_a_model_that_is_always_alike_says_nothing():
    batch, label = prompts_of(60)
    found = probed(toys.model("gqa"), batch, torch.ones_like(label), torch.arange(60), torch.zeros(60))
    assert bool(found.values.isnan().all())
    assert found.values.shape == (60, len(toys.model("gqa").heads))
