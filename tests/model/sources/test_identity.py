"""What decides a model's numbers is told apart, part by part, and stays the same where nothing was changed."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import headatlas as ha
from headatlas.model import Model, attach
from headatlas.model.identity import identity_of
from tests import toys
from tests.model.families import FAMILIES, inputs, opened

# Families whose attention or rotary tables keep something between passes; the others have nothing that could move.
MOVING = ("llama", "recurrent-gemma", "gemma3", "gpt2", "t5", "qwen2-moe", "bert")
IN_ANOTHER_PROCESS = """
import json, sys
import headatlas as ha
from headatlas.model.identity import identity_of
model = ha.load(sys.argv[1])
print(json.dumps([model.sha256(), identity_of(model)]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toys.with_tokenizer(toys.llama(vocab_size=300), tmp_path / "model")
    return tmp_path / "model"


def whole(model: Model) -> dict[str, Any]:
    return {"weights": model.sha256(), **identity_of(model)}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in {**before, **after} if before.get(name) != after.get(name)}


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(input_ids=torch.arange(5, 29)[None], use_cache=False).logits


def scaled(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 1.5


def attention(model: Model) -> Any:
    return model.hf.model.layers[1].self_attn


# What a user may do to a model in memory -> the parts that tell. Each moves the logits, as the test sees for itself.
CHANGES: dict[str, tuple[Callable[[Model], object], set[str]]] = {
    "weights behind the version counter": (lambda m: attention(m).q_proj.weight.data.mul_(-1), {"weights"}),
    "one number": (lambda m: attention(m).v_proj.weight.data[3, 3].add_(1), {"weights"}),
    "rotary frequencies": (lambda m: m.hf.model.rotary_emb.inv_freq.mul_(0.5), {"buffers"}),
    "another rotary table": (
        lambda m: m.hf.model.rotary_emb.register_buffer("inv_freq", torch.ones(4), persistent=False),
        {"buffers"},
    ),
    "the scale of one layer": (lambda m: setattr(attention(m), "scaling", 2.0), {"modules"}),
    "the epsilon of a norm": (lambda m: setattr(m.hf.model.norm, "variance_epsilon", 0.5), {"modules"}),
    "another activation": (lambda m: setattr(m.hf.model.layers[0].mlp, "act_fn", nn.Tanh()), {"modules"}),
    "a hook of one's own": (lambda m: m.hf.model.layers[0].register_forward_hook(scaled), {"modules"}),
    "a forward of one's own": (
        lambda m: setattr(m.hf.model.layers[0].mlp, "forward", scaled_mlp(m.hf.model.layers[0].mlp)),
        {"modules"},
    ),
}


def scaled_mlp(mlp: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: 2 * type(mlp).forward(mlp, x)


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_in_memory_is_told(folder: Path, what: str):
    model = ha.load(str(folder))
    before, plain = whole(model), logits(model)
    change, parts = CHANGES[what]
    with torch.no_grad():
        change(model)
    assert not torch.equal(logits(model), plain)
    assert changed(before, whole(model)) == parts


def test_a_configuration_changed_after_loading_is_told(folder: Path):
    model = ha.load(str(folder))
    before = whole(model)
    model.hf.config.sliding_window = 4
    assert changed(before, whole(model)) == {"configuration"}
    del model.hf.config.sliding_window
    assert whole(model) == before
    model.hf.config.rope_parameters["rope_theta"] = 1e6
    assert changed(before, whole(model)) == {"configuration"}


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("rope_theta", 1e6, {"buffers", "configuration"}),
        ("rms_norm_eps", 0.1, {"configuration", "modules"}),
        ("max_position_embeddings", 80, {"configuration", "modules", "tokenizer"}),
        ("hidden_act", "relu", {"configuration", "modules"}),
        ("temperature", 0.5, set()),
        ("use_cache", False, set()),
        ("_name_or_path", "elsewhere", set()),
        ("transformers_version", "4.0.0", set()),
    ],
)
def test_a_changed_config_file_is_told_unless_it_has_to_do_with_generation(folder: Path, key, value, parts):
    before = whole(ha.load(str(folder)))
    config = json.loads((folder / "config.json").read_text())
    (config["rope_parameters"] if key.startswith("rope") else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    assert changed(before, whole(ha.load(str(folder)))) == parts


def test_another_tokenizer_is_told_and_calls_that_pad_are_not(folder: Path):
    model = ha.load(str(folder))
    before = whole(model)
    model.tokenizer._hf(["a b c d", "a"], padding=True, truncation=True, max_length=3)
    assert whole(model) == before
    file = folder / "tokenizer.json"
    stated = json.loads(file.read_text())
    stated["model"]["merges"].pop()
    file.write_text(json.dumps(stated))
    assert changed(before, whole(ha.load(str(folder)))) == {"tokenizer"}
    assert "tokenizer" in changed(before, whole(ha.load(str(folder), bos="none")))


class Adapted(nn.Module):
    """A linear map with low-rank adapters, which holds what those of PEFT do."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.in_features, self.out_features = base, base.in_features, base.out_features
        self.added = nn.ParameterDict({name: nn.Parameter(torch.randn_like(base.weight)) for name in ("one", "two")})
        self._active_adapter, self._disable_adapters = ["one"], False

    @property
    def weight(self) -> torch.Tensor:
        found = self.base_layer.weight
        return found if self._disable_adapters else found + sum(self.added[name] for name in self._active_adapter)

    @property
    def bias(self) -> None:
        return None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)


def test_which_adapters_act_is_told():
    hf = toys.llama()
    layer = hf.model.layers[0].mlp
    layer.up_proj = adapted = Adapted(layer.up_proj)
    model = attach(hf)
    before = whole(model)
    assert before["adapters"] == ["one"]
    adapted._active_adapter = ["two"]
    assert changed(before, whole(model)) == {"adapters"}
    adapted._active_adapter, adapted._disable_adapters = ["one"], True
    assert whole(model)["adapters"] == ["one (off)"]
    adapted._disable_adapters = False
    assert whole(model) == before
    adapted.added["one"].data.mul_(2)
    assert changed(before, whole(model)) == {"weights"}


@pytest.mark.parametrize("name", [name for name in MOVING if name in FAMILIES])
def test_passes_and_generation_move_nothing(name: str):
    model = opened(name)
    before = whole(model)
    model.forward(inputs(name), watch=lambda layer: layer.z)
    if model.kind == "decoder":
        with torch.no_grad():
            model.hf.generate(torch.arange(5, 12)[None], max_new_tokens=3, do_sample=False)
    assert whole(model) == before


ROPES = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 40,
        "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ROPES)
def test_rotary_tables_that_grow_with_the_length_are_no_change(kind: str):
    hf = toys.llama(rope_parameters=ROPES[kind], max_position_embeddings=40 if kind == "dynamic" else 160)
    model, rotary = attach(hf), hf.model.rotary_emb
    before, short = whole(model), copy.deepcopy(rotary.inv_freq)
    with torch.no_grad():
        hf(input_ids=torch.arange(5, 125)[None])
    assert not torch.equal(rotary.inv_freq, short)
    assert whole(model) == before
    logits(model)
    assert torch.equal(rotary.inv_freq, short)
    assert whole(model) == before
    rotary.original_inv_freq.mul_(0.5)
    assert changed(before, whole(model)) == {"buffers"}


def test_another_process_and_another_place_give_the_same(folder: Path, tmp_path: Path):
    model = ha.load(str(folder))
    moved = folder.rename(tmp_path / "moved")
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, str(moved)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [model.sha256(), identity_of(model)]
