"""Loads the tokenizer of a folder as its own files say, not as the class that is registered for the model would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What the tokenizers in use treat differently: letters, digits, blanks, line breaks, scripts, composed and decomposed
# accents, signs, and the endings that some rules split off.
_PROBE = (
    "The quick brown Fox jumps over 13 lazy dogs, 1984 times; he's sure it CAN'T be.\n\nList:\n\n1. apples\n 2) pears\t3"
    "\r\n  two  blanks   three\n \n<b>Zürich</b> cafe\u0301 café Ångström A\u030angstro\u0308m ﬁne ½ ² \u00a0\u3000"
    " 日本語 한국어 中文123 العربية ไทย 🙂👩\u200d👩\u200d👧 x=3.14e-10; a_b->c[0] != 'q' \\ ~ `|`"
)


def folder_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Raises what transformers and tokenizers raise where it cannot be read.

    For some kinds of models (Qwen2 among them) transformers puts the registered class's own normalizer and
    pre-tokenizer in place of those in tokenizer.json. Where the two give a text different ids, the file is right: it is
    what the model's authors saved with these weights.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    hf: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    file = folder / "tokenizer.json"
    # A plain PreTrainedTokenizerFast puts nothing in place of what it reads.
    if not file.is_file() or not isinstance(hf, PreTrainedTokenizerFast) or type(hf) is PreTrainedTokenizerFast:
        return hf
    stated = Tokenizer.from_file(str(file))
    texts = [_PROBE, *(f"a {token} b{token}\n" for token in hf.all_special_tokens)]
    if all(_ids(hf.backend_tokenizer, text) == _ids(stated, text) for text in texts):
        return hf
    own: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return own


def _ids(backend: Any, text: str) -> list[int]:
    return list(backend.encode(text, add_special_tokens=False).ids)
