"""Looks at a model folder before it is loaded: a readable config, whole weight files, no pickles, no code to run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from headatlas.errors import SourceError, UnsupportedModel

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_PICKLE_ENDINGS = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
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


def check_config(folder: Path, name: str) -> None:
    """Refuse a folder whose config.json is missing, unreadable, or needs code that comes with the model."""
    file = folder / "config.json"
    if not file.is_file():
        hint = "Give a folder that save_pretrained wrote: config.json, model.safetensors, tokenizer.json."
        ggufs = sorted(folder.glob("*.gguf"))
        if ggufs:
            hint = f"It holds a GGUF file; give that file: {ggufs[0]}"
        raise SourceError(f"'{name}' is not a model folder: it has no config.json.", hint)
    config = _read_json(file, name)
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


def weight_files(folder: Path, name: str, *, allow_pickle: bool) -> list[Path]:
    """The files with the weights, each checked to be whole; raises SourceError."""
    if (folder / _WHOLE).is_file():
        files = [folder / _WHOLE]
    elif (folder / _INDEX).is_file():
        files = _shards(folder / _INDEX, name)
    else:
        return _pickles(folder, name, allow_pickle=allow_pickle)
    for file in files:
        _check_safetensors(file, name)
    return files


def _shards(index: Path, name: str) -> list[Path]:
    places = _read_json(index, name).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SourceError(f"{index.name} of '{name}' has no weight_map.", "Fetch or save the model again.")
    files = [index.parent / str(shard) for shard in sorted(set(places.values()))]
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


def _check_safetensors(file: Path, name: str) -> None:
    """Compare the length of the file with what its header promises; the numbers themselves are not read."""

    def damaged(what: str) -> SourceError:
        return SourceError(f"{file.name} of '{name}' is damaged: {what}.", "Fetch or save the model again.")

    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length + 8 > size:
            raise damaged(f"its {size:,} bytes end inside the header")
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
            expected = 8 + length + max(ends)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise damaged("its header is not a list of tensors") from error
    if size != expected:
        raise damaged(f"it holds {size:,} bytes where its header promises {expected:,}")


def _read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(
            f"{file.name} of '{name}' is not JSON ({error}).", "Fetch or save the model again."
        ) from error
    if not isinstance(value, dict):
        raise SourceError(f"{file.name} of '{name}' is not a JSON object.", "Fetch or save the model again.")
    return value
