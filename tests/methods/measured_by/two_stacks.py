"""Tiny encoder-decoders with a tokenizer, and heads switched off by hand in the plain model."""

import contextlib
from dataclasses import dataclass

import torch
import transformers as T
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, processors

import headatlas as ha
from headatlas.lab.construct.words import words

SPECIAL = ["<pad>", "</s>", "<unk>"]
SENTINELS = 20
SIZES = {
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 32,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128, "init_std": 0.3,
}  # fmt: skip


def hf_tokenizer(sentinels: int) -> T.PreTrainedTokenizerFast:
    listed = [*SPECIAL, *(word for word in words(400).tokens if word not in SPECIAL)]
    backend = Fast(models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(sentinels)],
    )  # fmt: skip


def build(kind: str, size: int, gain: float = 2.0) -> T.PreTrainedModel:
    """A model with large random weights; head 1 of layer 1 writes nothing in any stack."""
    torch.manual_seed(3)
    shared = {"vocab_size": size, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    if kind == "t5":
        hf = T.T5ForConditionalGeneration(
            T.T5Config(**shared, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4, initializer_factor=gain)
        )
    else:
        hf = T.MarianMTModel(T.MarianConfig(**shared, **SIZES, bos_token_id=0, forced_eos_token_id=None))
    for stack in ("encoder", "decoder", "cross"):
        with torch.no_grad():
            columns(hf, stack, 1, 1).zero_()
    return hf.eval()


def columns(hf: T.PreTrainedModel, stack: str, layer: int, head: int) -> torch.Tensor:
    """The columns of a head in its output projection, [d_model, 8]."""
    for name, module in hf.named_modules():
        parts = name.split(".")
        kind = {
            "SelfAttention": parts[0],
            "EncDecAttention": "cross",
            "encoder_attn": "cross",
            "self_attn": "".join(parts[1:2]),
        }
        last = parts[-2] if len(parts) > 1 else ""
        if (
            parts[-1] in ("o", "out_proj")
            and kind.get(last) == stack
            and int(next(p for p in parts if p.isdigit())) == layer
        ):
            return module.weight[:, head * 8 : (head + 1) * 8]
    raise LookupError((stack, layer))


@contextlib.contextmanager
def switched_off(hf: T.PreTrainedModel, stack: str, layer: int, head: int):
    """The plain model with the head's columns of W_O at zero."""
    own = columns(hf, stack, layer, head)
    kept = own.detach().clone()
    with torch.no_grad():
        own.zero_()
        yield
        own.copy_(kept)


@dataclass
class Opened:
    model: ha.Model
    hf: T.PreTrainedModel
    words: T.PreTrainedTokenizerFast

    def losses(self, sources, targets):
        """[example] the plain model's own loss on ids of source and target, one example at a time."""
        with torch.no_grad():
            return [
                float(self.hf(input_ids=torch.tensor([a]), labels=torch.tensor([b])).loss)
                for a, b in zip(sources, targets, strict=True)
            ]


def opened(kind: str, folder) -> Opened:
    tokenizer = hf_tokenizer(SENTINELS if kind == "t5" else 0)
    hf = build(kind, len(tokenizer))
    hf.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Opened(ha.load(str(folder)), hf, tokenizer)
