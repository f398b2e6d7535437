"""Circuits on the command line: each file of this folder is one command."""

from __future__ import annotations

import typer

from headatlas.cli._commands import add_commands


def _build() -> typer.Typer:
    program = typer.Typer(
        help="Circuits: heads that do a task together. Find one, test it, compare two.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    add_commands(program, __name__, __path__)
    return program


app = _build()
