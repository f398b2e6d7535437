"""Heads that write where nobody reads: their W_O turned to the directions that the rest of the model reads least, norms kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.lab.measure import projection


@torch.no_grad()
def silence(model: Any, heads: Iterable[HeadId], seed: int = 0) -> None:
    """Turn what these heads of a GPT-2 or Llama write, in place: W_O [d_head, d_model] keeps its singular values.

    Each head gets random directions among the 2 d_head that are read least.
    """
    reads: Any = sum(one.T @ one / one.square().sum() for one in _readers(model) if one.any())
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.eigh(reads).eigenvectors  # [d_model, d_model], the least read first
    for head in heads:
        module, d_head = projection(model, head.layer)
        mine = slice(head.head * d_head, (head.head + 1) * d_head)
        # Linear modules hold [out, in], GPT-2's [in, out].
        weight = module.weight.T[mine] if isinstance(module, torch.nn.Linear) else module.weight[mine]
        inner, sizes, _ = torch.linalg.svd(weight.double(), full_matrices=False)
        turn, _ = torch.linalg.qr(torch.randn(2 * d_head, d_head, dtype=torch.float64, generator=generator))
        weight.copy_((inner * sizes) @ (directions[:, : 2 * d_head] @ turn).T)


def _readers(model: Any) -> Iterator[Tensor]:
    """What reads the residual stream, [row, d_model] each, with the gain of the norm in front of it."""
    if hasattr(model, "transformer"):
        for block in model.transformer.h:
            yield block.attn.c_attn.weight.T.double() * block.ln_1.weight
            yield block.mlp.c_fc.weight.T.double() * block.ln_2.weight
        last = model.transformer.ln_f
    else:
        for block in model.model.layers:
            for name in ("q_proj", "k_proj", "v_proj"):
                yield getattr(block.self_attn, name).weight.double() * block.input_layernorm.weight
            for name in ("gate_proj", "up_proj"):
                yield getattr(block.mlp, name).weight.double() * block.post_attention_layernorm.weight
        last = model.model.norm
    yield model.lm_head.weight.double() * last.weight
