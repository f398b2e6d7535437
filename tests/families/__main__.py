"""Every row against the oracle, one line of JSON each: `python -m tests.families [--out FILE] [--part I/N] [ROW ...]`."""

from __future__ import annotations

import argparse
import json
import signal
import warnings
from pathlib import Path

import torch
import transformers

from headatlas.model.families.build import family_row, family_rows
from tests.families.oracle import Verdict, judge

SECONDS = 150  # for one row


class TooLong(BaseException):
    """A row took longer than it may."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("families.jsonl"))
    parser.add_argument("--part", default="0/1", help="which part of the rows, such as 0/2")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    rows = [family_row(name) for name in given.rows] if given.rows else list(family_rows())[part::parts]
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)

    def ring(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    with given.out.open("a", encoding="utf-8") as out:
        for row in rows:
            signal.alarm(SECONDS)
            try:
                verdict = judge(row)
            except TooLong:
                verdict = Verdict(row.name, "crash", f"took longer than {SECONDS} s")
            finally:
                signal.alarm(0)
            out.write(json.dumps(verdict.as_json(), default=str) + "\n")
            out.flush()
            print(verdict.row, verdict.status, verdict.seconds, verdict.why[:300], flush=True)


if __name__ == "__main__":
    main()
