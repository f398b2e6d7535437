"""Head types: nobody can mistake one for another, each is backed by a paper, and each group has members."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.names import normal
from headatlas.catalogue.problem import Problem


def heads(catalogue: Catalogue) -> Iterator[Problem]:
    """Names that two head types share, and lists that name a thing twice or the head type itself."""
    owners: dict[str, str] = {}
    for head in catalogue.heads.values():
        place = catalogue.places["head type", head.id]
        own = {head.name.lower()}
        spelt = [(("id",), head.id), (("name",), head.name), *((("aliases", n), a) for n, a in enumerate(head.aliases))]
        for keys, name in spelt:
            other = owners.setdefault(normal(name), head.id)
            if other != head.id:
                right = f"Choose another name, or make one head type of '{other}' and '{head.id}'."
                yield place.problem(keys, f"'{name}' is a name of '{other}' too.", right)
            elif keys[0] == "aliases" and name.lower() in own:
                yield place.problem(keys, f"the alias '{name}' stands here twice.", "Take it out.")
            if keys[0] == "aliases":
                own.add(name.lower())
        if head.id in head.related:
            yield place.problem(("related",), "the head type is related to itself.", "Take it out of 'related'.")
        for key in ("papers", "related", "depth"):
            values = getattr(head, key)
            for position, value in enumerate(values):
                if value in values[:position]:
                    yield place.problem((key, position), f"'{value}' stands twice in {key}.", "Keep one.")


def orphans(catalogue: Catalogue) -> Iterator[Problem]:
    """Head types without a paper, dimensions without a head type; only to be asked where every file could be read."""
    named_by_papers = {id_ for paper in catalogue.papers.values() for id_ in paper.heads}
    for head in catalogue.heads.values():
        if head.id not in named_by_papers and not head.papers:
            place = catalogue.places["head type", head.id]
            yield place.problem(("papers",), "no paper names this head type.", "Add it to a paper's heads.")
    used = {(head.stage, head.dimension) for head in catalogue.heads.values()}
    for stage in catalogue.stages.values():
        for position, dimension in enumerate(stage.dimensions):
            if (stage.id, dimension.id) not in used:
                place = catalogue.places["stage", stage.id]
                wrong = f"no head type belongs to dimension '{dimension.id}'."
                yield place.problem(("dimensions", position), wrong, "Take the dimension out or place a head type.")
