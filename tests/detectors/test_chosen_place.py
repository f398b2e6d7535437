"""A choice made on some examples is scored on others."""

import numpy as np
import pytest
import torch

from headatlas.detectors._measures.chosen_place import chosen_elsewhere
from headatlas.ops import stats


def test_equals_the_choice_made_by_hand():
    found = torch.tensor([[[0.9, 0.1, 0.4]], [[0.2, 0.8, 0.5]], [[0.7, 0.0, 0.3]], [[0.1, 0.6, 0.4]]]).double()
    # Even examples put choice 0 first and 2 second.
    measured = chosen_elsewhere(found)
    np.testing.assert_allclose(measured.values[:, 0], [np.nan, 0.2, np.nan, 0.1])
    np.testing.assert_allclose(measured.control[:, 0], [np.nan, 0.5, np.nan, 0.4])


def test_a_rival_lies_apart():
    found = torch.tensor([0.9, 0.8, 0.1, 0.3]).double().expand(4, 1, 4)
    assert chosen_elsewhere(found, apart=2).control[1::2].unique().tolist() == pytest.approx([0.3])


def test_a_single_example_and_heads_without_numbers_are_undefined():
    assert chosen_elsewhere(torch.rand(1, 2, 3)).values.isnan().all()
    found = torch.rand(4, 2, 3)
    found[:, 1] = torch.nan
    measured = chosen_elsewhere(found)
    assert measured.values[:, 1].isnan().all()
    assert not measured.values[1::2, 0].isnan().any()


def test_p_is_uniform_where_all_choices_are_alike():
    """The largest of 16 equal means against the second largest of the same examples is below .01 nearly always."""
    found = torch.from_numpy(np.random.default_rng(0).normal(0.0, 1.0, (32, 2000, 16)))
    measured = chosen_elsewhere(found, apart=2)
    p = stats.paired_p(measured.values.numpy(), measured.control.numpy())
    assert (p < 0.05).mean() <= 0.06
    assert (p < 0.01).mean() <= 0.015
    naive = found.topk(2, -1).values
    assert (stats.paired_p(naive[..., 0].numpy(), naive[..., 1].numpy()) < 0.01).mean() > 0.9
