"""Fetches files from the Hugging Face Hub; a machine that cannot reach it learns so within seconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from headatlas.errors import SourceError
from headatlas.model.sources.cache import hash_file, writing_to
from headatlas.progress import Progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

_REPLY_SECONDS = 4.0  # for the server to answer
_WAIT_SECONDS = 6.0  # for everything, looking up the host's name included

_DESCRIPTIONS = [
    *("config.json", "generation_config.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model"),
]
_WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "model-?????-of-?????.safetensors"]
_PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-?????-of-?????.bin"]

T = TypeVar("T")


class Unreachable(SourceError):
    """The Hub did not answer, or the user asked not to ask it."""


def fetch_model(repository: str, revision: str | None, *, allow_pickle: bool, progress: Progress) -> Path:
    """The folder of a model in the Hub's own local cache, named by its commit; fetched where it is not there yet."""
    from huggingface_hub import constants

    patterns = [*_DESCRIPTIONS, *_WEIGHTS, *(_PICKLES if allow_pickle else [])]
    try:
        names = {file.rfilename for file in _ask(repository, revision).siblings or []}
        _check_listing(repository, names, allow_pickle=allow_pickle)
        with _explained(repository, revision), writing_to(Path(constants.HF_HUB_CACHE), "HF_HOME"):
            return _snapshot(repository, revision, patterns)
    except Unreachable as error:
        folder = _from_local_cache(repository, revision, patterns, error)
        progress.say(f"{error.message} Using the copy of {repository} fetched before.")
        return folder


def fetch_files(repository: str, revision: str | None, files: Mapping[str, str], into: Path) -> str:
    """Fetch `files` (name -> sha256) into the folder `into` and return the commit; raises SourceError."""
    from huggingface_hub import constants, hf_hub_download

    info = _ask(repository, revision)
    listed = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or []}
    for name, expected in files.items():
        # The listing already gives the sha256 of large files, so that wrong ones are not fetched.
        if name not in listed or listed[name] not in (None, expected):
            raise SourceError(f"{repository} on the Hub does not hold {name} with the expected sha256.")
    for name, expected in files.items():
        with _explained(repository, revision):
            hf_hub_download(repository, name, revision=info.sha, local_dir=into, endpoint=constants.ENDPOINT)
        if hash_file(into / name) != expected:
            raise SourceError(f"{repository} on the Hub does not hold {name} with the expected sha256.")
    return str(info.sha)


def _ask(repository: str, revision: str | None) -> ModelInfo:
    """What the Hub says about a model: its commit and its files, within `_WAIT_SECONDS`."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise Unreachable("The Hub is not asked because HF_HUB_OFFLINE is set.", "Unset it to fetch models.")
    api: HfApi = HfApi(endpoint=constants.ENDPOINT)
    with _explained(repository, revision):
        return _within(
            _WAIT_SECONDS,
            lambda: api.model_info(repository, revision=revision, timeout=_REPLY_SECONDS, files_metadata=True),
        )


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or TimeoutError. Needed since looking up a host's name has no time limit of its own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


@contextlib.contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        hint = f"Accept its terms at huggingface.co/{repository} and log in: hf auth login"
        raise SourceError(f"'{repository}' asks its users to accept terms first.", hint) from error
    except errors.RevisionNotFoundError as error:
        hint = "Give a branch, a tag or a commit of that model, or leave the revision out."
        raise SourceError(f"'{repository}' has no revision '{revision}'.", hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "Check the spelling (org/name), or log in where it is private: hf auth login"
        raise SourceError(f"The Hub has no model '{repository}' that you may see.", hint) from error
    except errors.HFValidationError as error:
        raise SourceError(f"'{repository}' is not a name on the Hub.", "Hub names look like org/name.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise SourceError(
                f"The Hub does not let you read '{repository}' ({status}).", "Log in: hf auth login"
            ) from error
        raise Unreachable(f"The Hub answered '{repository}' with error {status}.", "Try again later.") from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        hint = "Check the network, or give a local folder, a .gguf file or a built-in model."
        raise Unreachable("The Hub cannot be reached.", hint) from error


def _snapshot(repository: str, revision: str | None, patterns: list[str], *, local_files_only: bool = False) -> Path:
    from huggingface_hub import constants, snapshot_download

    return Path(
        snapshot_download(
            repository,
            revision=revision,
            allow_patterns=patterns,
            local_files_only=local_files_only,
            cache_dir=constants.HF_HUB_CACHE,
            endpoint=constants.ENDPOINT,
        )
    )


def _check_listing(repository: str, names: set[str], *, allow_pickle: bool) -> None:
    if names & set(_WEIGHTS[:2]) or (allow_pickle and names & set(_PICKLES[:2])):
        return
    if names & set(_PICKLES[:2]):
        raise SourceError(
            f"'{repository}' has its weights only in a pickle, which can run code when it is read.",
            "Look for a revision with safetensors (often refs/pr/1), or allow pickles if you trust its owner.",
        )
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    hint = f"Download one of its GGUF files ({ggufs[0]} ...) and give that file." if ggufs else "Choose another model."
    raise SourceError(f"'{repository}' holds no weights that transformers loads (model.safetensors).", hint)


def _from_local_cache(repository: str, revision: str | None, patterns: list[str], reason: Unreachable) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(repository, revision, patterns, local_files_only=True)
    except LocalEntryNotFoundError as error:
        at = f" at revision '{revision}'" if revision else ""
        raise SourceError(
            f"{reason.message} No complete copy of '{repository}'{at} is on this machine.", reason.hint
        ) from error
