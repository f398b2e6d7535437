"""Arguments and options that several commands take, each with its text once."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.choices import DEVICE_MAP, DTYPE, ENGINE, demand_metric
from headatlas.cli import _checks as check
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check

Model = Annotated[
    str,
    typer.Argument(
        help="Hub id (org/name@revision), local folder, .gguf file or built-in model (headatlas list models)."
    ),
    Check(check.model),
]
KnownAs = Annotated[
    str | None,
    typer.Option("--as", help="The model of the literature that this is a copy of, such as gpt2."),
    Check(check.known_model),
]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub model.")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1 ...; default: cuda where there is one."),
    Check(check.device),
]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16."), Check(DTYPE.demand)]

DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", help="auto: spread the weights over every CUDA device, main memory, then the disk."),
    Check(DEVICE_MAP.demand),
]
WeightMemory = Annotated[
    str | None,
    typer.Option(
        "--weight-memory", help="Weights that main memory may hold, such as 4GB; others are read from disk when used."
    ),
    Check(check.memory),
]

# What is measured on: a built-in task or the user's own prompts; in pairs where values go from one prompt to another.
Task = Annotated[str | None, typer.Option("--task", help="Built-in task (headatlas list tasks)."), Check(check.task)]
PairedTask = Annotated[
    str | None,
    typer.Option("--task", help="Built-in task with counterfactual prompts, such as ioi."),
    Check(check.task),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        help="File of your prompts (.jsonl, .json, .csv, .tsv, .parquet): prompt; answer, wrong, spans if wanted.",
    ),
    Check(sources.measurable),
]
PairedPrompts = Annotated[
    str | None,
    typer.Option("--prompts", help="File of your prompts: prompt, counterfactual; answer, wrong, spans if wanted."),
    Check(sources.pairs),
]
Text = Annotated[
    list[str] | None,
    typer.Option("--text", help="A text of your own, taken exactly as it is; may be given several times."),
    Check(sources.text),
]
Chat = Annotated[
    str | None,
    typer.Option("--chat", help="JSON file of messages with role and content, written by the model's own template."),
    Check(sources.chats),
]
Counterfactual = Annotated[
    list[str] | None,
    typer.Option(
        "--counterfactual",
        help="For each --text the same with the deciding words changed; with --chat, the file of those chats.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="kl, logit-difference, log-probability, rank, accuracy ...; default: the task's own, else by the answers there are.",
    ),
    Check(demand_metric),
]
TextPrompts = Annotated[
    str | None,
    typer.Option(
        "--prompts", help="File of your prompts (.jsonl, .json, .csv, .tsv, .parquet): prompt; or text, label."
    ),
    Check(sources.prompts),
]
N = Annotated[int, typer.Option("--n", help="Prompts of a built-in task."), check.at_least(1, "prompts")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the prompts.")]
Force = Annotated[bool, typer.Option("--force", help="Go on although the model cannot do the task.")]
PerTask = Annotated[int, typer.Option("--n", help="Examples per task."), check.at_least(4, "examples")]
SeedOfExamples = Annotated[int, typer.Option("--seed", help="Seed of the examples.")]
SeedOfTraining = Annotated[int, typer.Option("--seed", help="Seed of weights and data.")]
OtherWeights = Annotated[bool, typer.Option("--force", help="Take a recipe of other weights of the same shape.")]

# What is looked at.
Detectors = Annotated[
    list[str] | None,
    typer.Option("--detector", help="Only this detector; may be given several times."),
    Check(check.detector),
]
Heads = Annotated[
    str | None,
    typer.Option("--heads", help="Only these heads, such as '9.6 9.9'; default: every head."),
    Check(check.heads),
]
Positions = Annotated[
    str, typer.Option("--positions", help="all, end, each, or a named position of the task or a span of the file.")
]
Triage = Annotated[
    int | None,
    typer.Option("--triage", help="Measure only the K changes that a gradient ranks highest."),
    check.at_least(1, "changes"),
]

# What it may cost, and where the result goes.
Memory = Annotated[
    str, typer.Option("--memory", help="Memory that may be used beside the weights."), Check(check.memory)
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="local: this program; ray: worker processes, each with the model (pip install 'headatlas[ray]').",
    ),
    Check(ENGINE.demand),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes of --engine ray; default: one for each --threads processors."),
    check.at_least(1, "workers"),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Threads of each piece of work; default: 4 at most (ray), torch's choice (local)."),
    check.at_least(1, "threads"),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Join this Ray cluster (auto, host:port) instead of starting one here.")
]
EffectsOut = Annotated[
    str | None,
    typer.Option("--out", help="Folder to keep the result in; interrupted runs go on from there."),
    Check(check.folder),
]
EffectsJson = Annotated[bool, typer.Option("--json", help="Print effects.json instead of the table.")]
NEW_FOLDER = typer.Option("--out", help="Folder to write; must not exist.")  # asked for by some, required by others
Top = Annotated[int, typer.Option("--top", help="Rows of the table."), check.at_least(1, "rows")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# Of what a model reads at length.
Corpus = Annotated[
    str | None,
    typer.Option(
        "--corpus", help="Text file, table with a column 'text', folder, or Hub data set; default: bundled prose."
    ),
    Check(sources.corpus),
]
CorpusTokens = Annotated[
    int, typer.Option("--tokens", help="Tokens of it that are read."), check.at_least(16, "tokens")
]
WindowLength = Annotated[
    int | None,
    typer.Option("--length", help="Tokens of a window; default 512, at most what the model reads."),
    check.at_least(20, "tokens"),
]
Every = Annotated[
    int, typer.Option("--every", help="One in so many positions is a sampled query."), check.at_least(1, "positions")
]
EventSample = Annotated[
    int, typer.Option("--sample", help="Random events kept of each head."), check.at_least(64, "events")
]
