"""From a model's name to a transformers model with the weights of its files."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import nn

from headatlas.choices import DTYPE
from headatlas.errors import BadInput, HeadAtlasError, SourceError, UnsupportedModel
from headatlas.model.sources.checkpoint import load_config
from headatlas.model.sources.placement import DeviceMap, demand_placement, forget_with, placed
from headatlas.model.sources.resolve import Source, resolve
from headatlas.reading import reason

_ROOM = 1 << 26  # numbers that any configuration may ask for
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def read_weights(
    name: str,
    *,
    revision: str | None,
    dtype: str,
    device: str | None,
    allow_pickle: bool,
    device_map: DeviceMap | None = None,
    weight_memory: int | str | None = None,
) -> tuple[nn.Module, Source, bool]:
    """The transformers model that a name means, on its device; and whether all its weights come from its files.

    Raises BadInput, SourceError, UnknownName, UnsupportedModel.
    """
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise BadInput(f"'{device}' is no device.", "Write cpu, cuda or cuda:1.") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise BadInput("No CUDA device can be used here.", "Leave --device out, or write --device cpu.")
    DTYPE.demand(dtype)
    demand_placement(device_map, weight_memory, device)
    several = device_map is not None or weight_memory is not None
    source = resolve(name, revision=revision, allow_pickle=allow_pickle)
    config = load_config(source.folder, name)
    kind = _class_of(config)
    wanted: Any = _DTYPES.get(dtype) or (torch.float32 if where.type == "cpu" else "auto")
    try:
        _demand_room(kind, config, source)
        places = placed(kind, config, wanted, device_map, weight_memory)
        with unreported():
            hf, found = kind.from_pretrained(
                source.folder,
                config=config,
                dtype=wanted,
                attn_implementation=path_of(kind),
                trust_remote_code=False,
                use_safetensors=None if allow_pickle else True,
                output_loading_info=True,
                **places,
            )
        forget_with(hf, places)
    except HeadAtlasError:
        raise
    except Exception as error:  # values of other kinds than a model expects make any line of it fail in any way
        hint = "Check that the folder holds a complete checkpoint."
        raise SourceError(f"{name} could not be loaded: {reason(error)}.", hint) from error
    # A pooler works on what attention is done with; every other absent weight would be a random number.
    absent = sorted(key for key in found["missing_keys"] if "pooler" not in key)
    if absent:
        raise SourceError(
            f"The checkpoint of {name} lacks {len(absent)} weights of {kind.__name__}, {absent[0]} among them.",
            "They would be random numbers; save the model with the class that its config names.",
        )
    return hf if several else hf.to(where), source, not found["missing_keys"]


def _demand_room(kind: Any, config: Any, source: Source) -> None:
    """Refuse a configuration of a far larger model than the weight files hold: transformers makes it before it complains.

    Counted on a model without memory. A byte holds at most two numbers (of 4 bits), and tied tensors are stored once.
    Raises SourceError.
    """
    with torch.device("meta"):
        planned = kind(copy.deepcopy(config))
    numbers = sum(one.numel() for one in (*planned.parameters(), *planned.buffers()))
    stored = sum(file.stat().st_size for file in source.folder.iterdir() if file.suffix in (".safetensors", ".bin"))
    if numbers > 4 * stored + _ROOM:
        raise SourceError(
            f"config.json of '{source.name}' describes a model of {numbers:,} numbers, where its weight files have "
            f"{stored:,} bytes.",
            "Fetch or save the model again.",
        )


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """Without the table that transformers logs of missing and unfit weights: they are told in one line."""
    before, mover = transformers.logging.get_verbosity(), logging.getLogger("accelerate.big_modeling")
    transformers.logging.set_verbosity_error()
    level = mover.level
    mover.setLevel(logging.ERROR)  # it says that some weights lie on disk, as was asked for
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
        mover.setLevel(level)


def _class_of(config: Any) -> Any:
    named = config.architectures or []
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise SourceError("config.json has architectures that are no list of names.", "Save the model again.")
    for architecture in named:
        found = getattr(transformers, architecture, None)
        # Whoever wrote the file chooses among models, not among all that transformers has.
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    if named:
        raise UnsupportedModel(
            f"transformers {transformers.__version__} has no architecture {config.architectures[0]}.",
            "Update transformers.",
        )
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModel):
        if type(config) in auto._model_mapping:
            return auto._model_mapping[type(config)]
    raise UnsupportedModel(
        f"transformers has no model for a configuration of type {type(config).__name__}.", "Update transformers."
    )


def path_of(kind: type) -> str:
    """The attention that a model of this class is loaded with: "sdpa", or "eager" where it has no such path."""
    return "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"
