"""A pass belongs to its context: other threads, watchers and owners of a model see the model as it was."""

import threading

import pytest
import torch
import transformers as T
from transformers import AttentionInterface

import headatlas as ha
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model import attach
from headatlas.model.core import dispatch
from tests import toys


def tokens(n: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(0))


def plain(hf: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return hf(input_ids=ids, use_cache=False).logits


def test_a_plain_call_in_another_thread_is_untouched_while_a_pass_edits():
    model, ids, found = attach(toys.llama()), tokens(), []
    expected = plain(model.hf, ids)

    def other() -> None:
        found.append(plain(model.hf, ids))

    def watch(_) -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    edited = model.forward(ids, edits=[ha.Zero("0.1 1.2")], watch=watch)
    assert len(found) == 2
    assert all(torch.equal(one, expected) for one in found)
    assert not torch.equal(edited, expected)
    with model.edited([ha.Zero("0.1 1.2")]) as hf:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert torch.equal(plain(hf, ids), edited)
    assert torch.equal(found[-1], expected)


def test_a_watcher_may_call_the_plain_model():
    model, ids = attach(toys.llama()), tokens()
    expected, found = plain(model.hf, ids), []
    model.forward(ids, watch=lambda _: found.append(plain(model.hf, ids)), edits=[ha.Zero("1.0")])
    assert len(found) == 2
    assert all(torch.equal(one, expected) for one in found)


def test_skipped_blocks_and_few_logits_are_those_of_the_pass_alone():
    model, ids, found = attach(toys.llama()), tokens(), []
    expected, kept = plain(model.hf, ids), {}
    from headatlas.model.core.forward_pass import Tap

    model.forward(ids, edits=[Tap([("decoder", 1)], lambda key, x: kept.update({key: x}))])
    again = model.forward(
        ids,
        start_at=(1, kept["decoder", 1]),
        watch=lambda _: found.append(plain(model.hf, ids)),
        logit_positions=torch.tensor([3]),
    )
    torch.testing.assert_close(again, expected[:, 3:4])
    assert torch.equal(found[0], expected)


def test_a_model_may_be_opened_twice():
    hf, ids = toys.llama(), tokens()
    first, second, seen = attach(hf), attach(hf), []
    assert torch.equal(first.forward(ids, edits=[ha.Zero("1.0")]), second.forward(ids, edits=[ha.Zero("1.0")]))
    assert not torch.equal(first.forward(ids, edits=[ha.Zero("1.0")]), plain(hf, ids))
    first.forward(ids, watch=lambda layer: seen.append(layer.index))
    assert seen == [0, 1]


def test_dropout_is_off_in_a_pass_and_the_training_mode_its_owners():
    hf = toys.gpt2(resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    hf.train()
    hf.transformer.h[1].eval()
    model, ids = attach(hf), tokens()
    assert hf.training
    assert not hf.transformer.h[1].training
    assert torch.equal(model.forward(ids), model.forward(ids))
    assert hf.transformer.h[0].training
    assert not hf.transformer.h[1].training
    assert not torch.equal(plain(hf, ids), plain(hf, ids))


@pytest.mark.parametrize("choice", ["eager", "sdpa"])
def test_the_owners_choice_of_attention_stays(choice: str):
    hf, ids = toys.llama(), tokens()
    hf.set_attn_implementation(choice)
    expected = plain(hf, ids)
    model = attach(hf)
    assert model.path == hf.config._attn_implementation == choice
    assert torch.equal(model.forward(ids), expected)
    hf.set_attn_implementation("eager" if choice == "sdpa" else "sdpa")  # changed later: passes follow
    assert torch.equal(model.forward(ids, watch=lambda layer: layer.pattern), plain(hf, ids))


def test_nothing_is_registered_and_outside_a_pass_the_function_is_transformers_own():
    before = dict(AttentionInterface._global_mapping)  # toys that are trained have attention of their own, by name
    model = attach(toys.llama())
    model.forward(tokens(), watch=lambda layer: None, edits=[ha.Zero("1.0")])
    assert before == AttentionInterface._global_mapping
    interface, own = AttentionInterface(), object()
    assert interface.get_interface("eager", own) is own
    assert interface.get_interface("sdpa", own) is AttentionInterface._global_mapping["sdpa"]
    assert dispatch.active() is None


def test_attention_that_a_pass_does_not_reach_is_said():
    hf, ids = toys.llama(), tokens()
    model = attach(hf)
    hf.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(UnsupportedModel, match=r"decoder layer 1 \(LlamaAttention\) was reached 0 times"):
        model.forward(ids, watch=lambda layer: None)
    with pytest.raises(UnsupportedModel, match="reached 0 times"):
        model.forward(ids, edits=[ha.Zero("1.0")])
    with pytest.raises(UnsupportedModel, match="reached 0 times"), model.edited([ha.Zero("1.0")]) as edited:
        plain(edited, ids)
    model.forward(ids, edits=[ha.Zero("0.0")])  # what is edited is reached


def test_another_attention_is_refused_by_name():
    hf, ids = toys.llama(), tokens()
    model = attach(hf)
    AttentionInterface.register("someone_elses", AttentionInterface._global_mapping["sdpa"])
    try:
        hf.set_attn_implementation("someone_elses")
        with pytest.raises(UnsupportedModel, match="computed by 'someone_elses'"):
            model.forward(ids)
    finally:
        del AttentionInterface._global_mapping["someone_elses"]


# ---- what is told or refused ------------------------------------------------------------------------------------------
def test_left_padded_dictionaries_count_positions_from_the_text():
    model, long, short = attach(toys.gpt2()), tokens(1, 9), tokens(1, 5)
    ids = torch.cat([torch.cat([torch.zeros(1, 4, dtype=torch.long), short], 1), long])
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    found = model.forward({"input_ids": ids, "attention_mask": mask})
    torch.testing.assert_close(found[0, 4:], model.forward(short)[0])
    torch.testing.assert_close(found[1], model.forward(long)[0])


def test_the_context_is_what_the_model_really_takes():
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 160,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    model = attach(T.RobertaModel(T.RobertaConfig(**sizes, max_position_embeddings=34, pad_token_id=1)))
    assert model.tokenizer.context == 32
    model.forward(tokens(1, 32))
    for given in (tokens(1, 33), {"input_ids": tokens(1, 33)}):
        with pytest.raises(BadInput, match="33 tokens are more"):
            model.forward(given)


def test_float16_that_overflows_is_refused_with_its_place():
    hf = toys.llama()
    hf.model.embed_tokens.weight.data[2] = 7e4  # infinite in float16; the self-check leaves this token out
    model, ids = attach(hf.half()), tokens()
    model.forward(ids)
    ids[0, 3] = 2
    with pytest.raises(BadInput, match=r"1 of 2 examples overflow float16 .* first in the token embeddings"):
        model.forward(ids)


def test_weights_changed_in_memory_have_a_hash_of_their_own(tmp_path):
    toys.with_tokenizer(toys.llama(vocab_size=300), tmp_path / "model")
    model = ha.load(str(tmp_path / "model"))
    assert model.sha256() == model.source.sha256
    weight = model.hf.model.layers[0].self_attn.q_proj.weight
    before = weight.data.clone()
    weight.data.mul_(-1)
    assert model.sha256() == model.fingerprint() != model.source.sha256
    weight.data.copy_(before)
    assert model.sha256() == model.source.sha256


def test_a_number_without_dimensions_is_part_of_the_fingerprint():
    hf = toys.llama()
    hf.register_buffer("step", torch.tensor(0))
    first = attach(hf).fingerprint()
    hf.step += 1
    assert attach(hf).fingerprint() != first


@pytest.mark.parametrize(
    ("given", "heads"),
    [
        ((9, 10), [(9, 10)]),
        ([(9, 10), (1, 2)], [(9, 10), (1, 2)]),
        ("0.10", [(0, 10)]),
        (["L0H10", ha.HeadId(2, 3)], [(0, 10), (2, 3)]),
    ],
)
def test_heads_are_read_however_they_are_given(given, heads):
    assert [(head.layer, head.head) for head in ha.Zero(given).heads] == heads


@pytest.mark.parametrize("given", [0.10, 9, [9.1], (9, 10.5), [(1, 2, 3)], (True, 2), None])
def test_what_is_no_head_is_refused_in_words(given):
    with pytest.raises(BadInput, match=r"is not a head|names no heads"):
        ha.Zero(given)
