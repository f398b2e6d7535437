"""What detectors share is computed once for a model and a batch while they are asked together, and anew afterwards."""

import torch

from headatlas.ops.memo import asked_together, once
from headatlas.task import Batch


def made():
    return Batch(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool))


def test_computed_once_while_detectors_are_asked_together():
    model, batch, calls = object(), made(), []

    def make():
        calls.append(1)
        return [len(calls)]

    with asked_together():
        first = once(model, batch, "thing", make)
        assert once(model, batch, "thing", make) is first
        assert once(model, batch, "other", make) is not first
        assert once(model, made(), "thing", make) is not first, "another batch with the same tokens"
        with asked_together():
            assert once(model, None, "thing", make) is once(model, None, "thing", make)
        assert len(calls) == 4
        assert once(model, batch, "thing", make) is first
    assert once(model, batch, "thing", make) is not first  # the model may have been trained on


def test_within_one_question_too():
    calls = []

    def part():
        return once(None, None, "part", lambda: calls.append(1))

    once(None, None, "whole", lambda: (part(), part()))
    assert len(calls) == 1
