"""RazorAttention's choice of key-value groups: by the model's own attention, a group counting as its best head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.grid import model_of
from headatlas.lab.head import Head
from headatlas.lab.measure import attend
from headatlas.lab.planted import plant
from headatlas.lab.spec import PlantSpec
from headatlas.tasks.repeated import repeated_four
from tests import toys


def by_hand(model, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(echo, induction) [head] by summing eager attention over every earlier copy, token by token."""
    batch = repeated_four(model.tokenizer, n, seed)
    patterns = torch.cat(attend(model.hf, batch.tokens)[0], 1)
    period, start = batch.facts["period"], 0 if batch.facts["bos"] is None else 1
    sums, count = np.zeros((2, patterns.shape[1])), 0
    for query in range(start + period, start + 4 * period - 1):
        for key in range(start, query):
            if (query - key) % period == 0:
                sums[0] += patterns[:, :, query, key].mean(0).numpy()
                sums[1] += patterns[:, :, query, key + 1].mean(0).numpy()
        count += 1
    return sums[0] / count, sums[1] / count


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa"])
def test_scores_are_those_of_eager_attention_and_a_group_is_its_best_head(kind: str):
    model = toys.model(kind)
    echo, induction = by_hand(model, 3, 1)
    found = ha.protected_groups(model, n=3, seed=1)
    size = len(model.heads) // len(found.groups)
    np.testing.assert_allclose(found.echo, echo.reshape(-1, size).max(1), atol=1e-6)
    np.testing.assert_allclose(found.induction, induction.reshape(-1, size).max(1), atol=1e-6)
    assert found.echo_head == tuple(
        model.heads[i * size + int(row.argmax())] for i, row in enumerate(echo.reshape(-1, size))
    )


def test_the_best_shares_are_taken_rounded_up_and_a_group_of_both_counts_once():
    model = toys.model("mha")
    found = ha.protected_groups(model, echo=0.01, induction=0.3, n=2)
    assert (len(found.by_echo), len(found.by_induction)) == (1, 3), "eight groups"
    assert found.by_induction[0] == found.groups[int(found.induction.argmax())]
    assert set(found.protected) == {*found.by_echo, *found.by_induction}
    assert ha.protected_groups(model, echo=0, induction=0, n=2).protected == ()
    assert len(ha.protected_groups(model, echo=1, induction=1, n=2).protected) == 8


def test_planted_echo_and_induction_heads_are_protected():
    heads = (Head(0, 0, "previous"), Head(0, 2, "duplicate"), Head(1, 1, "induction"))
    model = model_of(plant(PlantSpec(heads, noise=0.02), architecture="llama", n_layers=2))
    found = ha.protected_groups(model, echo=0.1, induction=0.1, n=4)
    assert HeadId(0, 2) in [found.echo_head[found.groups.index(group)] for group in found.by_echo]
    assert HeadId(1, 1) in [found.induction_head[found.groups.index(group)] for group in found.by_induction]


def test_shares_outside_and_encoders_are_refused():
    with pytest.raises(BadInput, match="from 0 to 1"):
        ha.protected_groups(toys.model("mha"), echo=14)
    with pytest.raises(BadInput, match="no decoder"):
        ha.protected_groups(toys.model("encoder"))
