"""How the names of `tokenizer.ggml.pre` cut text before its pieces are merged.

A byte-level vocabulary is the same list of tokens under any rule; the rule decides which of them text becomes. GGUF files
name it, and llama.cpp's vocabulary code (src/llama-vocab.cpp) lists, for each name, the expressions that cut one after
the other, whether whole words are looked up before merging, and whether a start token is added where the file does not
say. The same rules stand in the models' own tokenizer.json. Names that are not here are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ENDINGS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_BLANKS}"
_QWEN2 = rf"{_ENDINGS}|{_WORD}|\p{{N}}|{_SIGNS}|{_BLANKS}"
_QWEN35 = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_SIGNS_SLASH}|{_BLANKS}"
_GPT4O = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+{_ENDINGS}?|{_LEAD}{_UPPER}+{_LOWER}*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}|{_SIGNS_SLASH}|{_BLANKS}"
)
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BLANKS}"
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_SEED = rf"{_ENDINGS}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BLANKS}"


@dataclass(frozen=True)
class Rule:
    """One way of cutting: each expression cuts what the ones before left; what lies between its matches stays a piece.

    whole_words: a piece that is a token is that token, whether or not merges lead to it. adds_start: a start token is
    added where the file does not say. composed: characters are composed first (NFC); files do not say so, but the
    tokenizers of these models do, and transformers' classes for them (Qwen2Tokenizer, GPTNeoXTokenizer).
    """

    cuts: tuple[str, ...]
    whole_words: bool = False
    adds_start: bool = False
    composed: bool = False


_DIGITS_FIRST = Rule((r"\p{N}", _GPT2))
_PLAIN = Rule((_GPT2,))
_OF_LLAMA3 = Rule((_LLAMA3,), whole_words=True, adds_start=True)
_OF_GPT4O = Rule((_GPT4O,))


def _each(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Rule] = {
    **_each("gpt-2 phi-2 exaone4 jais trillion granite-docling mellum gigachat a.x-4.0", _PLAIN),
    **_each("mpt olmo", Rule((_GPT2,), composed=True)),  # the tokenizer of GPT-NeoX
    **_each("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", _DIGITS_FIRST),
    **_each("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2", _OF_LLAMA3),
    **_each("dbrx smaug-bpe glm4 chatglm-bpe", Rule((_LLAMA3,))),
    "qwen2": Rule((_QWEN2,), composed=True),
    **_each("deepseek-r1-qwen megrez kormo f2llmv2 hunyuan stablelm2 solar-open grok-2", Rule((_QWEN2,))),
    "qwen35": Rule((_QWEN35,), composed=True),
    "tekken": Rule((_TEKKEN,), whole_words=True, adds_start=True),
    **_each("gpt-4o llama4 kanana2 talkie minimax-m2", _OF_GPT4O),
    **_each("deepseek-v3 hunyuan-dense joyai-llm", Rule((r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3))),
    "deepseek-coder": Rule((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    "falcon": Rule((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    **_each("bloom poro-chat gpt3-finnish", Rule((_BLOOM,))),
    "viking": Rule((_BLOOM, r"\p{N}")),
    "seed-coder": Rule((_SEED,)),
}


def apply(rule: Rule, backend: Tokenizer) -> None:
    """Make `backend`, a byte-level tokenizer, cut text by `rule`."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    cuts = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in rule.cuts]
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, spell])
    backend.normalizer = normalizers.NFC() if rule.composed else None
