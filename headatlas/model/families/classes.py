"""Every class of the installed transformers that reads text, found by walking transformers' own automatic mappings.

Nothing here names a family: a class that a newer transformers brings is in the list the day it is installed. What reads
no token ids (vision towers, speech recognisers) is left out by its own signature.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# Mapping, and what its classes are; in this order, so that a class of several mappings counts as the first.
MAPPINGS = {
    "CAUSAL_LM": "causal LM",
    "SEQ_TO_SEQ_CAUSAL_LM": "seq2seq LM",
    "MASKED_LM": "masked LM",
    "MULTIMODAL_LM": "multimodal LM",
    "TEXT_ENCODING": "text encoder",
}
SPEAKERS = ("TEXT_TO_WAVEFORM", "TEXT_TO_SPECTROGRAM")  # read text, and give sounds
TOWERS = ("Vision", "Image", "VQVAE", "Audio", "Video", "Patch")  # of base classes, which have no kind of their own


@dataclass(frozen=True)
class TextClass:
    """One class to build: its name in transformers, its model type, and what the mappings say it is.

    configuration: the configuration class of its model type, which may be narrower than the class's own.
    """

    architecture: str
    model_type: str
    kind: str

    @property
    def name(self) -> str:
        """The class's name."""
        return self.architecture

    @property
    def transformer(self) -> Any:
        """The class itself."""
        return getattr(transformers, self.architecture)

    @property
    def configuration(self) -> Any:
        """The configuration class to build it with."""
        own = self.transformer.config_class
        found = CONFIG_MAPPING[self.model_type] if self.model_type in CONFIG_MAPPING else own  # noqa: SIM401  # lazy: no get
        return found if own is None or issubclass(found, own) else own

    @property
    def pairs_texts_with_other_things(self) -> bool:
        """Whether it holds a text tower beside another one, as CLIP does; its text tower is a class of its own."""
        parts = getattr(self.configuration, "sub_configs", None) or {}
        return "text_config" in parts and len(parts) > 1

    @property
    def reads_text(self) -> bool:
        """Whether it takes token ids; a text model without a head must take them before all else."""
        found = getattr(transformers, self.architecture, None)
        try:
            if "input_ids" not in inspect.signature(found.forward).parameters:  # type: ignore[union-attr]
                return False
            if self.kind != "text model":
                return True
            return found.main_input_name == "input_ids" and not self.pairs_texts_with_other_things  # type: ignore[union-attr]
        except (ImportError, AttributeError):  # a library that it needs is missing, or it exists in name only
            return False


@functools.cache
def listed() -> Mapping[str, TextClass]:
    """Every class that the mappings name as a model of text, by its name; none of them is imported for it."""
    found: dict[str, TextClass] = {}
    for mapping, kind in MAPPINGS.items():
        for model_type, name in _pairs(f"MODEL_FOR_{mapping}_MAPPING_NAMES"):
            found.setdefault(name, TextClass(name, model_type, kind))
    with_head = {line.model_type for line in found.values()}
    speakers = {model_type for mapping in SPEAKERS for model_type, _ in _pairs(f"MODEL_FOR_{mapping}_MAPPING_NAMES")}
    for model_type, name in _pairs("MODEL_MAPPING_NAMES"):
        if model_type not in with_head | speakers and not any(word in name for word in TOWERS):
            found.setdefault(name, TextClass(name, model_type, "text model"))
    return found


def _pairs(mapping: str) -> Iterator[tuple[str, str]]:
    for model_type, names in getattr(modeling_auto, mapping).items():
        yield from ((model_type, name) for name in (names if isinstance(names, (tuple, list)) else (names,)))


@functools.cache
def text_classes() -> tuple[TextClass, ...]:
    """All text classes: language models, encoders, and text models that have no head, in alphabetical order."""
    found = [line for line in listed().values() if line.reads_text]
    return tuple(sorted(found, key=lambda line: line.architecture.lower()))
