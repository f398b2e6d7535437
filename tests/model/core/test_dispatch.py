"""Watching and editing a model against independent oracles: the model's own eager attentions, brute force, plain hooks."""

import gc
import weakref

import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import attach
from headatlas.model.core.forward_pass import Tap
from tests import toys

KINDS = ["mha", "gqa", "mqa", "gpt2", "window", "softcap", "encoder"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def tokens(n: int = 2, length: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(seed))


def own_attentions(kind: str, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What an untouched copy of the model says with eager attention."""
    hf = toys.MAKERS[kind]()
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        return hf(input_ids=inputs, output_attentions=True).attentions


def test_patterns_equal_the_models_own(kind: str):
    model, inputs, found = toys.model(kind), tokens(), {}
    model.forward(inputs, watch=lambda layer: found.update({layer.index: layer.pattern.clone()}))
    for layer, expected in enumerate(own_attentions(kind, inputs)):
        torch.testing.assert_close(found[layer], expected, atol=1e-6, rtol=1e-5)


def test_logits_are_identical_with_and_without_watchers(kind: str):
    model, inputs = toys.model(kind), tokens()
    hf = toys.MAKERS[kind]()
    with torch.no_grad():
        plain = model.read(hf(input_ids=inputs))
    assert torch.equal(model.forward(inputs), plain)
    assert torch.equal(model.forward(inputs, watch=lambda layer: layer.rows(torch.tensor([3]))), plain)


def test_entries_offsets_bands_and_columns_equal_the_pattern(kind: str):
    model, inputs = toys.model(kind), tokens(3, 50)

    def watch(layer):
        pattern = own[layer.index]
        places = torch.arange(50)
        for k in (-60, -2, -1, 0, 1, 7, 49, 50, 60):
            expected = torch.full((3, 4, 50), torch.nan)
            inside = (places - k >= 0) & (places - k < 50)
            expected[:, :, inside] = pattern[:, :, places[inside], places[inside] - k]
            torch.testing.assert_close(layer.offset(k), expected, equal_nan=True, atol=2e-6, rtol=1e-4)
        band = layer.band(-3, 20)
        for i, k in enumerate(range(-3, 21)):
            torch.testing.assert_close(band[..., i], layer.offset(k), equal_nan=True, atol=2e-6, rtol=1e-4)
        queries, keys = (
            torch.tensor([[3, 9, -1], [49, 0, 30], [20, 20, 20]]),
            torch.tensor([[1, 9, 4], [2, 0, -1], [40, 20, 0]]),
        )
        found = layer.entries(queries, keys)
        for e in range(3):
            for i in range(3):
                q, k = int(queries[e, i]), int(keys[e, i])
                expected = pattern[e, :, q, k] if q >= 0 and k >= 0 else torch.full((4,), torch.nan)
                torch.testing.assert_close(found[e, :, i], expected, equal_nan=True, atol=2e-6, rtol=1e-4)
        columns = layer.columns(torch.tensor([[0, 5], [7, -1], [49, 1]]))
        torch.testing.assert_close(columns[0, :, :, 1], pattern[0, :, :, 5], atol=2e-6, rtol=1e-4)
        assert columns[1, :, :, 1].isnan().all()
        torch.testing.assert_close(columns[2, :, :, 0], pattern[2, :, :, 49], atol=2e-6, rtol=1e-4)
        torch.testing.assert_close(layer.rows(torch.tensor([4, 40])), pattern[:, :, [4, 40]], atol=2e-6, rtol=1e-4)
        each = layer.rows(torch.tensor([[4, 40], [1, 2], [0, 49]]))
        torch.testing.assert_close(each[2, :, 1], pattern[2, :, 49], atol=2e-6, rtol=1e-4)
        sums = layer.reduce(lambda rows, places: (rows * rows).sum(-1))
        torch.testing.assert_close(sums, (pattern * pattern).sum(-1), atol=2e-6, rtol=1e-4)
        seen.append(layer.index)

    own, seen = own_attentions(kind, inputs), []
    block = model.block_bytes
    for size in (block, 4 * 3 * 50 * 4 * 7):  # second: blocks of seven queries
        model.block_bytes = size
        try:
            model.forward(inputs, watch=watch)
        finally:
            model.block_bytes = block
    assert seen == [0, 1] * 2


def test_zero_equals_zeroing_the_input_of_the_output_projection(kind: str):
    model, inputs = toys.model(kind), tokens()
    stack, layer = model.stacks[0], model.layers[1]
    edited = model.forward(inputs, edits=[ha.Zero([HeadId(1, 2, stack)])])

    def hook(module, args):
        changed = args[0].clone()
        changed[..., 2 * layer.d_value : 3 * layer.d_value] = 0
        return (changed,)

    handle = layer.projection.register_forward_pre_hook(hook)
    by_hand = model.forward(inputs)
    handle.remove()
    assert torch.equal(edited, by_hand)
    assert not torch.equal(edited, model.forward(inputs))


def test_writes_sum_to_the_blocks_output(kind: str):
    model, inputs, real, summed = toys.model(kind), tokens(), {}, {}
    handles = [
        layer.projection.register_forward_hook(lambda module, _, out, layer=layer: real.update({layer.index: out}))
        for layer in model.layers
    ]

    def watch(layer):
        bias = layer.attention.output_bias()
        summed[layer.index] = layer.writes().sum(2) + (0 if bias is None else bias)
        torch.testing.assert_close(layer.writes(torch.tensor([3, 5])), layer.writes()[:, [3, 5]])

    model.forward(inputs, watch=watch)
    for handle in handles:
        handle.remove()
    for layer, expected in real.items():
        torch.testing.assert_close(summed[layer], expected, atol=1e-5, rtol=1e-4)


def test_logits_only_where_asked(kind: str):
    model, inputs = toys.model(kind), tokens()
    whole = model.forward(inputs)
    if not model.has_logits:
        pytest.skip("an encoder without a head gives hidden states")
    torch.testing.assert_close(
        model.forward(inputs, logit_positions=torch.tensor([[3, 9], [39, 0]])),
        whole[torch.arange(2)[:, None], torch.tensor([[3, 9], [39, 0]])],
    )
    torch.testing.assert_close(model.forward(inputs, logit_positions=torch.tensor([7])), whole[:, [7]])


def test_a_run_started_at_a_layer_equals_the_whole_run(kind: str):
    model, inputs = toys.model(kind), tokens()
    stack = model.stacks[0]
    kept: dict[tuple[str, int], torch.Tensor] = {}
    whole = model.forward(inputs, edits=[Tap([(stack, 1)], kept.__setitem__)])
    again = model.forward(inputs, start_at=(1, kept[stack, 1]))
    torch.testing.assert_close(again, whole, atol=1e-6, rtol=1e-6)
    head = HeadId(1, 3, stack)
    torch.testing.assert_close(
        model.forward(inputs, edits=[ha.Zero([head])], start_at=(1, kept[stack, 1])),
        model.forward(inputs, edits=[ha.Zero([head])]),
        atol=1e-6,
        rtol=1e-6,
    )


def test_everything_is_put_back_after_an_exception():
    model, inputs = toys.model("gqa"), tokens()
    before = model.forward(inputs)

    def fail(layer):
        raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        model.forward(inputs, watch=fail, start_at=(1, torch.zeros(2, 40, 32)))
    assert torch.equal(model.forward(inputs), before)
    assert all("forward" not in block.__dict__ for block in model.decoder_blocks())
    assert not any(module._forward_pre_hooks for module in model.hf.modules())


def test_two_models_are_open_at_once_and_freed_when_dropped():
    first, second = attach(toys.llama()), attach(toys.llama(num_attention_heads=8, num_key_value_heads=4))
    inputs = tokens()
    seen: dict[str, int] = {}
    first.forward(inputs, watch=lambda layer: seen.update(first=layer.n_heads))
    second.forward(inputs, watch=lambda layer: seen.update(second=layer.n_heads))
    assert seen == {"first": 4, "second": 8}
    alive = weakref.ref(first.hf)
    del first
    gc.collect()
    assert alive() is None


def test_gradients_flow_through_watchers_when_asked():
    model, inputs = toys.model("gqa"), tokens(1, 12)
    kept = {}

    def watch(layer):
        kept[layer.index] = layer.z
        layer.z.retain_grad()

    logits = model.forward(inputs, watch=watch, grad=True)
    logits[0, -1, 7].backward()
    numeric = []
    for head in range(4):  # finite differences along a random direction of one head
        direction = torch.randn(kept[1].shape[-1], generator=torch.Generator().manual_seed(head)) * 1e-2

        class Push(ha.Zero):
            def __call__(self, layer, x, head=head, direction=direction):
                moved = x.clone()
                moved[:, 3, head] += direction * self.sign
                return moved

        values = []
        for sign in (1.0, -1.0):
            push = Push([HeadId(1, head)])
            object.__setattr__(push, "sign", sign)
            values.append(model.forward(inputs, edits=[push])[0, -1, 7])
        numeric.append(((values[0] - values[1]) / 2).item())
        analytic = (kept[1].grad[0, 3, head] * direction).sum().item()
        assert analytic == pytest.approx(numeric[-1], rel=5e-2, abs=1e-6)
    model.hf.zero_grad()


def test_refusals_name_what_is_wrong():
    model, inputs = toys.model("gqa"), tokens()
    with pytest.raises(BadInput, match=r"no head 0\.9: layer 0 has heads 0 to 3"):
        model.forward(inputs, edits=[ha.Zero("0.9")])
    with pytest.raises(BadInput, match="no attention layer 7"):
        model.forward(inputs, edits=[ha.Zero("7.0")])
    with pytest.raises(BadInput, match=r"Write encoder:1\.0"):
        toys.model("encoder").forward(inputs, edits=[ha.Zero("1.0")])
    with pytest.raises(BadInput, match="161 tokens are more than"):
        model.forward(torch.full((1, 161), 7))
    with pytest.raises(BadInput, match="outside the vocabulary"):
        model.forward(torch.full((1, 4), 160))
    with pytest.raises(BadInput, match="inside another"), model.edited([ha.Zero("0.0")]):
        model.forward(inputs)  # whether under those edits or not would not be clear


def test_a_view_is_dead_after_its_layer():
    model, kept = toys.model("gqa"), []
    model.forward(tokens(), watch=kept.append)
    with pytest.raises(BadInput, match="after its layer had ended"):
        _ = kept[0].pattern


def test_edits_act_in_cached_generation_as_in_one_pass():
    model = toys.model("gqa")
    start = tokens(1, 6)
    with model.edited([ha.Zero("0.1"), ha.Zero("1.2")]) as hf:
        out = hf.generate(start, max_new_tokens=5, do_sample=False, pad_token_id=0)
    sequence = start
    for _ in range(5):
        logits = model.forward(sequence, edits=[ha.Zero("0.1"), ha.Zero("1.2")])
        sequence = torch.cat([sequence, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(out, sequence)
    plain = model.hf.generate(start, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert plain.shape == out.shape  # and the model is as it was
    torch.testing.assert_close(model.forward(start), toys.llama()(input_ids=start).logits.detach())


def test_a_model_that_bypasses_the_attention_interface_is_refused_by_name():
    import transformers as T

    torch.manual_seed(0)
    mpt = T.MptForCausalLM(T.MptConfig(vocab_size=160, d_model=32, n_layers=2, n_heads=4, max_seq_len=64))
    with pytest.raises(UnsupportedModel, match=r"MptForCausalLM is not supported.*MptAttention"):
        attach(mpt)
    mamba = T.MambaForCausalLM(T.MambaConfig(vocab_size=160, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(UnsupportedModel, match="has no attention heads"):
        attach(mamba)
