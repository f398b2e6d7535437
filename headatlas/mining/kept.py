"""Records of tasks on disk: a JSON file each, written whole and last, so that an interrupted run can go on from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from headatlas.errors import BadInput, StoreError
from headatlas.reading import checked
from headatlas.store import of_run, read_json, write_arrays, write_json, writing

Record = TypeVar("Record")


def write_kept(
    folder: Path, task: str, content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None
) -> None:
    """Write <task>.npz, if there are arrays, and then <task>.json; NaN becomes null. Raises StoreError.

    The folder is made where it is missing, its parent is not.
    """
    with writing(folder):
        folder.mkdir(exist_ok=True)
    if arrays is not None:
        write_arrays(folder / f"{task}.npz", arrays)
    write_json(folder / f"{task}.json", content)


def read_kept(folder: Path, task: str, schema: Any, parse: Callable[[dict[str, Any]], Record]) -> Record | None:
    """What `parse` makes of <task>.json; None where there is no such file. Raises StoreError where it is damaged.

    schema: what the file must hold, as `headatlas.reading.checked` takes it.
    """
    path = folder / f"{task}.json"
    if not path.exists():
        return None
    content = checked(read_json(path), schema, of_run(path))
    try:
        return parse(content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, BadInput) as error:
        what = f"{type(error).__name__}: {error}"
        raise StoreError(f"{path} is damaged ({what}).", f"Remove {folder.parent} and run again.") from error


def number(value: float | None) -> float:
    """A number of a kept file, where null stands for one that is not defined: NaN."""
    return float("nan") if value is None else value
