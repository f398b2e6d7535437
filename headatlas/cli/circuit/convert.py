"""`headatlas circuit convert CIRCUIT`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json

library = "headatlas.convert_circuit"


def convert(
    circuit: Annotated[
        str, typer.Argument(help="A circuit file, ours or MIB's, or an id of the catalogue."), Check(check.circuit)
    ],
    task: option.Task = None,
    known_as: option.KnownAs = None,
    shape: Annotated[
        str | None, typer.Option(help="Layers x query heads x width of the model, such as 12x12x768, for MIB's file.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="File to write; default: print it."), Check(check.new_file)
    ] = None,
) -> None:
    """Turn a file of the Mechanistic Interpretability Benchmark (MIB) into a circuit, or a circuit into such a file.

    MIB's files say neither task nor model: name them with --task and --as.

    Example: headatlas circuit convert ioi --shape 12x12x768 --out ioi-mib.json
    """
    import headatlas as ha
    from headatlas.render.console import console

    data = ha.convert_circuit(circuit, out, task=task, known_as=known_as, shape=shape)
    if out is None:
        print_json(data)
        return
    console().print(f"Written to {out}", highlight=False, soft_wrap=True)
