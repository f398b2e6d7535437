"""Heads named by pattern in edits and circuits: the model says which they are, and the numbers are those of naming each."""

import pytest
import torch

import headatlas as ha
from headatlas.circuits.circuit import parse_nodes
from headatlas.edits import Mean, Resample, Scale, Temper, Zero, load_edits, save
from headatlas.errors import BadInput
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.task import next_token_loss
from tests import toys

BATCH = ha.Batch(torch.arange(12).reshape(2, 6) % 7, torch.ones(2, 6, dtype=torch.bool))


@pytest.fixture(scope="module")
def model():
    return toys.model("gqa")


def logits(model, edit):
    return model.forward(BATCH, edits=[edit])


@pytest.mark.parametrize(
    "make",
    [
        Zero,
        lambda heads: Scale(heads, 0.5, positions=[1, 2]),
        lambda heads: Temper(heads, 2.0),
    ],
)
@pytest.mark.parametrize(("pattern", "named"), [("1.*", lambda h: h.layer == 1), ("*.0", lambda h: h.head == 0)])
def test_a_pattern_does_what_naming_each_head_does(make, pattern, named, model):
    heads = [head for head in model.heads if named(head)]
    torch.testing.assert_close(logits(model, make(pattern)), logits(model, make(heads)), rtol=0, atol=0)
    with model.edited([make(f"{pattern} 0.1")]) as hf:
        found = hf(BATCH.tokens).logits
    torch.testing.assert_close(found, logits(model, make([*heads, "0.1"])))


def test_keys_of_a_whole_layer_and_runs_that_reuse_others_take_patterns(model):
    layer = [head for head in model.heads if head.layer == 1]
    whole = logits(model, Zero(layer, component="k"))
    torch.testing.assert_close(logits(model, Zero("1.*", component="k")), whole, rtol=0, atol=0)
    batch = ha.Batch(BATCH.tokens, BATCH.mask, {"predict": torch.tensor([[3, 4], [3, 4]])})
    found = CachedRuns(model, batch, next_token_loss).measure([[Zero("1.*")], [Zero(layer)]])
    assert (found[0] == found[1]).all()
    assert (found[0] != CachedRuns(model, batch, next_token_loss).clean).any()


def test_edits_with_values_take_patterns_where_they_are_collected(model):
    layer = [head for head in model.heads if head.layer == 1]
    for kind in (Mean, Resample):
        assert kind.over(model, "1.*", BATCH).heads == tuple(layer)
    with pytest.raises(BadInput, match="names several heads"):
        Mean("1.*", Mean.over(model, "1.*", BATCH).values)


def test_a_pattern_prints_itself_is_kept_in_files_and_is_refused_where_it_names_nothing(model, tmp_path):
    edit = Zero("1.* 0.1")
    assert repr(edit) == "Zero(0.1 1.*)"
    save([edit], tmp_path / "edits")
    (again,) = load_edits(tmp_path / "edits")
    torch.testing.assert_close(logits(model, again), logits(model, edit), rtol=0, atol=0)
    with pytest.raises(BadInput, match=r"'99\.\*' names no head of this model"):
        logits(model, Zero("99.*"))
    with pytest.raises(BadInput, match="is not a head"):
        Zero("1.x*")


def test_nodes_of_circuits_are_named_by_pattern(model):
    heads = [head for head in model.heads if head.layer == 1]
    assert [str(node) for node in parse_nodes("1.*@end 0.1", model.heads)] == [*(f"{h}@end" for h in heads), "0.1"]
    with pytest.raises(BadInput, match="names several heads"):
        parse_nodes("1.*")
