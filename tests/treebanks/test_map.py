"""The map of heads: who is drawn as what, and a file that says what its plane is worth."""

import numpy as np
import pytest

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.treebanks.likeness_map import drawn, kinds
from headatlas.treebanks.run import Syntax
from headatlas.treebanks.surface import OFFSETS, Likeness, Surface

HEADS = tuple(HeadId(0, i) for i in range(6))


def surface() -> Surface:
    at = np.zeros((6, len(OFFSETS)))
    at[0, OFFSETS.index(1)] = at[1, OFFSETS.index(-1)] = at[5, OFFSETS.index(1)] = 0.8
    entropy = np.array([0.1, 0.1, 2.9, 1.0, 1.0, 0.1])
    start = np.array([0, 0, 0, 0.7, 0.1, 0.65])
    return Surface(HEADS, entropy, 3.0, at, start, np.zeros(6), np.full(6, np.nan))


def test_heads_are_of_a_kind_by_clarks_rules_the_later_ones_first():
    assert kinds(surface()) == ["next token", "previous token", "broad", "start token", "", "start token"]


def test_near_heads_are_drawn_near_and_the_picture_says_how_well():
    rng = np.random.default_rng(0)
    places = rng.normal(size=(6, 2))
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) / 10
    likeness = Likeness(HEADS, apart)
    found = likeness.map()
    again = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert np.corrcoef(again.ravel(), apart.ravel())[0, 1] > 0.99, "what lies in a plane is drawn as it is"
    picture = drawn("a model", likeness, surface())
    assert "correlation 1.00" in picture
    assert picture.count(">0.") >= 6, "each head bears its name"


def test_a_map_without_its_measures_says_what_to_ask_for():
    with pytest.raises(BadInput, match="two measures"):
        Syntax(HEADS, 1, (), {"model": "m"}).save_map("x.svg")
