"""Finished runs by what was asked for: the same command finds its run without opening the model.

Which run it is, is decided by hashes of the opened model (`headatlas.model.identity`). Those hang on its files, on the
libraries that open them and on how it is opened; so a note in the cache folder keeps, by a hash of these, where the run lies
that `mine` made of them. A note only ever leads to a run: where anything of it is missing or other, the model is opened and
asked, as if there were no note. Models in memory have no files, and no notes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import torch

from headatlas.detector import detectors
from headatlas.errors import StoreError
from headatlas.methods.prompts import Prompts
from headatlas.mining.run import VERSION
from headatlas.model.sources.cache import digest, home_folder
from headatlas.model.sources.resolve import resolve
from headatlas.own_prompts.sources import OWN
from headatlas.store import read_json, write_json
from headatlas.task import tasks
from headatlas.version import __version__

_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Asked:
    """What `headatlas mine` was asked for, as on its command line."""

    model: str
    revision: str | None = None
    dtype: str = "auto"
    device: str | None = None
    bos: str = "auto"
    detectors: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    n: int = 32
    seed: int = 0
    verdict: bool = True
    verdict_n: int | None = None
    checks: tuple[str, ...] = ()
    out: str | None = None
    own: Prompts | None = None

    def note(self) -> Path:
        """Where the note on this question lies, whether or not there is one. Raises what `resolve` does."""
        source = resolve(self.model, revision=self.revision)
        home = home_folder()
        asked = {
            **{name: value for name, value in vars(self).items() if name != "own"},
            "own": self._own(),
            "sha256": source.sha256,
            "files": digest([path for path in source.folder.iterdir() if path.is_file()], home),
            "commit": source.revision,
            "device": self.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            "here": str(Path(self.out or "atlas").absolute()),
            "versions": [__version__, *(version(name) for name in _LIBRARIES)],
            "plugins": sorted(
                f"{one.value} {one.dist.version if one.dist else ''}"
                for group in ("headatlas.detectors", "headatlas.tasks")
                for one in entry_points(group=group)
            ),
        }
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        return home / "runs" / f"{name}.json"

    def _own(self) -> dict[str, Any] | None:
        """What of prompts of one's own decides a run: the texts, and the content of files."""
        if self.own is None:
            return None
        paths = (self.own.prompts, self.own.chat)
        files = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths if path is not None]
        return {"text": self.own.text, "files": files, "metric": getattr(self.own.metric, "name", None)}

    def finished(self) -> Path | None:
        """The folder of the finished run that this question led to before; None where it has to be asked again."""
        note = self.note()
        try:
            known = read_json(note)
            run = Path(known["run"])
            facts, atlas = read_json(run / "run.json"), read_json(run / "atlas.json")
            same = facts["id"] == known["id"] and self._is_of_today(facts, atlas)
        except (StoreError, KeyError, TypeError):
            return None
        return run if same else None

    def _is_of_today(self, facts: Mapping[str, Any], atlas: Mapping[str, Any]) -> bool:
        """Whether today's detectors and tasks are those that the run was made with."""
        every = detectors()
        for name, (number, least) in facts["detectors"].items():
            if name not in every or [every[name].version, every[name].minimum_effect] != [number, least]:
                return False
        built_in = {name: number for name, number in facts["tasks"].items() if self.own is None or not _is_own(name)}
        if any(name not in tasks() or tasks()[name].version != number for name, number in built_in.items()):
            return False
        if facts["verdict"] and facts["verdict_version"] != VERSION:
            return False
        asked = {*facts["detectors"], *(one["detector"] for one in atlas["skipped"])}
        return bool(self.detectors or self.tasks or self.own) or asked == set(every)

    def keep(self, run: Path) -> None:
        """Note where the run lies; without a cache folder that can be written, the model is opened next time."""
        with contextlib.suppress(OSError, StoreError):
            note = self.note()
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"run": str(run.absolute()), "id": read_json(run / "run.json")["id"]})


def _is_own(task: str) -> bool:
    """Whether a run's task is its user's prompts, whose version hangs on them alone."""
    return task.startswith(f"{OWN}-")
