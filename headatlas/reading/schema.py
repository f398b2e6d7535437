"""Schemas of stored records: what a file must hold, with bounds, said in one line where it does not.

A schema is a `Record` whose fields are the file's keys. A key that a later version adds gets a field with a default, so
that files of before are still read; a key that this version does not know is told, and let be.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from headatlas.reading.files import Source

LAYERS, HEADS = 4096, 4096  # far more than any model has, in a layer
Layer = Annotated[int, Field(ge=0, lt=LAYERS)]
Head = Annotated[int, Field(ge=0, lt=HEADS)]
Count = Annotated[int, Field(ge=0, lt=1 << 48)]
Number = float | None  # finite, or null where it is not defined (NaN in memory)
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Text = Annotated[str, Field(max_length=1_000_000)]


class Record(BaseModel):
    """An object of a file. Values keep their kind (no "3" for 3), numbers are finite, unknown keys are kept."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Open(Record):
    """An object whose further keys are free, such as the facts of a run."""


class Written(Record):
    """An object of a file that people write by hand, where an unknown key is a slip of the pen."""

    model_config = ConfigDict(extra="forbid")


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema, config=None if isinstance(schema, type) else Record.model_config)


def checked(value: Any, schema: Any, source: Source) -> Any:
    """The value with the defaults of what it leaves out. Raises source.error naming place, fault and what was expected.

    schema: a Record, or a type made of some, such as dict[str, Part]. Keys that it does not know are kept, and told with
    a warning.
    """
    adapter = _adapter(schema)
    try:
        record = adapter.validate_python(value)
    except ValidationError as error:
        raise source.bad(_worded(error)) from error
    unknown = sorted(set(_unknown(record, "")))
    if unknown:
        names = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        warnings.warn(
            f"{source.path} has keys that this version of headatlas does not know and leaves unread: {names}.",
            UserWarning,
            stacklevel=3,
        )
    return adapter.dump_python(record, by_alias=True)


def demand_schema(value: Any, schema: str, source: Source) -> None:
    """See that a file says it is of this schema ("headatlas/atlas/1"). Raises source.error."""
    said = value.get("schema") if isinstance(value, dict) else None
    if said == schema:
        return
    family, _, version = schema.rpartition("/")
    newer = re.fullmatch(rf"{re.escape(family)}/(\d{{1,6}})", said) if isinstance(said, str) else None
    if newer and int(newer[1]) > int(version):
        raise source.error(f"{source.path} is a {said} file, of a newer headatlas than this.", "Update headatlas.")
    raise source.bad(f"is not a {schema} file (its schema is {_short(said)})")


def _worded(error: ValidationError) -> str:
    """The first fault, and how many more there are."""
    fault, more = error.errors(include_url=False)[0], error.error_count() - 1
    where = _place(fault["loc"])
    rest = f" ({more} more faults)" if more else ""
    if fault["type"] == "missing":
        return f"is damaged: it lacks {where}{rest}"
    message = fault["msg"].removeprefix("Value error, ")
    expected = re.sub(r"^\w+ should (be |have )?", "", message)
    return f"is damaged: {where or 'its value'} is {_short(fault['input'])}, expected: {expected}{rest}"


def _place(keys: tuple[int | str, ...]) -> str:
    """As one writes it: detectors[3].heads[0].layer."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key[:60]}" if text else key[:60]
    return text


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**15:  # Python writes no number of thousands of digits
        return "a number of more than 15 digits"
    text = "null" if value is None else repr(value[:61] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        if not isinstance(value, Open):
            yield from (f"{place}{key[:60]}" for key in value.model_extra or ())
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{place}{name}.")
    elif isinstance(value, list | dict):
        for one in value if isinstance(value, list) else value.values():
            if not isinstance(one, BaseModel):
                return  # lists and tables hold things of one kind
            yield from _unknown(one, place)
