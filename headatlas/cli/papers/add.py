"""`headatlas papers add`: drafts the entry of a paper from arXiv."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from headatlas.render.escape import say


def add(
    arxiv: Annotated[str, typer.Option(help="arXiv identifier or link, such as 2409.10559")],
    data: Annotated[Path | None, typer.Option(help="Catalogue folder to write into; ours by default")] = None,
    id: Annotated[
        str | None, typer.Option(help="Name of the entry and its file; made from author, year, title")
    ] = None,
    edit: Annotated[bool, typer.Option(help="Open the file in $VISUAL or $EDITOR when on a terminal")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for arXiv")] = 10.0,
) -> None:
    """Fetch a paper's metadata from arXiv and write its entry; head types and methods are proposed with reasons.

    The summary stays yours to write. Refuses papers that the catalogue has.

    Example: headatlas papers add --arxiv 2409.10559 --data my-catalogue
    """
    from headatlas.catalogue.curation.add import add as add_paper
    from headatlas.catalogue.curation.arxiv_client import Arxiv
    from headatlas.catalogue.curation.target import open_target

    target = open_target(data)
    added = add_paper(arxiv, target=target, arxiv=Arxiv(timeout=timeout), id=id)
    say(f"{added.found.title}\n")
    say(f"{added.found.abstract}\n")
    for proposal in added.proposals:
        say(f"{'' if proposal.sure else 'perhaps '}{proposal.kind}: {proposal.id} ({proposal.reason})")
    say(f"Written: {added.path}")
    for problem in target.gathered.problems:
        say(f"Not compared with a broken file: {problem}", file=sys.stderr)
    for problem in added.left:
        say(f"Left to do: {problem}")
    if edit and sys.stdin.isatty() and sys.stdout.isatty():
        _open(added.path)
    if data is None or (data / "heads").is_dir():  # a folder of papers alone is no catalogue to check
        say(f"Then run: headatlas papers check{f' --data {data}' if data else ''}")


def _open(path: Path) -> None:
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command:
        say("No editor is set in $VISUAL or $EDITOR; open the file yourself.", file=sys.stderr)
        return
    try:
        subprocess.run([*shlex.split(command), str(path)], check=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        say(f"The editor '{command}' failed ({error}); the file is kept.", file=sys.stderr)
