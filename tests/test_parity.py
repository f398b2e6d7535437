"""Python can do all that the command line can: each command has a public function, each option a parameter of it.

The function of a command is the one of its name in `headatlas`, or the one (or several) that `library = "headatlas.name"`
names in the command's file; the commands of the catalogue call what they import from `headatlas.catalogue`. An option is a parameter of
that function, or a field of a dataclass that it takes.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
import typer

import headatlas
from headatlas.cli import build
from headatlas.model import Model

# What is only about printing, or about where a command leaves what its function returned.
SCREEN = {"json", "top", "help"}
SCREEN_OF = {
    "plant": {"out"},  # PlantedModel.save
    "compare": {"fail_over"},  # the exit code; len(Comparison.heads)
    "syntax": {"map_"},  # Syntax.save_map
    "toy": {"out"},  # Toy.save
    "calibrate": {"out"},  # lab.calibration_page
    "cache plan": {"out"},  # save_cache_plan
    "cache import": {"out"},
    "rerank": {"pick"},  # QueryHeads.best
    "papers add": {"edit"},
    "papers bib": {"out"},
    "papers export": {"out"},
    "papers watch": {"show"},
}
# Options that ask for another function than the command's first one.
FUNCTIONS = {
    ("plant", "accuracy"): "accuracy_table",
    ("papers check", "links"): "check_links",
    ("papers check", "schema"): "json_schema",
    ("papers export", "format"): "as_csv",
    ("papers watch", "evaluate"): "evaluate",
}
# Parameters that the library calls by another name; `--data` of the catalogue is always the `folder` that it lies in.
NAMES = {
    ("calibrate", "detector"): "names",
    ("page", "every_head"): "heads",  # None: all of them
    ("syntax", "treebank"): "sentences",
    ("papers site", "atlas"): "atlases",
    ("papers watch", "max"): "limit",
    ("papers watch", "out"): "path",
}


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it."""
    for name, command in getattr(group, "commands", {}).items():
        if getattr(command, "commands", None):
            yield from leaves(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(leaves(typer.main.get_command(build())))


def functions(words: str, command: Any) -> list[Callable[..., Any]]:
    """The public functions behind a command."""
    assert command.callback is not None
    module = sys.modules[command.callback.__module__]
    if words.startswith("papers "):
        return list(catalogue_functions(module))
    marked = getattr(module, "library", f"headatlas.{words.replace('-', '_')}")
    first, *others = [marked] if isinstance(marked, str) else marked
    name = first.removeprefix("headatlas.")
    assert name in headatlas.__all__, f"`headatlas {words}` has no function {first}"
    return [getattr(headatlas, name), *map(named, others)]


def named(dotted: str) -> Callable[..., Any]:
    """A function by its full name."""
    module, _, name = dotted.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def catalogue_functions(module: types.ModuleType) -> Iterator[Callable[..., Any]]:
    """What a command of the catalogue imports from it and can call."""
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headatlas.catalogue"):
            for alias in node.names:
                thing = getattr(importlib.import_module(str(node.module)), alias.name, None)
                if isinstance(thing, types.ModuleType) or thing is None:
                    thing = importlib.import_module(f"{node.module}.{alias.name}")
                    yield from (value for value in vars(thing).values() if inspect.isfunction(value))
                elif callable(thing):
                    yield thing


def names(function: Callable[..., Any]) -> set[str]:
    """The parameters of a function, the fields of options that it takes, and the values of a choice."""
    found: set[str] = set()
    spaces = vars(sys.modules[function.__module__])
    for name, parameter in inspect.signature(function).parameters.items():
        found.add(name)
        kinds = kinds_of(parameter.annotation, spaces)
        if Model in kinds:  # it is given a model that was loaded
            found |= set(inspect.signature(headatlas.load).parameters)
        for kind in kinds:
            if dataclasses.is_dataclass(kind):
                found |= {field.name for field in dataclasses.fields(kind)}
            if typing.get_origin(kind) is typing.Literal:
                found |= set(typing.get_args(kind))
    return found


def kinds_of(annotation: Any, spaces: dict[str, Any]) -> list[Any]:
    """The types that an annotation allows."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(spaces))
        except NameError:  # known to type checkers only: no options object
            return []
    inner = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()
    return [kind for one in inner for kind in kinds_of(one, spaces)] if inner else [annotation]


def spellings(words: str, option: Any) -> set[str]:
    """The names under which the library may know an option."""
    name = str(option.name)
    found = {name, name.removeprefix("as_"), *(long.lstrip("-").replace("-", "_") for long in option.opts)}
    if option.multiple:  # what may be given several times is one list
        found.add(f"{name}s")
    if name.startswith("no_"):
        found.add(name.removeprefix("no_"))
    if words.startswith("papers ") and name == "data":
        found.add("folder")
    return found | {NAMES.get((words, name), name)}


def missing(words: str, command: Any) -> list[str]:
    """Options of a command that its functions know nothing of."""
    behind = functions(words, command)
    known = set().union(*(names(function) for function in behind))
    left = []
    for option in command.params:
        if option.param_type_name != "option":
            continue
        given = spellings(words, option)
        if given & (known | SCREEN | SCREEN_OF.get(words, set())):
            continue
        if FUNCTIONS.get((words, option.name), "") not in [function.__name__ for function in behind]:
            left.append(option.opts[0])
    return left


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_of_a_command_is_a_parameter_of_its_function(words: str):
    assert functions(words, COMMANDS[words]), f"`headatlas {words}` calls nothing of the library"
    assert missing(words, COMMANDS[words]) == []


@pytest.mark.parametrize("name", [name for name in headatlas.__all__ if inspect.isfunction(getattr(headatlas, name))])
def test_public_functions_take_at_most_ten_parameters(name: str):
    assert len(inspect.signature(getattr(headatlas, name)).parameters) <= 10


def test_every_public_name_is_known_to_type_checkers():
    (block,) = (one for one in ast.parse(inspect.getsource(headatlas)).body if isinstance(one, ast.If))
    imported = {alias.name for one in block.body if isinstance(one, ast.ImportFrom) for alias in one.names
                if alias.asname == alias.name}  # what strict checkers take for exported  # fmt: skip
    named = {target.id for one in block.body if isinstance(one, ast.Assign) for target in one.targets
             if isinstance(target, ast.Name)}  # fmt: skip
    assert imported | named == set(headatlas.__all__) - {"__version__"}


def command_of(module: types.ModuleType, function: Callable[..., None]) -> Any:
    """A command as the program would have it, from a file that holds this function."""
    function.__module__ = module.__name__
    program = typer.Typer(add_completion=False)
    program.command()(function)
    return typer.main.get_command(program)


def test_a_command_without_a_function_is_seen(monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("headatlas.cli.juggle")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def juggle(model: str) -> None: ...

    with pytest.raises(AssertionError, match=r"no function headatlas\.juggle"):
        functions("juggle", command_of(module, juggle))


def test_an_option_without_a_parameter_is_seen(monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("headatlas.cli.juggle")
    vars(module)["library"] = "headatlas.ablate"
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def juggle(
        model: str,
        task: Annotated[str, typer.Option()] = "",
        memory: Annotated[str, typer.Option()] = "",
        triage: Annotated[int, typer.Option()] = 1,
        balls: Annotated[int, typer.Option()] = 3,
        device: Annotated[str, typer.Option()] = "",
    ) -> None: ...

    assert missing("juggle", command_of(module, juggle)) == ["--balls"]
