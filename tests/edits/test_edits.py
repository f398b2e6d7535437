"""Edits against hooks written by hand on the plain model, in one pass and in cached generation; saved and loaded."""

import pytest
import torch

import headatlas as ha
from headatlas.edits import (
    Add,
    Mean,
    OnHeads,
    Project,
    Resample,
    Scale,
    Swap,
    Temper,
    Zero,
    collect,
)
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.task import Batch
from tests import toys

DECODERS = ["mha", "gqa", "mqa", "gpt2", "window", "softcap"]


@pytest.fixture(params=DECODERS)
def model(request) -> ha.Model:
    return toys.model(request.param)


def batch(n: int = 3, length: int = 40, seed: int = 0, **labels) -> Batch:
    tokens = torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(seed))
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), labels=labels)


def seen(model: ha.Model, inputs, component: str, edits=()) -> dict[int, torch.Tensor]:
    """What the component holds in each layer of a run, by token: [example, token, head, width]."""
    found = {}

    def watch(layer):
        value = getattr(layer, component)
        found[layer.index] = (value if component == "z" else value.transpose(1, 2)).clone()

    model.forward(inputs, watch=watch, edits=edits)
    return found


def by_hook(model: ha.Model, inputs, layer: int, change) -> torch.Tensor:
    """Logits when the input of a layer's output projection, [example, pos, head, d], is changed by a plain hook."""
    attention = model.layers[layer]

    def hook(_, args):
        z = args[0].unflatten(-1, (attention.n_heads, -1)).clone()
        return (change(z).flatten(-2),)

    handle = attention.projection.register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            return model.hf(input_ids=inputs.tokens).logits
    finally:
        handle.remove()


# ---- what each edit does, at z ------------------------------------------------------------------------------------
def test_zero_at_positions(model):
    inputs, places = batch(), torch.tensor([[3, 39], [7, -1], [0, 1]])

    def change(z):
        z[0, [3, 39], 2] = 0
        z[1, 7, 2] = 0
        z[2, [0, 1], 2] = 0
        return z

    found = model.forward(inputs, edits=[Zero("1.2", positions=places)])
    torch.testing.assert_close(found, by_hook(model, inputs, 1, change))


def test_mean_over_a_reference(model):
    inputs, reference = batch(), batch(5, 40, seed=1)
    z = seen(model, reference, "z")[0]
    mean = z.mean((0, 1))
    found = model.forward(inputs, edits=[Mean.over(model, "0.1 0.3", reference)])

    def overall(x):
        x[:, :, [1, 3]] = mean[[1, 3]]
        return x

    torch.testing.assert_close(found, by_hook(model, inputs, 0, overall), atol=2e-6, rtol=1e-5)
    found = model.forward(inputs, edits=[Mean.over(model, "0.1", reference, per_position=True)])

    def each(x):
        x[:, :, 1] = z.mean(0)[:, 1]
        return x

    torch.testing.assert_close(found, by_hook(model, inputs, 0, each), atol=2e-6, rtol=1e-5)
    ends = Mean.over(model, "0.1", reference, tokens=[39])
    torch.testing.assert_close(ends.values["decoder", 0], z.mean(0)[39], atol=2e-6, rtol=1e-5)


def test_mean_per_template_takes_each_examples_own(model):
    reference = batch(4, 40, seed=1, template=torch.tensor([7, 9, 7, 9]))
    inputs = batch(3, 40, template=torch.tensor([9, 7, 9]))
    z = seen(model, reference, "z")[1]
    edit = Mean.over(model, "1.0", reference, per_position=True, template="template", target=inputs)
    own = torch.stack([z[1::2].mean(0), z[0::2].mean(0), z[1::2].mean(0)])

    def change(x):
        x[:, :, 0] = own[:, :, 0]
        return x

    expected = by_hook(model, inputs, 1, change)
    torch.testing.assert_close(model.forward(inputs, edits=[edit]), expected, atol=2e-6, rtol=1e-5)
    picked = torch.tensor([2, 0])
    alone = model.forward(inputs.rows(picked), edits=[edit.rows(picked)])
    torch.testing.assert_close(alone, expected[picked], atol=2e-6, rtol=1e-5)
    strange = batch(1, 40, template=torch.tensor([8]))
    with pytest.raises(BadInput, match="no example with template 8"):
        Mean.over(model, "1.0", reference, template="template", target=strange)


def test_a_mean_leaves_padding_out():
    model, reference = toys.model("gqa"), batch(4, 20)
    plain = Mean.over(model, "1.1", reference).values["decoder", 1]
    padded = Mean.over(model, "1.1", reference.padded(right=7)).values["decoder", 1]
    left = Mean.over(model, "1.1", reference.padded(left=7)).values["decoder", 1]
    torch.testing.assert_close(padded, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(left, plain, atol=1e-6, rtol=1e-5)
    position = Mean.over(model, "1.1", reference.padded(right=7), per_position=True).values["decoder", 1]
    assert position.shape[0] == 20
    with pytest.raises(BadInput, match="no mean for them"):
        Mean.over(model, "1.1", reference.padded(left=7), per_position=True)
    shifted = reference.padded(left=7)
    edit = Mean.over(model, "1.1", shifted, per_position=True, target=shifted)
    plain_run = model.forward(reference, edits=[Mean.over(model, "1.1", reference, per_position=True)])
    torch.testing.assert_close(model.forward(shifted, edits=[edit])[:, 7:], plain_run, atol=1e-5, rtol=1e-4)
    with pytest.raises(BadInput, match="Example 1 has a token at position 20, where no reference example"):
        Mean.over(model, "1.1", reference, per_position=True, target=batch(2, 22))


def test_resample_and_swap_take_another_runs_values(model):
    inputs, other = batch(), batch(3, 40, seed=1)
    z = seen(model, other, "z")[1]

    def everywhere(x):
        x[:, :, 3] = z[:, :, 3]
        return x

    found = model.forward(inputs, edits=[Resample.over(model, "1.3", other)])
    torch.testing.assert_close(found, by_hook(model, inputs, 1, everywhere), atol=2e-6, rtol=1e-5)
    to, source = torch.tensor([[5, 9], [6, -1], [39, 0]]), torch.tensor([[1, 2], [3, -1], [20, 30]])

    def moved(x):
        x[0, 5, 3], x[0, 9, 3], x[1, 6, 3], x[2, 39, 3], x[2, 0, 3] = (
            z[0, 1, 3], z[0, 2, 3], z[1, 3, 3], z[2, 20, 3], z[2, 30, 3],
        )  # fmt: skip
        return x

    found = model.forward(inputs, edits=[Swap.over(model, "1.3", other, positions=to, source=source)])
    torch.testing.assert_close(found, by_hook(model, inputs, 1, moved), atol=2e-6, rtol=1e-5)
    order = torch.tensor([2, 0, 1])
    mixed = Resample.over(model, "1.3", other, order=order).values["decoder", 1]
    torch.testing.assert_close(mixed, z[order])


def test_add_project_and_scale(model):
    inputs = batch()
    width = model.layers[1].d_value
    generator = torch.Generator().manual_seed(3)
    u, v = torch.randn(2, width, generator=generator)

    def check(edit, change):
        torch.testing.assert_close(
            model.forward(inputs, edits=[edit]), by_hook(model, inputs, 1, change), atol=5e-6, rtol=1e-5
        )

    def add(x):
        x[:, 4, 2] += 3 * u
        return x

    check(Add("1.2", u, scale=3, positions=[4]), add)

    def remove(x):
        q = torch.linalg.qr(torch.stack([u, v]).T).Q
        x[:, :, 2] -= x[:, :, 2] @ q @ q.T
        return x

    check(Project("1.2", torch.stack([u, v, u + v])), remove)  # the third lies in the plane of the others

    def only(x):
        unit = u / u.norm()
        x[:, :, 2] = (x[:, :, 2] @ unit)[..., None] * unit
        return x

    check(Project("1.2", u, only=True), only)

    def scale(x):
        x[:, :, [0, 2]] *= 0.25
        return x

    check(Scale("1.2 1.0", 0.25), scale)


def test_edits_of_one_component_act_in_order():
    model, inputs = toys.model("gqa"), batch()
    width = model.layers[1].d_value
    u = torch.ones(width)
    first = model.forward(inputs, edits=[Add("1.2", u), Scale("1.2", 2)])
    second = model.forward(inputs, edits=[Scale("1.2", 2), Add("1.2", u)])
    torch.testing.assert_close(first, model.forward(inputs, edits=[Scale("1.2", 2), Add("1.2", u, 2)]))
    assert not torch.allclose(first, second)


# ---- other components --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("component", ["q", "k", "v", "z", "pattern", "residual"])
def test_every_component_is_changed_where_named_and_nowhere_else(model, component):
    inputs, other, places = batch(), batch(3, 40, seed=1), [5, 17]
    what = "1" if component == "residual" else "1.0 1.1 1.2 1.3"
    edit = Swap.over(model, what, other, positions=places, component=component)
    source = collect(model, other, OnHeads(what, component=component))["decoder", 1]
    before = collect(model, inputs, OnHeads(what, component=component))["decoder", 1]
    kept = []

    class Spy(OnHeads):
        def __call__(self, layer, x):
            kept.append(self._by_token(x).clone())
            return x

    model.forward(inputs, edits=[edit, Spy(what, component=component)])
    expected = before.clone()
    expected[:, places] = source[:, places]
    torch.testing.assert_close(kept[0], expected, atol=2e-6, rtol=1e-5)


def test_keys_and_values_belong_to_groups():
    model, inputs = toys.model("gqa"), batch()
    with pytest.raises(BadInput, match=r"1\.0 cannot have its k edited alone: it is shared with 1\.1"):
        model.forward(inputs, edits=[Zero("1.0", component="k")])
    whole = model.forward(inputs, edits=[Zero("1.0 1.1", component="v")])
    torch.testing.assert_close(model.forward(inputs, edits=[Zero("1.0", component="v", group=True)]), whole)
    # With their values gone, both heads of the group put out nothing, and the other group is as before.
    torch.testing.assert_close(whole, model.forward(inputs, edits=[Zero("1.0 1.1")]), atol=2e-6, rtol=1e-5)
    assert "whole KV groups" in repr(Zero("1.0", component="v", group=True))
    mha = toys.model("mha")
    torch.testing.assert_close(
        mha.forward(inputs, edits=[Zero("1.0", component="v")]),
        mha.forward(inputs, edits=[Zero("1.0")]),
        atol=2e-6,
        rtol=1e-5,
    )


# ---- refusals -----
def test_edits_are_frozen_and_leave_their_input_alone():
    edit = Zero("1.1")
    with pytest.raises(AttributeError, match="frozen"):
        edit.component = "q"
    model, inputs = toys.model("gqa"), batch()
    values = collect(model, inputs, OnHeads("1.1"))
    before = values["decoder", 1].clone()
    model.forward(inputs, edits=[Resample("1.1", values), Scale("1.1", 3.0)])
    assert torch.equal(values["decoder", 1], before)
    with pytest.raises(BadInput, match="made for 3 examples"):
        model.forward(batch(2), edits=[Resample("1.1", values)])


def test_wrong_edits_say_what_is_wrong():
    model, inputs = toys.model("gqa"), batch()
    for make, text in [
        (lambda: Zero("1.1", component="mlp"), "does not act on 'mlp'"),
        (lambda: Add("1.1", torch.ones(8), component="pattern"), "does not act on 'pattern'"),
        (lambda: Zero("1.1", positions=[-1]), "negative"),
        (lambda: Zero("1.1", positions=[0.5]), "whole numbers"),
        (lambda: Zero("1.1", component="residual"), "not a layer"),
        (lambda: Zero([HeadId(1, 1)], component="residual"), "belongs to no head"),
        (lambda: Temper("1.1", 0.0), "not possible"),
        (lambda: Project("1.1", torch.zeros(8)), "direction for 1.1 is zero"),
        (lambda: Mean("1.1", {("decoder", 0): torch.zeros(4, 8)}), "no values for layer decoder:1"),
        (lambda: Swap("1.1", {("decoder", 1): torch.zeros(1, 1, 4, 8)}), "needs positions"),
        (lambda: Add("1.1 1.2", {HeadId(1, 1): torch.ones(8)}), "no direction for 1.2"),
        (lambda: model.forward(inputs, edits=[Zero(7, component="residual")]), "no attention layer 7"),
        (lambda: model.forward(inputs, edits=[Add("1.1", torch.ones(9))]), "9 numbers"),
        (lambda: model.forward(inputs, edits=[Mean("1.1", {("decoder", 1): torch.zeros(4, 9)})]), "9 numbers a head"),
        (lambda: model.forward(inputs, edits=[Zero("1.1", positions=[[1], [2]])]), "made for 2 examples"),
        (
            lambda: model.forward(inputs, edits=[Resample.over(model, "1.1", batch(3, 30))]),
            "values of 30 positions; position 39 has none",
        ),
    ]:
        with pytest.raises(BadInput, match=text):
            make()


def test_gradients_flow_through_edits():
    model, inputs = toys.model("gqa"), batch(1, 12)
    direction = torch.ones(8, requires_grad=False)
    kept = []

    def watch(layer):
        if layer.index == 1:
            layer.z.retain_grad()
            kept.append(layer.z)

    model.forward(inputs, watch=watch, edits=[Scale("1.1", 2.0), Add("1.2", direction)], grad=True)[0, -1, 7].backward()
    assert float(kept[0].grad[0, -1].norm()) > 0
    model.hf.zero_grad()
