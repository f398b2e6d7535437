"""Our sweeps against TransformerLens' own on the same tiny weights; run where the package is installed."""

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.methods.sweeps.activation_patching import patch
from headatlas.model import attach
from headatlas.task import Batch
from tests import toys

lens = pytest.importorskip("transformer_lens", reason="TransformerLens is not installed")


def unpadded() -> Batch:
    generator = torch.Generator().manual_seed(0)
    tokens, other = torch.randint(5, 150, (2, 3, 14), generator=generator)
    mask, at = torch.ones_like(tokens, dtype=torch.bool), {"end": torch.full((3,), 13)}
    labels = {"answer": torch.tensor([7, 20, 30]), "wrong": torch.tensor([11, 12, 13])}
    return Batch(tokens, mask, at, labels=labels, counterfactual=Batch(other, mask, at))


@pytest.fixture(params=["gpt2", "mha", "gqa"])
def pair(request, tmp_path) -> tuple[ha.Model, object]:
    """Our model and TransformerLens' on the same weights."""
    from transformer_lens.model_bridge import TransformerBridge

    toys.with_tokenizer(toys.MAKERS[request.param](), tmp_path)
    theirs = toys.MAKERS[request.param]()
    theirs.set_attn_implementation("eager")
    from transformers import AutoTokenizer

    bridge = TransformerBridge.boot_transformers(
        str(tmp_path), hf_model=theirs, tokenizer=AutoTokenizer.from_pretrained(tmp_path)
    )
    return attach(toys.MAKERS[request.param]()), bridge


def test_patching_of_every_head_agrees(pair):
    from transformer_lens import patching

    model, bridge = pair
    batch = unpadded()

    def score(logits: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(3)
        return (logits[rows, 13, batch.answer] - logits[rows, 13, batch.wrong]).mean()

    with torch.no_grad():
        _, clean = bridge.run_with_cache(batch.tokens)
        everywhere = patching.get_act_patch_attn_head_out_all_pos(bridge, batch.counterfactual.tokens, clean, score)
        by_position = patching.get_act_patch_attn_head_out_by_pos(bridge, batch.counterfactual.tokens, clean, score)
    ours = patch(model, batch, direction="denoising")
    np.testing.assert_allclose(ours.values.mean(0)[:, 0].reshape(2, 4), everywhere.numpy(), atol=1e-5)
    each = patch(model, batch, direction="denoising", positions="each")
    found = each.values.mean(0).reshape(2, 4, 14).transpose(0, 2, 1)  # theirs is [layer, position, head]
    np.testing.assert_allclose(found, by_position.numpy(), atol=1e-5)
    assert np.ptp(everywhere.numpy()) > 1e-3
