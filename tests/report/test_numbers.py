"""Numbers of any library are shown alike, and what is none is a dash."""

import math

import numpy as np
import pytest

from headatlas.render.numbers import finite, number


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16])
def test_numbers_of_any_precision_are_shown(kind):
    assert number(kind(16.5)) == "16.5"
    assert number(kind(math.nan)) == number(kind(math.inf)) == "–"


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_whole_numbers_are_numbers(kind):
    assert finite(kind(3)) == 3.0


@pytest.mark.parametrize("none", [None, True, np.True_, "3"])
def test_what_is_no_number_is_none(none):
    assert finite(none) is None
