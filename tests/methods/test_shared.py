"""What detectors share is computed once for a model and a batch, and goes with them."""

import gc

import torch

from headatlas.detectors._measures.memo import once
from headatlas.task import Batch


class Stand:
    """Stands for a model: anything that can be referred to weakly."""


def made():
    return Batch(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool))


def test_computed_once_and_forgotten_with_the_batch_or_the_model():
    from headatlas.detectors._measures import memo

    model, batch, calls = Stand(), made(), []
    before = len(memo._CACHE)

    def make():
        calls.append(1)
        return [len(calls)]

    first = once(model, batch, "thing", make)
    assert once(model, batch, "thing", make) is first
    assert once(model, batch, "other", make) is not first
    assert once(model, made(), "thing", make) is not first, "another batch with the same tokens"
    assert once(model, None, "thing", make) is once(model, None, "thing", make)
    assert len(calls) == 4
    del batch
    gc.collect()
    assert len(memo._CACHE) == before + 1
    del model
    gc.collect()
    assert len(memo._CACHE) == before
