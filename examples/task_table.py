"""Which tasks can a model do? The gate of each, on held-out items, as a table.

    python examples/task_table.py smollm2-135m --n 64 ioi movie-review icl-antonym

Without names, all tasks are tried, which takes a while.
"""

from __future__ import annotations

import argparse

import headatlas as ha
from headatlas.errors import HeadAtlasError
from headatlas.methods.sweeps.task_gate import gate_on_held_out
from headatlas.task import HELD_OUT, find_task, tasks


def row(model: ha.Model, name: str, n: int) -> str:
    """One line of the table: metric and accuracy next to those on the control, or why there are none."""
    task = find_task(name)
    try:
        gate = gate_on_held_out(model, task, n)
    except HeadAtlasError as error:
        return f"| {name} | {error.message} | | | | |"
    rates = ["", ""] if gate.accuracy is None else [f"{gate.accuracy:.2f}", f"{gate.chance:.2f}"]
    values = [gate.metric.name, f"{gate.value:.2f}", f"{gate.floor:.2f}", *rates, "yes" if gate.able else "no"]
    return f"| {name} | {' | '.join(values)} |"


def main() -> None:
    """Read the arguments and print the table line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--n", type=int, default=64, help="examples per task")
    given = parser.parse_intermixed_args()
    model = ha.load(given.model)
    print("| task | metric | value | on the control | accuracy | by chance | able |\n|---|---|---|---|---|---|---|")
    for name in given.tasks or [
        name for name, task in tasks().items() if not name.endswith(HELD_OUT) and task.metric is not None
    ]:
        print(row(model, name, given.n), flush=True)


if __name__ == "__main__":
    main()
