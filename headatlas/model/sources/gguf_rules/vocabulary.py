"""The tokenizer that a GGUF file describes, built so that text becomes the tokens that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas.errors import UnsupportedModel
from headatlas.model.sources.gguf_rules import pretokenizers
from headatlas.model.sources.gguf_rules.metadata import HINT, Harmless, Metadata, unknown
from headatlas.reading import reason
from headatlas.registry import did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENS = "tokenizer.ggml.tokens"
_CONTROL, _OWN = 3, 4  # llama.cpp's types of tokens that stand for themselves: special ones, and a user's
_READ = {
    "model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id", "unknown_token_id",
    "padding_token_id", "add_bos_token", "add_eos_token", "add_space_prefix", "precompiled_charsmap",
}  # fmt: skip
_ROLE = "the role of a token in chats or code; what text becomes does not depend on it"
_HARMLESS: Mapping[str, Harmless] = {
    **{
        f"{name}_token_id": Harmless(_ROLE)
        for name in (
            "eot", "eom", "seperator", "mask", "cls", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid",
            "fim_pad", "fim_rep", "fim_sep",
        )
    },
    "eos_token_ids": Harmless(_ROLE),
    "eog_token_ids": Harmless(_ROLE),
    "suppress_tokens": Harmless("which tokens are not sampled; logits are as they are"),
    "token_type_count": Harmless("types of segments of encoders"),
    "add_sep_token": Harmless("no token is added", lambda value: not value),
    "remove_extra_whitespaces": Harmless("blanks are kept", lambda value: not value),
}  # fmt: skip


def build(path: Path, keys: Metadata) -> PreTrainedTokenizerFast | None:
    """The tokenizer of the file `path`, None where it has none. Raises UnsupportedModel for what is not known."""
    if TOKENS not in keys.values:
        return None
    _refuse_unread(keys)
    kind = keys.values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return _byte_level(keys)
    prefix = keys.values.get("tokenizer.ggml.add_space_prefix")
    gemma = keys.architecture.startswith("gemma")
    if kind != "llama" or (prefix is not None and bool(prefix) == gemma):
        name = "model" if kind != "llama" else "add_space_prefix"
        value = keys.values.get(f"tokenizer.ggml.{name}")
        raise unknown("key", f"tokenizer.ggml.{name}", keys.file, f"its value is {value}")
    return _sentence_pieces(path, keys)


def _refuse_unread(keys: Metadata) -> None:
    for name, value in keys.values.items():
        if not name.startswith("tokenizer.") or name.startswith(("tokenizer.chat_template", "tokenizer.huggingface.")):
            continue  # templates shape chats, not text; a copy of tokenizer.json states the same again
        key = name.removeprefix("tokenizer.ggml.")
        known = _HARMLESS.get(key)
        if key in _READ or (known is not None and known.values(value)):
            continue
        raise unknown("key", name, keys.file, f"its value is {value}" if known is not None else "")


def _sentence_pieces(path: Path, keys: Metadata) -> PreTrainedTokenizerFast:
    """As transformers builds it: merges follow from the scores, and no rule of cutting is needed."""
    from transformers import AutoTokenizer

    try:
        hf: Any = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    except Exception as error:  # a damaged or unusual vocabulary makes its readers fail in any way
        raise UnsupportedModel(
            f"transformers cannot read the tokenizer of {keys.file}: {reason(error)}", HINT
        ) from error
    built: PreTrainedTokenizerFast = hf
    return built


def _byte_level(keys: Metadata) -> PreTrainedTokenizerFast:
    """Byte-level pieces: vocabulary and merges from the file, cut by the rule that it names."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    values = keys.values
    rule = _rule(keys)
    tokens: list[str] = values[TOKENS]
    vocabulary = {token: one for one, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise unknown("key", TOKENS, keys.file, "a token stands in it twice")
    if values.get("tokenizer.ggml.add_space_prefix"):
        raise unknown("key", "tokenizer.ggml.add_space_prefix", keys.file, "its value is True")
    merges = [_pair(merge) for merge in values.get("tokenizer.ggml.merges", [])]
    try:
        backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=rule.whole_words))
    except Exception as error:  # the library's own kind, for merges of tokens that do not exist
        raise unknown("key", "tokenizer.ggml.merges", keys.file, str(error)) from error
    pretokenizers.apply(rule, backend)
    backend.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, values.get("tokenizer.ggml.token_type", []), strict=False):
        if kind in (_CONTROL, _OWN):
            backend.add_tokens([AddedToken(token, normalized=False, special=kind == _CONTROL)])
    roles = _roles(keys)
    _add_ends(keys, rule, backend, roles)
    hf: PreTrainedTokenizerFast = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    hf.chat_template = values.get("tokenizer.chat_template")
    return hf


def _rule(keys: Metadata) -> pretokenizers.Rule:
    name = keys.values.get("tokenizer.ggml.pre")
    if name is None and keys.architecture == "gpt2":
        name = "gpt-2"
    if name is None or name not in pretokenizers.RULES:
        shown = f"`{name}`" if name is not None else "missing"
        raise UnsupportedModel(
            f"headatlas does not know how {keys.file} cuts text into words: its key `tokenizer.ggml.pre` is {shown}.",
            f"{did_you_mean(name or '', pretokenizers.RULES)} Use a newer file, or the model's safetensors.".strip(),
        )
    return pretokenizers.RULES[name]


def _pair(merge: str) -> tuple[str, str]:
    """The two tokens of a merge; a blank between them separates, one at the very start belongs to the first."""
    place = merge.find(" ", 1)
    return merge[:place], merge[place + 1 :]


def _roles(keys: Metadata) -> dict[str, Any]:
    tokens = keys.values[TOKENS]
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {role: keys.values.get(f"tokenizer.ggml.{name}_token_id") for role, name in roles.items()}
    return {role: tokens[one] for role, one in ids.items() if one is not None and one < len(tokens)}


def _add_ends(keys: Metadata, rule: pretokenizers.Rule, backend: Any, roles: Mapping[str, str]) -> None:
    """Let the tokenizer put the start and end tokens around a text that the file asks for."""
    from tokenizers import processors

    adds = {
        "bos_token": keys.values.get("tokenizer.ggml.add_bos_token", rule.adds_start),
        "eos_token": keys.values.get("tokenizer.ggml.add_eos_token", False),
    }
    first, last = (roles.get(role) if adds[role] else None for role in ("bos_token", "eos_token"))
    if first is None and last is None:
        return
    marks = [(token, backend.token_to_id(token)) for token in dict.fromkeys((first, last)) if token is not None]
    template = " ".join(part for part in (first, "$A", last) if part is not None)
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
