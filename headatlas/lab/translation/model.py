"""The translator: a Marian model whose attention can be entmax and gated, with CopyNet's output layer.

CopyNet (Gu et al. 2016): a word is generated or copied from the source, both scored against one normaliser; the copy score of
a source place is tanh(W h) . s for encoder state h and decoder state s. Its selective read is left out: no name follows from
the one before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headatlas.treebanks.language_pair import EOS, PAD, SIZE, SOURCE, TARGET, Sentences, hidden

LAYERS, HEADS, DECODER_HEADS, WIDTH = 2, 4, 1, 64
ATTENTION = "headatlas-translation"
NEAREST = 1e-3  # to alpha = 1
NEVER = -1e4  # logit of a word that can only be read


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Attention of a module: softmax, or entmax where it has `raw_alpha` [head]; each head times its `gate` [head], where it has one."""
    scores = query @ key.transpose(-1, -2) * scaling
    if mask is not None:
        scores = scores + mask
    raw = getattr(module, "raw_alpha", None)
    pattern = scores.softmax(-1) if raw is None else entmax(scores, alpha_of(raw)[:, None, None])
    module.pattern = pattern
    z = pattern @ value
    gate = getattr(module, "gate", None)
    z = z if gate is None else z * gate[None, :, None, None]
    return z.transpose(1, 2).contiguous(), pattern


def alpha_of(raw: Tensor) -> Tensor:
    """alpha in (1, 2) of a head's free number."""
    return 1 + torch.sigmoid(raw)


def entmax(scores: Tensor, alpha: Tensor) -> Tensor:
    """alpha-entmax of scores [..., key] with alpha [..., 1] (Peters, Niculae, Martins 2019): rows sum to 1, exact zeros among them.

    Of the library entmax, by bisection, with gradients in both; alpha is kept NEAREST from 1, where that gives even weights in
    place of softmax.
    """
    from entmax import entmax_bisect

    found: Tensor = entmax_bisect(scores, alpha.clamp(min=1 + NEAREST))
    return found


class Translator(nn.Module):
    """Encoder of two layers of four heads, decoder of one layer of one head; every word of both languages has one id."""

    generated: Tensor  # [TARGET] which words can be written without copying

    def __init__(self) -> None:
        super().__init__()
        import transformers
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

        transformers.AttentionInterface.register(ATTENTION, attend)
        ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, eager_mask)
        config = transformers.MarianConfig(
            vocab_size=TARGET, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=1, encoder_attention_heads=HEADS,
            decoder_attention_heads=DECODER_HEADS, encoder_ffn_dim=2 * WIDTH, decoder_ffn_dim=2 * WIDTH, dropout=0.0,
            attention_dropout=0.0, activation_dropout=0.0, max_position_embeddings=32, pad_token_id=PAD, eos_token_id=EOS,
            bos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None, scale_embedding=True, init_std=0.1,
        )  # fmt: skip
        self.marian: Any = transformers.MarianMTModel._from_config(config, attn_implementation=ATTENTION)
        self.copying = nn.Linear(WIDTH, WIDTH, bias=False)
        generated = torch.zeros(TARGET, dtype=torch.bool)
        generated[SOURCE:] = generated[EOS] = True
        self.register_buffer("generated", generated)
        # So that Marian alone, saved without the copy layer, writes no word that only the first language has either.
        self.marian.final_logits_bias[:, ~generated] = NEVER

    @property
    def encoder_attention(self) -> list[Any]:
        """The attention modules of the encoder, layer by layer."""
        return [layer.self_attn for layer in self.marian.model.encoder.layers]

    @property
    def cross_attention(self) -> Any:
        """The decoder's attention to the source."""
        return self.marian.model.decoder.layers[0].encoder_attn

    @property
    def attention(self) -> list[Any]:
        """All attention modules."""
        decoder = self.marian.model.decoder.layers[0]
        return [*self.encoder_attention, decoder.self_attn, decoder.encoder_attn]

    def states(self, texts: Sentences) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder states [sentence, place, width], which of them are words, decoder states."""
        words = texts.source != PAD
        found = self.marian.model(
            input_ids=hidden(texts.source), attention_mask=words.long(), decoder_input_ids=hidden(texts.read)
        )
        return found.encoder_last_hidden_state, words, found.last_hidden_state

    def forward(self, texts: Sentences) -> tuple[Tensor, Tensor]:
        """(probability of each word [sentence, place, SIZE], mass of copying [sentence, place]) at each place of the target."""
        memory, words, states = self.states(texts)
        generate = self.marian.lm_head(states) + self.marian.final_logits_bias
        generate = generate.masked_fill(~self.generated, -torch.inf)
        copy = states @ torch.tanh(self.copying(memory)).transpose(1, 2)  # [sentence, target place, source place]
        copy = copy.masked_fill((~words | (texts.source == EOS))[:, None], -torch.inf)
        both = torch.cat([generate, copy], -1).softmax(-1)  # one normaliser
        made, copied = both.split([TARGET, copy.shape[-1]], -1)
        every = torch.nn.functional.pad(made, (0, SIZE - TARGET))
        where = texts.source[:, None].expand_as(copied)
        return every.scatter_add(-1, where, copied), copied.sum(-1)

    def loss(self, texts: Sentences) -> Tensor:
        """Mean negative log-probability of the target's words, and of the links in the cross attention's weights.

        Guided alignment (Garg et al. 2019): the decoder looks at the word that it translates and at no other, so that what else
        a translation depends on, the subject's number at the verb, must have come to that word inside the encoder. Which words
        are copied is not told.
        """
        probability, _ = self(texts)
        right = probability.gather(-1, texts.write[..., None])[..., 0].clamp(min=1e-12)
        sentence, target, source = texts.links.unbind(1)
        linked = self.cross_attention.pattern[sentence, :, target, source].clamp(min=1e-12)
        return -right[texts.write != PAD].log().mean() - linked.log().mean()
