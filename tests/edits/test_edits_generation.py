"""Edits in cached generation act as in one pass, and do the same after being saved and loaded."""

import json

import pytest
import torch

from headatlas.edits import Add, Block, Mean, OnHeads, Project, Resample, Scale, Swap, Temper, Zero, load_edits, save
from headatlas.errors import BadInput, StoreError
from headatlas.task import Batch
from tests import toys
from tests.edits.test_edits import batch


def every_kind(model, start: Batch) -> list[list[OnHeads]]:
    """Edits of every kind and component that act on tokens of the prompt and on generated ones alike."""
    other = Batch((start.tokens + 11) % 140 + 5, start.mask)
    group = "1.0 1.1 1.2 1.3"
    width = model.layers[1].d_value
    u = torch.randn(width, generator=torch.Generator().manual_seed(0))
    residual = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    length = start.tokens.shape[1]
    late = [2, length - 1, length, length + 1, length + 3]  # the prompt's end and tokens yet to come
    return [
        [Zero("0.1"), Zero("1.2", positions=late)],
        [Mean.over(model, "0.2 1.1", other)],
        [Mean.over(model, "0.2", other, per_position=True, positions=range(length))],
        [Resample.over(model, "1.1", other, positions=range(3, length))],
        [Swap.over(model, "0.1", other, positions=[4], source=[2])],
        [
            Swap.over(model, group, other, positions=[1, 4], component="k"),
            Zero(group, component="v", positions=[3, length + 1]),
        ],
        [Scale("1.1", 2.0, component="q", positions=late)],
        [Add("1.0", u, scale=5, positions=late), Project("1.1", u)],
        [Add(1, residual, scale=3, component="residual", positions=late)],
        [Block("1.0 1.1", keys=[0, 2, length], queries=late)],
        [Temper("1.3", 0.3, positions=late)],
        [Swap.over(model, "0.2", other, positions=[3, 5], component="pattern")],
    ]


@pytest.mark.parametrize("kind", ["gqa", "gpt2", "window", "softcap"])
def test_cached_generation_equals_one_pass_at_every_step(kind):
    model = toys.model(kind)
    start = batch(2, 22)  # two more tokens than this and the toys' window of 24 begins to slide
    for edits in every_kind(model, start):
        with model.edited(edits) as hf:
            out = hf.generate(
                start.tokens, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        assert out.sequences.shape[1] == 28
        whole = model.forward(out.sequences[:, :-1], edits=edits)
        stepwise = torch.stack(out.logits, 1)
        torch.testing.assert_close(
            stepwise, whole[:, 21:], atol=1e-5, rtol=1e-4, msg=lambda text, e=edits: f"{e}: {text}"
        )
        with torch.no_grad():
            plain = model.forward(out.sequences[:, :-1])
        assert not torch.allclose(whole[:, 21:], plain[:, 21:], atol=1e-6), f"{edits} did nothing"


def test_cached_generation_with_padding_on_the_left_counts_padding():
    model = toys.model("gqa")
    padded = batch(2, 10).padded(left=4)
    edits = [Zero("1.1", positions=[6, 13, 15]), Block("0.2", keys=[5], queries=[14])]
    with model.edited(edits) as hf:
        out = hf.generate(
            padded.tokens, attention_mask=padded.mask.long(), max_new_tokens=4, do_sample=False, pad_token_id=0,
            eos_token_id=None, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    tokens = out.sequences[:, :-1]
    mask = torch.cat([padded.mask, torch.ones(2, 3, dtype=torch.bool)], 1)
    whole = model.forward(Batch(tokens, mask), edits=edits)
    torch.testing.assert_close(torch.stack(out.logits, 1), whole[:, 13:], atol=1e-5, rtol=1e-4)


def test_static_caches_count_tokens_too():
    model, start = toys.model("gqa"), batch(2, 9)
    edits = [Zero("1.1", positions=[3, 9, 11]), Block("0.2", keys=[5, 9], queries=[10])]
    with model.edited(edits) as hf:
        out = hf.generate(
            start.tokens, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None, output_logits=True,
            return_dict_in_generate=True, cache_implementation="static", disable_compile=True,
        )  # fmt: skip
    whole = model.forward(out.sequences[:, :-1], edits=edits)
    torch.testing.assert_close(torch.stack(out.logits, 1), whole[:, 8:], atol=1e-5, rtol=1e-4)


def test_a_prompt_read_in_chunks_is_edited_where_it_says():
    model, start = toys.model("gqa"), batch(2, 11)
    edits = [Zero("1.1", positions=[3, 9, 12]), Block("0.2", keys=[5], queries=[10])]
    with model.edited(edits) as hf:
        out = hf.generate(
            start.tokens, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None, output_logits=True,
            return_dict_in_generate=True, prefill_chunk_size=4,
        )  # fmt: skip
    whole = model.forward(out.sequences[:, :-1], edits=edits)
    torch.testing.assert_close(torch.stack(out.logits, 1), whole[:, 10:], atol=1e-5, rtol=1e-4)


def test_beams_are_scored_under_the_edits():
    """The score of the best beam is the mean log-probability of its new tokens in one edited pass over it."""
    model, start = toys.model("gqa"), batch(2, 9)
    edits = [Zero("1.1", positions=[3, 8, 10]), Block("0.2", keys=[5], queries=[9])]
    with model.edited(edits) as hf:
        out = hf.generate(
            start.tokens, max_new_tokens=4, num_beams=3, do_sample=False, pad_token_id=0, eos_token_id=None,
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    for said, expected in ((edits, True), ([], False)):
        logs = model.forward(out.sequences[:, :-1], edits=said).log_softmax(-1)[:, 8:]
        mean = logs.gather(2, out.sequences[:, 9:, None])[..., 0].mean(1)
        assert torch.allclose(mean, out.sequences_scores, atol=1e-5) == expected


def test_values_per_example_are_refused_for_beams():
    model, start = toys.model("gqa"), batch(2, 9)
    edit = Resample.over(model, "1.1", batch(2, 9, seed=4), positions=range(9))
    with model.edited([edit]) as hf, pytest.raises(BadInput, match="made for 2 examples and was given 6"):
        hf.generate(start.tokens, max_new_tokens=2, num_beams=3, do_sample=False, pad_token_id=0)
    torch.testing.assert_close(model.forward(start), toys.llama()(input_ids=start.tokens).logits.detach())


# ---- files -----
def test_saved_edits_do_the_same_after_loading(tmp_path):
    model, start = toys.model("gqa"), batch(2, 22)
    longer = batch(2, 26)  # the edits are made for a text that has grown
    for number, edits in enumerate(every_kind(model, start)):
        save(edits, tmp_path / f"{number}")
        again = load_edits(tmp_path / f"{number}")
        assert [repr(edit) for edit in again] == [repr(edit) for edit in edits]
        assert torch.equal(model.forward(longer, edits=again), model.forward(longer, edits=edits))
    assert {path.name for path in (tmp_path / "0").iterdir()} == {"edits.json", "edits.safetensors"}


def test_damaged_and_foreign_files_are_named(tmp_path):
    save([Zero("1.1")], tmp_path / "one")
    with pytest.raises(StoreError, match="exists already"):
        save([Zero("1.1")], tmp_path / "one")
    with pytest.raises(StoreError, match="holds no edits"):
        load_edits(tmp_path / "two")
    data = json.loads((tmp_path / "one" / "edits.json").read_text())
    for broken in ("{", json.dumps({**data, "schema": "x"}), json.dumps({**data, "edits": [{"kind": "Melt"}]})):
        (tmp_path / "one" / "edits.json").write_text(broken)
        with pytest.raises(StoreError, match="one"):
            load_edits(tmp_path / "one")

    class Mine(Zero):
        pass

    with pytest.raises(BadInput, match="own class Mine"):
        save([Mine("1.1")], tmp_path / "three")
    assert not (tmp_path / "three").exists()
