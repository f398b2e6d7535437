"""The names of the built-in tasks, known without importing torch: kept in data/names.json with a digest of what makes them.

Where a file of this folder has changed since, or another package adds tasks, the tasks themselves are asked, which is slower
and never wrong. `python -m headatlas.tasks._names` writes the file anew; a test fails while it is old.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import entry_points
from pathlib import Path

_FOLDER = Path(__file__).parent
_KEPT = _FOLDER / "data" / "names.json"


def task_names() -> list[str]:
    """Every task's name, those of other packages included."""
    if not entry_points(group=__package__):
        kept = json.loads(_KEPT.read_text(encoding="utf-8"))
        if kept["digest"] == digest():
            return list(kept["names"])
    return _asked()


def benchmark_names() -> list[str]:
    """The id of every benchmark that runs: one a file of headatlas/benchmarks."""
    return sorted(path.stem.replace("_", "-") for path in (_FOLDER.parent / "benchmarks").glob("[!_]*.py"))


def digest() -> str:
    """Of the generators' files, and of the names of the data that some of them make a task each of."""
    found = hashlib.sha256()
    for path in sorted(_FOLDER.glob("*.py")):
        if path != Path(__file__):
            found.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n"))
    for path in sorted(_FOLDER.glob("data/icl/*.yaml")):
        found.update(path.name.encode() + b"\0")
    return found.hexdigest()[:16]


def _asked() -> list[str]:
    from headatlas.task import tasks

    return sorted(tasks())


if __name__ == "__main__":
    _KEPT.write_text(json.dumps({"digest": digest(), "names": _asked()}, indent=0) + "\n", encoding="utf-8")
