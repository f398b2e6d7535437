"""The command line: wires the files of this folder into one program and turns expected errors into one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from headatlas.cli._commands import add_commands
from headatlas.cli._ending import KEPT, Ended, ending_well
from headatlas.errors import HeadAtlasError, StoreError

# Spellings of before, which are understood for one version; none of them is shown in --help.
RENAMED_OPTIONS = {"--site": "--component", "--at": "--position"}
RENAMED_COMMANDS = {"matrix": "families"}


def build() -> typer.Typer:
    """The program: each module `x.py` of this folder gives the command `x` (a function `x`, or a Typer called `app`)."""
    program = typer.Typer(
        name="headatlas",
        help="What do the attention heads of this model do?",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    add_commands(program, __name__, __path__)
    return program


def current(arguments: Sequence[str]) -> list[str]:
    """The arguments in today's spelling; each old spelling is named on standard error with the one to use."""
    found = list(arguments)
    if found and found[0] in RENAMED_COMMANDS:
        found[0] = _renamed(found[0], RENAMED_COMMANDS[found[0]])
    for number, argument in enumerate(found):
        if argument == "--":  # what follows are no options
            break
        name, sign, value = argument.partition("=")
        if name in RENAMED_OPTIONS:
            found[number] = _renamed(name, RENAMED_OPTIONS[name]) + sign + value
    return found


def _renamed(old: str, new: str) -> str:
    print(
        f"headatlas: {old} is now called {new}; the old name will not be understood in the next version.",
        file=sys.stderr,
    )
    return new


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. Exit codes: 0 ok, 1 wrong input, 2 usage, 130 interrupted; 128 + n ended by the signal n."""
    try:
        with ending_well():
            _run(arguments)
    except Ended as ended:  # what was still in a stream when the command was done
        sys.exit(ended.code)
    except StoreError as error:
        print(f"headatlas: {error}", file=sys.stderr)
        sys.exit(1)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        build()(args=current(sys.argv[1:] if arguments is None else arguments), standalone_mode=True)
    except HeadAtlasError as error:
        print(f"headatlas: {error}", file=sys.stderr)
        sys.exit(1)
    except Ended as ended:
        if ended.reason:
            print(f"headatlas: {ended.reason}", file=sys.stderr)
        sys.exit(ended.code)
    except (SystemExit, KeyboardInterrupt) as ended:  # typer turns Ctrl-C into the first
        if isinstance(ended, SystemExit) and ended.code != 130:
            raise
        print(f"headatlas: interrupted. {KEPT}", file=sys.stderr)
        sys.exit(130)
