"""Looks at a model folder before it is loaded: a readable config, whole weight files, no pickles, no code to run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas.errors import SourceError, UnsupportedModel
from headatlas.reading import Source, read_json, read_tensor_header, reason

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_PICKLE_ENDINGS = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_DESCRIPTIONS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    "generation_config.json",
)
_LARGEST = 128 << 20  # bytes of a JSON file of a model; vocabularies of 260,000 tokens are 33 MB
# So much is let pass in any model: it costs little.
_LAYERS, _WIDTH = 1024, 1 << 24
_SHARD = re.compile(r"\w[\w.-]{0,200}")
_IS_LAYERS = re.compile(r"layers?$|depth$|blocks$")
_IS_WIDTH = re.compile(r"size$|dim$|heads?$|^d_|^n_|experts|embd$|groups$|positions$|rank$|state$|inner$")
_TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
)


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds the files of a tokenizer."""
    return any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES)


def config_of(folder: Path, name: str) -> dict[str, Any]:
    """A folder's config.json, as far as that needs no transformers. Raises SourceError where it is missing or unreadable."""
    file = folder / "config.json"
    if not file.is_file():
        hint = "Give a folder that save_pretrained wrote: config.json, model.safetensors, tokenizer.json."
        ggufs = sorted(folder.glob("*.gguf"))
        if ggufs:
            hint = f"It holds a GGUF file; give that file: {ggufs[0]}"
        raise SourceError(f"'{name}' is not a model folder: it has no config.json.", hint)
    config = _read_json(file, name)
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise SourceError(
            f"config.json of '{name}' has a model_type that is no text.", "Fetch or save the model again."
        )
    return config


def check_config(folder: Path, name: str) -> None:
    """Refuse a folder whose config.json is missing, unreadable, or needs code that comes with the model."""
    config = config_of(folder, name)
    kind = config.get("model_type")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if kind in CONFIG_MAPPING_NAMES:
        return
    if "auto_map" in config:
        raise UnsupportedModel(
            f"'{name}' needs Python code from its own repository (auto_map in config.json); headatlas never runs it.",
            "Use a model whose architecture is part of transformers.",
        )
    if kind is None:
        raise SourceError(f"config.json of '{name}' has no model_type.", "Add the model_type that transformers knows.")
    from transformers import __version__

    raise UnsupportedModel(
        f"'{name}' is of the type '{kind}', which transformers {__version__} does not know.",
        "Update transformers, or check model_type in config.json.",
    )


def load_config(folder: Path, name: str) -> PreTrainedConfig:
    """The configuration in a folder whose config.json was checked. Raises SourceError."""
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # values of other kinds than a class expects make any line of it fail in any way
        raise SourceError(
            f"config.json of '{name}' cannot be read: {reason(error)}.", "Is it a model of transformers?"
        ) from error
    return config


def weight_files(folder: Path, name: str, *, allow_pickle: bool) -> list[Path]:
    """The files with the weights, each checked to be whole; raises SourceError."""
    if (folder / _WHOLE).is_file():
        files = [folder / _WHOLE]
    elif (folder / _INDEX).is_file():
        files = _shards(folder / _INDEX, name)
    else:
        return _pickles(folder, name, allow_pickle=allow_pickle)
    for file in files:
        _header(file, name)
    return files


def _shards(index: Path, name: str) -> list[Path]:
    places = _read_json(index, name).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SourceError(f"{index.name} of '{name}' has no weight_map.", "Fetch or save the model again.")
    if not all(isinstance(shard, str) and _SHARD.fullmatch(shard) for shard in places.values()):
        raise SourceError(
            f"{index.name} of '{name}' names weight files that are no plain names in its folder.",
            "Save the model again.",
        )
    files = [index.parent / shard for shard in sorted(set(places.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SourceError(
            f"'{name}' lacks {len(missing)} of {len(files)} weight files named in {index.name}, such as {missing[0]}.",
            "Fetch or save the model again.",
        )
    return files


def _pickles(folder: Path, name: str, *, allow_pickle: bool) -> list[Path]:
    whole, index = (folder / file for file in _PICKLED)
    if allow_pickle and whole.is_file():
        return [whole]
    if allow_pickle and index.is_file():
        return _shards(index, name)
    present = sorted(file.name for file in folder.iterdir() if file.is_file())
    pickles = [file for file in present if Path(file).suffix in _PICKLE_ENDINGS]
    if pickles and not allow_pickle:
        raise SourceError(
            f"'{name}' has its weights only in a pickle ({pickles[0]}), which can run code when it is read.",
            "Save it again as safetensors, or pass allow_pickle=True if you trust where it comes from.",
        )
    others = [file for file in present if file.endswith((".safetensors", ".gguf")) or file in pickles]
    hint = (
        f"Found {', '.join(others[:3])}, which is not a name transformers loads." if others else "Save the model again."
    )
    raise SourceError(f"'{name}' has no weights: expected {_WHOLE} or {_INDEX}.", hint)


def _header(file: Path, name: str) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the tensors of a file, which is whole; the numbers themselves are not read. Raises SourceError."""
    try:
        shapes = read_tensor_header(_source(file))
    except SourceError as error:
        raise SourceError(error.message.replace(str(file), f"{file.name} of '{name}'", 1), error.hint) from error
    if not shapes:
        raise SourceError(f"{file.name} of '{name}' is damaged: it holds no tensors.", "Fetch or save the model again.")
    return shapes


def check_sizes(folder: Path, files: Sequence[Path], name: str) -> None:
    """Refuse a config.json that asks for more than the weight files hold, before anything of that size is built.

    No model has more layers than tensors, and none has a width, a vocabulary or a table larger than all its weights.
    Raises SourceError.
    """
    tensors = size = 0
    for file in files:
        if file.suffix == ".safetensors":
            tensors += len(read_tensor_header(_source(file)))
        size += file.stat().st_size
    layers, width = max(_LAYERS, tensors), max(_WIDTH, size)
    for key, value in _integers(_read_json(folder / "config.json", name)):
        last = key.rpartition(".")[2]
        if (
            (_IS_LAYERS.search(last) and value > layers)
            or (_IS_WIDTH.search(last) and value > width)
            or value < -_WIDTH
        ):
            raise SourceError(
                f"config.json of '{name}' says {key} {_digits(value)}, where the weight files have {tensors:,} tensors in {size:,} bytes.",
                "Fetch or save the model again.",
            )


def _digits(value: int) -> str:
    return f"{value:,}" if abs(value) < 10**15 else "of more than 15 digits"


def _integers(value: Any, place: str = "") -> Iterator[tuple[str, int]]:
    """(place, value) of all whole numbers in a configuration, those of its parts as text_config.vocab_size."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _integers(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield place, value


def check_descriptions(folder: Path, name: str) -> None:
    """See that the JSON files around the weights are within bounds before libraries read them. Raises SourceError."""
    for file in _DESCRIPTIONS:
        if (folder / file).is_file():
            _read_json(folder / file, name)


def _source(file: Path) -> Source:
    return Source(file, "Fetch or save the model again.", SourceError, largest=_LARGEST)


def _read_json(file: Path, name: str) -> dict[str, Any]:
    source = _source(file)
    try:
        return read_json(source, constants=True)  # transformers writes Infinity into some
    except SourceError as error:
        raise SourceError(error.message.replace(str(file), f"{file.name} of '{name}'", 1), error.hint) from error
