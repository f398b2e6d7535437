"""What a GGUF file says and headatlas does not know: refused by name, in one line; what changes nothing is let through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from headatlas.errors import HeadAtlasError, SourceError, UnsupportedModel
from headatlas.model.families import tiny_models
from headatlas.model.sources import convert
from headatlas.model.sources.cache import MANIFEST
from headatlas.model.sources.gguf_rules import reading
from headatlas.model.sources.resolve import resolve
from headatlas.progress import Silent
from tests.model.source_files import sha256, write_gguf
from tests.model.sources.llama_cpp_files import write
from tests.recorder import Recorder


def refused(
    tmp_path: Path, family: str = "llama", kind: type[HeadAtlasError] = UnsupportedModel, **options: Any
) -> str:
    changes = options.pop("changes", {})
    file = write(tmp_path / "odd.gguf", family, tiny_models.family(family).build(**changes), **options)
    with pytest.raises(kind) as caught:
        reading.read(file)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert "odd.gguf" in caught.value.message
    return str(caught.value)


KINDS = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32,
         str: gguf.GGUFValueType.STRING}  # fmt: skip


def key(name: str, value: Any) -> Callable[[gguf.GGUFWriter], None]:
    """What writes a key, also in place of one that was written before."""

    def also(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop(name, None)
        writer.add_key_value(name, value, KINDS[type(value)])

    return also


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        ("llama", "llama.attention.shiny_new_thing", 1.0),
        ("llama", "llama.attention.clamp_kqv", 8.0),
        ("llama", "llama.attention.scale", 0.5),
        ("llama", "llama.attention.causal", False),
        ("llama", "llama.attention.sliding_window", 16),
        ("llama", "llama.attention.value_length", 16),
        ("llama", "llama.block_count", 2**31 - 1),
        ("llama", "llama.vocab_size", 2**31),
        ("llama", "llama.attention.temperature_scale", 0.1),
        ("llama", "llama.attn_logit_softcapping", 30.0),
        ("llama", "llama.final_logit_softcapping", 30.0),
        ("llama", "llama.logit_scale", 2.0),
        ("llama", "llama.residual_scale", 0.2),
        ("llama", "llama.embedding_scale", 12.0),
        ("llama", "llama.expert_count", 8),
        ("llama", "llama.nextn_predict_layers", 1),
        ("llama", "llama.rope.freq_base_swa", 500.0),
        ("llama", "llama.rope.scaling.attn_factor", 1.5),
        ("llama", "llama.rope.scaling.alpha", 100.0),
        ("llama", "llama.use_parallel_residual", True),
        ("llama", "qwen2.rope.freq_base", 100.0),
        ("llama", "adapter.type", "lora"),
        ("llama", "somebody.else", 3),
        ("qwen2", "qwen2.attention.sliding_window", 16),
        ("qwen2", "qwen2.rope.dimension_sections", 3),
        ("qwen2", "qwen2.rope.dimension_count", 4),
        ("qwen3-moe", "qwen3moe.expert_weights_scale", 2.5),
        ("qwen3-moe", "qwen3moe.expert_gating_func", 2),
        ("qwen3-moe", "qwen3moe.expert_group_count", 4),
        ("stablelm", "stablelm.rope.scaling.type", "dynamic"),
        ("gpt2", "gpt2.attention.head_count_kv", 2),
        ("bloom", "bloom.attention.max_alibi_bias", 8.0),
        ("nemotron", "nemotron.attention.shiny_new_thing", 1),
    ],
)
def test_a_key_that_is_not_known_is_refused_by_name(tmp_path: Path, family: str, name: str, value: Any) -> None:
    changes = {"head_dim": 8} if name == "llama.attention.value_length" else {}
    assert f"`{name}`" in refused(tmp_path, family, changes=changes, also=key(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("llama.attention.causal", True),
        ("llama.attention.sliding_window", 4096),  # as long as the longest text
        ("llama.attention.clamp_kqv", 0.0),
        ("llama.expert_count", 0),
        ("llama.logit_scale", 1.0),
        ("llama.pooling_type", 3),
        ("llama.rope.scaling.type", "none"),
        ("llama.rope.scaling.finetuned", True),
        ("llama.rope.scaling.attn_factor", 1.0),
        ("llama.rope.scaling.original_context_length", 64),
        ("llama.tensor_data_layout", "Meta AI original pth"),
        ("general.license", "mit"),
        ("general.sampling.temp", 0.7),
        ("quantize.imatrix.file", "a.dat"),
        ("mradermacher.quantized_by", "someone"),
    ],
)
def test_a_key_that_changes_nothing_is_let_through(tmp_path: Path, name: str, value: Any) -> None:
    model = tiny_models.family("llama").build()
    plain = reading.read(write(tmp_path / "plain.gguf", "llama", model))
    found = reading.read(write(tmp_path / "more.gguf", "llama", model, also=key(name, value)))
    assert found.config.to_dict() == plain.config.to_dict()
    assert found.state.keys() == plain.state.keys()
    assert all(np.array_equal(values, plain.state[part]) for part, values in found.state.items())


def test_old_and_new_keys_of_linear_scaling_mean_the_same(tmp_path: Path) -> None:
    model = tiny_models.family("llama").build()
    for name in ("llama.rope.scale_linear", "llama.rope.scaling.factor"):
        found = reading.read(write(tmp_path / "old.gguf", "llama", model, also=key(name, 2.0)))
        assert found.config.rope_parameters == {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}


@pytest.mark.parametrize(
    ("family", "name", "shape"),
    [
        ("llama", "blk.0.attn_sinks.weight", (4,)),
        ("llama", "blk.0.attn_q.scale", (1,)),
        ("llama", "blk.0.attn_q_norm.weight", (8,)),
        ("llama", "blk.0.attn_norm.bias", (32,)),
        ("llama", "blk.9.ffn_up.weight", (48, 32)),  # of a layer that the model has not
        ("llama", "rope_factors_long.weight", (4,)),
        ("llama", "mystery.weight", (3,)),
        ("qwen2", "blk.0.attn_output.bias", (32,)),
        ("gpt2", "rope_freqs.weight", (4,)),
        ("falcon", "blk.0.attn_norm_2.weight", (32,)),
    ],
)
def test_a_tensor_that_is_not_known_is_refused_by_name(
    tmp_path: Path, family: str, name: str, shape: tuple[int, ...]
) -> None:
    text = refused(tmp_path, family, HeadAtlasError, tensors={name: np.ones(shape, np.float32)})
    assert name in text or (family == "falcon" and "lacks" in text)


@pytest.mark.parametrize("name", ["blk.1.attn_k.weight", "blk.2.ffn_norm.weight", "output_norm.weight"])
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    assert "lacks 1 of the model's weights" in refused(tmp_path, kind=SourceError, skip=name)


def test_a_key_that_is_missing_is_named(tmp_path: Path) -> None:
    def also(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop("llama.attention.layer_norm_rms_epsilon")

    assert "lacks the key `llama.attention.layer_norm_rms_epsilon`" in refused(tmp_path, also=also)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("llama.block_count", "three"),
        ("llama.rope.freq_base", "high"),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count", 5),
        ("llama.attention.head_count_kv", 3),
        ("llama.embedding_length", 2**31),
        ("llama.feed_forward_length", 2**31),
        ("llama.attention.key_length", 2**31),
        ("llama.rope.dimension_count", 2**31),
        ("llama.context_length", 0.5),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
    ],
)
def test_values_of_other_kinds_and_sizes_end_in_one_line(tmp_path: Path, name: str, value: Any) -> None:
    file = write(tmp_path / "odd.gguf", "llama", tiny_models.family("llama").build(), also=key(name, value))
    (tmp_path / "into").mkdir()
    with pytest.raises(HeadAtlasError) as caught:
        convert.convert(file, tmp_path / "into", Silent())
    assert "\n" not in str(caught.value)
    assert "odd.gguf" in str(caught.value)


def test_sizes_that_differ_between_layers_are_refused(tmp_path: Path) -> None:
    def also(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop("llama.attention.head_count_kv")
        writer.add_head_count_kv([2, 2, 1])

    assert "`llama.attention.head_count_kv`" in refused(tmp_path, also=also)


def test_a_gemma_of_no_published_width_is_refused_unless_its_query_scale_is_stated(tmp_path: Path) -> None:
    assert "query scale" in refused(tmp_path, "gemma2")
    model = tiny_models.family("gemma2").build()
    found = reading.read(write(tmp_path / "said.gguf", "gemma2", model, also=key("gemma2.attention.scale", 0.0625)))
    assert found.config.query_pre_attn_scalar == 256


@pytest.mark.parametrize(
    ("name", "why"), [("mamba", "no attention heads"), ("t5", "decoder"), ("lama", "Did you mean")]
)
def test_an_architecture_that_is_not_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", name)
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModel, match=f"architecture {name} .*{why}"):
        reading.read(tmp_path / "other.gguf")


def test_old_copies_are_converted_again(tmp_path: Path) -> None:
    file, home = write_gguf(tmp_path / "tiny.gguf"), tmp_path / "home"
    said = Recorder()
    source = resolve(str(file), home=home, progress=said)
    manifest = source.folder / MANIFEST
    facts = json.loads(manifest.read_text())
    assert facts["made_with"]["conversion"] == convert.CONVERSION
    weights = sha256(source.folder / "model.safetensors")
    for old in ({**facts["made_with"], "conversion": 1}, {"transformers": "5.23.0"}):
        manifest.write_text(json.dumps({**facts, "made_with": old}))
        assert resolve(str(file), home=home, progress=said) == source
        assert json.loads(manifest.read_text()) == facts
    assert [line.split()[0] for line in said.lines] == ["Converting", "The", "Converting", "The", "Converting"]
    assert resolve(str(file), home=home, progress=said) == source
    assert len(said.lines) == 5
    assert sha256(source.folder / "model.safetensors") == weights
