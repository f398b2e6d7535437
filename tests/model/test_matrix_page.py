"""Families that cannot be opened are refused by name, and the page of families says what is found."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch

from headatlas.errors import UnsupportedModel
from headatlas.model import attach
from headatlas.model.families import support_table, tiny_models
from tests.model.families import collect, inputs, opened

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sorted(tiny_models.REFUSED))
def test_families_that_bypass_the_attention_interface_are_refused_by_name(name: str):
    family = tiny_models.family(name)
    with pytest.raises(UnsupportedModel, match=family.architecture) as refusal:
        attach(family.build())
    assert refusal.value.hint


def test_a_wrapped_module_is_refused_by_name():
    hf = tiny_models.family("bloom").build()
    module = hf.transformer.h[1].self_attention
    module.forward = lambda *args, **kwargs: type(module).forward(module, *args, **kwargs)
    with pytest.raises(UnsupportedModel, match=r"BloomAttention\.forward was already replaced"):
        attach(hf)


def test_rounding_on_several_threads_makes_no_decoder_an_encoder():
    """With two threads, other tokens' choice of experts changes the last bits of the first position's logits."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert attach(tiny_models.family("qwen2-moe").build()).kind == "decoder"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "falcon", "gptj", "gpt-neo"])
def test_a_model_can_be_opened_again_and_is_freed(name: str):
    hf = tiny_models.family(name).build()
    expected = attach(hf).forward(inputs(name))
    second = attach(hf)
    assert torch.equal(second.forward(inputs(name)), expected)
    assert len(collect(second, inputs(name), lambda layer: layer.z)) == 3
    alive = weakref.ref(hf)
    del hf, second
    gc.collect()
    assert alive() is None


def test_the_page_of_models_is_fresh():
    """docs/models.md says what is found now; `headatlas matrix --out docs/models.md` makes it anew."""
    found = [support_table.row_of(tiny_models.family(name), opened(name)) for name in tiny_models.FAMILIES]
    found += support_table.rows(tiny_models.REFUSED.values())
    whole = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    page = whole.partition("\n## Every text class")[0].splitlines()
    for columns, lines in support_table.halves(found):
        for line in support_table.table(lines, columns):
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
