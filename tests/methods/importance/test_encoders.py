"""Models that read both ways: by their masked tokens, or refused where a metric reads logits that there are none of."""

from __future__ import annotations

import numpy as np
import pytest

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.attribution.importance import head_importance
from headatlas.task import find_task, next_token_loss
from headatlas.task.encoders import masked, masked_token_loss
from tests.mining.test_encoder_verdicts import model, words

METHODS = {
    "ablate": lambda bare, given: ha.ablate(bare, given),
    "attribute": lambda bare, given: ha.attribute(bare, given),
    "importance": head_importance,
    "patch": lambda bare, given: ha.patch(bare, given),
}


@pytest.mark.parametrize("source", ["task", "text"])
@pytest.mark.parametrize("method", METHODS)
def test_without_logits_what_reads_them_is_refused_in_one_line(method: str, source: str):
    bare = model("BertModel")
    given = ha.Prompts(task="prose", n=4) if source == "task" else ha.Prompts(text="A red house stood there.")
    with pytest.raises((BadInput, UnsupportedModel), match="gives no token logits") as refused:
        METHODS[method](bare, given)
    assert "\n" not in str(refused.value)


def test_a_batch_of_ones_own_is_refused_too():
    batch = find_task("prose")(words(), 4, 0)
    with pytest.raises(UnsupportedModel, match="gives no token logits"):
        head_importance(model("BertModel"), batch, next_token_loss)


def test_a_task_of_next_tokens_is_read_with_masked_ones():
    whole = model("BertForMaskedLM")
    given = ha.Prompts(task="prose", n=4)
    found = head_importance(whole, given)
    assert found.facts["metric"] == masked_token_loss.name
    batch = find_task("prose")(whole.tokenizer, 4, 0)
    by_hand = head_importance(whole, masked(batch, whole.tokenizer, whole.tokenizer.mask), masked_token_loss)
    np.testing.assert_array_equal(found.raw, by_hand.raw)
    assert np.all(found.raw[[(head.layer, head.head) != (1, 1) for head in found.heads]] > 0)
