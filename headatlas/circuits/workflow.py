"""Circuits that there are: test one on new prompts, compare two, read and write the files that hold them."""

# ruff: noqa: PT028  (`test_circuit` is no test, though its name begins like one)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headatlas.catalogue.model_names import demand_model, identity_key
from headatlas.circuits.circuit import HELP, Circuit, parse_nodes
from headatlas.circuits.compare import compare
from headatlas.circuits.evaluate import CircuitTest, evaluate
from headatlas.circuits.knockout import Knockout, Protocol
from headatlas.circuits.mib import is_mib, mib_data, parse_shape, read_mib
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
from headatlas.reading import Source, read_json
from headatlas.renamed import old_names
from headatlas.store import write_json
from headatlas.task import find_task, tasks


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
        return _of_this_model(_read(text), text, model, known_as)
    if text[:1].isdigit() or text[:1] in ("L", "*") or text[:8] == "encoder:":
        task = batch.task or batch.prompts if isinstance(batch, Prompts) else None
        return Circuit(text, str(task or "prompts of one's own"), parse_nodes(text, model.heads), model=model.name)
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
    return _read(text) if _is_file(text) else from_catalogue(text)


def _is_file(text: str) -> bool:
    return text.endswith(".json") or Path(text).exists()


def _read(text: str) -> Circuit:
    """A circuit's file, ours or one of the Mechanistic Interpretability Benchmark."""
    return read_mib(text) if is_mib(read_json(Source(Path(text), HELP))) else Circuit.load(text)


def convert_circuit(
    circuit: Circuit | str | Path,
    out: str | Path | None = None,
    *,
    task: str | None = None,
    known_as: str | None = None,
    shape: str | None = None,
) -> dict[str, Any]:
    """A file of the Mechanistic Interpretability Benchmark as a circuit of ours, or a circuit as such a file; the content of `out`.

    circuit: a file of either kind, one in memory, or an id of the catalogue. out: where it is written; None: nowhere. task,
    known_as: what a file of the benchmark does not say: what it does, and in which model. shape: "12x12x768", layers, query
    heads a layer and width of the model, where a circuit of ours does not say them. Raises BadInput, StoreError, UnknownName.
    """
    theirs = (
        not isinstance(circuit, Circuit) and _is_file(str(circuit)) and is_mib(read_json(Source(Path(circuit), HELP)))
    )
    if theirs:
        if shape is not None:
            raise BadInput(
                "--shape is for circuits that become files of MIB.", "Leave it out; the file says it itself."
            )
        if task is not None:
            find_task(task)
        model = demand_model(known_as).id if known_as is not None else None
        data = read_mib(str(circuit), task=task, model=model).data()
    else:
        if task is not None or known_as is not None:
            raise BadInput("--task and --as are for files of MIB, which do not say them.", "Leave them out.")
        data = mib_data(_stored(circuit), parse_shape(shape) if shape is not None else None)
    if out is not None:
        write_json(Path(out), data)
    return data


__getattr__ = old_names(__name__)
