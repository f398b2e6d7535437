"""The circuits of the Mechanistic Interpretability Benchmark (Mueller et al. 2025, arXiv 2504.13151): its metrics and its JSON.

CPR is the area under what circuits recover as their size goes from 0.1% to all of the parts, by the trapezoid rule; CMD that
between |1 - recovered| and 0. The file names parts "input", "a9.h6", "m3" and "logits", and edges "a8.h6->a9.h6<q>".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from headatlas.circuits.circuit import HELP, Circuit, Edge, Node
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.path_patching.receivers import Receiver
from headatlas.reading import Number, Source, Written, checked, read_json

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # sizes at which the benchmark measures
_HEAD = re.compile(r"a(\d+)\.h(\d+)")
_MLP = re.compile(r"m(\d+)")
_EDGE = re.compile(r"([^-<>\s]+)->([^-<>\s]+?)(?:<([qkv])>)?")


class Shape(NamedTuple):
    """What the file says of the model: layers, query heads a layer, width, and whether attention and MLP read side by side."""

    n_layers: int
    n_heads: int
    d_model: int
    parallel_attn_mlp: bool = False


def parse_shape(text: str) -> Shape:
    """Read "12x12x768". Raises BadInput."""
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})x([1-9]\d{0,5})", text.strip().lower())
    if match is None:
        raise BadInput(f"'{text}' is no shape of a model.", "Write layers x query heads x width, such as 12x12x768.")
    return Shape(int(match[1]), int(match[2]), int(match[3]))


class _Config(Written):
    n_layers: Annotated[int, Field(ge=1, le=10_000)]
    n_heads: Annotated[int, Field(ge=1, le=10_000)]
    d_model: Annotated[int, Field(ge=1)]
    parallel_attn_mlp: bool = False


class _Part(Written):
    in_graph: bool
    score: Number = None


class _File(Written):
    cfg: _Config
    nodes: dict[str, _Part | bool]
    edges: dict[str, _Part] = Field(default_factory=dict)


def cpr_and_cmd(shares: Sequence[float], recovered: Sequence[float]) -> tuple[float, float]:
    """(CPR, CMD) of what circuits of these shares of all parts recover. Raises BadInput unless shares rise."""
    x, y = np.asarray(shares, dtype=np.float64), np.asarray(recovered, dtype=np.float64)
    if x.shape != y.shape or len(x) < 2 or bool((np.diff(x) <= 0).any()):
        raise BadInput(
            "CPR and CMD need what circuits of rising size recover.", f"Measure at {', '.join(map(str, SHARES))}."
        )
    return float(np.trapezoid(y, x)), float(np.trapezoid(np.abs(1 - y), x))


def is_mib(data: object) -> bool:
    """Whether the content of a JSON file is a circuit of the benchmark."""
    return isinstance(data, Mapping) and {"cfg", "nodes"} <= data.keys() and "schema" not in data


def read_mib(path: str | Path, *, task: str | None = None, model: str | None = None) -> Circuit:
    """The heads that are in the graph of a file of the benchmark, with the edges between them and to the logits.

    MLPs and the embedding are left in place in our circuits, so edges that begin or end there are not taken over. The file does
    not name its task or its model. Raises StoreError, BadInput for a file of scores in which nothing is in the graph.
    """
    source = Source(Path(path), HELP)
    data = checked(read_json(source), _File, source)
    shape = Shape(**data["cfg"])
    inside = lambda part: part if isinstance(part, bool) else part["in_graph"]  # noqa: E731
    nodes = [Node(head) for name, part in data["nodes"].items() if inside(part) and (head := _head(name, shape, path))]
    if not nodes:
        raise BadInput(
            f"{path} has no head in its graph: it holds scores of all parts, and no circuit.",
            "Prune it to a size first, as the benchmark does.",
        )
    edges = []
    for name, part in data["edges"].items():
        match = _EDGE.fullmatch(name)
        if match is None:
            raise BadInput(f"{path}: '{name}' is not an edge.", "Edges are written a8.h6->a9.h6<q>.")
        sender, receiver = _head(match[1], shape, path), _head(match[2], shape, path)
        if part["in_graph"] and sender is not None and (receiver is not None or match[2] == "logits"):
            to = Receiver("logits") if receiver is None else Receiver(str(match[3]), (receiver,))
            edges.append(Edge(sender, to, part["score"]))
    facts = {"source": f"MIB:{Path(path).name}", "shape": shape._asdict()}
    return Circuit(
        Path(path).stem, task or "not said in the file", tuple(nodes), tuple(edges), model=model, facts=facts
    )


def mib_data(circuit: Circuit, shape: Shape | None = None) -> dict[str, Any]:
    """A circuit as the benchmark's JSON: its heads, with all MLPs, the embedding and the logits in the graph.

    Edges are in the graph where both ends are, or where the circuit has edges of its own, those between heads and to the logits
    only where they are among them; an edge that was not measured has the score 0. Positions are lost: the benchmark's graph has none. shape:
    default what the circuit's facts say. Raises BadInput where neither says it, or for a head that it does not have.
    """
    if shape is None:
        if "shape" not in circuit.facts:
            raise BadInput(
                f"'{circuit.name}' does not say the shape of its model.",
                "Give --shape LAYERSxHEADSxWIDTH, such as 12x12x768.",
            )
        shape = Shape(**circuit.facts["shape"])
    strange = [head for head in circuit.heads if head.layer >= shape.n_layers or head.head >= shape.n_heads]
    if strange:
        raise BadInput(f"A model of {shape.n_layers} layers of {shape.n_heads} heads has no head {strange[0]}.")
    kept = {_name(head) for head in circuit.heads}
    own = {(_name(edge.sender), _target(head, edge.receiver.kind)): edge.effect
           for edge in circuit.edges for head in edge.receiver.heads or (None,)}  # fmt: skip
    effects = circuit.facts.get("effects", {})
    nodes: dict[str, dict[str, Any]] = {}
    for name in _parts(shape):
        nodes[name] = {"in_graph": name in kept or not _HEAD.fullmatch(name)}
        if name in effects:
            nodes[name]["score"] = effects[name]
    edges: dict[str, dict[str, Any]] = {}
    for sender, receiver in _edges(shape):
        target = receiver.partition("<")[0]
        inside = nodes[sender]["in_graph"] and nodes[target]["in_graph"]
        if own and _HEAD.fullmatch(sender) and (_HEAD.fullmatch(target) or target == "logits"):
            inside = (sender, receiver) in own
        edges[f"{sender}->{receiver}"] = {"score": own.get((sender, receiver)) or 0.0, "in_graph": inside}
    return {"cfg": shape._asdict(), "nodes": nodes, "edges": edges}


def _head(name: str, shape: Shape, path: str | Path) -> HeadId | None:
    """The head of this name, None for other parts. Raises BadInput for a name of nothing."""
    match = _HEAD.fullmatch(name)
    if match is not None and int(match[1]) < shape.n_layers and int(match[2]) < shape.n_heads:
        return HeadId(int(match[1]), int(match[2]))
    mlp = _MLP.fullmatch(name)
    if name in ("input", "logits") or (mlp is not None and int(mlp[1]) < shape.n_layers):
        return None
    raise BadInput(f"{path}: the model of its cfg has no part '{name}'.", "Parts are input, a9.h6, m3 and logits.")


def _name(head: HeadId) -> str:
    return f"a{head.layer}.h{head.head}"


def _target(head: HeadId | None, kind: str) -> str:
    return "logits" if head is None else f"{_name(head)}<{kind}>"


def _parts(shape: Shape) -> Iterator[str]:
    """All parts in the benchmark's order."""
    yield "input"
    for layer in range(shape.n_layers):
        yield from (f"a{layer}.h{head}" for head in range(shape.n_heads))
        yield f"m{layer}"
    yield "logits"


def _edges(shape: Shape) -> Iterator[tuple[str, str]]:
    """(sender, receiver) of every edge: from each part to the queries, keys and values of later heads, to later MLPs, to the logits."""
    earlier = ["input"]
    for layer in range(shape.n_layers):
        heads = [f"a{layer}.h{head}" for head in range(shape.n_heads)]
        yield from ((sender, f"{head}<{kind}>") for sender in earlier for head in heads for kind in "qkv")
        read = earlier if shape.parallel_attn_mlp else [*earlier, *heads]
        yield from ((sender, f"m{layer}") for sender in read)
        earlier = [*earlier, *heads, f"m{layer}"]
    yield from ((sender, "logits") for sender in earlier)
