"""`headatlas papers site`: the catalogue as a web site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli.papers._options import Data
from headatlas.render.escape import say


def site(
    out: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or an earlier site, which is replaced.")],
    atlas: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of runs: head types say in which models they were seen. May be given several times."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Where the site will stand on the web, for feed and 404.")] = None,
    repository: Annotated[str | None, typer.Option(help="Where the sources stand on the web, for edit links.")] = None,
    data: Data = None,
) -> None:
    """Build a site of plain files: search, a page for every paper, head type and circuit; opens from the folder too.

    Example: headatlas papers site public --atlas atlas
    """
    from importlib.metadata import entry_points

    from headatlas.catalogue import load
    from headatlas.catalogue.detector_names import calibrated_detectors, detector_names
    from headatlas.catalogue.export.what_runs import runs_here
    from headatlas.catalogue.files.boards import replications
    from headatlas.catalogue.site.atlases import sightings
    from headatlas.catalogue.site.build import build
    from headatlas.catalogue.site.context import SiteContext

    found = {head_type: list(names) for head_type, names in detector_names().items()}
    if entry_points(group="headatlas.detectors"):
        # Detectors of other packages are only known once loaded, which takes longer than the whole site.
        from headatlas.detector import detectors

        found = {}
        for detector in detectors().values():
            found.setdefault(detector.head_type, []).append(detector.name)
    seen = []
    for folder in atlas or []:
        from headatlas.atlas import Atlas
        from headatlas.store import read_json

        seen += [(str(run / "atlas.json"), read_json(run / "atlas.json")) for run in Atlas(folder).runs]
    catalogue = load(data)
    context = SiteContext(
        catalogue, found, sightings(seen), address, repository, calibrated_detectors(), runs_here(catalogue),
        replications(catalogue, data),
    )  # fmt: skip
    n_pages = build(context, out)
    say(f"Written: {out} ({n_pages} pages). Open {out / 'index.html'}")
