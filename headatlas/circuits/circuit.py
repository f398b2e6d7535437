"""A circuit: the heads that do a task together, where they act, and what passes between them; a JSON file.

{"schema": "headatlas/circuit/1", "name", "task", "model", "nodes": [{"head": "9.6", "at": "end", "role": "name-mover"}],
 "edges": [{"sender": "8.6", "receiver": "q:9.6@end", "effect": -0.3, "q": 0.001}], "facts": {...}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from headatlas.errors import BadInput, HeadAtlasError, StoreError
from headatlas.heads import HeadId, parse_heads
from headatlas.methods.path_patching.receivers import Receiver
from headatlas.reading import Name, Number, Source, Written, checked, demand_schema, read_json
from headatlas.store import write_json

SCHEMA = "headatlas/circuit/1"
HELP = "See docs/methods/circuits.md for what a circuit file holds; headatlas circuit find --out writes one."


class _Node(Written):
    head: Name
    at: Name | None = None
    role: Name | None = None


class _Edge(Written):
    sender: Name
    receiver: Name
    effect: Number = None
    q: Number = None


class _File(Written):
    schema_: str = Field(alias="schema")
    name: Name
    task: Name
    model: Name | None = None
    nodes: Annotated[list[_Node], Field(max_length=100_000)]
    edges: Annotated[list[_Edge], Field(max_length=1_000_000)] = Field(default_factory=list)
    facts: dict[str, Any] = Field(default_factory=dict)


class Node(NamedTuple):
    """A head that is part of a circuit, everywhere (at is None) or at a named position of the task's prompts."""

    head: HeadId
    position: str | None = None

    @classmethod
    def parse(cls, text: str | HeadId | tuple[int, int]) -> Node:
        """Read `9.6` or `9.6@end`, or a head in any form. Raises BadInput."""
        if not isinstance(text, str):
            return cls(HeadId.parse(text))
        name, sign, position = text.partition("@")
        if sign and not position.strip():
            raise BadInput(f"'{text}' names no position.", "Write a head such as 9.6, or 9.6@end.")
        return cls(HeadId.parse(name), position.strip() or None)

    def __str__(self) -> str:
        return str(self.head) if self.position is None else f"{self.head}@{self.position}"


@dataclass(frozen=True)
class Edge:
    """What passes from a head to a receiver; effect: its path patching effect, q: corrected p, None where not measured."""

    sender: HeadId
    receiver: Receiver
    effect: float | None = None
    q: float | None = None

    @property
    def key(self) -> tuple[HeadId, Receiver]:
        """What makes it the same edge in another circuit."""
        return self.sender, self.receiver


@dataclass(frozen=True)
class Circuit:
    """Heads and edges with a task.

    roles: node -> class ("name-mover"), or several ("reader, direct"); classes are removed together when completeness and
    minimality are measured.
    model: the name of the model, None where any may be tried. facts: where it comes from and how it was found.
    """

    name: str
    task: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()
    roles: Mapping[Node, str] = field(default_factory=dict)
    model: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = " ".join(map(str, self.nodes[:8])) + (" ..." if len(self.nodes) > 8 else "")
        return f"Circuit({self.name}: {len(self.nodes)} heads {shown}; {len(self.edges)} edges)"

    def __post_init__(self) -> None:
        if not self.nodes:
            raise BadInput(f"Circuit '{self.name}' has no heads.", "Name at least one, such as 9.6 or 9.6@end.")
        object.__setattr__(self, "nodes", tuple(dict.fromkeys(self.nodes)))
        both = {node.head for node in self.nodes if node.position is None} & {
            node.head for node in self.nodes if node.position is not None
        }
        if both:
            raise BadInput(
                f"Circuit '{self.name}' has {min(both)} everywhere and at a position.", "Name it one way or the other."
            )
        strange = [node for node in self.roles if node not in self.nodes]
        if strange:
            raise BadInput(f"Circuit '{self.name}' has a role for {strange[0]}, which is no part of it.")

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """Its heads in the order of the layers, whatever their positions."""
        return tuple(sorted({node.head for node in self.nodes}))

    @property
    def classes(self) -> dict[str, tuple[Node, ...]]:
        """role -> its nodes."""
        found: dict[str, tuple[Node, ...]] = {}
        for node, roles in self.roles.items():
            for role in roles.split(", "):
                found[role] = (*found.get(role, ()), node)
        return found

    def data(self) -> dict[str, Any]:
        """The content of its file."""
        nodes = [
            {"head": str(node.head), "at": node.position, "role": self.roles.get(node)}
            for node in sorted(self.nodes, key=lambda node: (node.head, node.position or ""))
        ]
        edges = [
            {"sender": str(edge.sender), "receiver": edge.receiver.name, "effect": edge.effect, "q": edge.q}
            for edge in self.edges
        ]
        return {
            "schema": SCHEMA,
            "name": self.name,
            "task": self.task,
            "model": self.model,
            "nodes": nodes,
            "edges": edges,
            "facts": dict(self.facts),
        }

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all. Raises StoreError."""
        write_json(Path(path), self.data())

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read a file. Raises StoreError naming it and what is wrong."""
        file = Path(path)
        source = Source(file, HELP)
        data = read_json(source)
        demand_schema(data, SCHEMA, source)
        data = checked(data, _File, source)
        try:
            named = [(Node(HeadId.parse(row["head"]), row["at"]), row["role"]) for row in data["nodes"]]
            edges = [
                Edge(HeadId.parse(row["sender"]), Receiver.parse(row["receiver"]), row["effect"], row["q"])
                for row in data["edges"]
            ]
            return cls(
                data["name"],
                data["task"],
                tuple(node for node, _ in named),
                tuple(edges),
                {node: role for node, role in named if role is not None},
                data["model"],
                data["facts"],
            )
        except HeadAtlasError as error:
            raise StoreError(f"{file}: {error.message}", error.hint) from error


def parse_nodes(text: str | Iterable[str | HeadId | tuple[int, int]], among: Sequence[HeadId] = ()) -> tuple[Node, ...]:
    """Read `9.6@end 10.0@end 5.5`; among: every head that there is, for patterns such as `18.*@end`. Raises BadInput."""
    parts = text.replace(",", " ").split() if isinstance(text, str) else text
    return tuple(dict.fromkeys(node for part in parts for node in _nodes(part, among)))


def _nodes(part: str | HeadId | tuple[int, int], among: Sequence[HeadId]) -> tuple[Node, ...]:
    name, sign, position = part.partition("@") if isinstance(part, str) else ("", "", "")
    if "*" not in name:
        return (Node.parse(part),)
    return tuple(Node.parse(f"{head}{sign}{position}") for head in parse_heads(name, among))
