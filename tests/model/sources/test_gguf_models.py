"""Models of transformers written as llama.cpp writes them and read back: the same logits, for each architecture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from headatlas.errors import UnsupportedModel
from headatlas.model import load
from headatlas.model.families import tiny_models
from headatlas.model.sources.convert import convert
from headatlas.model.sources.gguf_rules import reading, rotary
from headatlas.progress import Silent
from tests.model.sources.llama_cpp_files import ARCHITECTURES, Kind, on_the_grid, write

LENGTH = 40  # longer than the windows of 16


def build(family: str, **changes: Any) -> nn.Module:
    return tiny_models.family(family).build(**changes)


def tokens() -> torch.Tensor:
    return torch.randint(3, 150, (2, LENGTH), generator=torch.Generator().manual_seed(5))


def check(tmp_path: Path, family: str, model: nn.Module, **options: Any) -> nn.Module:
    """Write, convert, load, and compare the logits with the original's; returns the copy."""
    file, folder = write(tmp_path / "tiny.gguf", family, model, **options), tmp_path / "converted"
    folder.mkdir()
    convert(file, folder, Silent())
    copy = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        truth, found = model(tokens()).logits, copy(tokens()).logits
    assert truth.std() > 0.1
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5 * float(truth.abs().max()))
    return copy


# Gemma's rhythm of windows and its heads of width 256, of which llama.cpp knows the query scale, are part of the
# architecture; so is gpt-oss' rhythm.
RHYTHM = {
    "gemma2": {"head_dim": 256, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "gemma3": {
        "head_dim": 256,
        "num_hidden_layers": 6,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"],
    },
    "gpt-oss": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "starcoder2": {"sliding_window": None},
    "qwen3-moe": {"norm_topk_prob": True},
}


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_each_architecture_gives_the_logits_of_the_original(tmp_path: Path, family: str) -> None:
    check(tmp_path, family, build(family, **RHYTHM.get(family, {})))


def test_every_architecture_that_is_read_is_tested() -> None:
    assert {gguf.MODEL_ARCH_NAMES[one] for one in ARCHITECTURES.values()} == set(reading.ARCHITECTURES)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention_bias": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("llama", {"head_dim": 16}),  # heads whose widths do not add up
        ("qwen3", {"attention_bias": True}),
        ("phi3", {"sliding_window": None}),
        ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75},
                  "num_attention_heads": 2}),
        ("gemma2", {**RHYTHM["gemma2"], "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
        ("gemma3", {**RHYTHM["gemma3"], "final_logit_softcapping": 3.0}),
        ("gemma3", {**RHYTHM["gemma3"], "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0}}}),
        ("starcoder2", {"sliding_window": None, "use_bias": False,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
        ("stablelm", {"use_qkv_bias": True, "qk_layernorm": True}),
        ("stablelm", {"use_parallel_residual": True}),
        ("nemotron", {"attention_bias": True, "mlp_bias": True}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("falcon-grouped", {"num_ln_in_parallel_attn": 1}),
        ("lfm2", {"conv_bias": True}),
    ],
)  # fmt: skip
def test_what_models_of_one_architecture_differ_in(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    check(tmp_path, family, build(family, **changes))


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def llama3_factors(rope: dict[str, Any], width: int) -> np.ndarray:
    """As LlamaModel.generate_extra_tensors of llama.cpp computes `rope_freqs.weight`."""
    length, low, high = (
        rope[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    factors = []
    for frequency in 1.0 / (rope["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float32) / width)):
        wave = 2 * math.pi / float(frequency)
        if wave < length / high:
            factors.append(1.0)
        elif wave > length / low:
            factors.append(rope["factor"])
        else:
            smooth = (length / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


@pytest.mark.parametrize(
    ("family", "rope"),
    [
        ("llama", {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
        ("llama", YARN),
        ("llama", {**YARN, "attention_factor": 1.7}),
        ("llama", {**YARN, "beta_fast": 4.0, "beta_slow": 2.0}),
        ("qwen2", YARN),
        ("qwen3", {"rope_type": "default", "rope_theta": 1e6}),
        ("gpt-oss", {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}),
        ("starcoder2", {"rope_type": "linear", "rope_theta": 999999.4420358813, "factor": 2.0}),
    ],
)
def test_scaled_rotations_are_read(tmp_path: Path, family: str, rope: dict[str, Any]) -> None:
    changes = {**RHYTHM.get(family, {}), "rope_parameters": rope}
    check(tmp_path, family, build(family, **changes))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_llama_3_scaling_is_found_in_its_factors(tmp_path: Path, family: str) -> None:
    model = build(family, rope_parameters=LLAMA3)
    factors = llama3_factors(LLAMA3, model.config.head_dim)
    assert set(factors) - {1.0, 8.0}  # some lie between
    copy = check(tmp_path, family, model, tensors={"rope_freqs.weight": factors})
    assert copy.config.rope_parameters["factor"] == 8.0


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(
    ("factor", "low", "high", "length", "base"),
    [
        (8.0, 1.0, 4.0, 8192, 500000.0),  # Llama 3.1
        (32.0, 1.0, 4.0, 8192, 500000.0),  # Llama 3.2
        (16.0, 1.0, 1.5, 8192, 500000.0),
        (3.0, 2.0, 7.0, 1000, 10000.0),
        (5.0, 1.0, 30.0, 123, 10000.0),
        (8.0, 1.0, 1.0001, 4096, 500000.0),  # no frequency between the two
        (1.0, 1.0, 4.0, 8192, 500000.0),
    ],
)
def test_llama_3_parameters_give_the_same_frequencies(
    factor: float, low: float, high: float, length: int, base: float, width: int
) -> None:
    stated = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high,
              "original_max_position_embeddings": length, "rope_theta": base}  # fmt: skip
    factors = llama3_factors(stated, width)
    found = rotary.llama3(factors, base, width, "a.gguf")
    if factor == 1.0:
        assert found == {}
        return
    np.testing.assert_allclose(llama3_factors({**found, "rope_theta": base}, width), factors, rtol=2e-6)
    if (low, high, length) == (1.0, 4.0, 8192):
        assert found == {"rope_type": "llama3", **{key: stated[key] for key in stated if key != "rope_theta"}}


@pytest.mark.parametrize("factors", [[1.0, 2.0, 1.5, 8.0], [0.5, 1.0, 1.0, 1.0], [1.0, 8.0], [1.0, 1.3, 2.7, 8.0]])
def test_factors_that_are_no_llama_3_scaling_are_refused(tmp_path: Path, factors: list[float]) -> None:
    tensors = {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    file = write(tmp_path / "odd.gguf", "llama", build("llama"), tensors=tensors)
    with pytest.raises(UnsupportedModel, match=r"the tensor `rope_freqs\.weight`"):
        reading.read(file)


def test_longrope_keeps_both_lists_of_factors(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
            "short_factor": [1.0, 1.1, 1.3, 1.4], "long_factor": [1.0, 2.5, 4.1, 8.0]}  # fmt: skip
    for length in (32, 64):  # of the texts the model was first trained on: LENGTH lies between
        model = build("phi3", rope_parameters=rope, original_max_position_embeddings=length)
        tensors = {
            f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], np.float32) for kind in ("long", "short")
        }
        (tmp_path / str(length)).mkdir()
        check(tmp_path / str(length), "phi3", model, tensors=tensors)


def test_biases_that_the_file_leaves_out_are_zero(tmp_path: Path) -> None:
    model = build("llama", attention_bias=True)
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.data.zero_()
    file = write(tmp_path / "part.gguf", "llama", model)
    whole = file.read_bytes()
    assert b"attn_output.bias" in whole
    for i in range(3):
        file = write(tmp_path / f"{i}.gguf", "llama", model, skip=f"blk.{i}.attn_output.bias")
        state = reading.read(file).state
        assert not state[f"model.layers.{i}.self_attn.o_proj.bias"].any()
        assert state[f"model.layers.{i}.self_attn.q_proj.bias"].any()


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_quantised_numbers_are_those_of_the_file(tmp_path: Path, family: str, kind: Kind) -> None:
    model = build(family, **RHYTHM.get(family, {}), **({"intermediate_size": 64} if family != "gpt2" else {}))
    if family == "gpt2":  # stored with rows and columns exchanged, so blocks lie within columns
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "wte" not in name and "wpe" not in name:
                held = quants.dequantize(
                    quants.quantize(np.ascontiguousarray(parameter.detach().numpy().T), kind), kind
                )
                parameter.data = torch.from_numpy(np.array(held)).T.contiguous()
        for table in (model.transformer.wte, model.transformer.wpe):
            on_the_grid(table, kind)
    else:
        on_the_grid(model, kind)
    check(tmp_path, family, model, kind=kind)


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q6_K, Kind.Q2_K, Kind.IQ4_XS])
def test_blocks_of_256_are_read_and_rows_put_back(tmp_path: Path, kind: Kind) -> None:
    """The gguf package cannot write these, so the bytes are drawn; its own reading and the permutation are the truth."""
    sizes = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 256, "num_hidden_layers": 1, "vocab_size": 32}
    model, rng = build("llama", **sizes), np.random.default_rng(0)
    file = write(tmp_path / "f32.gguf", "llama", model)
    reader = gguf.GGUFReader(file)
    drawn: dict[str, np.ndarray] = {}
    writer = gguf.GGUFWriter(tmp_path / "blocks.gguf", "llama")
    for key, entry in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(key, entry.contents(), entry.types[0])
    _, size = gguf.GGML_QUANT_SIZES[kind]
    for tensor in reader.tensors:
        if tensor.data.ndim < 2:
            writer.add_tensor(tensor.name, np.array(tensor.data))
            continue
        rows = tensor.data.shape[0]
        blocks = rng.integers(0, 256, (rows, size), dtype=np.uint8)
        for place in {Kind.Q4_K: (0, 2), Kind.Q6_K: (208,), Kind.Q2_K: (80, 82), Kind.IQ4_XS: (0,)}[kind]:
            blocks[:, place : place + 2] = np.full((rows, 1), 0.01, np.float16).view(np.uint8)
        drawn[tensor.name] = quants.dequantize(blocks, kind)
        writer.add_tensor(tensor.name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    folder = tmp_path / "converted"
    folder.mkdir()
    convert(tmp_path / "blocks.gguf", folder, Silent())
    state = load_file(folder / "model.safetensors")
    assert torch.equal(state["model.embed_tokens.weight"], torch.from_numpy(drawn["token_embd.weight"]))
    assert torch.equal(state["model.layers.0.mlp.up_proj.weight"], torch.from_numpy(drawn["blk.0.ffn_up.weight"]))
    for name, n_heads in (("q", 4), ("k", 2)):
        ours, theirs = state[f"model.layers.0.self_attn.{name}_proj.weight"], drawn[f"blk.0.attn_{name}.weight"]
        for head in range(n_heads):
            for i in range(32):  # the row of the first half is stored before its partner of the second
                assert torch.equal(ours[head * 64 + i], torch.from_numpy(theirs[head * 64 + 2 * i]))
                assert torch.equal(ours[head * 64 + 32 + i], torch.from_numpy(theirs[head * 64 + 2 * i + 1]))


def test_a_loaded_file_shows_the_original_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADATLAS_HOME", str(tmp_path / "cache"))
    model = build("llama", rope_parameters=LLAMA3, attention_bias=True)
    tensors = {"rope_freqs.weight": llama3_factors(LLAMA3, 8)}
    opened = load(str(write(tmp_path / "tiny model's [v1].gguf", "llama", model, tensors=tensors)))
    seen: list[torch.Tensor] = []
    found = opened.forward(tokens(), watch=lambda layer: seen.append(layer.pattern.clone()))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        truth = model(tokens(), output_attentions=True)
    torch.testing.assert_close(found, truth.logits, rtol=1e-4, atol=1e-4)
    for pattern, own in zip(seen, truth.attentions, strict=True):
        torch.testing.assert_close(pattern, own, rtol=1e-4, atol=1e-5)


def test_floats_are_the_decimals_their_authors_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    folder.mkdir()
    convert(write(tmp_path / "tiny.gguf", "llama", build("llama")), folder, Silent())
    assert json.loads((folder / "config.json").read_text())["rms_norm_eps"] == 1e-6
