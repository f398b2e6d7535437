"""What `ablate`, `patch` and `path` share: prompts, the task gate, progress and the printed table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.methods.sweeps.effects import HeadEffects
    from headatlas.task import Metric


def prompts_of(
    model: ha.Model, task: str | None, file: str | None, n: int, seed: int
) -> tuple[ha.Batch, Metric, dict[str, Any], Callable[[], Any]]:
    """The batch, its metric, facts about both, and the gate to pass; raises BadInput unless exactly one source is given."""
    from pathlib import Path

    from headatlas.errors import BadInput
    from headatlas.methods.sweeps.task_gate import gate_of_prompts, gate_on_held_out
    from headatlas.prompts_file import read_prompts
    from headatlas.task import find_task, logit_difference

    if (task is None) == (file is None):
        raise BadInput(
            "Say what the prompts are.", "Give either --task NAME (headatlas list tasks) or --prompts FILE.jsonl."
        )
    if file is not None:
        batch = read_prompts(file, model.tokenizer)
        if "answer" not in batch.labels:
            raise BadInput(
                f"{file} has labelled texts, and no answers to measure.", 'Lines need "clean", "answer", "wrong".'
            )
        facts = {"prompts_file": Path(file).name, "n": len(batch)}
        return batch, logit_difference, facts, lambda: gate_of_prompts(model, batch, logit_difference)
    found = find_task(str(task))
    batch = found(model.tokenizer, n, seed)
    if found.metric is None:
        raise BadInput(f"Task {found.name} has no metric, so no effects can be measured on it.", "Choose another task.")
    facts = {"task": found.name, "task_version": found.version, "n": n, "seed": seed}
    return batch, found.metric, facts, lambda: gate_on_held_out(model, found, seed=seed)


def pass_gate(shown: Shown, model: ha.Model, gate: Callable[[], Any], what: str, force: bool) -> None:
    """Say how well the model does the task; refuse one it cannot do unless forced."""
    found = gate()
    shown.say(f"{what}: {found.metric.name} {found.value:.2f} {found.metric.unit}, floor {found.floor:.2f}")
    if not force:
        found.demand(model, what)


def counter(shown: Shown, step: str) -> Callable[[int, int], None]:
    """Progress in the form that sweeps report it."""
    done = 0

    def tick(now: int, total: int) -> None:
        nonlocal done
        if now > done:
            shown.advance(step, now - done, of=total)
            done = now

    return tick


def show(found: HeadEffects, *, top: int, as_json: bool, out: str | None) -> None:
    """Print the result."""
    from headatlas.methods.sweeps.effects_io import data_of

    data = data_of(found)
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
        return
    console = Console()
    run = data["run"]
    other = (
        ""
        if data["metric"]["other_run"] is None
        else f", of the run values came from {data['metric']['other_run']:.3f}"
    )
    console.print(
        f"{found.kind} on {data['n_examples']} prompts: {run['metric']} of the changed run without change "
        f"{data['metric']['changed_run']:.3f} {run['unit']}{other}",
        highlight=False,
        soft_wrap=True,
    )
    paths = "receivers" in run
    names = ("heads", "receiver" if paths else "position", "effect", "95% interval", "p", "q", "share")
    table = Table(*names, box=None, pad_edge=False)
    for line in found.top(top):
        interval = f"{line.low:+.3f} to {line.high:+.3f}"
        share = "" if math.isnan(line.share) else f"{line.share:+.1%}"
        table.add_row(
            line.name, line.position, f"{line.effect:+.3f}", interval, f"{line.p:.2g}", f"{line.q:.2g}", share
        )
    console.print(table)
    left = f"; {found.unmeasured} left unmeasured, rank agreement {found.agreement():.2f}" if found.unmeasured else ""
    if paths:  # nothing was left out
        left = f"; {found.unmeasured} senders do not come before their receiver" if found.unmeasured else ""
    console.print(
        f"{data['measured']} changes measured exactly in {run['forwards']:.1f} whole runs' worth, {run['seconds']:.1f} s{left}",
        highlight=False,
        soft_wrap=True,
    )
    for note in run["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    if out is not None:
        console.print(f"Kept in {out}", highlight=False, soft_wrap=True)
