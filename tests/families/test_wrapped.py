"""Models whose linear maps are no plain weights (adapters, quantised, offloaded, masked), against their plain twins."""

from __future__ import annotations

import copy
from collections.abc import Callable

import accelerate
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import headatlas as ha
from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import attach
from headatlas.model.core.linear_and_norm import matrix
from headatlas.model.families.tiny_models import FAMILIES
from tests.families.wrappers import METHODS, TOKENS, Adapted, Bent, InOneClass, Packed, swapped

pytestmark = pytest.mark.filterwarnings("ignore")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
WEIGHED = ("forward", "watch", "direct_effects", "weights")  # each way in which weights are used
BATCH = torch.stack([TOKENS, TOKENS.flip(0)])


def llama() -> nn.Module:
    return FAMILIES["llama"].build()


def merged(hf: nn.Module) -> nn.Module:
    """A copy with plain weights that do the same."""
    plain = copy.deepcopy(hf)
    names = {name.rpartition(".")[2] for name, module in plain.named_modules() if hasattr(module, "merged")}
    return swapped(plain, lambda module: module.merged(), *names)


def low_rank(*names: str) -> nn.Module:
    return swapped(llama(), Adapted, *names)


TWINS: dict[str, Callable[[], nn.Module]] = {
    "adapter at o": lambda: low_rank("o_proj"),
    "adapters everywhere": lambda: low_rank(*ATTENTION, "up_proj", "lm_head"),
    "adapters in one class": lambda: swapped(llama(), InOneClass, "q_proj", "o_proj"),
    "packed int8": lambda: swapped(llama(), Packed, *ATTENTION, "down_proj", "lm_head"),
    "adapters on packed int8": lambda: swapped(low_rank("v_proj", "o_proj"), Packed, "base_layer"),
}


def as_numbers(found: object) -> np.ndarray:
    return np.asarray(found.detach() if isinstance(found, Tensor) else found, dtype=np.float64)


def same(found: object, expected: object, bound: float = 2e-4) -> bool:
    ours, theirs = as_numbers(found), as_numbers(expected)
    return ours.shape == theirs.shape and bool(np.nanmax(np.abs(ours - theirs)) <= bound * np.nanmax(np.abs(theirs)))


@pytest.mark.parametrize("name", TWINS)
def test_every_method_gives_what_it_gives_for_the_merged_model(name: str):
    hf = TWINS[name]()
    model, twin = attach(hf), attach(merged(hf))
    wrong = [what for what, method in METHODS.items() if not same(method(model), method(twin))]
    assert not wrong


def test_the_twins_differ_from_the_model_without_adapters():
    """Or the comparison above could not fail."""
    model, base = attach(low_rank("o_proj")), attach(llama())
    assert not any(same(method(model), method(base)) for method in METHODS.values())


@pytest.mark.parametrize("name", [*TWINS, "nonlinear adapter"])
def test_with_all_heads_of_a_layer_at_zero_its_attention_gives_its_bias(name: str):
    hf = swapped(llama(), Bent, "o_proj") if name == "nonlinear adapter" else TWINS[name]()
    bias = [layer.self_attn.o_proj(torch.zeros(1, 1, 32)) for layer in hf.model.layers]
    model, given = attach(hf), []
    handle = model.hf.model.layers[1].self_attn.register_forward_hook(lambda _, __, out: given.append(out[0]))
    model.forward(BATCH, edits=[ha.Zero([HeadId(1, head) for head in range(4)])])
    handle.remove()
    assert same(given[0], bias[1].expand_as(given[0]), 1e-6)


def test_a_nonlinear_adapter_is_edited_whole_and_writes_are_refused():
    hf = swapped(llama(), Bent, "o_proj")
    model, plain = attach(hf), copy.deepcopy(hf)

    def zero(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        z = args[0].clone()
        z[..., 8:16] = 0
        return (z,)

    plain.model.layers[1].self_attn.o_proj.register_forward_pre_hook(zero)
    with torch.no_grad():
        expected = plain(input_ids=BATCH).logits
    assert same(model.forward(BATCH, edits=[ha.Zero(HeadId(1, 1))]), expected, 1e-6)
    for what in ("watch", "direct_effects", "edge_scores", "flow"):
        with pytest.raises(UnsupportedModel, match="not linear"):
            METHODS[what](model)


def test_what_reads_the_heads_beside_the_projection_is_refused():
    hf = llama()
    for layer in hf.model.layers:
        attention = layer.self_attn
        attention.beside = nn.Linear(32, 32)
        attention.o_proj.register_forward_pre_hook(lambda module, args, home=attention: setattr(home, "read", args[0]))
        attention.register_forward_hook(lambda home, _, out: (out[0] + home.beside(home.read), *out[1:]))
    with pytest.raises(UnsupportedModel, match="merge_and_unload"):
        attach(hf)


def test_an_adapter_put_in_by_a_hook_is_part_of_the_matrix():
    hf, change = llama(), 0.1 * torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    plain = copy.deepcopy(hf)
    for ours, theirs in zip(hf.model.layers, plain.model.layers, strict=True):
        ours.self_attn.o_proj.register_forward_hook(lambda _, args, out: out + args[0] @ change.T)
        theirs.self_attn.o_proj.weight.data += change
    model, twin = attach(hf), attach(plain)
    for what in WEIGHED:
        assert same(METHODS[what](model), METHODS[what](twin)), what


def test_activations_rounded_for_each_token_leave_edits_exact_and_writes_refused():
    hf = swapped(llama(), lambda base: Packed(base, "token"), *ATTENTION)
    plain, model = copy.deepcopy(hf), attach(hf)
    with torch.no_grad():
        assert torch.equal(model.forward(BATCH), plain(input_ids=BATCH).logits)
    twin = attach(merged(plain))
    assert same(METHODS["weights"](model), METHODS["weights"](twin))
    assert METHODS["ablate"](model).shape == METHODS["ablate"](twin).shape
    with pytest.raises(UnsupportedModel, match="rounds them"):
        METHODS["direct_effects"](model)


@pytest.mark.parametrize("names", [ATTENTION, ("down_proj",), ("lm_head",)])
def test_activations_rounded_for_the_whole_batch_are_refused(names: tuple[str, ...]):
    with pytest.raises(UnsupportedModel, match="what else is in its batch"):
        attach(swapped(llama(), lambda base: Packed(base, "batch"), *names))
    hf = torch.ao.quantization.quantize_dynamic(llama(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UnsupportedModel, match="what else is in its batch"):
        attach(hf)


def test_half_precision_keeps_its_digits_beside_a_large_bias():
    linear = nn.Linear(64, 32).bfloat16()
    with torch.no_grad():
        linear.bias.fill_(50.0)
    wrapped = Adapted(linear).bfloat16()
    nn.init.zeros_(wrapped.lora_B["default"].weight)
    assert float((matrix(wrapped) - linear.weight.T).abs().max()) <= 0.02 * float(linear.weight.abs().max())


def masked(hf: nn.Module) -> nn.Module:
    for layer in hf.model.layers:
        for name in ("v_proj", "o_proj"):
            prune.l1_unstructured(getattr(layer.self_attn, name), "weight", 0.3)
    return hf


def made_by_norms(hf: nn.Module) -> nn.Module:
    for layer in hf.model.layers:
        parametrizations.weight_norm(layer.self_attn.o_proj)
        parametrizations.spectral_norm(layer.self_attn.q_proj)
    return hf.eval()


def made_by_old_norms(hf: nn.Module) -> nn.Module:
    for layer in hf.model.layers:
        torch.nn.utils.weight_norm(layer.self_attn.o_proj)
        torch.nn.utils.spectral_norm(layer.self_attn.q_proj)
    return hf.eval()


@pytest.mark.parametrize("wrap", [masked, made_by_norms, made_by_old_norms])
def test_weights_made_of_others_are_read_as_they_are_used(wrap: Callable[[nn.Module], nn.Module]):
    hf, plain = wrap(llama()), llama()
    with torch.no_grad():
        hf(input_ids=BATCH)
        for ours, theirs in zip(hf.model.layers, plain.model.layers, strict=True):
            for name in ATTENTION:
                getattr(theirs.self_attn, name).weight.copy_(getattr(ours.self_attn, name).weight)
    model, twin = attach(hf), attach(plain)
    for what in WEIGHED:
        assert same(METHODS[what](model), METHODS[what](twin)), what


def test_models_on_disk_or_held_back_on_the_cpu_give_the_same(tmp_path):
    twin, cpu = attach(llama()), torch.device("cpu")
    for hf in (
        accelerate.cpu_offload(llama(), execution_device=cpu),
        accelerate.disk_offload(llama(), tmp_path, execution_device=cpu),
    ):
        model = attach(hf)
        assert model.fingerprint() == twin.fingerprint()
        for what in WEIGHED:
            assert same(METHODS[what](model), METHODS[what](twin)), what


class Valued(nn.Module):
    def __init__(self, pretrained_model: nn.Module) -> None:
        super().__init__()
        self.pretrained_model = pretrained_model

    def forward(self, **kwargs: Tensor) -> object:
        found = self.pretrained_model(**kwargs)
        found.logits = 2 * found.logits
        return found


def test_wrappers_are_looked_through_where_they_only_hand_on():
    hf = llama()
    assert attach(nn.DataParallel(hf)).hf is hf
    assert attach(torch.compile(hf)).hf is hf
    with pytest.raises(UnsupportedModel, match=r"headatlas.load\(model.pretrained_model\)"):
        attach(Valued(hf))
    with pytest.raises(UnsupportedModel, match="no transformers model"):
        attach(nn.Linear(3, 3))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "qwen3-next"])
@pytest.mark.parametrize("silent", ["nothing leaves the heads", "nothing is written"])
def test_layers_whose_heads_do_nothing_are_no_reason_to_refuse(name: str, silent: str):
    hf = FAMILIES[name].build()
    opened = attach(FAMILIES[name].build())
    with torch.no_grad():
        for layer in opened.layers:
            home = hf.get_submodule(layer.name)
            if silent == "nothing is written":
                part = next(path for path, one in opened.hf.named_modules() if one is layer.projection)
                hf.get_submodule(part).weight.zero_()
            else:
                values = layer.qkv.v
                for index, projection in enumerate(values.projections):
                    part = next(path for path, one in layer.module.named_modules() if one is projection)
                    weight, bias = home.get_submodule(part).weight, home.get_submodule(part).bias
                    columns = values.column[values.which == index]
                    (weight.T if type(projection).__name__ == "Conv1D" else weight)[columns] = 0
                    if bias is not None:
                        bias[columns] = 0
    model, plain = attach(hf), copy.deepcopy(hf)
    with torch.no_grad():
        expected = plain(input_ids=BATCH, use_cache=False).logits
    assert torch.equal(model.forward(BATCH), expected)
    assert same(model.forward(BATCH, edits=[ha.Zero(model.heads)]), expected, 1e-5)
