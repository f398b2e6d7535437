"""Quantised models of the libraries that make them, each where it is installed, against their dequantised twins."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from headatlas.edits import Zero
from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from tests.families.test_wrapped import BATCH, WEIGHED, same
from tests.families.wrappers import METHODS, swapped

pytestmark = pytest.mark.filterwarnings("ignore")
WIDE = {"hidden_size": 64, "intermediate_size": 128}


def llama() -> nn.Module:
    return FAMILIES["llama"].build(**WIDE)


def int8_of_torchao() -> nn.Module:
    quantization = pytest.importorskip("torchao.quantization")
    hf = llama()
    quantization.quantize_(hf, quantization.Int8WeightOnlyConfig())
    return hf


def int8_of_quanto() -> nn.Module:
    quanto = pytest.importorskip("optimum.quanto")
    hf = llama()
    quanto.quantize(hf, weights=quanto.qint8)
    quanto.freeze(hf)
    return hf


def nf4_of_bitsandbytes() -> nn.Module:
    parts = pytest.importorskip("bitsandbytes").nn

    def packed(base: nn.Linear) -> nn.Module:
        made = parts.Linear4bit(
            base.in_features, base.out_features, bias=False, quant_type="nf4", compute_dtype=torch.float32
        )
        made.load_state_dict(base.state_dict())
        return made.to("cpu")

    return swapped(llama(), packed, "q_proj", "k_proj", "v_proj", "o_proj", "down_proj")


def dequantised(hf: nn.Module) -> nn.Module:
    """Plain maps that do to unit vectors what the packed ones do."""

    def plain(module: nn.Module) -> nn.Module:
        made = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        with torch.no_grad():
            zero = module(torch.zeros(1, module.in_features))
            made.weight.copy_((module(torch.eye(module.in_features)) - zero).T)
            if module.bias is not None:
                made.bias.copy_(zero[0])
        return made

    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
    twin = llama()
    for path, module in hf.named_modules():
        home, _, name = path.rpartition(".")
        if name in names:
            setattr(twin.get_submodule(home), name, plain(module))
    return twin


@pytest.mark.parametrize("make", [int8_of_torchao, int8_of_quanto])
def test_quantised_weights_are_exact(make: Callable[[], nn.Module]):
    hf = make()
    twin, model = attach(dequantised(hf)), attach(hf)
    for what in (*WEIGHED, "ablate"):
        assert same(METHODS[what](model), METHODS[what](twin), 2e-3), what
    assert model.fingerprint() == model.fingerprint() != twin.fingerprint()


def test_nf4_of_bitsandbytes_is_edited_exactly():
    """Its kernels for CPUs round what they are given to bfloat16 whatever compute_dtype says, so writes may be refused."""
    hf = nf4_of_bitsandbytes()
    twin, model = attach(dequantised(hf)), attach(hf)

    def zero(_: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        z = args[0].clone()
        z[..., 16:32] = 0
        return (z,)

    assert same(METHODS["weights"](model), METHODS["weights"](twin))
    found = model.forward(BATCH, edits=[Zero(HeadId(1, 1))])
    hf.model.layers[1].self_attn.o_proj.register_forward_pre_hook(zero)
    with torch.no_grad():
        assert same(found, hf(input_ids=BATCH).logits, 1e-6)
    assert same(found, twin.forward(BATCH, edits=[Zero(HeadId(1, 1))]), 3e-2)


def test_int8_activations_by_token_keep_edits_and_refuse_writes():
    quantization = pytest.importorskip("torchao.quantization")
    hf = llama()
    quantization.quantize_(hf, quantization.Int8DynamicActivationInt8WeightConfig())
    with torch.no_grad():
        expected = hf(input_ids=BATCH).logits
    model = attach(hf)
    assert torch.equal(model.forward(BATCH), expected)
    METHODS["ablate"](model)
    with pytest.raises(UnsupportedModel, match="rounds them"):
        METHODS["watch"](model)


def test_int8_of_bitsandbytes_is_refused_for_what_it_does():
    parts = pytest.importorskip("bitsandbytes").nn

    def packed(base: nn.Linear) -> nn.Module:
        made = parts.Linear8bitLt(
            base.in_features, base.out_features, bias=False, has_fp16_weights=False, threshold=6.0
        )
        made.load_state_dict(copy.deepcopy(base.state_dict()))
        return made.to("cpu")

    with pytest.raises(UnsupportedModel, match="outlier channels"):
        attach(swapped(llama(), packed, "q_proj", "k_proj", "v_proj", "o_proj"))


def test_quantised_activations_between_modules_are_refused():
    quanto = pytest.importorskip("optimum.quanto")
    hf = llama()
    quanto.quantize(hf, weights=quanto.qint8, activations=quanto.qint8)
    quanto.freeze(hf)
    with pytest.raises(UnsupportedModel, match="quantised activations"):
        attach(hf)
