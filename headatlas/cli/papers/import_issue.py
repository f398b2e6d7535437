"""`headatlas papers import-issue`: turns a filled-in contribution form into an entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def import_issue(
    file: Annotated[Path, typer.Argument(help="The form's text, as GitHub keeps it (Markdown)")],
    data: Annotated[Path | None, typer.Option(help="Catalogue folder to write into; ours by default")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the entry instead of writing it")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON")] = False,
) -> None:
    """Turn a filled-in contribution form into an entry file, or list what is missing.

    Example: headatlas papers import-issue form.md --dry-run
    """
    from headatlas.catalogue.issue_form import FormError, import_form
    from headatlas.catalogue.shelf import shelf

    try:
        imported = import_form(file, shelf=shelf(data), dry_run=dry_run)
    except FormError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"written": None, "problems": error.problems}, ensure_ascii=False, indent=2))
        raise typer.Exit(1) from None
    if as_json:
        outcome: dict[str, object] = {
            "id": imported.paper.id,
            "written": str(imported.path) if imported.path else None,
            "entry": imported.text,
            "notes": imported.notes,
            "problems": [],
        }
        typer.echo(json.dumps(outcome, ensure_ascii=False, indent=2))
        return
    typer.echo(f"Written: {imported.path}" if imported.path else imported.text, nl=imported.path is not None)
    for note in imported.notes:
        typer.echo(f"Note: {note}")
