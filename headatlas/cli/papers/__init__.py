"""The catalogue of attention-head papers on the command line: each file of this folder is one command.

A module `x.py` gives the command `x`: a function `x` (`list_.py` and `list_` give `list`, `import_issue` gives
`import-issue`), or a Typer called `app`. Modules whose name starts with an underscore are left alone.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import sys

import typer


def _any_terminal() -> None:
    """Print signs that the terminal's encoding lacks as '?' instead of failing on the first author with an accent."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _build() -> typer.Typer:
    program = typer.Typer(
        help="The catalogue: papers on attention heads, head types, methods, benchmarks, claims and circuits.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    program.callback()(_any_terminal)
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda item: item.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{info.name}")
        name = info.name.removesuffix("_").replace("_", "-")
        if hasattr(module, "app"):
            program.add_typer(module.app, name=name)
        else:
            program.command(name=name)(getattr(module, info.name))
    return program


app = _build()
