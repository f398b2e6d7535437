"""Every family of the zoo against independent oracles: an untouched copy of the same model, and arithmetic by hand."""

from __future__ import annotations

import functools
import gc
import json
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

import headatlas as ha
from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import LayerView, Model, attach, matrix, zoo
from headatlas.model.layouts import layout_of

pytestmark = pytest.mark.filterwarnings("ignore")
FAMILIES = sorted(zoo.FAMILIES)
TEXT = [name for name in FAMILIES if name not in ("whisper", "vit", "deit", "dinov2")]


@functools.cache
def opened(name: str) -> Model:
    return attach(zoo.family(name).build())


@functools.cache
def untouched(name: str) -> nn.Module:
    return zoo.family(name).build()


def tokens(n: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(seed))


def inputs(name: str, n: int = 2, length: int = 24) -> dict[str, Tensor]:
    """Inputs in the model's own words; an encoder and its decoder get texts of different lengths."""
    if name == "whisper":
        sound = torch.randn(n, 8, 40, generator=torch.Generator().manual_seed(3))
        return {"input_features": sound, "decoder_input_ids": tokens(n, 17, 1)}
    if name not in TEXT:
        return {"pixel_values": torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(3))}
    if opened(name).kind == "encoder-decoder":
        return {"input_ids": tokens(n, length), "decoder_input_ids": tokens(n, 17, 1)}
    return {"input_ids": tokens(n, length)}


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=TEXT)
def text(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def plain(name: str, **given: Any) -> Any:
    return untouched(name)(**given)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal up to a share of the largest number."""
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("length", [24, 100])
def test_output_is_bit_equal_to_an_untouched_copy(name: str, length: int):
    model, given = opened(name), inputs(name, length=length)
    expected = Model.read(plain(name, **given))
    assert torch.equal(model.forward(given), expected)
    watched = model.forward(given, watch=lambda at: (at.rows(torch.tensor([3])), at.band(0, 2), at.writes()))
    assert torch.equal(watched, expected)
    with torch.no_grad():
        assert torch.equal(Model.read(model.hf(**given)), expected), "plain use of an opened model"


class Attentions(TorchFunctionMode):
    """Attention weights of every call of torch's attention, by its definition."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            query, key, _ = args
            self.weights.append((query @ key.mT / query.shape[-1] ** 0.5 + kwargs["attn_mask"]).softmax(-1))
        return func(*args, **kwargs)


@torch.no_grad()
def own_patterns(name: str, given: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Attention weights by stack that an untouched copy reports of its own eager attention."""
    hf = zoo.family(name).build()
    if name == "falcon-alibi":  # its eager attention adds the position bias twice, so its default one is the oracle
        with Attentions() as attentions:
            hf(**given)
        return {"decoder": attentions.weights}
    hf.config._attn_implementation = "eager"
    if layout_of(hf) is None:
        hf.set_attn_implementation("eager")
    output = hf(**given, output_attentions=True)
    if getattr(output, "decoder_attentions", None) is not None:
        found = {"encoder": output.encoder_attentions, "decoder": output.decoder_attentions}
        found["cross"] = output.cross_attentions
    else:
        found = {opened(name).stacks[0]: output.attentions}
    return {stack: [layer for layer in layers if layer is not None] for stack, layers in found.items()}


def collect(model: Model, given: Any, take: Any) -> dict[tuple[str, int], Any]:
    found: dict[tuple[str, int], Any] = {}

    def watch(at: Any) -> None:
        assert (at.stack, at.layer) not in found, "a layer was seen twice"
        found[at.stack, at.layer] = take(at)

    model.forward(given, watch=watch)
    return found


def test_patterns_equal_the_models_own(name: str):
    model, given = opened(name), inputs(name)
    found = collect(model, given, lambda at: at.pattern.clone())
    for stack, layers in own_patterns(name, given).items():
        ours = [pattern for (where, _), pattern in sorted(found.items()) if where == stack]
        assert len(ours) == len(layers)
        for pattern, expected in zip(ours, layers, strict=True):
            torch.testing.assert_close(pattern, expected, atol=2e-5, rtol=1e-3)


def test_every_attention_layer_is_seen_at_its_address(name: str):
    model, family = opened(name), zoo.family(name)
    seen = collect(model, inputs(name), lambda at: (at.q.shape[1], at.k.shape[1], at.z.shape[2]))
    assert set(seen) == {(stack, layer) for stack, layers in family.stacks.items() for layer in layers}
    assert set(seen.values()) == {(4, family.groups, 4)}
    assert len(model.heads) == len(set(model.heads)) == 4 * len(seen)
    assert [site.multiplier for site in model.sites] == pytest.approx([family.multiplier] * len(model.sites), rel=1e-5)
    assert {site.post_gain is not None for site in model.sites} == {family.post_norm}
    found = matrix.row_of(family, model)
    assert (found.window, found.sink) == (family.reach, name == "gpt-oss")
    assert (found.between is not None) == (name in ("bitnet", "qwen3-next", "afmoe"))


GAINS = {
    "gemma2": lambda block: 1 + block.post_attention_layernorm.weight,
    "gemma3": lambda block: 1 + block.post_attention_layernorm.weight,
    "olmo2": lambda block: block.post_attention_layernorm.weight,
    "glm4": lambda block: block.post_self_attn_layernorm.weight,
    "afmoe": lambda block: block.post_attention_layernorm.weight,
    "dinov2": lambda block: block.layer_scale1.lambda1,
}


@pytest.mark.parametrize("name", sorted(GAINS))
def test_gains_on_the_way_to_the_residual_stream_are_the_models_own(name: str):
    for site in opened(name).sites:
        torch.testing.assert_close(site.post_gain, GAINS[name](site.block).detach(), atol=1e-3, rtol=1e-3)


def test_zeroing_a_head_of_any_layer_moves_the_output(name: str):
    model, given = opened(name), inputs(name)
    whole = model.forward(given)
    for site in model.sites:
        edited = model.forward(given, edits=[ha.Zero([HeadId(site.layer, 1, site.stack)])])
        assert not torch.equal(edited, whole), site.name


def test_writes_sum_to_the_projections_output(name: str):
    model, given, real = opened(name), inputs(name), {}
    names = {site.name: site for site in model.sites}
    hooks = [
        site.projection.register_forward_hook(
            lambda _, __, out, site=site: real.setdefault((site.stack, site.layer), []).append(out)
        )
        for site in names.values()
    ]
    try:
        ours = collect(
            model,
            given,
            lambda at: at.writes().sum(2) + (0 if at.site.output_bias() is None else at.site.output_bias()),
        )
    finally:
        for hook in hooks:
            hook.remove()
    flat = [out for outs in real.values() for out in outs]
    assert len(flat) == len(ours)
    for expected, found in zip(flat, ours.values(), strict=True):
        torch.testing.assert_close(found, expected.view_as(found), atol=1e-4, rtol=1e-4)


def test_bands_columns_and_entries_equal_the_pattern(name: str):
    def watch(at: Any) -> None:
        own = at._eager(torch.arange(at.n_queries), at.v[..., :1])[1]  # before anything is kept
        examples, _, n_queries, n_keys = own.shape
        queries, keys = torch.arange(n_queries), torch.arange(n_keys)
        torch.testing.assert_close(at.columns(keys.expand(examples, -1)), own, atol=5e-6, rtol=1e-3)
        torch.testing.assert_close(
            at.columns(keys[[0, 5]].expand(examples, -1)), own[..., [0, 5]], atol=5e-6, rtol=1e-3
        )
        band = at.band(-2, 6)
        for i, k in enumerate(range(-2, 7)):
            inside = (queries - k >= 0) & (queries - k < n_keys)
            expected = torch.full((examples, 4, n_queries), torch.nan)
            expected[:, :, inside] = own[:, :, queries[inside], queries[inside] - k]
            torch.testing.assert_close(band[..., i], expected, atol=5e-6, rtol=1e-3, equal_nan=True)
        found = at.entries(queries[[3, 9]].expand(examples, -1), keys[[1, 8]].expand(examples, -1))
        torch.testing.assert_close(found, own[:, :, [3, 9], [1, 8]], atol=5e-6, rtol=1e-3)
        torch.testing.assert_close(
            at.reduce(lambda rows, _: rows.square().sum(-1)), own.square().sum(-1), atol=5e-6, rtol=1e-3
        )
        seen.append(at.layer)

    model, seen = opened(name), []
    model.forward(inputs(name), watch=watch)
    assert len(seen) == len(model.sites)


def statistics(model: Model, given: Any) -> dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]]:
    def sink(at: LayerView) -> Tensor:
        return at.reduce(lambda rows, _: (rows * at.valid_keys[:, None, None, : rows.shape[-1]]).square().sum(-1))

    return collect(model, given, lambda at: (at.z.clone(), sink(at), at.band(0, 4).clone()))


LENGTHS = (24, 17, 9)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_no_example(text: str, side: str):
    model, whole = opened(text), tokens(3, 24)
    mask = torch.stack([torch.arange(24) < n if side == "right" else torch.arange(24) >= 24 - n for n in LENGTHS])
    padded = whole.clone()
    for i, n in enumerate(LENGTHS):  # other tokens in the padding: whatever stands there must not matter
        padded[i, mask[i]] = whole[i, :n]
        padded[i, ~mask[i]] = 77
    batch = SimpleNamespace(tokens=padded, mask=mask)
    if side == "left" and model.left_padding is None:
        with pytest.raises(ha.errors.BadInput, match="counts positions from the left"):
            model.forward(batch)
        return
    logits, layers = model.forward(batch), statistics(model, batch)
    for i, n in enumerate(LENGTHS):
        single = whole[i : i + 1, :n]
        torch.testing.assert_close(logits[i, mask[i]], model.forward(single)[0], atol=1e-4, rtol=1e-3)
        for address, (z, sink, band) in statistics(model, single).items():
            ours = layers[address]
            torch.testing.assert_close(ours[0][i, mask[i]], z[0], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(ours[1][i, :, mask[i]], sink[0], atol=2e-5, rtol=1e-3)
            torch.testing.assert_close(ours[2][i, :, mask[i]], band[0], atol=2e-5, rtol=1e-3, equal_nan=True)


@dataclass(frozen=True)
class Patterns:
    """An edit that multiplies the patterns of heads."""

    heads: tuple[HeadId, ...]
    factor: float = 1.0
    site: str = "pattern"

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset((head.stack, head.layer) for head in self.heads)

    def __call__(self, at: Any, x: Tensor) -> Tensor:
        here = [head.head for head in self.heads if (head.stack, head.layer) == (at.stack, at.layer)]
        changed = x.clone()
        changed[:, here] *= self.factor
        return changed


def test_an_identity_edit_of_patterns_changes_nothing_and_a_real_one_does(name: str):
    model, given = opened(name), inputs(name)
    if not all(site.pattern_editable for site in model.sites):
        with pytest.raises(UnsupportedModel, match="patterns cannot be edited"):
            model.forward(given, edits=[Patterns(model.heads)])
        return
    whole = model.forward(given)
    close(model.forward(given, edits=[Patterns(model.heads)]), whole)
    head = model.sites[-1].heads[1:2]
    emptied = model.forward(given, edits=[Patterns(head, 0.0)])
    assert not torch.allclose(emptied, whole, atol=1e-4)
    if name != "bitnet":  # it normalises all heads' outputs together before they are written
        close(emptied, model.forward(given, edits=[ha.Zero(head)]))


@dataclass(frozen=True)
class Keep:
    """Keeps the residual stream at the entry of each block that attends."""

    heads: tuple[HeadId, ...]
    kept: dict[int, Tensor]
    site: str = "residual"

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset((head.stack, head.layer) for head in self.heads)

    def __call__(self, at: Any, x: Tensor) -> Tensor:
        self.kept[at.layer] = x.clone()
        return x


# ALBERT's layers are one block; in T5 the first block computes the position bias of all.
CANNOT_RESTART = ("albert", "t5", "mt5", "switch")


def test_a_run_started_at_a_layer_equals_the_whole_run(name: str):
    model, given, kept = opened(name), inputs(name), {}
    main = "decoder" if "decoder" in model.stacks else model.stacks[0]
    assert model.restarts == (name not in CANNOT_RESTART)
    if not model.restarts:
        with pytest.raises(UnsupportedModel, match="cannot start at a layer"):
            model.forward(given, start_at=(1, torch.zeros(2, 24, 32)))
        return
    heads = tuple(head for head in model.heads if head.stack == main)
    whole = model.forward(given, edits=[Keep(heads, kept)])
    assert torch.equal(whole, model.forward(given))
    assert len(kept) == len(zoo.family(name).stacks[main])
    for layer, residual in kept.items():
        again = model.forward(given, start_at=(model.block_index(main, layer), residual))
        torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-5)


def test_half_precision_stays_bounded(name: str):
    hf = zoo.family(name).build(dtype=torch.bfloat16)
    given = {
        key: value.to(torch.bfloat16) if value.is_floating_point() else value for key, value in inputs(name).items()
    }
    with torch.no_grad():
        expected = Model.read(hf(**given)).float()
    model = attach(hf)
    watched = model.forward(given, watch=lambda at: at.rows(torch.tensor([3]))).float()
    assert (watched - expected).abs().max() <= 1e-2 * expected.abs().max()


CACHES = [
    "bloom",
    "falcon",
    "falcon-grouped",
    "falcon-alibi",
    "gptj",
    "gpt-neo",
    "mistral",
    "gpt-oss",
    "deepseek-v3",
    "bamba",
]


@pytest.mark.parametrize("name", CACHES)
def test_edits_act_in_cached_generation_as_in_whole_passes(name: str):
    model, sequence = opened(name), tokens(1, 20)
    edits = [ha.Zero([model.heads[1]])]
    with model.edited(edits) as hf:
        out = hf.generate(sequence, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    for _ in range(6):
        logits = model.forward(sequence, edits=edits)
        sequence = torch.cat([sequence, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(out, sequence)


@pytest.mark.parametrize("name", sorted(zoo.REFUSED))
def test_families_that_bypass_the_doorway_are_refused_by_name(name: str):
    family = zoo.family(name)
    with pytest.raises(UnsupportedModel, match=family.architecture) as refusal:
        attach(family.build())
    assert refusal.value.hint


def test_rounding_on_several_threads_makes_no_decoder_an_encoder():
    """With two threads, other tokens' choice of experts changes the last bits of the first position's logits."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert attach(zoo.family("qwen2-moe").build()).kind == "decoder"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "falcon", "gptj", "gpt-neo"])
def test_a_model_can_be_opened_again_and_is_freed(name: str):
    hf = zoo.family(name).build()
    expected = attach(hf).forward(inputs(name))
    second = attach(hf)
    assert torch.equal(second.forward(inputs(name)), expected)
    assert len(collect(second, inputs(name), lambda at: at.z)) == 3
    alive = weakref.ref(hf)
    del hf, second
    gc.collect()
    assert alive() is None


def test_a_wrapped_module_is_refused_by_name():
    hf = zoo.family("bloom").build()
    module = hf.transformer.h[1].self_attention
    module.forward = lambda *args, **kwargs: type(module).forward(module, *args, **kwargs)
    with pytest.raises(UnsupportedModel, match=r"BloomAttention\.forward was already replaced"):
        attach(hf)


def test_the_page_of_models_is_fresh():
    """docs/models.md says what is found now; `headatlas matrix --out docs/models.md` makes it anew."""
    found = [matrix.row_of(zoo.family(name), opened(name)) for name in zoo.FAMILIES]
    found += matrix.rows(zoo.REFUSED.values())
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text().splitlines()
    for columns, lines in matrix.halves(found):
        for line in matrix.table(lines, columns):
            assert line in page
    assert sum(line.startswith("| ") for line in page) == len(found) + 4  # two tables with a heading and a rule each


def test_the_command_prints_rows_and_names_unknown_families(capsys: pytest.CaptureFixture[str]):
    from headatlas.cli import main

    with pytest.raises(SystemExit) as done:
        main(["matrix", "llama", "mpt", "--json"])
    assert done.value.code == 0
    llama, mpt = json.loads(capsys.readouterr().out)["families"]
    assert (llama["family"], llama["groups"], llama["refused"]) == ("llama", 2, None)
    assert "MptAttention" in mpt["refused"]
    with pytest.raises(SystemExit) as done:
        main(["matrix", "lama"])
    assert done.value.code == 1
    assert "Did you mean 'llama'?" in capsys.readouterr().err
