"""A T5 with sentinels and a Marian without any mask token, opened once."""

import pytest

from tests.methods.measured_by.two_stacks import opened


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    return opened("t5", tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def marian(tmp_path_factory):
    return opened("marian", tmp_path_factory.mktemp("marian"))
