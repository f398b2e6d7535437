"""Says in plain words what a schema error means and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from headatlas.registry import did_you_mean

Keys = tuple[str | int, ...]
# What a text must look like, by the pattern it failed.
_FORMS = {
    "[a-z0-9]+(-": "lower-case words joined by dashes, such as induction-head",
    "https?://": "a web address that starts with http:// or https://, without spaces or quotes",
    r"\d{4}\.\d{4,5}": "an arXiv id in quotes, such as '2409.03752', without version",
    r"10\.\d{4,9}": "a DOI that starts with 10., such as 10.18653/v1/2024.acl-long.1",
    r"\d{1,4}\.": "layer.head in quotes, such as '9.6' or 'encoder:0.3'",
}


def explain(error: ValidationError, model: type[BaseModel], word: str) -> Iterator[tuple[Keys, str, str]]:
    """Each fault of a validation error as (keys to the part, what is wrong, what would be right)."""
    for fault in error.errors(include_url=False):
        keys: Keys = tuple(fault["loc"])
        kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
        where = ".".join(str(key) for key in keys)
        if kind == "missing":
            yield keys, f"the {word} lacks '{where}'.", f"Add '{keys[-1]}:'."
        elif kind == "extra_forbidden":
            hint = did_you_mean(str(keys[-1]), _fields(model)) or f"Keys are: {', '.join(sorted(model.model_fields))}."
            yield keys, f"a {word} has no key '{where}'.", hint
        elif kind == "model_type":
            name = f"'{where}'" if where else f"the {word}"
            yield keys, f"{name} is not a mapping of keys to values.", "Write 'key: value' lines."
        elif kind == "string_type":
            right = "Leave the key out where nothing is known." if given is None else f"Put it in quotes: '{given}'."
            if isinstance(given, list | dict):
                right = "Write one text here."
            yield keys, f"'{where}' is not a text but {_short(given)}.", right
        elif kind == "string_pattern_mismatch":
            pattern = str(context.get("pattern", ""))
            form = next((form for sign, form in _FORMS.items() if sign in pattern), f"a text like {pattern}")
            yield keys, f"'{where}' is {_short(given)}.", f"Write {form}."
        elif kind == "literal_error":
            expected = str(context.get("expected", ""))
            yield keys, f"'{where}' is {_short(given)}.", f"It is one of {expected}."
        else:
            yield keys, f"'{where}' is {_short(given)}: {fault['msg'].removeprefix('Value error, ')}.", ""


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """The keys of a model and of the models within it, for did-you-mean."""
    yield from model.model_fields
    for field in model.model_fields.values():
        for inner in getattr(field.annotation, "__args__", (field.annotation,)):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not model:
                yield from _fields(inner)
