"""From a model and prompts to a circuit: found on half of them, judged on the other half, measured on new ones, and doubted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headatlas.choices import CIRCUIT_RIVAL
from headatlas.circuits.circuit import Circuit, Edge, Node
from headatlas.circuits.compare import Overlap
from headatlas.circuits.discover import Discovery, discover, halves, recovered
from headatlas.circuits.edge_pruning import eap_ig, edge_curve
from headatlas.circuits.edges import measure_edges
from headatlas.circuits.evaluate import Faithfulness, faithfulness
from headatlas.circuits.knockout import Knockout
from headatlas.circuits.mib import SHARES, Shape, cpr_and_cmd
from headatlas.circuits.workflow import KnockoutOptions
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.methods.options import RunOptions
from headatlas.methods.prompts import MeasuredPrompts, Prompts, prompts_for
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.plan import ChunkStore
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.given import demand_numbers
from headatlas.model.structure.blocks import blocks_of
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.store import partial_of
from headatlas.task import Batch

FURTHER = 100  # what is added to the seed of the prompts for searches beside the first


@dataclass(frozen=True)
class SearchOptions(RunOptions):
    """How a search for a circuit is run, and how it is doubted.

    seeds: how many searches are made, each on other prompts of the task (of prompts of one's own, with other halves of them); how
    much their heads have in common is reported. rival: what the circuit is compared with at the same number of heads: "eap-ig", the
    heads of the edges that EAP-IG ranks highest; "none".
    """

    seeds: int = 2
    rival: str = "none"

    def __post_init__(self) -> None:
        demand_numbers(self)
        super().__post_init__()
        if self.seeds < 1:
            raise BadInput(
                f"{self.seeds} searches find nothing.", "Give --seeds 1 or more; 2 or more say how stable it is."
            )
        CIRCUIT_RIVAL.demand(self.rival)


@dataclass(frozen=True)
class FoundCircuit:
    """A circuit that was searched for, and how faithful it is on new prompts of the task; None without a task to draw from.

    `circuit.facts` has the rest: "recovered" and "judged" on the halves that found and judged it, "curve" and "monotone" of its
    growth, "stability" (Jaccard of the heads of all searches, mean over pairs), "mib" (CPR and CMD of the ranking of nodes), "rival".
    """

    circuit: Circuit
    held_out: Faithfulness | None

    def __repr__(self) -> str:
        again = (
            "not measured on others" if self.held_out is None else f"{self.held_out.recovered.value:.1%} on new prompts"
        )
        return f"FoundCircuit({self.circuit!r}; recovers {self.circuit.facts['recovered']:.1%}, {again})"


def find_circuit(
    model: Model,
    batch: Inputs | Prompts,
    *,
    positions: str | Sequence[str] | None = None,
    method: str = "attribution",
    target: float = 0.9,
    largest: int | None = None,
    edges: bool = False,
    knockout: KnockoutOptions | None = None,
    options: RunOptions | SearchOptions | None = None,
    progress: Progress | None = None,
) -> FoundCircuit:
    """Find a small set of heads that does the task while all others are knocked out.

    One half of the prompts finds, the other judges; a circuit of a built-in task is then measured on new ones, and that is
    the number to quote.

    positions: named positions at which heads may be part of it each on its own, such as "end s2"; default everywhere.
    method, target, largest: see `discover`. edges: measure what passes between its heads, too. options: memory, the file that
    the circuit is written to, and what else is asked (`SearchOptions`). Raises BadInput, StoreError, UnknownName,
    UnsupportedModel.
    """
    options, progress = options or SearchOptions(), progress or Silent()
    asked = options if isinstance(options, SearchOptions) else SearchOptions(options.memory, options.out)
    knockout = knockout or KnockoutOptions()
    given = prompts_for(model, batch, progress)
    search = _Searches(model, given, knockout, asked)
    named = positions if positions is None or isinstance(positions, str) else " ".join(positions)
    how = {"method": method, "target": target, "largest": largest, "circuit_positions": named}
    extra = {"reference": knockout.reference, "edges": edges, "seeds": asked.seeds, "compared_with": asked.rival}
    identity = checkpoint.facts_of(model, search.first.sweep, {**given.facts, **how, **extra})
    with checkpoint.file(options.out, identity) as search.first.store:
        each = tuple((named or "").replace(",", " ").split())
        ask: dict[str, Any] = {"positions": each, "method": method, "target": target, "largest": largest}
        found = discover(search.first, **ask, progress=progress)
        links: tuple[Edge, ...] = ()
        if edges:
            place = partial_of(Path(options.out)) / "edges" if options.out is not None else None
            kept = RunOptions(options.memory, place)
            links, _ = measure_edges(model, given.batch, found.nodes, given.metric, options=kept, progress=progress)
        facts = {**identity, **_growth(found)}
        again, bench = None, search.first
        rows: Array | None = search.judging
        if given.task is not None:
            seed = given.seed + 2  # the next one drew the prompts that means are taken over
            bench, rows = search.on(given.task(model.tokenizer, len(given.batch), seed), "held out"), None
            again = faithfulness(frozenset(found.nodes), bench)
            facts["held_out"] = {"seed": seed, "recovered": vars(again.recovered), "share": vars(again.share)}
        facts["mib"] = _mib(found, bench, rows)
        if asked.seeds > 1:
            facts["stability"] = search.stability(found, ask, progress)
        if asked.rival == "eap-ig":
            facts["rival"] = search.rival(found, bench, rows, progress)
        facts |= _shape(model)
        name = f"{model.name} {given.name}"
        circuit = Circuit(name, given.name, found.nodes, links, model=model.name, facts=facts)
        if options.out is not None:
            circuit.save(options.out)
    return FoundCircuit(circuit, again)


class _Searches:
    """The first search's prompts, and others that are like them."""

    def __init__(self, model: Model, given: MeasuredPrompts, knockout: KnockoutOptions, asked: SearchOptions) -> None:
        self.model, self.given, self.knockout, self.asked = model, given, knockout, asked
        self.protocol = knockout.protocol(model, given)
        self.first = Knockout(model, given.batch, given.metric, self.protocol, memory=asked.bytes)
        self.finding, self.judging = halves(len(given.batch))

    def on(self, batch: Batch, name: str) -> Knockout:
        """The same measurement on other prompts, whose values are kept under a name of their own."""
        store = _Part(self.first.store, name)
        return Knockout(self.model, batch, self.given.metric, self.protocol, memory=self.asked.bytes, store=store)

    def stability(self, found: Discovery, ask: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """The heads of all searches, and how much two of them have in common on average."""
        sets = [sorted({node.head for node in found.nodes})]
        for number in range(1, self.asked.seeds):
            progress.say(f"Search {number + 1} of {self.asked.seeds}, to see how stable the circuit is.")
            bench, split = self.first, number
            if self.given.task is not None:
                seed = self.given.seed + FURTHER + number
                bench, split = (
                    self.on(self.given.task(self.model.tokenizer, len(self.given.batch), seed), f"seed {seed}"),
                    0,
                )
            other = discover(bench, **ask, split=split, progress=progress)
            sets.append(sorted({node.head for node in other.nodes}))
        shared = [Overlap.of(one, other).jaccard or 0.0 for one, other in itertools.combinations(sets, 2)]
        return {
            "searches": len(sets),
            "drawn": "other halves of the prompts" if self.given.task is None else "other prompts of the task",
            "jaccard": float(np.mean(shared)),
            "heads": [[str(head) for head in heads] for heads in sets],
        }

    def rival(self, found: Discovery, bench: Knockout, rows: Array | None, progress: Progress) -> dict[str, Any]:
        """The heads of EAP-IG's edges, as many as the circuit has, and what both recover where neither was found; what the edges do alone."""
        heads = {node.head for node in found.nodes}
        options = RunOptions(self.asked.memory)
        given = self.given
        ranked = eap_ig(self.model, given.batch, given.metric, rows=self.finding, options=options, progress=progress)
        other = ranked.pruned(len(heads))
        fresh = bench.batch if rows is None else bench.batch.rows(rows.tolist())
        curve = edge_curve(self.model, fresh, given.metric, ranked, progress=progress)
        nodes = [Node(head) for head in other.heads]
        mine, theirs = recovered(bench, [[Node(head) for head in sorted(heads)], nodes], rows)
        return {
            "method": "eap-ig",
            "edges": other.edges,
            "edges_alone": curve._asdict(),
            "heads": [str(head) for head in other.heads],
            "recovered": vars(theirs),
            "recovered_by_the_circuit_everywhere": vars(mine),
            "jaccard": Overlap.of(heads, set(other.heads)).jaccard,
        }


class _Part:
    """A store of pieces under names that begin with one word."""

    def __init__(self, store: ChunkStore, name: str) -> None:
        self.store, self.name = store, name.replace(" ", "-")

    def get(self, name: str) -> Array | None:
        """The piece of this name."""
        return self.store.get(f"{self.name}-{name}")

    def put(self, name: str, values: Array) -> None:
        """Keep a piece."""
        self.store.put(f"{self.name}-{name}", values)


def _growth(found: Discovery) -> dict[str, Any]:
    curve = [{"size": step.size, "found": step.found.value, **vars(step.judged)} for step in found.curve]
    return {
        "reached": found.reached,
        "recovered": found.recovered.value,
        "judged": vars(found.judged),
        "tried": found.tried,
        "curve": curve,
        "monotone": found.monotone,
        "effects": {f"a{node.head.layer}.h{node.head.head}": effect
                    for node, effect in zip(found.ranking, found.effects, strict=True) if node.position is None},
    }  # fmt: skip


def _mib(found: Discovery, bench: Knockout, rows: Array | None) -> dict[str, Any]:
    """CPR and CMD over the ranking that the search began with; of heads, with MLPs in place, where the benchmark has edges."""
    sizes = [int(share * len(found.ranking)) for share in SHARES]
    circuits = recovered(bench, [found.ranking[:size] for size in sizes], rows)
    values = [one.value for one in circuits]
    cpr, cmd = cpr_and_cmd(SHARES, values)
    return {"cpr": cpr, "cmd": cmd, "parts": "heads, MLPs in place", "sizes": sizes, "recovered": values}


def _shape(model: Model) -> dict[str, Any]:
    """The facts that a file of the benchmark needs; nothing for models that its format has no words for."""
    heads = {layer.n_heads for layer in model.layers}
    if len(model.stacks) != 1 or len(heads) != 1:
        return {}
    try:
        mlps = [block.mlp for block in blocks_of(model)]
    except UnsupportedModel:
        return {}
    parallel = all(mlp is not None and mlp.reader is None for mlp in mlps)
    return {"shape": Shape(model.n_layers, heads.pop(), model.d_model, parallel)._asdict()}
