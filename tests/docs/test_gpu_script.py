"""The script for GPUs tells right numbers from wrong ones; that it can be tried here is what its pages say."""

from __future__ import annotations

import sys

import pytest
import torch

from headatlas.model import Model, attach
from tests import toys
from tests.pages import ROOT


@pytest.mark.slow
def test_other_numbers_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    def make(device: str) -> Model:
        hf = toys.llama(
            vocab_size=49152, hidden_size=36, num_attention_heads=9, num_key_value_heads=3, num_hidden_layers=3
        )
        if device == "other":
            with torch.no_grad():
                hf.model.layers[1].self_attn.q_proj.weight.mul_(3)
        return attach(hf, tokenizer=toys.smollm2_vocabulary())

    assert all(row["right"] for row in gpu.compared(make, "cpu", gpu.FP32))
    wrong = {row["what"] for row in gpu.compared(make, "other", gpu.FP32) if not row["right"]}
    assert {"logits", "attention rows", "ablation, zero", "patching", "detector induction"} <= wrong
    sys.modules.pop("gpu")
