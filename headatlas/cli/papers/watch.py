"""`headatlas papers watch`: looks for new papers on arXiv and queues the likely ones for review."""

from __future__ import annotations

import datetime
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli.papers._options import Json, print_json
from headatlas.render.escape import say


def watch(
    since: Annotated[str | None, typer.Option(help="First day to look at; needed unless --out exists")] = None,
    out: Annotated[Path | None, typer.Option(help="Review queue (.yaml or .json); searched on from there")] = None,
    max: Annotated[int, typer.Option(min=1, help="Papers to look at in this call")] = 1000,
    keep: Annotated[int, typer.Option(min=1, help="Rows in the queue; reviewed rows always stay")] = 200,
    show: Annotated[int, typer.Option(min=0, help="Rows to print")] = 20,
    query: Annotated[str | None, typer.Option(help="arXiv query instead of ours (see docs)")] = None,
    data: Annotated[Path | None, typer.Option(help="Catalogue folder to compare with; ours by default")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for arXiv")] = 20.0,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Measure ranking and proposals instead; asks nobody")
    ] = False,
    json: Json = False,
) -> None:
    """Ask arXiv for new papers and rank them by likeness to the catalogue, each row with its reasons.

    Adds nothing to the catalogue. Waits three seconds between calls to arXiv; stop it when you like, it goes on
    from there with the same --out.

    Example: headatlas papers watch --since 2025-02-17 --out queue.yaml
    """
    from headatlas.catalogue.curation.likeness import Scorer
    from headatlas.catalogue.curation.target import open_target
    from headatlas.catalogue.curation.watch import Queue, day, resume, start, write_queue
    from headatlas.catalogue.curation.watch import watch as look
    from headatlas.errors import BadInput

    known = open_target(data)
    if evaluate:
        from headatlas.catalogue.curation import evaluate_proposals, evaluate_watch

        qualities = evaluate_watch.evaluate(list(known.names.papers.values()), list(known.names.heads.values()))
        proposed = evaluate_proposals.evaluate_proposals(known.names)
        rows = {"rows": [asdict(quality) for quality in qualities], "proposals": [asdict(one) for one in proposed]}
        if json:
            print_json(rows)
        else:
            say(f"{evaluate_watch.as_table(qualities)}\n\n{evaluate_proposals.as_table(proposed)}")
        return

    from headatlas.catalogue.curation.arxiv_client import Arxiv

    first = day(since) if since else None
    if out is not None:
        queue = resume(out, since=first, query=query)
    elif first is not None:
        queue = start(first, query)
    else:
        raise BadInput("Nothing says where to begin.", "Give --since 2025-02-17, or --out with a queue to go on with.")

    def save(queue: Queue) -> None:
        if out is not None:
            write_queue(out, queue)
        if sys.stderr.isatty():
            say(f"{queue.progress.looked_at} looked at, up to {queue.progress.reached:%Y-%m-%d}", file=sys.stderr)

    queue = look(
        queue,
        target=known,
        scorer=Scorer(known.names.papers.values(), known.names.heads.values()),
        arxiv=Arxiv(timeout=timeout),
        now=datetime.datetime.now(datetime.UTC),
        limit=max,
        keep=keep,
        save=save,
    )
    if json:
        print_json(queue.model_dump(mode="json"))
        return
    for row in queue.papers[:show]:
        say(f"{row.score:.2f}  {row.arxiv}  {row.date}  {row.title}")
        for why in row.why:
            say(f"      {why}")
    progress = queue.progress
    papers = "1 paper" if progress.looked_at == 1 else f"{progress.looked_at} papers"
    say(f"{papers} looked at, {len(queue.papers)} in the queue{f' {out}' if out else ''}.")
    if not progress.complete:
        say(f"There are more after {progress.reached:%Y-%m-%d %H:%M}; run again with the same --out to go on.")
