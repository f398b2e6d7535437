"""What opening a model found out is used again for the very same kind of model, and for nothing else."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers as T
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.llama import modeling_llama

import headatlas as ha
from headatlas.model import attach, loading, table_of
from headatlas.model.families.tiny_models import FAMILIES
from headatlas.model.opening import kept_structure
from headatlas.model.sources import openings
from headatlas.model.structure import reach
from tests import toys


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(openings, "folder", lambda: tmp_path / "opened")
    return tmp_path / "opened"


@pytest.fixture
def forwards() -> Iterator[list[str]]:
    """The class of each whole model whose forward begins."""
    seen: list[str] = []

    def count(module: torch.nn.Module, _) -> None:
        if "ForCausalLM" in type(module).__name__:
            seen.append(type(module).__name__)

    handle = register_module_forward_pre_hook(count)
    yield seen
    handle.remove()


def opened(hf: torch.nn.Module, forwards: list[str], **more) -> tuple[ha.Model, int]:
    forwards.clear()
    model = attach(hf, **more)
    return model, len(forwards)


def test_the_first_opening_takes_eight_runs_and_the_second_none(forwards):
    assert opened(toys.llama(), forwards)[1] == 8
    assert opened(toys.llama(), forwards)[1] == 0
    assert opened(toys.llama(), forwards, anew=True)[1] == 8


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_a_model_reopened_is_the_model_that_was_checked(family, place):
    try:
        first = attach(family.build())
    except ha.HeadAtlasError:
        pytest.skip("refused")
    second = attach(family.build())
    if not list(place.glob("*.npz")) and not kept_structure.hangs_on_weights(first):
        raise AssertionError("nothing was kept")
    facts, arrays = kept_structure.described(first)
    again, others = kept_structure.described(second)
    assert again == facts
    assert all((arrays[name] == others[name]).all() for name in arrays)
    tokens = {name: value for name, value in loading.selfcheck.sample(first.hf, first.config).items()}
    edits = [ha.Zero(first.heads[0]), ha.Zero(first.heads[-1])]
    assert torch.equal(first.forward(tokens, edits=edits), second.forward(tokens, edits=edits))
    if first.unembedding is not None:
        assert torch.equal(first.unembedding.gain, second.unembedding.gain)
    for one, two in zip(first.layers, second.layers, strict=True):
        assert (one.post_gain is None) == (two.post_gain is None)
        assert one.post_gain is None or torch.equal(one.post_gain, two.post_gain)


def test_gains_of_norms_are_those_of_the_weights_at_hand(forwards):
    attach(toys.gemma3())
    other = toys.gemma3()
    for parameter in other.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(1), std=0.2)
    model, runs = opened(other, forwards)
    fresh, _ = opened(other, forwards, anew=True)
    assert runs == 0
    assert torch.equal(model.layers[0].post_gain, fresh.layers[0].post_gain)
    assert torch.equal(model.unembedding.gain, fresh.unembedding.gain)


def hooked(hf):
    hf.model.layers[0].self_attn.register_forward_hook(lambda *_: None)


def own_forward(hf):
    hf.model.layers[1].mlp.forward = hf.model.layers[1].mlp.forward


def parametrised(hf):
    torch.nn.utils.parametrizations.weight_norm(hf.model.layers[0].mlp.up_proj)


def foreign_class(hf):
    class Norm(modeling_llama.LlamaRMSNorm):
        pass

    hf.model.norm.__class__ = Norm


def adapter(hf):
    class Adapted(torch.nn.Linear):
        pass

    hf.model.layers[0].self_attn.q_proj.__class__ = Adapted


def compiled(hf):
    hf.model.layers[0].mlp._compiled_call_impl = hf.model.layers[0].mlp._call_impl


def scaled(hf):
    hf.model.layers[0].self_attn.scaling *= 2


def half(hf):
    hf.half()


def eager(hf):
    hf.set_attn_implementation("eager")


def reconfigured(hf):
    hf.config.rms_norm_eps *= 2


def own_activation(hf):
    del hf.model.layers[0].mlp.act_fn
    hf.model.layers[0].mlp.act_fn = lambda x: x.relu()


@pytest.mark.parametrize(
    "change",
    [hooked, own_forward, parametrised, foreign_class, adapter, compiled, scaled, half, eager, reconfigured, own_activation],
)  # fmt: skip
def test_a_changed_model_is_checked_anew(change, forwards):
    opened(toys.llama(), forwards)
    hf = toys.llama()
    change(hf)
    assert opened(hf, forwards)[1] >= 8


@pytest.mark.parametrize("change", [hooked, own_forward, parametrised, foreign_class, adapter, compiled])
def test_what_no_key_can_tell_is_always_checked(change, forwards, place):
    for _ in range(2):
        hf = toys.llama()
        change(hf)
        assert opened(hf, forwards)[1] >= 8
    assert not place.exists()


def test_replaced_code_is_checked_anew(forwards, monkeypatch):
    opened(toys.llama(), forwards)
    rotated = modeling_llama.apply_rotary_pos_emb
    with monkeypatch.context() as patch:
        patch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, *rest, **more: rotated(q, k, *rest, **more))
        assert opened(toys.llama(), forwards)[1] == 8
    forward = modeling_llama.LlamaMLP.forward
    with monkeypatch.context() as patch:
        patch.setattr(modeling_llama.LlamaMLP, "forward", functools.wraps(forward)(lambda self, x: forward(self, x)))
        assert opened(toys.llama(), forwards)[1] == 8
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_run", lambda hf, inputs: hf(**inputs))
        assert opened(toys.llama(), forwards)[1] == 8
    with monkeypatch.context() as patch:
        patch.setattr("headatlas.model.opening.opening_key.__version__", "0.0")
        assert opened(toys.llama(), forwards)[1] == 8
    assert opened(toys.llama(), forwards)[1] == 0


def test_damaged_and_foreign_files_are_ignored(forwards, place):
    opened(toys.llama(), forwards)
    (kept,) = place.glob("*.npz")
    whole = kept.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"no archive"):
        kept.write_bytes(damage)
        assert opened(toys.llama(), forwards)[1] == 8
        assert opened(toys.llama(), forwards)[1] == 0
    attach(toys.gpt2())
    (other,) = set(place.glob("*.npz")) - {kept}
    kept.write_bytes(other.read_bytes())
    assert opened(toys.llama(), forwards)[1] == 8


def test_old_files_make_room(place, monkeypatch):
    attach(toys.llama())
    (first,) = place.glob("*.npz")
    monkeypatch.setattr(openings, "ROOM", first.stat().st_size * 2)
    for layers in (3, 4, 5):
        attach(toys.llama(num_hidden_layers=layers))
    assert sum(file.stat().st_size for file in place.iterdir()) <= openings.ROOM
    assert not first.exists()


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch, forwards):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(openings, "folder", lambda: tmp_path / "file")
    assert opened(toys.llama(), forwards)[1] == 8
    assert opened(toys.llama(), forwards)[1] == 8


def test_a_named_model_keeps_its_checksum_and_check_does_everything(tmp_path, forwards):
    toys.with_tokenizer(toys.llama(vocab_size=300), tmp_path / "model")
    first = ha.load(str(tmp_path / "model"))
    forwards.clear()
    second = ha.load(str(tmp_path / "model"))
    assert not forwards
    assert second.sha256() == first.sha256() == second.source.sha256
    second.hf.model.norm.weight.data.mul_(2)
    assert second.sha256() != first.sha256()
    table_of(str(tmp_path / "model"))
    assert len(forwards) > 8


def test_windows_of_thousands_are_lowered_for_the_check(forwards, monkeypatch):
    hf, seen = toys.gemma3(sliding_window=100, max_position_embeddings=4096), []
    forward = T.Gemma3TextModel.forward

    def note(self, *args, **more):
        seen.append((self.config.sliding_window, self.layers[0].self_attn.sliding_window, more["input_ids"].shape[1]))
        return forward(self, *args, **more)

    monkeypatch.setattr(T.Gemma3TextModel, "forward", functools.wraps(forward)(note))
    assert opened(hf, forwards)[1] == 8
    assert all(max(window, own) < length for window, own, length in seen)
    assert (hf.config.sliding_window, hf.model.layers[0].self_attn.sliding_window) == (100, 100)
    assert reach.reaches(hf.config) == [100]


def test_a_window_that_is_dropped_when_looked_into_is_noticed(monkeypatch):
    """A model of the kind that fails only beyond its window: the fault is planted in what runs while a pass is on."""
    from headatlas.model.core import dispatch
    from headatlas.model.core.forward_pass import Pass

    attend = Pass.attend

    def dense(self, module, query, key, value, mask, kwargs):
        if mask is not None and getattr(module, "is_sliding", False):
            mask = torch.ones_like(mask).tril() if mask.dtype == torch.bool else torch.full_like(mask, -1e9).triu(1)
        return attend(self, module, query, key, value, mask, kwargs)

    monkeypatch.setattr(Pass, "attend", dense)
    with pytest.raises(ha.HeadAtlasError, match="same output watched and unwatched"):
        attach(toys.gemma3(sliding_window=100, max_position_embeddings=4096))
    assert dispatch.active() is None
