"""What watchers and edits are shown is for reading: writes are refused, or reach nothing."""

from collections.abc import Callable

import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.model import LayerView, Model, attach
from tests import toys
from tests.model.core.passes import IDS, plain, right


def flipped(x: torch.Tensor) -> None:
    x[..., 0] = 3


WRITES: dict[str, Callable[[LayerView], object]] = {
    "z": lambda layer: layer.z.mul_(0),
    "part of z": lambda layer: flipped(layer.z[:, :, 1]),
    "q": lambda layer: layer.q.zero_(),
    "k": lambda layer: layer.k[:, 0].add_(1),
    "v": lambda layer: layer.v.detach().neg_(),
    "pattern": lambda layer: layer.pattern.fill_(0),
    "rows of the pattern": lambda layer: (layer.pattern, layer.reduce(lambda rows, _: rows.zero_())),
    "a band": lambda layer: layer.offset(1).zero_(),
    "z by assignment": lambda layer: setattr(layer, "z", layer.z * 0),
    "v by assignment": lambda layer: setattr(layer, "v", layer.v * 0),
}


@pytest.mark.parametrize("choice", ["sdpa", "eager"])
@pytest.mark.parametrize("what", WRITES)
def test_a_watcher_that_writes_is_refused(what: str, choice: str):
    hf = toys.llama()
    hf.set_attn_implementation(choice)
    model = attach(hf)
    expected = plain(model.hf)
    with pytest.raises(BadInput, match=r"[Tt]he watcher (wrote into|put another tensor).*layer 0.*edits="):
        model.forward(IDS, watch=WRITES[what])
    assert torch.equal(plain(model.hf), expected)
    assert torch.equal(model.forward(IDS, watch=writes_to_copies), expected)


def writes_to_copies(layer: LayerView) -> None:
    for tensor in (layer.q, layer.k, layer.v, layer.z, layer.pattern, layer.offset(1)):
        tensor.clone().zero_()


@pytest.mark.parametrize(
    "write",
    [
        lambda layer: layer.z.data.zero_(),
        lambda layer: layer.z.detach().numpy().fill(0),
        lambda layer: layer.q.data.zero_(),
        lambda layer: layer.v.data.zero_(),
    ],
)
def test_writes_that_torch_does_not_count_do_not_reach_the_model(model: Model, truth, write):
    assert torch.equal(model.forward(IDS, watch=write), truth[0])
    assert right(model, truth)


def test_under_inference_mode_nothing_is_counted_and_nothing_reaches_the_model(model: Model, truth):
    with torch.inference_mode():
        assert torch.equal(model.forward(IDS, watch=lambda layer: layer.z.zero_()), truth[0])


class Overwrites(ha.Zero):
    """An edit that writes into what it is given."""

    def __call__(self, layer: LayerView, x: torch.Tensor) -> torch.Tensor:
        return x.zero_()


@pytest.mark.parametrize("component", ["q", "k", "v", "z", "pattern"])
def test_an_edit_that_overwrites_what_it_is_given_is_refused(model: Model, truth, component: str):
    with pytest.raises(BadInput, match=f"wrote into the {component} that it was given. Return a new tensor"):
        model.forward(IDS, edits=[Overwrites("0.1", component=component)])
    assert right(model, truth)
