"""The keys of a GGUF file, each of which is read, known to be harmless, or makes the file be refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

from headatlas.errors import UnsupportedModel

HINT = "Use the model's safetensors weights instead."


def unknown(kind: str, name: str, file: str, why: str = "") -> UnsupportedModel:
    """The refusal of a file for something in it whose meaning is not known. kind: key or tensor."""
    reason = f" ({why})" if why else ""
    return UnsupportedModel(
        f"headatlas does not know what the {kind} `{name}` means for the numbers of {file}{reason}; it is not loaded.",
        HINT,
    )


@dataclass(frozen=True)
class Harmless:
    """Why a key changes no logit, and which values that is true of; any other value is refused."""

    reason: str
    values: Callable[[Any], bool] = lambda _: True


def _off(value: Any) -> bool:
    return value in (0, False)


# After the architecture's name. What an architecture reads itself is not looked up here.
HARMLESS: Mapping[str, Harmless] = {
    "rope.scaling.finetuned": Harmless("tells how the model was trained"),
    "tensor_data_layout": Harmless("names the row order of q and k, which the architecture implies"),
    "attention.causal": Harmless("the models read here are causal", bool),
    "pooling_type": Harmless("how token vectors become one text vector; logits do not see it"),
    "nextn_predict_layers": Harmless("no layers that predict further tokens", _off),
    "attention.max_alibi_bias": Harmless("no bias", _off),
    "attention.clamp_kqv": Harmless("nothing is clipped", _off),
    "attention.temperature_length": Harmless("no temperature", _off),
    "attention.temperature_scale": Harmless("no temperature", _off),
    "attention.scale": Harmless("unset: one over the square root of the head's width", _off),
    "attn_logit_softcapping": Harmless("no cap", _off),
    "final_logit_softcapping": Harmless("no cap", _off),
    "logit_scale": Harmless("unset, or a factor of one", lambda value: value in (0, 1)),
    "residual_scale": Harmless("unset, or a factor of one", lambda value: value in (0, 1)),
    "embedding_scale": Harmless("unset, or a factor of one", lambda value: value in (0, 1)),
    "expert_count": Harmless("no experts", _off),
    "expert_used_count": Harmless("no experts", _off),
    "expert_shared_count": Harmless("no experts", _off),
    "leading_dense_block_count": Harmless("no layer differs from the others", _off),
    "expert_group_count": Harmless("experts are chosen from one group", lambda value: value in (0, 1)),
    "expert_group_used_count": Harmless("experts are chosen from one group", lambda value: value in (0, 1)),
    "expert_weights_scale": Harmless("unset, or a factor of one", lambda value: value in (0, 1)),
    "expert_gating_func": Harmless("unset, or softmax", lambda value: value in (0, 1)),
}
# Whole groups of keys outside the architecture's own.
_NOTES: Mapping[str, str] = {
    "GGUF.": "counts of the file format itself",
    "general.": "names, licences, authors, advice for sampling, how the numbers are stored",
    "split.": "how the file was cut into parts; parts are refused before",
    "quantize.": "which data the quantiser was tuned on",
    "imatrix.": "which data the quantiser was tuned on",
    "mradermacher.": "notes of someone who quantises many models",
    "tokenizer.": "read or refused with the vocabulary",
}


class Metadata:
    """The keys and values of a GGUF file with an account of which were used.

    Values are plain Python; a float of 32 bits is given as the shortest decimal that means it (1e-05, not
    9.999999747378752e-06), so that configurations hold the numbers their authors wrote.
    """

    def __init__(self, values: Mapping[str, Any], file: str) -> None:
        self.values = dict(values)
        self.file = file
        self.architecture = str(values["general.architecture"])
        self._used: set[str] = set()

    @classmethod
    def of(cls, reader: gguf.GGUFReader, file: str) -> Metadata:
        """The metadata that a reader of the gguf package found."""
        return cls({name: _plain(field) for name, field in reader.fields.items()}, file)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of the architecture's key `key` (such as `rope.freq_base`), which counts as used."""
        name = f"{self.architecture}.{key}"
        self._used.add(name)
        return self.values.get(name, default)

    def require(self, key: str) -> Any:
        """As `get`. Raises UnsupportedModel where the file lacks the key."""
        value = self.get(key)
        if value is None:
            raise UnsupportedModel(f"{self.file} lacks the key `{self.architecture}.{key}`.", HINT)
        return value

    def same_everywhere(self, key: str) -> Any:
        """As `require`; of a list with one entry a layer, the entry that all share, or UnsupportedModel."""
        value = self.require(key)
        if not isinstance(value, list):
            return value
        if len(set(value)) != 1:
            raise self.refusal(key, "it differs between layers")
        return value[0]

    def refusal(self, key: str, why: str = "") -> UnsupportedModel:
        """The refusal of the file for its key `key`."""
        return unknown("key", f"{self.architecture}.{key}", self.file, why)

    def refuse_unread(self) -> None:
        """Raise UnsupportedModel where a key was neither used nor is known to be harmless."""
        for name, value in self.values.items():
            if name in self._used or name.startswith(tuple(_NOTES)):
                continue
            group, _, key = name.partition(".")
            known = HARMLESS.get(key) if group == self.architecture else None
            if known is None:
                raise unknown("key", name, self.file)
            if not known.values(value):
                raise unknown("key", name, self.file, f"its value is {value}")


def _plain(field: gguf.ReaderField) -> Any:
    value = field.contents()
    if field.types and field.types[-1] == gguf.GGUFValueType.FLOAT32:
        return [_shortest(one) for one in value] if isinstance(value, list) else _shortest(value)
    return value


def _shortest(value: float) -> float:
    return float(str(np.float32(value)))
