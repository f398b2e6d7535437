"""Every text class of the installed transformers works exactly or is refused with reason (`make test-families`)."""

from __future__ import annotations

import gc

import pytest
import torch

from headatlas.model.families.build import family_row, family_rows
from tests.families.expected import EXPECTED, SAMPLE, all_rows, rows
from tests.families.oracle import judge

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    gc.collect()


def assert_as_expected(name: str, *, everything: bool) -> None:
    verdict = judge(family_row(name), everything=everything)
    if name in EXPECTED["either"]:
        assert verdict.status in ("exact", "refused"), f"{verdict.status}: {verdict.why}"
    elif name in EXPECTED["refused"]:
        assert verdict.status == "refused", f"{verdict.status}: {verdict.why}"
        assert verdict.right, f"refused ({verdict.why}), and yet: {verdict.facts['probe']}"
    else:
        assert verdict.status == "exact", f"{verdict.status}: {verdict.why}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", rows(list(SAMPLE.values())))
def test_a_sample_of_every_mechanism(name: str):
    assert_as_expected(name, everything=name in ("LlamaForCausalLM", "Gemma4ForCausalLM:shared-kv"))


@pytest.mark.families
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", rows(all_rows()))
def test_each_row_is_exact_or_refused_with_reason(name: str):
    assert_as_expected(name, everything=True)


@pytest.mark.families
def test_the_expectations_name_every_row():
    """A class that a newer transformers brings has no expectation yet; one that it drops has one too many."""
    known = {*all_rows(), *EXPECTED["not built"]}
    assert {row.name for row in family_rows()} == known
    assert set(EXPECTED["today"]) <= known
