"""Examples of verdicts are as short as their task can be: a verdict costs hundreds of runs."""

import pytest

from headatlas.mining.checks.fresh import CONTEXT, LONGER, fresh
from headatlas.tasks.repeated import repeated, repeated_four
from tests.mining import echo


@pytest.mark.parametrize(("task", "most"), [(repeated, CONTEXT), (repeated_four, LONGER)])
def test_examples_are_short_where_the_task_can_be(narrow_smollm2, task, most: int):
    batch = fresh(narrow_smollm2, task, 32, 0)
    assert most - 8 < batch.tokens.shape[1] <= most
    whole = fresh(narrow_smollm2, task, 32, 0, 12)
    assert whole.tokens.shape == (12, batch.tokens.shape[1]), "more examples are as long"


def test_a_task_of_a_short_model_gives_what_it_can():
    model = echo.model()
    batch = fresh(model, echo.echo, 32, 0)
    assert len(batch) >= 4
    assert batch.tokens.shape[1] <= model.tokenizer.context
