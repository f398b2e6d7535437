"""`headatlas verify FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_entries, print_json
from headatlas.errors import BadInput

DIFFERS, NOTHING = 3, 4  # exit codes where a row came out otherwise, and where no row could be verified


def _board(file: str) -> None:
    """Raise BadInput for a file that is no board."""
    from headatlas.catalogue.files.boards import read_board
    from headatlas.reading import Source

    read_board(Source(Path(file), "Name the JSON file of a board.", BadInput))


def verify(
    file: Annotated[
        str,
        typer.Argument(
            help="A board's JSON file (`headatlas replicate --board`), or what `headatlas replicate --json` printed."
        ),
        Check(_board),
    ],
    claim: Annotated[str | None, typer.Option(help="Only the rows of this claim.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the weights lie, if not where the board found them; the same ones.")
    ] = None,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Run the rows of a board of replications again: reproduced, differs, or not verifiable and why.

    Weights, texts and detectors have to be those that the row names. Scores may be off by a tolerance that is measured here, with
    another number of threads. Exit code 3 where a row differs, 4 where none could be verified.

    Example: headatlas verify docs/replication.json --claim wang-2023-ioi-name-mover
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.mining.claims.outcomes import data_of
    from headatlas.mining.claims.verify import RESULTS
    from headatlas.render.console import console
    from headatlas.render.numbers import count

    with Shown() as shown:
        found = ha.verify(file, claim=claim, model=model, device=device, dtype=dtype, progress=shown)
    if as_json:
        print_json([{**vars(one), "now": data_of([one.now])[0] if one.now else None} for one in found])
    else:
        print_entries(
            ["claim"],
            [
                ([one.claim], [", ".join([*([one.detector] if one.detector else []), one.result]), one.reason])
                for one in found
            ],
        )
        words = [one.result for one in found]
        counts = ", ".join(f"{words.count(word)} {word}" for word in RESULTS if word in words)
        tolerances = [one.tolerance for one in found if one.tolerance is not None]
        measured = f" Scores may differ by {max(tolerances):.1g} here." if tolerances else ""
        console().print(f"{count(len(found), 'row')}: {counts}.{measured}", highlight=False, soft_wrap=True)
    if any(one.result == "differs" for one in found):
        raise typer.Exit(DIFFERS)
    if all(one.result == "not verifiable" for one in found):
        raise typer.Exit(NOTHING)
