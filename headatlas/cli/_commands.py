"""One file, one command: how the modules of a folder become commands."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

import typer

from headatlas.cli._checks import checked


def add_commands(program: typer.Typer, package: str, path: Iterable[str], only: str | None = None) -> None:
    """Give `program` a command for each module of `package`: a function called like the module, or a Typer called `app`.

    `list_` gives `list`, `import_issue` gives `import-issue`; modules whose name starts with an underscore are left alone.
    only: the one command that is asked for, so that the modules of the others are not read; all where it is none of them.
    A command runs after the checks of its options, and a function `before` of its module, have let its arguments pass.
    """
    modules = {
        info.name.removesuffix("_").replace("_", "-"): info.name
        for info in sorted(pkgutil.iter_modules(list(path)), key=lambda item: item.name)
        if not info.name.startswith("_")
    }
    for name, own in ({only: modules[only]} if only in modules else modules).items():
        module = importlib.import_module(f"{package}.{own}")
        if hasattr(module, "app"):
            program.add_typer(module.app, name=name)
        else:
            command = checked(getattr(module, own), getattr(module, "before", None))
            program.command(name=name)(command)
