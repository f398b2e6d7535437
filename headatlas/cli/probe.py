"""`headatlas probe MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end
from headatlas.errors import BadInput

runs = {
    "probing": "MODEL --task statements --label truth --group pair"
}  # methods of the catalogue that this carries out


def before(task: str | None, prompts: str | None, label: str | None) -> None:
    """Raise BadInput unless one source of labelled prompts is named."""
    sources.one_source(task=task, prompts=prompts)
    if task is not None and label is None:
        raise BadInput(f"Task {task} needs --label.", "Such as truth, which --task statements has.")


def probe(
    model: option.Model,
    prompts: Annotated[
        str | None, typer.Option(help="JSONL file: text, label, and group if wanted."), Check(sources.labelled)
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Built-in task whose prompts have labels, such as statements."), Check(check.task)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Which label to read off, such as truth; a file has 'label'.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Label of what must not be parted, such as pair; a file has 'group'.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="linear (logistic regression) or mlp (16 hidden units)."), Check(choices.PROBE.demand)
    ] = "linear",
    position: Annotated[
        str, typer.Option(help="Which position's outputs are read: end, or another of the task.")
    ] = "end",
    last: Annotated[
        int, typer.Option(help="Mean over so many tokens up to that position."), check.at_least(1, "tokens")
    ] = 1,
    heads: option.Heads = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    shuffles: Annotated[int, typer.Option(help="Control probes on shuffled labels.")] = 3,
    test: Annotated[float, typer.Option(help="Share of the groups held back from the ranking.")] = 0.2,
    n: option.N = 200,
    seed: Annotated[int, typer.Option(help="Seed of prompts and splits.")] = 0,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers of all heads as JSON.")] = False,
) -> None:
    """Which heads' outputs give a label away? Train a probe on each head, test it on prompts that it never saw.

    Example: headatlas probe smollm2-135m --task statements --label truth --group pair --position stop

    For Hoscilowicz et al. 2024: headatlas probe smollm2-135m --task statements --label truth --group pair --kind mlp --last 4
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.methods.probing import data_of

    given = ha.LabelledPrompts(task, prompts, label, group, n, seed)
    validation = ha.CrossValidation(folds, shuffles, test, seed)
    with Shown() as shown:
        found = ha.probe(
            ha.load(model, dtype=dtype, device=device), given, heads=heads or None, kind=kind, position=position,
            last=last, validation=validation, progress=shown,
        )  # fmt: skip
    data = data_of(found)
    if as_json:
        print_json(data)
        return
    from rich.table import Table

    from headatlas.render.console import console

    screen = console()
    screen.print(
        f"{kind} probes of {' / '.join(data['classes'])} on {found.n_examples} prompts in {data['n_groups']} groups, "
        f"{found.n_test} prompts held back",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    table = Table("head", "accuracy", "95% interval", "shuffled", "q", "held back", box=None, pad_edge=False)
    for line, held in found.top(top):
        kept = "" if held is None else f"{held:.2f}"
        interval = f"{line.low:.2f} to {line.high:.2f}"
        table.add_row(str(line.head), f"{line.score:.2f}", interval, f"{line.chance:.2f}", f"{line.q:.2g}", kept)
    screen.print(table)
    screen.print(
        f"{data['n_found']} of {len(found.heads)} heads tell the classes apart (q < 0.01). Accuracies are balanced over classes; "
        "the first rows are picked as the best, so trust the last column.",
        highlight=False,
        soft_wrap=True,
    )
    say_start_end(data)
