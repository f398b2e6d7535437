"""The reference has an entry for every public name, detector and task, and docstrings say what shape tensors have."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import headatlas as ha
from headatlas.overview import list_known
from tests.pages import ROOT

TOOLS = ROOT / "docs" / "tools"


@pytest.fixture(scope="module")
def generated() -> Iterator[Any]:
    """The module that makes the pages."""
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("generated_pages")
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def pages(generated: Any) -> dict[str, str]:
    return dict(generated.reference())


def test_every_public_name_has_one_entry(generated: Any, pages: dict[str, str]):
    entries = [line.removeprefix("::: ") for name in generated.GROUPS for line in pages[f"{name}.md"].splitlines() if line.startswith(":::")]  # fmt: skip
    assert sorted(entries) == sorted(generated.where(name) for name in ha.__all__)
    for place in entries:
        module, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(module), name), place
    nav = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in pages if f"reference/{page}" not in nav] == []


def test_every_detector_task_and_module_of_methods_has_its_part(pages: dict[str, str]):
    for kind in ("detectors", "tasks"):
        headings = re.findall(r"^## (.+)$", pages[f"{kind}.md"], re.M)
        assert headings == [row["name"] for row in list_known(kind)]
    modules = re.findall(r"^::: (.+)$", pages["modules.md"], re.M)
    for unit in ("methods", "circuits", "apply"):
        files = (ROOT / "headatlas" / unit).rglob("[!_]*.py")
        names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
        assert names <= set(modules)


def public() -> Iterator[tuple[str, Any, str]]:
    """Label, function and all that is said of it (of a method: with its class) for every public function and method."""
    for name in ha.__all__:
        thing = getattr(ha, name)
        if inspect.isfunction(thing):
            yield name, thing, inspect.getdoc(thing) or ""
        elif inspect.isclass(thing):
            about = inspect.getdoc(thing) or ""
            for key, value in vars(thing).items():
                function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                if inspect.isfunction(function) and (key == "__init__" or not key.startswith("_")):
                    above = [
                        inspect.getdoc(vars(base)[key]) or "" for base in thing.__mro__ if key in vars(base)
                    ]  # its contract
                    yield f"{name}.{key}", function, "\n".join([about, *above])


def without_shape(function: Callable[..., Any], said: str) -> list[str]:
    """Parameters that are tensors or arrays, of which nothing says the axes: `name [example, ...]` or `name: ... [example]`."""
    tensors = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if re.search(r"\b(Tensor|Array|ndarray)\b", str(parameter.annotation))
    ]
    return [name for name in tensors if not re.search(rf"\b{name}\b[^.]*?\[[a-z_,. ]+\]", said)]


@pytest.mark.parametrize("name", [name for name in ha.__all__ if name != "__version__"])
def test_every_public_name_says_what_it_is(name: str):
    assert len((inspect.getdoc(getattr(ha, name)) or "").split()) > 3


@pytest.mark.parametrize(("label", "function", "said"), list(public()), ids=lambda value: value if isinstance(value, str) and " " not in value else "")  # fmt: skip
def test_docstrings_say_the_shapes_of_tensors(label: str, function: Callable[..., Any], said: str):
    assert without_shape(function, said) == [], label


def test_a_tensor_without_a_shape_is_seen():
    def scaled(values: Tensor, by: float) -> Tensor:  # noqa: F821
        """Values times a number."""

    assert without_shape(scaled, scaled.__doc__ or "") == ["values"]
    assert without_shape(scaled, "values [example, head] times a number.") == []


def test_docstrings_become_markdown(generated: Any):
    module = importlib.import_module("markdown_text")
    found = doctest.testmod(module)
    assert found.attempted >= 2
    assert found.failed == 0
