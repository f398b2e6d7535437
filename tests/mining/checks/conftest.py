"""The toy, for all tests of checks."""

import pytest

from headatlas.model import Model
from tests.mining import echo


@pytest.fixture(scope="package")
def model() -> Model:
    return echo.model()
