"""Which checkpoints are meant, and at which steps of the training they stand."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headatlas.errors import BadInput
from headatlas.model.checkpoints import revisions_of
from headatlas.model.sources.resolve import look

_STEP = re.compile(r"step[-_ ]?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Reference:
    """A checkpoint by name. step: of the training, read off its name. run: a finished run of `headatlas mine`.

    numbered: no name tells a step, so that steps are places in the order in which the checkpoints were given.
    """

    label: str
    step: int
    name: str
    revision: str | None = None
    run: bool = False
    numbered: bool = False


def step_of(label: str) -> int | None:
    """The step that a name tells: the number behind "step", else the last number in it (checkpoint-500, epoch_3)."""
    told = _STEP.findall(label) or _NUMBER.findall(label)
    return int(told[-1]) if told else None


def checkpoints_of(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Reference]:
    """The checkpoints that a folder, names of models or run folders, or "model@rev1,rev2" mean, in the order of their steps.

    A folder of checkpoints has a folder with config.json for each, or has them in its folder `checkpoints`, as toys do.
    Where no name tells a step, they are numbered as they were given. Raises BadInput, also for fewer than two.
    """
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    found = [one for name in given for one in _each(os.fspath(name))]
    if len(found) < 2:
        for _, name, revision, run in found:
            if not run:
                look(name, revision)  # a name that means nothing is the fault to tell
        raise BadInput(
            f"{', '.join(map(str, given)) or 'Nothing'} names {len(found)} checkpoint{'' if len(found) == 1 else 's'}; a "
            "timeline needs two or more.",
            "Give a folder of checkpoints, several models or runs, or org/name@step1000,step2000.",
        )
    if len({run for _, _, _, run in found}) > 1:
        raise BadInput("A timeline is made of runs or of models, not of both.", "Mine the models, or name them all.")
    steps, numbered = [step_of(label) for label, _, _, _ in found], False
    if None in steps or len(set(steps)) < len(steps):
        told = [label for label, step in zip((one[0] for one in found), steps, strict=True) if step is not None]
        if told and len(set(steps) - {None}) > 1:
            raise BadInput(
                f"The names of the checkpoints do not tell their steps apart ({', '.join(told[:4])} ...).",
                "Name each with its own step, such as step-100.",
            )
        steps, numbered = list(range(len(found))), True
    references = [
        Reference(label, int(step or 0), name, revision, run, numbered)
        for (label, name, revision, run), step in zip(found, steps, strict=True)
    ]
    return sorted(references, key=lambda one: one.step)


def _each(name: str) -> list[tuple[str, str, str | None, bool]]:
    """(label, name, revision, whether it is a run) of each checkpoint that one argument means."""
    folder = Path(os.path.expanduser(name))
    if not folder.is_dir():
        return [(revision or Path(one).name, one, revision, False) for one, revision in revisions_of(name)]
    if (folder / "atlas.json").is_file():
        return [(folder.name, str(folder), None, True)]
    for home in (folder / "checkpoints", folder):
        for file, run in (("config.json", False), ("atlas.json", True)):
            inside = _inside(home, file)
            if inside:
                return [(one.name, str(one), None, run) for one in inside]
    if (folder / "config.json").is_file():
        return [(folder.name, str(folder), None, False)]
    raise BadInput(f"{name} holds no checkpoints.", "Give a folder of folders with config.json and weights.")


def _inside(home: Path, file: str) -> list[Path]:
    """The folders in a folder that hold a file, without hidden ones: what a killed training left half written is one."""
    if not home.is_dir():
        return []
    return sorted(one for one in home.iterdir() if not one.name.startswith(".") and (one / file).is_file())
