"""Caches that hold less, on the command line: each file of this folder is one command."""

from __future__ import annotations

import typer

from headatlas.cli._commands import add_commands


def _build() -> typer.Typer:
    program = typer.Typer(
        help="Caches that hold less by head: plan one, test what it costs, write with it, take it elsewhere.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    add_commands(program, __name__, __path__)
    return program


app = _build()
