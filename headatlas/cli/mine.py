"""`headatlas mine MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.choices import demand_engine
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.errors import BadInput
from headatlas.render.escape import say

library = ("headatlas.mine", "headatlas.engines.choosing.engine")
runs = {"scoring": "MODEL"}  # methods of the catalogue that this carries out


def before(
    model: str,
    revision: str | None,
    task: list[str] | None,
    text: list[str] | None,
    chat: str | None,
    prompts: str | None,
    metric: str | None,
    engine: str,
    workers: int | None,
    threads: int | None,
    address: str | None,
) -> None:
    """Raise BadInput where the engine cannot be told what it is told, and where prompts of one's own are named twice, stand beside built-in tasks, or are too few."""
    check.model(model, revision)
    demand_engine(engine, workers, threads, address)
    own = {"text": text, "chat": chat, "prompts": prompts}
    if task or any(own.values()):
        sources.one_source(**own, task=task)
    sources.demand_enough(text, chat, prompts)
    if metric is not None and not any(own.values()):
        raise BadInput("--metric is for prompts of your own; built-in tasks have theirs.", "Add --prompts FILE.")


def mine(
    model: option.Model,
    detector: option.Detectors = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Only the detectors of this task, or that can be asked on it (needle-4096); may be given several times."
        ),
        Check(check.task),
    ] = None,
    text: option.Text = None,
    chat: option.Chat = None,
    prompts: option.Prompts = None,
    metric: option.Metric = None,
    n: option.PerTask = 32,
    seed: Annotated[int, typer.Option(help="Seed of examples and random controls.")] = 0,
    no_verdict: Annotated[bool, typer.Option("--no-verdict", help="Leave the causal tests out.")] = False,
    verdict_n: Annotated[
        int | None,
        typer.Option(help="Held-out examples that verdicts rest on; default 8, more where texts are short."),
        check.number("number of examples that verdicts rest on", 4, 64),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Run folder; default atlas/<model>/<run-id>/."), Check(check.folder)
    ] = None,
    checks: Annotated[
        str | None,
        typer.Option(
            help="What else is asked of each verdict: removals, same-answer, transfer, relation, prompts (these are the default), "
            "twin, shuffled, with commas between them; or all, or none."
        ),
        Check(check.checks),
    ] = None,
    twin: Annotated[
        bool, typer.Option("--twin", help="Also count what the detectors find in an untrained model of the same shape.")
    ] = False,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Also count what they find with the attention weights in random order.")
    ] = False,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    device_map: option.DeviceMap = None,
    weight_memory: option.WeightMemory = None,
    revision: option.Revision = None,
    bos: Annotated[
        str, typer.Option(help="Start token in front of each text: auto, none, or a token such as '<|endoftext|>'.")
    ] = "auto",
    engine: option.Engine = "local",
    workers: option.Workers = None,
    threads: option.Threads = None,
    address: option.Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print atlas.json instead of the map.")] = False,
) -> None:
    """Score every attention head of a model for every known kind of head, judge what is observed, and write a report.

    Interrupted runs go on from the last finished task when the same command is given again. --prompts, --text and --chat (8
    prompts or more) are a task of your own, on which every detector is asked that can read it.

    Example: headatlas mine smollm2-135m --detector induction --detector previous-token
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.mining.checks.critics import chosen
    from headatlas.mining.known_runs import Asked
    from headatlas.render.console import console

    wanted = [*chosen(checks), *(name for name, given in (("twin", twin), ("shuffled", shuffled)) if given)]
    own = ha.Prompts(prompts=prompts, text=text or (), chat=chat, metric=metric) if text or chat or prompts else None
    asked = Asked(
        model,
        revision,
        dtype,
        device,
        bos,
        tuple(detector or ()),
        tuple(task or ()),
        n,
        seed,
        not no_verdict,
        verdict_n,
        tuple(wanted),
        out,
        own=own,
    )
    with Shown() as shown:
        known = asked.finished()
        if known is not None:
            shown.say(f"{known} holds this run already; the model was not opened.")
            atlas = ha.Atlas(known)
        else:
            shown.say(f"Loading {model} ...")
            loaded = ha.load(
                model, revision=revision, dtype=dtype, device=device, bos=bos, device_map=device_map,
                weight_memory=weight_memory,
            )  # fmt: skip
            shown.say(f"{loaded.architecture}: {len(loaded.heads)} heads, {loaded.tokenizer.bos_policy}")
            with ha.engine(engine, workers=workers, threads=threads, address=address):
                atlas = ha.mine(
                    loaded,
                    detector or None,
                    tasks=own or task or None,
                    n=n,
                    seed=seed,
                    verdict=not no_verdict,
                    verdict_n=verdict_n,
                    checks=wanted,
                    out=out,
                    progress=shown,
                )
            asked.keep(atlas.run)
    if as_json:
        print_json(atlas.data)
        return
    screen = console()
    screen.print(ha.show(atlas.run, width=screen.width))
    say(f"Report: {(atlas.run / 'report.html').resolve()}")
