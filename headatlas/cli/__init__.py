"""The command line: wires the files of this folder into one program and turns expected errors into one line."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from headatlas.cli._commands import add_commands
from headatlas.cli._ending import KEPT, Ended, ending_well
from headatlas.errors import HeadAtlasError, StoreError
from headatlas.render.escape import say, shown
from headatlas.version import __version__

# Spellings of before, which are understood for one version; none of them is shown in --help.
RENAMED_OPTIONS = {"--site": "--component", "--at": "--position", "--prompt": "--text"}
RENAMED_COMMANDS = {"matrix": "families"}


class _Program(TyperGroup):
    """Tells slips of the command line with what acts on a terminal written out."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """As click does it."""
        with _written_out():
            return super().make_context(*args, **options)

    def invoke(self, *args: Any, **options: Any) -> Any:
        """As click does it; commands read their options in here."""
        with _written_out():
            return super().invoke(*args, **options)


@contextlib.contextmanager
def _written_out() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # click's, or those of the copy of click that newer typers bring along
            helped = type(error).__name__ == "NoArgsIsHelpError"  # whose message is the help, on its lines
            vars(error)["message"] = shown(vars(error)["message"], lines=helped)
        raise


def build(only: str | None = None) -> typer.Typer:
    """The program: each module `x.py` of this folder gives the command `x` (a function `x`, or a Typer called `app`).

    only: the one command that is asked for; all where it is none of them.
    """
    program = typer.Typer(
        name="headatlas",
        cls=_Program,
        help="What do the attention heads of this model do?",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    program.callback()(_no_command)  # a program of one command would take its name for an argument
    add_commands(program, __name__, __path__, only)
    return program


def _versions(asked: bool) -> None:
    if asked:
        beside = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
        say(f"headatlas {__version__} ({beside})")
        raise typer.Exit


def _no_command(
    versions: Annotated[
        bool, typer.Option("--version", callback=_versions, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    pass


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
    say(
        f"headatlas: {old} is now called {new}; the old name will not be understood in the next version.",
        file=sys.stderr,
    )
    return new


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    """A warning on one line, like the errors, in place of Python's with its file and source."""
    say(f"headatlas: note: {shown(message, lines=False)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. Exit codes: 0 ok, 1 wrong input, 2 usage, 130 interrupted; 128 + n ended by the signal n."""
    warnings.showwarning = _warned
    try:
        with ending_well():
            _run(arguments)
    except Ended as ended:  # what was still in a stream when the command was done
        sys.exit(ended.code)
    except StoreError as error:
        say(f"headatlas: {shown(error, lines=error.lines)}", file=sys.stderr)
        sys.exit(1)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        asked = current(sys.argv[1:] if arguments is None else arguments)
        build(asked[0] if asked else None)(args=asked, standalone_mode=True)
    except HeadAtlasError as error:
        say(f"headatlas: {shown(error, lines=error.lines)}", file=sys.stderr)
        sys.exit(1)
    except Ended as ended:
        if ended.reason:
            say(f"headatlas: {ended.reason}", file=sys.stderr)
        sys.exit(ended.code)
    except (SystemExit, KeyboardInterrupt) as ended:  # typer turns Ctrl-C into the first
        if isinstance(ended, SystemExit) and ended.code != 130:
            raise
        say(f"headatlas: interrupted. {KEPT}", file=sys.stderr)
        sys.exit(130)
