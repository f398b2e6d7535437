"""Over seeds of one toy: do detectors name the heads that do their layer's work, and do these form while the loss falls?

    OMP_NUM_THREADS=1 python benchmarks/toy_truth.py [--toy repeated] [--seeds 10] [--steps N]
    OMP_NUM_THREADS=1 python benchmarks/toy_truth.py toys/repeated-0 toys/repeated-1 ...

A row for each head, and the table of docs/calibration.md. One to two minutes of one core for each seed; seconds for a toy that
is trained already.
"""

from __future__ import annotations

import argparse

from headatlas.lab.calibration_page import toys_section
from headatlas.lab.toy.truth import SeedTruth, rates, truth_in, truth_of
from headatlas.progress import PrintedProgress


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", help="trained toys; without them, toys are trained")
    parser.add_argument("--toy", default="repeated")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    done: list[SeedTruth] = []
    print(
        "| seed | head | detector | alone | passes | forms | loss falls |\n| --: | --- | --- | --: | --- | --- | --- |"
    )
    for one in given.folders or range(given.seeds):  # one by one, so that what is done is printed
        if given.folders:
            found = truth_in(one)
        else:
            (found,) = truth_of(given.toy, [one], steps=given.steps, progress=PrintedProgress())
        done.append(found)
        fell = f"{found.drop.begins} to {found.drop.ends}" if found.drop else ""
        for one in found.heads:
            formed = "" if one.born is None else f"{one.low} to {'never' if one.high is None else one.high}"
            told = "yes" if one.passes else "no"
            print(
                f"| {found.seed} | {one.head} | {one.detector} | {one.alone:.2f} | {told} | {formed} | {fell} |",
                flush=True,
            )
    print("", *toys_section(rates(done)), sep="\n")


if __name__ == "__main__":
    main()
