"""Where a path ends: the queries, keys or values of later heads, the input of a block's MLP, or the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headatlas.errors import BadInput
from headatlas.heads import HeadId, parse_heads
from headatlas.methods.sweeps.effects import HeadSet
from headatlas.model import Model

HEAD_INPUTS = ("q", "k", "v")
_FORMS = "Write logits, mlp:5, or q, k or v of heads such as 'q:9.6 9.9'; '@end' behind it names positions."


@dataclass(frozen=True)
class Receiver:
    """What the changed message is put into, all of it at once.

    kind: q, k, v (of `heads`), mlp (the input of the MLP of block `layer`) or logits. position: a named one, None for those
    that the whole call goes by.
    """

    kind: str
    heads: HeadSet = ()
    layer: int | None = None
    position: str | None = None

    @classmethod
    def parse(cls, text: str | Receiver, among: Sequence[HeadId] = ()) -> Receiver:
        """Read `logits`, `mlp:5`, `q:9.6 9.9`, `v:7.3@s2`; `q:9.*` where `among` says which heads there are. Raises BadInput."""
        if isinstance(text, Receiver):
            return text
        if not isinstance(text, str):
            raise BadInput(f"{text!r} is not a receiver.", _FORMS)
        what, _, position = (part.strip() for part in text.partition("@"))
        kind, _, names = (part.strip() for part in what.partition(":"))
        if kind == "logits" and not names and not position:
            return cls("logits")
        if kind == "mlp" and names.isdigit():
            return cls("mlp", layer=int(names), position=position or None)
        if kind in HEAD_INPUTS and names:
            return cls(kind, tuple(dict.fromkeys(parse_heads(names, among))), position=position or None)
        raise BadInput(f"'{text}' is not a receiver.", _FORMS)

    @property
    def name(self) -> str:
        """As it is written."""
        if self.kind == "logits":
            return "logits"
        what = str(self.layer) if self.kind == "mlp" else " ".join(map(str, self.heads))
        return f"{self.kind}:{what}" + (f"@{self.position}" if self.position else "")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it lies in, ascending; none for the logits."""
        if self.layer is not None:
            return (self.layer,)
        return tuple(sorted({head.layer for head in self.heads}))

    def hears(self, layer: int) -> bool:
        """Whether a head of `layer` comes before it. An MLP hears the heads of its own block, unless both work in parallel."""
        if self.kind == "logits":
            return True
        return layer <= self.layers[-1] if self.kind == "mlp" else layer < self.layers[-1]

    def within(self, model: Model, *, group: bool) -> Receiver:
        """The receiver as the model has it: keys and values belong to whole KV groups. Raises BadInput.

        group: heads that share the keys or values named receive too; without it, naming part of a group is refused.
        """
        if self.kind == "mlp":
            model.layer(self.layers[0])
        model.require(self.heads)
        if self.kind not in ("k", "v"):
            return self
        whole: list[HeadId] = []
        for head in self.heads:
            layer = model.layer(head.layer, head.stack)
            size = layer.n_heads // layer.n_groups
            first = head.head // size * size
            members = [HeadId(head.layer, first + i, head.stack) for i in range(size)]
            missing = [str(member) for member in members if member not in self.heads]
            if missing and not group:
                raise BadInput(
                    f"'{self.name}': {head} has no {self.kind} of its own, it is shared with {', '.join(missing)}.",
                    "Name all heads of the KV group, or let them all receive: group=True, --group.",
                )
            whole += members
        return replace(self, heads=tuple(dict.fromkeys(whole)))


def parse_receivers(
    receivers: str | Receiver | Sequence[str | Receiver], model: Model, *, group: bool
) -> tuple[Receiver, ...]:
    """Several receivers as the model has them. Raises BadInput."""
    given = [receivers] if isinstance(receivers, str | Receiver) else receivers
    found = tuple(Receiver.parse(one, model.heads).within(model, group=group) for one in given)
    if not found:
        raise BadInput("No receiver is named.", _FORMS)
    if len(set(found)) < len(found):
        raise BadInput("A receiver is named twice.", "Name each once; heads of one KV group are one receiver.")
    return found
