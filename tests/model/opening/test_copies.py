"""Copies of a transformers model that is open: they compute as it does, are opened as any other, and given back."""

import copy

import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.model import attach
from headatlas.model.families.tiny_models import family
from tests.model.core.passes import IDS, plain

LAYOUTS = ("bloom", "falcon", "gptj", "gpt-neo")


@pytest.mark.parametrize("name", ["llama", *LAYOUTS])
def test_a_copy_of_an_open_model_is_a_model_of_its_own(name: str):
    hf = family(name).build().eval()
    truth, edits = plain(hf), [ha.Zero("0.1")]
    model = attach(hf)
    edited, other = model.forward(IDS, edits=edits), copy.deepcopy(hf)
    assert torch.equal(plain(other), truth)
    with torch.no_grad():
        for weight in other.parameters():
            weight *= 1.5
    fresh = family(name).build().eval()
    fresh.load_state_dict(other.state_dict())
    expected = plain(fresh)
    with attach(other) as second:
        torch.testing.assert_close(second.forward(IDS, edits=edits), attach(fresh).forward(IDS, edits=edits))
        assert torch.equal(model.forward(IDS, edits=edits), edited)
    torch.testing.assert_close(plain(other), expected)
    assert not any(name in vars(part) for part in other.modules() for name in ("forward", "_attn"))


def test_the_look_into_it_is_not_copied():
    with pytest.raises(BadInput, match=r"copy\.deepcopy\(model\.hf\)"):
        copy.deepcopy(attach(family("falcon").build()))
