"""What building the site of a large catalogue costs: ours filled up with synthetic papers, at two sizes.

    python benchmarks/papers_site.py [--papers 2000] [--against OTHER_CHECKOUT] [--json]

--against: the root of another checkout of headatlas, whose site of the same papers is built too; its seconds are the
ratio's 1. The rows at half the size say how the time grows: twice the papers should take twice as long.
"""

from __future__ import annotations

import argparse
import functools
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from _measure import measure, report

OURS = Path(__file__).parents[1]
_WORDS = "signal carries earlier tokens across layers while later ones wait for a name to be copied or suppressed"


def fill(folder: Path, n_papers: int) -> Path:
    """A copy of our catalogue with papers added until there are `n_papers`: like ours, under new names and dates."""
    shutil.copytree(OURS / "headatlas" / "catalogue" / "data", folder)
    ours = [yaml.safe_load(path.read_text("utf-8")) for path in sorted((folder / "papers").glob("*.yaml"))]
    draw = random.Random(0)
    for number in range(n_papers - len(ours)):
        like = draw.choice(ours)
        title = " ".join(draw.sample(_WORDS.split(), 9))
        paper = {
            "id": f"synthetic-{number:05d}",
            "title": f"{title.capitalize()} {number}",
            "authors": [f"{draw.choice('ABCDEFG')}. Writer{draw.randrange(3000)}" for _ in range(4)],
            "date": f"{(year := draw.randint(2023, 2025))}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}",
            "section": str(year),
            "links": [{"kind": "paper", "url": f"https://example.org/{number}"}],
            **{key: like[key] for key in ("venue", "heads", "tags", "methods", "models", "benchmarks", "summary") if key in like},
        }  # fmt: skip
        path = folder / "papers" / f"{paper['id']}.yaml"
        path.write_text(yaml.safe_dump(paper, sort_keys=False), encoding="utf-8")
    return folder


def site(root: Path, data: Path, out: Path) -> Callable[[], object]:
    """`headatlas papers site` of the checkout at `root`, from reading the files to the last page written."""
    sys.path.insert(0, str(root))
    import headatlas
    from headatlas.cli.papers.site import site as command

    assert Path(headatlas.__file__).is_relative_to(root), f"{headatlas.__file__} is not of {root}"
    return lambda: command(out, data=data)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--papers", type=int, default=2000)
    parser.add_argument("--against", type=Path, help="root of another checkout of headatlas")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        works: dict[str, Callable[[], Callable[[], object]]] = {}
        for n_papers in (arguments.papers, arguments.papers // 2):
            data = fill(Path(folder) / f"data-{n_papers}", n_papers)
            roots = {"other": arguments.against.resolve()} if arguments.against else {}
            for name, root in (roots | {"this": OURS}).items():
                out = Path(folder) / f"site-{name}-{n_papers}"
                works[f"{n_papers} papers, {name} checkout"] = functools.partial(site, root, data, out)
        report(measure(works, repeats=arguments.repeats), as_json=arguments.json)


if __name__ == "__main__":
    main()
