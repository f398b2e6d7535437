"""The weights of small GPT-2 and Llama models by their parts, the same for both, to be changed in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import transformers as T
from torch import Tensor, nn

from tests import toys

WIDTH, HEADS, GROUPS, LAYERS = 32, 4, 2, 3


@dataclass(frozen=True)
class Attention:
    """Views into an attention layer: q, o [head, d_head, width], k, v [group, d_head, width], biases [head or group, d_head]."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    biases: tuple[Tensor, Tensor, Tensor] | None  # of q, k, v
    o_bias: Tensor | None  # [width]

    @property
    def each(self) -> int:
        """Query heads that share a key and value head."""
        return len(self.q) // len(self.k)


def blocks(hf: nn.Module) -> nn.ModuleList:
    return hf.transformer.h if isinstance(hf, T.GPT2LMHeadModel) else hf.model.layers


def attention(hf: nn.Module, layer: int) -> Attention:
    block = blocks(hf)[layer]
    if isinstance(hf, T.GPT2LMHeadModel):
        n_heads, width = hf.config.n_head, hf.config.n_embd
        fused = block.attn.c_attn
        parts = fused.weight.data.unflatten(1, (3, n_heads, width // n_heads)).permute(1, 2, 3, 0)
        out = block.attn.c_proj
        biases = fused.bias.data.view(3, n_heads, -1)
        return Attention(
            *parts, out.weight.data.view(n_heads, -1, width), (biases[0], biases[1], biases[2]), out.bias.data
        )
    own = block.self_attn
    d_head, width = own.head_dim, hf.config.hidden_size
    linear = (own.q_proj, own.k_proj, own.v_proj)
    q, k, v = (one.weight.data.view(-1, d_head, width) for one in linear)
    out = own.o_proj.weight.data.unflatten(1, (-1, d_head)).permute(1, 2, 0)
    has = own.q_proj.bias is not None
    biases = tuple(one.bias.data.view(-1, d_head) for one in linear) if has else None
    return Attention(q, k, v, out, biases, own.o_proj.bias.data if own.o_proj.bias is not None else None)  # type: ignore[arg-type]


def attentions(hf: nn.Module) -> Iterator[Attention]:
    return (attention(hf, layer) for layer in range(len(blocks(hf))))


def readers(hf: nn.Module) -> Iterator[tuple[nn.Module, list[tuple[Tensor, Tensor | None]]]]:
    """Each norm with the maps that read what it gives: weights [out, width] and biases [out], as views."""
    if isinstance(hf, T.GPT2LMHeadModel):
        for block in blocks(hf):
            yield block.ln_1, [(block.attn.c_attn.weight.data.T, block.attn.c_attn.bias.data)]
            yield block.ln_2, [(block.mlp.c_fc.weight.data.T, block.mlp.c_fc.bias.data)]
        yield hf.transformer.ln_f, [(hf.lm_head.weight.data, None)]
        return
    for block in blocks(hf):
        own, mlp = block.self_attn, block.mlp
        yield block.input_layernorm, [(one.weight.data, None) for one in (own.q_proj, own.k_proj, own.v_proj)]
        yield block.post_attention_layernorm, [(one.weight.data, None) for one in (mlp.gate_proj, mlp.up_proj)]
    yield hf.model.norm, [(hf.lm_head.weight.data, None)]


def writers(hf: nn.Module) -> Iterator[Tensor]:
    """Everything that is added to the residual stream, as views [..., width]."""
    yield hf.get_input_embeddings().weight.data
    if isinstance(hf, T.GPT2LMHeadModel):
        yield hf.transformer.wpe.weight.data
    for layer, block in enumerate(blocks(hf)):
        own = attention(hf, layer)
        yield own.o
        if own.o_bias is not None:
            yield own.o_bias
        if isinstance(hf, T.GPT2LMHeadModel):
            yield block.mlp.c_proj.weight.data
            yield block.mlp.c_proj.bias.data
        else:
            yield block.mlp.down_proj.weight.data.T


def make(kind: str) -> nn.Module:
    """A model with SmolLM2's vocabulary whose heads attend sharply and whose gains and biases are not their defaults."""
    vocabulary = 49152
    sizes = {"vocab_size": vocabulary, "tie_word_embeddings": False}
    if kind == "gpt2":
        hf = toys.gpt2(n_embd=WIDTH, n_head=HEADS, n_layer=LAYERS, n_positions=640, **sizes)
    else:
        wide = dict(
            hidden_size=WIDTH, num_attention_heads=HEADS, num_key_value_heads=GROUPS, num_hidden_layers=LAYERS,
            max_position_embeddings=640,
        )  # fmt: skip
        if kind == "llama":
            hf = toys.llama(**wide, **sizes)
        else:
            hf = T.Qwen2ForCausalLM(T.Qwen2Config(**{**toys.SMALL, **wide, **sizes})).eval()
    generator = torch.Generator().manual_seed(1)
    for name, weight in hf.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            gain = "weight" in name
            weight.data = 1 + drawn / 4 if gain else drawn / 4
        else:
            weight.data = drawn * (1.0 if "emb" in name or "wte" in name or "wpe" in name else 1.5 * WIDTH**-0.5)
    return hf.double()
