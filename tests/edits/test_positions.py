"""Positions in whatever form they come: they act where they say, or are refused in one line."""

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.edits.collect import collect
from headatlas.errors import BadInput
from headatlas.task import Batch
from tests import toys


def tokens(n: int = 2, length: int = 8) -> torch.Tensor:
    return torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(0))


def mixed() -> Batch:
    """Texts of 8 and 5 tokens, padded behind."""
    return Batch(tokens(), torch.arange(8) < torch.tensor([[8], [5]]))


def zeroed(model: ha.Model, ids: torch.Tensor, at: list[list[int]]) -> torch.Tensor:
    """The plain model's logits with head 0.1's output set to zero at positions of each example, by a hook of our own."""

    def zero(_, args):
        z = args[0].clone()
        for example, positions in enumerate(at):
            z[example, positions, 8:16] = 0
        return (z,)

    handle = model.hf.model.layers[0].self_attn.o_proj.register_forward_pre_hook(zero)
    try:
        with torch.no_grad():
            return model.hf(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("given", "at"),
    [
        (3, [[3], [3]]),
        (np.int64(3), [[3], [3]]),
        ([np.int32(1), 3], [[1, 3], [1, 3]]),
        (range(2, 4), [[2, 3], [2, 3]]),
        (np.array([1, 3]), [[1, 3], [1, 3]]),
        (torch.tensor(3), [[3], [3]]),
        ([3, 3, 3], [[3], [3]]),
        ([[1], [4]], [[1], [4]]),
        ([[1, 2, 5], [4]], [[1, 2, 5], [4]]),
        ([torch.tensor([1, 2]), torch.tensor([0])], [[1, 2], [0]]),
        (np.array([[1], [4]]), [[1], [4]]),
        (torch.tensor([[1, -1], [4, 2]]), [[1], [4, 2]]),
        ([[], [4]], [[], [4]]),
    ],
)
def test_positions_act_where_they_say(given, at):
    model, ids = toys.model("mha"), tokens()
    found = model.forward(ids, edits=[ha.Zero("0.1", positions=given)])
    torch.testing.assert_close(found, zeroed(model, ids, at), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (-1, "Position -1 is negative"),
        ([-1], "Position -1 is negative"),
        ([[-1]], "Position -1 is negative"),
        ([[-1], [-1]], "Position -1 is negative"),
        ([[3], [-2]], "Position -2 is negative"),
        (torch.tensor([[3], [-2]]), "Position -2 is negative"),
        (2.0, "whole numbers, got float64"),
        ([1, 2.5], "whole numbers, got float64"),
        (torch.tensor([1.0]), "whole numbers .* got float32"),
        ([True, False], "mask of True and False"),
        (torch.tensor([[True, False]]), "mask of True and False"),
        ([[True, False], [True, True]], "mask of True and False"),
        ([], "whole numbers"),
        ([[], []], "whole numbers"),
        ("end", "'end' is not a position"),
        (["1"], "whole numbers"),
        ([1, [2]], "given alone and some in lists"),
        ([[[1]]], "whole numbers"),
        (None.__class__, "whole numbers|not a position"),
    ],
)
def test_what_is_no_position_is_refused_in_words(given, told):
    with pytest.raises(BadInput, match=told):
        ha.Zero("0.1", positions=given)
    with pytest.raises(BadInput, match=told):
        ha.Block("0.1", keys=given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([8], "position 8 lies beyond every text. Its tokens are 0 to 7"),
        ([2, 99], "position 99 lies beyond every text"),
        ([[7], [5]], "position 5 is padding in example 2. Its tokens are 0 to 4"),
        ([[7], [9]], "position 9 lies beyond example 2"),
        ([[1], [1], [1]], "was made for 3 examples"),
    ],
)
def test_positions_where_there_is_no_token_are_refused(given, told):
    model, batch = toys.model("mha"), mixed()
    for edit in (
        ha.Zero("0.1", positions=given),
        ha.Scale(1, 0.5, component="residual", positions=given),
        ha.Block("0.1", keys=given),
    ):
        with pytest.raises(BadInput, match=told):
            model.forward(batch, edits=[edit])
    if "made for" not in told:
        with pytest.raises(BadInput, match="position"):
            collect(model, batch, ha.Zero("0.1"), positions=given)
        with pytest.raises(BadInput, match="position"):
            ha.Swap.over(model, "0.1", batch, positions=given)


def test_positions_in_padding_in_front_are_refused():
    model = toys.model("mha")
    batch = Batch(tokens(), torch.arange(8) >= torch.tensor([[0], [3]]))
    with pytest.raises(BadInput, match=r"position 1 is padding in example 2\. Its tokens are 3 to 7"):
        model.forward(batch, edits=[ha.Zero("0.1", positions=[[1], [1]])])


def test_generation_may_be_edited_beyond_its_prompt():
    model = toys.model("mha")
    with model.edited([ha.Zero("0.1", positions=[9])]) as hf:
        text = hf.generate(tokens(1), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert text.shape[1] == 11


def test_logits_are_given_at_positions_or_refused():
    model, ids = toys.model("mha"), tokens()
    whole = model.forward(ids)
    for given in ([0, 3], torch.tensor([0, 3]), np.array([0, 3]), range(0, 4, 3)):
        torch.testing.assert_close(model.forward(ids, logit_positions=given), whole[:, [0, 3]])
    each = model.forward(ids, logit_positions=[[0, 3], [5]])
    torch.testing.assert_close(each[0], whole[0, [0, 3]])
    torch.testing.assert_close(each[1, 0], whole[1, 5])
    nowhere = model.forward(ids, logit_positions=torch.tensor([[2], [-1]]))
    torch.testing.assert_close(nowhere[0, 0], whole[0, 2])
    assert nowhere[1].isnan().all()
    for wrong, told in (([-1], "negative"), ([8], "beyond the text, whose tokens are 0 to 7"), ([1.0], "whole numbers"),
                        ([[1], [1], [1]], "3 rows for 2 examples"), (torch.tensor([[1], [-3]]), "negative")):  # fmt: skip
        with pytest.raises(BadInput, match=told):
            model.forward(ids, logit_positions=wrong)


def test_named_positions_of_a_batch_stand_in_its_texts():
    for wrong, told in (([8, 0], "holds 8"), ([0, -2], "holds -2"), ([0.0, 1.0], "whole numbers")):
        with pytest.raises(BadInput, match=told):
            Batch(tokens(), torch.ones(2, 8, dtype=torch.bool), {"end": torch.tensor(wrong)})
    counted = Batch(tokens(), torch.ones(2, 8, dtype=torch.long))  # as tokenizers give it
    assert counted.mask.dtype == torch.bool


@pytest.mark.parametrize("given", ["", " ", ",", [], ()])
def test_no_head_at_all_is_refused(given):
    for make in (ha.Zero, lambda heads: ha.Scale(heads, 0.5)):
        with pytest.raises(BadInput, match="names no heads"):
            make(given)
    with pytest.raises(BadInput, match="names no layers"):
        ha.Scale(given, 0.5, component="residual")


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        (np.int64(1), {("decoder", 1)}),
        ([0, "1"], {("decoder", 0), ("decoder", 1)}),
        (("encoder", np.int32(2)), {("encoder", 2)}),
    ],
)
def test_layers_are_read_however_they_are_given(given, layers):
    assert ha.Scale(given, 0.5, component="residual").layers == layers
    for wrong in (1.0, True, -1, None, "1.0", [1.5]):
        with pytest.raises(BadInput, match="is not a layer"):
            ha.Scale(wrong, 0.5, component="residual")


def test_swap_takes_each_position_once():
    model = toys.model("mha")
    with pytest.raises(BadInput, match="given a position twice"):
        ha.Swap.over(model, "0.1", mixed(), source=[1, 2], positions=[3, 3])
