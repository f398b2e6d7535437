"""The catalogue of attention-head papers on the command line: each file of this folder is one command."""

from __future__ import annotations

import sys

import typer

from headatlas.cli._commands import add_commands


def _any_terminal() -> None:
    """Print signs that the terminal's encoding lacks as '?' instead of failing on the first author with an accent."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _build() -> typer.Typer:
    program = typer.Typer(
        help="The catalogue: papers on attention heads, head types, methods, benchmarks, claims and circuits.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    program.callback()(_any_terminal)
    add_commands(program, __name__, __path__)
    return program


app = _build()
