"""`headatlas papers import-issue`: turns a filled-in contribution form into an entry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli.papers._options import Json, print_json, print_text
from headatlas.render.escape import say


def import_issue(
    file: Annotated[Path, typer.Argument(help="The form's text, as GitHub keeps it (Markdown)")],
    data: Annotated[Path | None, typer.Option(help="Catalogue folder to write into; ours by default")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the entry instead of writing it")] = False,
    json: Json = False,
) -> None:
    """Turn a filled-in contribution form into an entry file, or list what is missing.

    Example: headatlas papers import-issue form.md --dry-run
    """
    from headatlas.catalogue.curation.issue_form import FormError, import_form
    from headatlas.catalogue.curation.target import open_target

    try:
        imported = import_form(file, target=open_target(data), dry_run=dry_run)
    except FormError as error:
        if not json:
            raise
        print_json({"written": None, "problems": error.problems})
        raise typer.Exit(1) from None
    if json:
        outcome: dict[str, object] = {
            "id": imported.paper.id,
            "written": str(imported.path) if imported.path else None,
            "entry": imported.text,
            "notes": imported.notes,
            "problems": [],
        }
        print_json(outcome)
        return
    if imported.path:
        say(f"Written: {imported.path}")
    else:
        print_text(imported.text)
    for note in imported.notes:
        say(f"Note: {note}", file=sys.stderr)
