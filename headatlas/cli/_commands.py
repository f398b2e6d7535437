"""One file, one command: how the modules of a folder become commands."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

import typer

from headatlas.cli._checks import checked


def add_commands(program: typer.Typer, package: str, path: Iterable[str]) -> None:
    """Give `program` a command for each module of `package`: a function called like the module, or a Typer called `app`.

    `list_` gives `list`, `import_issue` gives `import-issue`; modules whose name starts with an underscore are left alone.
    A command runs after the checks of its options, and a function `before` of its module, have let its arguments pass.
    """
    for info in sorted(pkgutil.iter_modules(list(path)), key=lambda item: item.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package}.{info.name}")
        name = info.name.removesuffix("_").replace("_", "-")
        if hasattr(module, "app"):
            program.add_typer(module.app, name=name)
        else:
            command = checked(getattr(module, info.name), getattr(module, "before", None))
            program.command(name=name)(command)
