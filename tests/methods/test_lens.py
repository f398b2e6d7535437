"""The lens of a head against the plain model's own norm and unembedding, and the command."""

import json

import numpy as np
import pytest
import torch

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.methods.logit_lens import head_lens
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from tests import pages
from tests.methods.sweeps.test_replay import prompts


def test_tokens_are_those_that_the_plain_model_reads_out_of_the_write():
    hf = FAMILIES["llama"].build(attn_implementation="eager")
    batch, kept = prompts(3), {}
    hooks = [
        hf.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, args: kept.update(z=args[0])),
        hf.model.norm.register_forward_pre_hook(lambda _, args: kept.update(x=args[0])),
    ]
    with torch.no_grad():
        hf(input_ids=batch.tokens, attention_mask=batch.mask.long())
        for hook in hooks:
            hook.remove()
        rows = torch.arange(3)
        write = kept["z"][rows, batch.positions["end"]][:, 8:16] @ hf.model.layers[1].self_attn.o_proj.weight[:, 8:16].T
        x = kept["x"][rows, batch.positions["end"]]
        logits = (write * hf.model.norm.weight / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()) @ hf.lm_head.weight.T
        logits = (logits - logits.mean(-1, keepdim=True)).numpy()
    found = head_lens(attach(hf), batch, batch.positions["end"], [HeadId(1, 1), HeadId(2, 0)], k=4)
    order = np.argsort(-logits, axis=1)
    assert found.promoted[:, 0].tolist() == order[:, :4].tolist()
    assert found.suppressed[:, 0].tolist() == order[:, ::-1][:, :4].tolist()
    np.testing.assert_allclose(found.raised[:, 0], np.take_along_axis(logits, order[:, :4], 1), atol=1e-5)
    np.testing.assert_allclose(found.lowered[:, 0], np.take_along_axis(logits, order[:, ::-1][:, :4], 1), atol=1e-5)
    np.testing.assert_allclose(found.size[:, 0], logits.std(1), atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gemma3", "gptj", "falcon", "cohere", "granite", "olmo2"])
def test_differences_between_tokens_are_direct_effects(name: str):
    model, batch = attach(FAMILIES[name].build()), prompts(3)
    end = batch.positions["end"]
    found = head_lens(model, batch, end, k=3)
    for number in (0, 5, 11):
        up, down = found.promoted[:, number, 0], found.suppressed[:, number, 0]
        ids = torch.tensor(np.stack([up, down], 1))
        toward = Toward(end, ids, torch.tensor([[1.0, -1.0]] * 3))
        direct = direct_effects(model, batch, toward=toward).values[:, number]
        np.testing.assert_allclose(
            found.raised[:, number, 0] - found.lowered[:, number, 0], direct, atol=2e-5, rtol=1e-4
        )
    assert bool(found.notes) == (name == "gemma2")
    assert found.largest(12)[0] == int(found.size.mean(0).argmax())


def test_wrong_input_is_named():
    model, batch = attach(FAMILIES["llama"].build()), prompts(3)
    with pytest.raises(BadInput, match="outside the prompt"):
        head_lens(model, batch, torch.tensor([0, 0, 99]))
    with pytest.raises(BadInput, match="no head"):
        head_lens(model, batch, batch.positions["end"], [HeadId(1, 9)])
    with pytest.raises(BadInput, match="tokens cannot"):
        head_lens(model, batch, batch.positions["end"], k=0)
    with pytest.raises(UnsupportedModel):
        head_lens(attach(FAMILIES["bert-masked"].build()), batch, batch.positions["end"])


def test_the_command(load_gives_narrow_smollm2, capsys):
    def run(*options: str) -> tuple[int, str]:
        code, out, _ = pages.run(capsys, "lens", "smollm2-135m", *options)
        return code, out

    code, text = run("--prompt", "The capital of France is", "--heads", "3.1 4.2")
    assert code == 0
    assert "3.1" in text
    assert "promotes" in text
    code, text = run("--task", "ioi", "--top", "4", "--tokens", "2", "--json")
    data = json.loads(text)
    assert len(data["heads"]) == 4
    assert len(data["heads"][0]["promoted"]) == 2
    for wrong in ([], ["--prompt", "Hi", "--position", "50"], ["--prompt", ""], ["--prompt", "Hi", "--heads", "99.0"]):
        assert run(*wrong)[0] == 1
