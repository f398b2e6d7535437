"""A cache of parts gives the very numbers of full attention in which each head looks at what the plan lets it, and holds what it says."""

from __future__ import annotations

import functools

import pytest
import torch

from headatlas.apply.kv_cache.plan import CachePlan, everything, plan_of
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.protected_groups import Group
from headatlas.model import Model, attach
from headatlas.model.families.tiny_models import FAMILIES as SUPPORTED
from headatlas.model.families.tiny_models import all_families
from headatlas.model.families.tiny_models import family as family_of
from headatlas.model.holding.cache import cache_shapes
from headatlas.model.holding.own import read_text
from headatlas.model.holding.span import LayerShape, Span
from tests.kv_cache import twin

DECODERS = tuple(one.name for one in all_families() if set(one.stacks) == {"decoder"})
# Compressed keys, sinks by head, chunks, states, or code that computes with what a cache returns.
REFUSED = (
    "gpt-neo", "bloom", "falcon", "falcon-grouped", "falcon-alibi", "falcon-h1", "llama4", "minimax", "qwen3-next", "gpt-oss",
    "deepseek-v2", "deepseek-v3", "doge", "lfm2", "jamba", "bamba", "recurrent-gemma",
)  # fmt: skip


@functools.cache
def model_of(family: str, attention: str = "sdpa") -> Model:
    hf = family_of(family).build()
    if attention != "sdpa":
        hf.set_attn_implementation(attention)
    return attach(hf)


def tokens(n: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, 160, (n, length), generator=torch.Generator().manual_seed(seed))


def mixed(model: Model, *, compensate: bool = False, share: float = 0.2) -> CachePlan:
    """A different span for each group in turn, one of which keeps everything."""
    shapes = cache_shapes(model)
    spans = (None, Span(2, 5, compensate=compensate), Span(0, 3), Span(3, 1, share, compensate))
    places = iter(range(1000))
    return CachePlan(shapes, tuple(tuple(spans[next(places) % 4] for _ in range(s.n_groups)) for s in shapes))


def close(one: torch.Tensor, other: torch.Tensor, bound: float = 2e-5) -> None:
    assert float((one - other).abs().max()) < bound * float(other.abs().max())


@pytest.mark.parametrize("compensate", [False, True])
@pytest.mark.parametrize("family", sorted(set(DECODERS) & set(SUPPORTED) - set(REFUSED)))
def test_every_head_sees_what_the_plan_says(family: str, compensate: bool):
    model = model_of(family)
    plan, ids = mixed(model, compensate=compensate), tokens(2, 30)
    pieces = [14, 1, 1, 6, 1, 7]
    with plan.on(model):
        found = twin.run(model, plan.cache(model), ids, pieces)
    close(found, twin.logits(model, plan, ids, pieces))
    full = model.forward(ids)
    assert float((found - full)[:, -1].abs().max()) > 1e-3 * float(full.abs().max()), "the plan changes something"


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_eager_attention_gives_the_same(family: str):
    plan, ids = mixed(model_of(family, "eager"), compensate=True), tokens(2, 24)
    with plan.on(model_of(family, "eager")):
        found = twin.run(model_of(family, "eager"), plan.cache(model_of(family, "eager")), ids, [12, 5, 1, 6])
    close(found, twin.logits(model_of(family), plan, ids, [12, 5, 1, 6]))


@pytest.mark.parametrize("compensate", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_texts_of_unequal_length_are_padded_on_the_left(family: str, compensate: bool):
    model = model_of(family)
    plan, ids = (
        mixed(model, compensate=compensate, share=0.0),
        tokens(3, 26),
    )  # a share is of all that is read, padding too
    mask = torch.arange(26) >= torch.tensor([0, 4, 11])[:, None]
    pieces = [13, 1, 5, 1, 6]
    with plan.on(model):
        found = twin.run(model, plan.cache(model), ids, pieces, mask)
    wanted = twin.logits(model, plan, ids, pieces, mask)
    for example, start in enumerate((0, 4, 11)):
        close(found[example, start:], wanted[example, start:])
        alone = ids[example : example + 1, start:]
        with plan.on(model):
            one = twin.run(model, plan.cache(model), alone, [13 - start, 1, 5, 1, 6])
        close(found[example : example + 1, start:], one)


@pytest.mark.parametrize("compensate", [False, True])
def test_many_tokens_at_once_are_as_one_after_the_other(compensate: bool):
    model = model_of("llama")
    plan, ids = mixed(model, compensate=compensate), tokens(2, 40)
    with plan.on(model):
        at_once = twin.run(model, plan.cache(model), ids, [12, 28])
        single = twin.run(model, plan.cache(model), ids, [12, *[1] * 28])
    close(at_once, single)


@pytest.mark.parametrize("family", ["llama", "gemma3", "mistral"])
def test_a_plan_that_keeps_everything_changes_nothing_under_generate(family: str):
    model = model_of(family)
    plan, ids = everything(cache_shapes(model)), tokens(2, 12)
    for how in (
        {"do_sample": False},
        {"num_beams": 3, "do_sample": False},
        {"num_return_sequences": 2, "do_sample": True},
    ):
        torch.manual_seed(0)
        wanted = model.hf.generate(ids, max_new_tokens=12, **how)
        torch.manual_seed(0)
        with plan.on(model) as hf:
            found = hf.generate(ids, max_new_tokens=12, past_key_values=plan.cache(model), **how)
        assert torch.equal(found, wanted), how


def test_beams_keep_their_own_caches():
    """Each beam's log-probability is what its text gets when it is read alone under the plan."""
    model = model_of("llama")
    plan, ids = mixed(model, compensate=True), tokens(2, 10)
    with plan.on(model) as hf:
        found = hf.generate(
            ids, max_new_tokens=9, num_beams=3, do_sample=False, num_return_sequences=3, length_penalty=0.0, eos_token_id=None,
            return_dict_in_generate=True, output_scores=True, past_key_values=plan.cache(model),
        )  # fmt: skip
    assert len({tuple(row.tolist()) for row in found.sequences}) == 6
    with plan.on(model):
        logits = twin.run(model, plan.cache(model), found.sequences, [10, *[1] * 9])
    log_p = logits[:, 9:-1].log_softmax(-1).gather(2, found.sequences[:, 10:, None])[..., 0].sum(1)
    torch.testing.assert_close(log_p, found.sequences_scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_bytes_are_what_is_said_and_a_text_read_once_is_evicted_alike(family: str):
    model = model_of(family)
    shapes = cache_shapes(model)
    ids = tokens(1, 120)
    for span in (Span(2, 12), Span(2, 12, compensate=True), Span(4, 30)):
        plan = plan_of(shapes, [Group(0, 0)], span)
        past = read_text(model, ids[0, :100])
        before = [(layer.keys.clone(), layer.keys.shape) for layer in past.layers]
        cache = plan.evicted(model, past)
        with plan.on(model):
            found = twin.run(model, cache, ids[:, 100:], [20])
            wanted = twin.run(model, plan.cache(model), ids, [100, 20])[:, 100:]
        close(found, wanted)
        for layer, (keys, shape) in zip(past.layers, before, strict=True):
            assert layer.keys.shape == shape
            assert torch.equal(layer.keys, keys)
        held = sum(
            tensor.nbytes for layer in cache.headwise for part in layer.parts for tensor in (part.keys, part.values)
        )  # fmt: skip
        said = plan.n_bytes(120)
        # A part that keeps everything grows by blocks of 64 tokens, which the longest of texts hardly notice.
        assert (
            said <= held <= said + sum((s.d_key + s.d_value) * 4 * (64 + span.compensate) * s.n_groups for s in shapes)
        )
        assert held <= cache.n_bytes < 1.2 * held


def test_what_a_window_costs_does_not_grow():
    model = model_of("llama")
    plan = plan_of(cache_shapes(model), [], Span(2, 8, compensate=True))
    cache = plan.cache(model)
    with plan.on(model):
        twin.run(model, cache, tokens(1, 16), [16])
        first = cache.n_bytes
        twin.run(model, cache, tokens(1, 60, 2), [1] * 60)
    assert cache.n_bytes == first
    assert cache.get_seq_length() == 76


def test_dropped_tokens_that_are_alike_are_not_missed():
    """Equal keys and values: their mean with its weight is exactly them (RazorAttention's compensation)."""
    hf = family_of(
        "gpt2"
    ).build()  # positions are added at the bottom, so that equal tokens with equal positions are equal
    with torch.no_grad():
        hf.transformer.wpe.weight.zero_()
    model = attach(hf)
    ids = torch.cat([torch.full((1, 20), 7), tokens(1, 6)], 1)
    plan = plan_of(cache_shapes(model), [], Span(0, 6, compensate=True))
    with plan.on(model):
        found = twin.run(model, plan.cache(model), ids, [20, 6])
    close(found[:, 19:], model.forward(ids)[:, 19:])
    plain = plan_of(cache_shapes(model), [], Span(0, 6))
    with plain.on(model):
        other = twin.run(model, plain.cache(model), ids, [20, 6])
    assert float((other - model.forward(ids))[:, -1].abs().max()) > 1e-3


def test_a_cache_is_refused_where_it_would_give_wrong_numbers():
    model = model_of("llama")
    plan, ids = mixed(model), tokens(1, 12)
    with pytest.raises(UnsupportedModel, match="where its plan is not in force"):
        model.hf(input_ids=ids, past_key_values=plan.cache(model))
    with plan.on(model) as hf, pytest.raises(BadInput, match="a cache of its own"):
        hf.generate(ids, max_new_tokens=2)
    with plan.on(model) as hf, pytest.raises(BadInput, match="without padding behind or inside"):
        hf(input_ids=ids, attention_mask=(torch.arange(12) < 9)[None].long(), past_key_values=plan.cache(model))
    with plan.on(model), pytest.raises(BadInput, match="inside a forward pass or another plan"), plan.on(model):
        pass
    with pytest.raises(BadInput, match="of other shapes"):
        mixed(model_of("gpt2")).cache(model)
    cache = plan.cache(model)
    with plan.on(model) as hf:
        hf(input_ids=ids, past_key_values=cache)
    with pytest.raises(BadInput, match="cannot be cropped"):
        cache.crop(-1)


@pytest.mark.parametrize("family", ["bert", "bert-masked", "t5", *REFUSED])
def test_models_whose_cache_is_another_are_refused_in_one_line(family: str):
    with pytest.raises(UnsupportedModel) as refused:
        cache_shapes(model_of(family))
    assert "\n" not in refused.value.message


def test_a_plan_must_fit():
    with pytest.raises(BadInput, match="does not fit layers of"):
        CachePlan((LayerShape(2, 8, 8),), ((None,),))
    for wrong in ({"sinks": -1}, {"recent": 0}, {"share": 1.5}):
        with pytest.raises(BadInput, match="cannot be kept"):
            Span(**wrong)  # type: ignore[arg-type]
