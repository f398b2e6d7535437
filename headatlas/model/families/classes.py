"""Every class of the installed transformers that reads text, found by walking transformers' own automatic mappings.

Nothing here names a family: a class that a newer transformers brings is in the list the day it is installed. What reads
no token ids (vision towers, speech recognisers) is left out by its own signature.
"""

from __future__ import annotations

import functools
import inspect
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


@functools.cache
def text_classes() -> tuple[TextClass, ...]:
    """All text classes: language models, encoders, and text models that have no head, in alphabetical order."""
    found: dict[str, TextClass] = {}
    for mapping, kind in MAPPINGS.items():
        for model_type, names in getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES").items():
            for name in names if isinstance(names, (tuple, list)) else (names,):
                if reads_tokens(name):
                    found.setdefault(name, TextClass(name, model_type, kind))
    with_head = {line.model_type for line in found.values()}
    for model_type, names in modeling_auto.MODEL_MAPPING_NAMES.items():
        for name in names if isinstance(names, (tuple, list)) else (names,):
            tower = any(word in name for word in TOWERS)
            if model_type in with_head or name in found or tower or not reads_tokens(name, main=True):
                continue
            line = TextClass(name, model_type, "text model")
            if not line.pairs_texts_with_other_things:
                found[name] = line
    return tuple(sorted(found.values(), key=lambda line: line.architecture.lower()))


def reads_tokens(name: str, *, main: bool = False) -> bool:
    """Whether a class of transformers takes token ids; with `main` also: as its main input."""
    found: Any = getattr(transformers, name, None)
    if not inspect.isclass(found) or type(found).__name__ == "DummyObject":  # a stand-in where a library is missing
        return False
    try:
        parameters = inspect.signature(found.forward).parameters
        return "input_ids" in parameters and (not main or found.main_input_name == "input_ids")
    except (ImportError, AttributeError):
        return False
