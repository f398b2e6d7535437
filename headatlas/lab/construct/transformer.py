"""Puts planted weights into an ordinary Hugging Face GPT-2 or Llama."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.stream import Stream
from headatlas.lab.construct.weights import make_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build(plan: Plan, stream: Stream) -> PreTrainedModel:
    """The model, in float32, with its MLPs at zero and its norms at one."""
    model = _llama(plan) if plan.geometry.rotary else _gpt2(plan)
    layers = make_layers(plan, stream)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name or ".ln_" in name else 0.0)
            if name.endswith(".bias"):
                parameter.zero_()
        model.get_input_embeddings().weight.copy_(stream.embedding())
        model.get_output_embeddings().weight.copy_(stream.unembedding())
        if plan.geometry.rotary:
            for block, layer in zip(model.model.layers, layers, strict=True):
                attention = block.self_attn
                attention.q_proj.weight.copy_(layer.q.flatten(0, 1))
                attention.k_proj.weight.copy_(layer.k.flatten(0, 1))
                attention.v_proj.weight.copy_(layer.v.flatten(0, 1))
                attention.o_proj.weight.copy_(layer.o.flatten(0, 1).T)
        else:
            model.transformer.wpe.weight.copy_(stream.positions())
            for block, layer in zip(model.transformer.h, layers, strict=True):
                fused = torch.cat([_stacked(layer.q), _stacked(layer.k), _stacked(layer.v)], dim=1)
                block.attn.c_attn.weight.copy_(fused)
                block.attn.c_proj.weight.copy_(layer.o.flatten(0, 1))
    return model.eval()


def _stacked(rows: Tensor) -> Tensor:
    """[width, head x d_head], the way GPT-2 stores its readers."""
    return rows.flatten(0, 1).T


def _gpt2(plan: Plan) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    geometry = plan.geometry
    config = GPT2Config(
        vocab_size=len(plan.words),
        n_positions=geometry.context,
        n_embd=geometry.width,
        n_layer=geometry.n_layers,
        n_head=geometry.n_heads,
        n_inner=geometry.width,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=plan.words.bos,
        eos_token_id=plan.words.bos,
    )
    return GPT2LMHeadModel(config)


def _llama(plan: Plan) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    geometry = plan.geometry
    config = LlamaConfig(
        vocab_size=len(plan.words),
        max_position_embeddings=geometry.context,
        hidden_size=geometry.width,
        intermediate_size=geometry.width,
        num_hidden_layers=geometry.n_layers,
        num_attention_heads=geometry.n_heads,
        num_key_value_heads=geometry.n_kv_heads,
        head_dim=geometry.d_head,
        rope_parameters={"rope_type": "default", "rope_theta": geometry.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=plan.words.bos,
        eos_token_id=plan.words.bos,
    )
    return LlamaForCausalLM(config)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write the model as `save_pretrained` does, without its progress bar."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
