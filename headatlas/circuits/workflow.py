"""From a model and prompts to a circuit: find one and measure it on new prompts, test one, compare two."""

# ruff: noqa: PT028  (`test_circuit` is no test, though its name begins like one)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headatlas.catalogue.model_names import demand_model, identity_key
from headatlas.circuits.circuit import Circuit, Edge, parse_nodes
from headatlas.circuits.compare import compare
from headatlas.circuits.discover import discover
from headatlas.circuits.edges import measure_edges
from headatlas.circuits.evaluate import CircuitTest, Faithfulness, evaluate, faithfulness
from headatlas.circuits.knockout import Knockout, Protocol
from headatlas.circuits.published import from_catalogue, published
from headatlas.errors import BadInput
from headatlas.methods.options import RunOptions
from headatlas.methods.prompts import MeasuredPrompts, Prompts, prompts_for
from headatlas.methods.sweeps import checkpoint
from headatlas.methods.sweeps.ablation import reference_of
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.recognise import recognise
from headatlas.progress import Progress, Silent
from headatlas.store import partial_of, write_json
from headatlas.task import tasks


@dataclass(frozen=True)
class KnockoutOptions:
    """How heads outside a circuit are knocked out; `Protocol` is the same for prompts that are there.

    ablation: mean, resample or zero. mean: overall, position or template; default template where prompts have templates,
    else overall. reference: means are taken over so many other prompts of the task. ratio: ratio-of-means or
    mean-of-ratios.
    """

    ablation: str = "mean"
    mean: str | None = None
    reference: int = 200
    ratio: str = "ratio-of-means"

    def protocol(self, model: Model, given: MeasuredPrompts) -> Protocol:
        """The protocol for a model's prompts; other prompts are drawn with the next seed. Raises BadInput."""
        other = None
        if given.task is not None and self.ablation == "mean":
            other = reference_of(given.task, model.tokenizer, self.reference, given.seed)
        mean = self.mean or ("template" if "template" in given.batch.labels else "overall")
        return Protocol(self.ablation, mean, other, self.ratio)


@dataclass(frozen=True)
class FoundCircuit:
    """A circuit that was searched for, and how faithful it is on new prompts of the task; None without a task to draw from."""

    circuit: Circuit
    held_out: Faithfulness | None


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
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> FoundCircuit:
    """Find a small set of heads that does the task while all others are knocked out.

    A search fits the prompts it was made on: a circuit of a built-in task is then measured on new ones.

    positions: named positions at which heads may be part of it each on its own, such as "end s2"; default everywhere.
    method, target, largest: see `discover`. edges: measure what passes between its heads, too. options: memory, and the
    file that the circuit is written to. Raises BadInput, StoreError, UnknownName, UnsupportedModel.
    """
    options, progress = options or RunOptions(), progress or Silent()
    knockout = knockout or KnockoutOptions()
    given = prompts_for(model, batch, progress)
    protocol = knockout.protocol(model, given)
    search = Knockout(model, given.batch, given.metric, protocol, memory=options.bytes)
    named = positions if positions is None or isinstance(positions, str) else " ".join(positions)
    how = {"method": method, "target": target, "largest": largest, "circuit_positions": named}
    more = {**given.facts, **how, "reference": knockout.reference, "edges": edges}
    identity = checkpoint.facts_of(model, search.sweep, more)
    with checkpoint.file(options.out, identity) as search.store:
        each = tuple((named or "").replace(",", " ").split())
        found = discover(search, positions=each, method=method, target=target, largest=largest, progress=progress)
        links: tuple[Edge, ...] = ()
        if edges:
            place = partial_of(Path(options.out)) / "edges" if options.out is not None else None
            kept = RunOptions(options.memory, place)
            links, _ = measure_edges(model, given.batch, found.nodes, given.metric, options=kept, progress=progress)
        facts = {**identity, "reached": found.reached, "recovered": found.recovered, "tried": len(found.steps)}
        again = None
        if given.task is not None:
            seed = given.seed + 2  # the next one drew the prompts that means are taken over
            fresh = given.task(model.tokenizer, len(given.batch), seed)
            again = faithfulness(
                frozenset(found.nodes), Knockout(model, fresh, given.metric, protocol, memory=options.bytes)
            )
            facts["held_out"] = {"seed": seed, "recovered": vars(again.recovered), "share": vars(again.share)}
        name = f"{model.name} {given.name}"
        circuit = Circuit(name, given.name, found.nodes, links, model=model.name, facts=facts)
        if options.out is not None:
            circuit.save(options.out)
    return FoundCircuit(circuit, again)


def test_circuit(
    model: Model,
    circuit: Circuit | str | Path,
    batch: Inputs | Prompts | None = None,
    *,
    criteria: str | Sequence[str] = ("completeness", "minimality"),
    draws: int = 10,
    known_as: str | None = None,
    knockout: KnockoutOptions | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> CircuitTest:
    """Measure whether a circuit is enough (faithfulness), all there is (completeness) and all needed (minimality).

    circuit: one in memory, a file (ours or MIB's), heads such as "9.6@end 5.5", or an id of the catalogue. batch: other prompts
    than it was found on, so another seed; None: `circuit_prompts` of the circuit's own task. criteria: what is measured
    beside faithfulness; "none" for nothing. draws: random sets of heads. known_as: the model that `model` is a copy of,
    such as gpt2, where the circuit is of that. options: memory, and the file that the result is written to. Raises BadInput,
    StoreError, UnknownName.
    """
    options, progress = options or RunOptions(), progress or Silent()
    knockout = knockout or KnockoutOptions()
    tested = read_circuit(circuit, model, batch, known_as)
    given = prompts_for(model, circuit_prompts(tested) if batch is None else batch, progress)
    protocol = knockout.protocol(model, given)
    bench = Knockout(model, given.batch, given.metric, protocol, memory=options.bytes, progress=progress)
    identity = checkpoint.facts_of(model, bench.sweep, {**given.facts, "reference": knockout.reference})
    wanted = criteria.replace(",", " ").split() if isinstance(criteria, str) else list(criteria)
    wanted = [] if wanted == ["none"] else wanted
    with checkpoint.file(options.out, identity) as bench.store:
        found = evaluate(tested, bench, criteria=wanted, draws=draws, seed=given.seed, facts=identity)
        if options.out is not None:
            write_json(Path(options.out), found.data())
    return found


test_circuit.__test__ = False  # type: ignore[attr-defined]  # so that pytest leaves it alone where it is imported


def circuit_prompts(circuit: Circuit | str | Path, *, n: int = 32, seed: int = 3, force: bool = False) -> Prompts:
    """Prompts of the task that a circuit says it does; `find_circuit` draws with seed 0. Raises BadInput where that is no task."""
    circuit = _stored(circuit)
    if circuit.task not in tasks():
        why = circuit.facts.get("untested") or f"it is said to do '{circuit.task}', which is no built-in task"
        raise BadInput(
            f"There are no prompts to test '{circuit.name}' on: {why}.", "Name a task with --task, or --prompts FILE."
        )
    return Prompts(circuit.task, n=n, seed=seed, force=force)


def compare_circuits(
    found: Circuit | str | Path, reference: Circuit | str | Path, *, known_as: str | None = None
) -> dict[str, Any]:
    """How much two circuits of one model have in common: heads, heads at positions, edges (see `compare`).

    Each is a circuit in memory, a file, or an id of the catalogue. known_as: the model that `found` is of, such as gpt2,
    whatever the folder was called that it was found in. Raises BadInput, StoreError, UnknownName.
    """
    one = _stored(found)
    if known_as is not None:
        facts = {name: value for name, value in one.facts.items() if name != "sha256"}
        one = replace(one, model=demand_model(known_as).id, facts=facts)
    return compare(one, _stored(reference))


def read_circuit(
    circuit: Circuit | str | Path, model: Model, batch: Inputs | Prompts | None = None, known_as: str | None = None
) -> Circuit:
    """A circuit of this model: as it is, from a file, from heads as they are written, or from the catalogue.

    batch: the prompts of its task. known_as: see `test_circuit`. Raises BadInput for a circuit of another model, StoreError,
    UnknownName.
    """
    if isinstance(circuit, Circuit):
        return _of_this_model(circuit, circuit.name, model, known_as)
    text = str(circuit)
    if _is_file(text):
        return _of_this_model(Circuit.load(text), text, model, known_as)
    if text[:1].isdigit() or text[:1] == "L":
        task = batch.task or batch.prompts if isinstance(batch, Prompts) else None
        return Circuit(text, str(task or "prompts of one's own"), parse_nodes(text), model=model.name)
    return published(text, model, known_as)


def _of_this_model(circuit: Circuit, name: str, model: Model, known_as: str | None) -> Circuit:
    if circuit.model in (None, model.name):
        return circuit
    known = recognise(model, known_as)
    if known is None or known.key != identity_key(str(circuit.model)):
        raise BadInput(
            f"{name} is a circuit of {circuit.model}, not of {model.name}.",
            "Load that model, or say --as of which this is a copy.",
        )
    return replace(circuit, model=model.name)


def _stored(circuit: Circuit | str | Path) -> Circuit:
    if isinstance(circuit, Circuit):
        return circuit
    text = str(circuit)
    return Circuit.load(text) if _is_file(text) else from_catalogue(text)


def _is_file(text: str) -> bool:
    return text.endswith(".json") or Path(text).exists()
