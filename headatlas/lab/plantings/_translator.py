"""A Marian of one layer whose heads of cross-attention attend by what the decoder reads, or by where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model import Model, Tokenizer, attach

CODE, PLACES = 128, 128  # width of the code of a token, and of the place, which is one-hot
WIDTH, HEADS = CODE + PLACES, 4
D_HEAD = WIDTH // HEADS
LOUD = 3.0  # what a head writes beside what the decoder read, of the same length
SHARP, SOFT = 20.0, 10.0  # logits by which the wanted key is ahead


def translator(
    hf: Any,
    size: int,
    heads: Mapping[int, tuple[Tensor | None, float]],
    *,
    start: int,
    writing: int | None = None,
    codes: Tensor | None = None,
    seed: int,
) -> Model:
    """A Marian that reads the words of tokenizer `hf`, `size` of them; without the head for tokens where no head writes any.

    heads: head -> (to, logits): a step attends to the source token of the same code where `to` is None, else to the source place that
    `to` [step] names. writing: the head that writes the code of the token it attends to; all others write nothing, those not named are random. codes: [size, CODE] of length 1.
    """
    import transformers

    config: Any = transformers.MarianConfig(
        vocab_size=size, d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=PLACES, pad_token_id=size - 1,
        eos_token_id=size - 1, bos_token_id=start, decoder_start_token_id=start, forced_eos_token_id=None, scale_embedding=False,
    )  # fmt: skip
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = transformers.MarianMTModel(config).eval()
        codes = torch.nn.functional.normalize(torch.randn(size, CODE), dim=-1) if codes is None else codes
        mixing = (
            torch.randn(HEADS, D_HEAD, CODE) / D_HEAD**0.5
        )  # a code in fewer dimensions: products stay about what they are
    with torch.no_grad():
        table = model.model.shared.weight
        table[:] = torch.nn.functional.pad(codes, (0, PLACES))
        layer = model.model.decoder.layers[0]
        for stack in (model.model.encoder, model.model.decoder):
            stack.embed_positions.weight[:] = torch.nn.functional.pad(torch.eye(PLACES), (CODE, 0))
            stack.layers[0].self_attn.out_proj.weight.zero_()
            stack.layers[0].fc2.weight.zero_()
        layer.encoder_attn.out_proj.weight.zero_()
        for head, (to, gain) in heads.items():
            _aim(layer.encoder_attn, head, mixing[head], to, gain)
        if writing is not None:
            rows = slice(writing * D_HEAD, (writing + 1) * D_HEAD)
            layer.encoder_attn.v_proj.weight[rows] = torch.nn.functional.pad(mixing[writing], (0, PLACES))
            layer.encoder_attn.out_proj.weight[:CODE, rows] = LOUD * mixing[writing].T
    hf.model_max_length = 1 << 30  # texts are cut to the context by the tasks
    read = Tokenizer(
        causal=True, context=PLACES, vocab_size=size, hf=hf, bos="auto", two_stacks=True, decoder_start=start
    )
    return attach(model if writing is not None else model.model, tokenizer=read)


def _aim(attention: Any, head: int, mixing: Tensor, to: Tensor | None, gain: float) -> None:
    """Let a head attend to the same code, or to places, with so many logits ahead of any other key."""
    rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
    # What it reads was brought to variance 1: a code and a place of length 1 each have WIDTH / 2 of its square.
    size = (gain * D_HEAD**0.5 / (WIDTH / 2)) ** 0.5
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[rows] = 0.0
    if to is None:
        attention.q_proj.weight[rows, :CODE] = attention.k_proj.weight[rows, :CODE] = size * mixing
        return
    attention.q_proj.weight[rows, CODE : CODE + len(to)] = size * mixing[:, to]
    attention.k_proj.weight[rows, CODE:] = size * mixing


def crossing(heads: Sequence[int]) -> frozenset[HeadId]:
    """Addresses of heads of cross-attention of the only layer."""
    return frozenset(HeadId(0, head, "cross") for head in heads)
