"""What toys give from seed to seed: trains what is missing, and writes the ranges into docs/toys.md.

    OMP_NUM_THREADS=1 python benchmarks/toy_seeds.py FOLDER [--toy NAME ...] [--seeds 3] [--most 10 --of repeated]
    python benchmarks/toy_seeds.py FOLDER --seeds 0      # what is trained already, whichever seeds these are
    python benchmarks/toy_seeds.py --check               # whether docs/toys.md says what docs/toys.json holds

FOLDER keeps each toy as NAME-SEED; an interrupted training goes on. The claims of every seed are kept in docs/toys.json. Half a
minute to two minutes of one core for each training.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from headatlas.lab.toys import read_toy, studies, train_toy
from headatlas.progress import PrintedProgress

DOCS = Path(__file__).parent.parent / "docs"
DATA, PAGE = DOCS / "toys.json", DOCS / "toys.md"
BEGIN, END = "<!-- ranges: written by benchmarks/toy_seeds.py -->", "<!-- end of ranges -->"
Known = dict[str, dict[str, dict[str, float | None]]]  # toy -> seed -> claim -> its number, None where it has none


def collected(folder: Path, known: Known) -> Known:
    """What is known with the claims of the toys in a folder, whose recipes are those of today."""
    found = {toy: dict(seeds) for toy, seeds in known.items()}
    for place in sorted(folder.iterdir()):
        if (place / "curve.json").is_file():
            study, seed = read_toy(place)
            data = json.loads((place / "curve.json").read_text(encoding="utf-8"))
            steps = {one.name: one.options.steps for one in study.variants}
            if {name: points[-1]["step"] for name, points in data["trainings"].items()} == steps:
                values = {claim["says"]: claim["value"] for claim in data["claims"]}
                found.setdefault(study.name, {})[str(seed)] = values
    return found


def table(known: Known) -> str:
    """Markdown: for each claim in how many seeds it holds, and the range of its number."""
    lines = ["| toy | seeds | claim | passed | numbers | bound |", "| --- | --- | --- | --: | --- | --- |"]
    for name, study in studies().items():
        seeds = known.get(name, {})
        for claim in study.claims:
            values = [one.get(claim.says) for one in seeds.values()]
            passed = sum(value is not None and claim.least <= value <= claim.most for value in values)
            told = sorted(value for value in values if value is not None)
            numbers = f"{told[0]:.3g}" + (f" to {told[-1]:.3g}" if told[-1] != told[0] else "") if told else ""
            never = len(values) - len(told)
            numbers = "; ".join(part for part in (numbers, f"never in {never}" if never else "") if part)
            listed = _seeds(sorted(map(int, seeds)))
            lines.append(
                f"| `{name}` | {listed} | {claim.says} | {passed} of {len(values)} | {numbers} | {claim.bound} |"
            )
    return "\n".join(lines)


def _seeds(seeds: list[int]) -> str:
    whole = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds)) or "not run"


def written(page: str, known: Known) -> str:
    """The page with the table of these numbers between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(known)}\n\n{END}{after}"


def faults(known: Known, page: str) -> list[str]:
    """What is wrong with the kept numbers and the page: claims that no study makes, and another table."""
    found = []
    for toy, seeds in known.items():
        claims = {claim.says for claim in studies()[toy].claims}
        found += [
            f"{toy}, seed {seed}: other claims than the study's"
            for seed, values in seeds.items()
            if set(values) != claims
        ]
    if page != written(page, known):
        found.append(
            "docs/toys.md has another table than docs/toys.json gives; run benchmarks/toy_seeds.py FOLDER --seeds 0"
        )
    return found


def main() -> None:
    """Train, collect, write; or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--toy", action="append", choices=list(studies()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--of", default="repeated", choices=list(studies()), help="the toy that gets --most seeds")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    known: Any = json.loads(DATA.read_text(encoding="utf-8")) if DATA.is_file() else {}
    page = PAGE.read_text(encoding="utf-8")
    if given.check:
        wrong = faults(known, page)
        sys.exit("\n".join(wrong) or None)
    if given.folder is None:
        parser.error("name a folder that keeps the trained toys")
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.toy or studies():
        for seed in range(max(given.seeds, given.most if name == given.of and given.seeds else 0)):
            if not (given.folder / f"{name}-{seed}").exists():
                train_toy(name, seed=seed, out=given.folder / f"{name}-{seed}", progress=PrintedProgress())
    known = collected(given.folder, known)
    order = {toy: dict(sorted(known[toy].items(), key=lambda one: int(one[0]))) for toy in sorted(known)}
    DATA.write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(written(page, known), encoding="utf-8")
    print(table(known))


if __name__ == "__main__":
    main()
