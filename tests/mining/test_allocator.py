"""Freed memory stays with the process while a run goes on: asking again costs no page faults, and afterwards it goes back."""

import platform
import resource

import pytest
import torch

from headatlas.mining.allocator import freed_memory_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
SIZE, PAGE = 64 << 20, 4096  # larger than what glibc keeps by itself, smaller than what is always asked for anew


def faults() -> int:
    """Of writing to SIZE bytes that are asked for now."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(SIZE, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def kept() -> int:
    """Faults once the heap has grown to what is asked for over and over."""
    return [faults() for _ in range(6)][-1]


def test_memory_is_asked_for_once():
    with freed_memory_kept():
        assert kept() < SIZE // PAGE // 20
    assert kept() > SIZE // PAGE // 2  # as in any process: each time anew


def test_it_goes_back_after_an_error_too():
    def broken() -> None:
        with freed_memory_kept():
            raise ValueError("in between")

    with pytest.raises(ValueError, match="in between"):
        broken()
    assert kept() > SIZE // PAGE // 2
