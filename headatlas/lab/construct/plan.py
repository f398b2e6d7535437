"""How the residual stream and each head's few dimensions are shared out, before any weight is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.construct import positions
from headatlas.lab.construct.codes import Codes
from headatlas.lab.construct.positions import Kernel
from headatlas.lab.construct.terms import FULL, MARKS, Flag, Match, Recipe, Where
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.ops.types import Array
from headatlas.renamed import old_names

LEAST_CODE = 8  # dimensions of the code of a token


@dataclass(frozen=True)
class Geometry:
    """The sizes of a planted model. fast: rotary pairs that tell positions apart; 0 for learned positions."""

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    width: int
    context: int
    rope_theta: float
    fast: int

    @property
    def rotary(self) -> bool:
        """Whether positions are told by rotation and not by a table."""
        return self.architecture == "llama"

    def group(self, head: HeadId) -> tuple[int, int]:
        """(layer, KV head) whose keys and values the head reads."""
        return head.layer, head.head // (self.n_heads // self.n_kv_heads)


@dataclass
class Plan:
    """All sizes and gains of a planted model. Blocks of the stream:

    token (the code of the token here), position (learned positions only), before (the code of the token one back,
    written by previous-token heads), avoid (the code of a token not to be moved), next (what the unembedding reads),
    flags (first, duplicate, and one for each class of tokens), junk (what nothing reads).
    """

    geometry: Geometry
    words: Words
    recipes: dict[HeadId, Recipe] = field(default_factory=dict)
    heads: dict[HeadId, Head] = field(default_factory=dict)
    frequencies: Array = field(default_factory=lambda: positions.table_frequencies(3, 256))
    code_dim: int = LEAST_CODE
    coherence: float = 0.5
    codes: Codes | None = None
    blocks: dict[str, slice] = field(default_factory=dict)
    current: Head | None = None  # whose recipe is being written, for messages

    @property
    def context(self) -> int:
        """The longest input."""
        return self.geometry.context

    def only(self, offset: int) -> Kernel:
        """The kernel that singles out one distance; used by heads that compare nothing else."""
        if not 0 <= offset < self.context // 2:
            raise BadInput(f"The {self.current} attends {offset} back.", f"Write 0 to {self.context // 2 - 1}.")
        return positions.only(offset, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def near(self, width: int) -> Kernel:
        """The kernel of a window."""
        if not 2 <= width <= self.context // 4:
            raise BadInput(f"The {self.current} has width {width}.", f"Write 2 to {self.context // 4}.")
        return positions.near(width, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def fading(self, levels: Sequence[float]) -> Kernel:
        """The kernel with the given values at the first distances, for heads that also attend to a flag."""
        return positions.fading(levels, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def recent(self, reach: int) -> Kernel:
        """The kernel that prefers near keys, for heads that also attend to a flag."""
        return positions.recent(reach, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def apart(self, hole: int, flat: int) -> Kernel:
        """The kernel that excludes near keys, for heads that also compare codes and so have fewer waves to spend."""
        if not 1 <= hole < flat <= self.context // 4:
            raise BadInput(f"The {self.current} reaches from {flat} tokens on.", f"Write 2 to {self.context // 4}.")
        count = len(self.frequencies)
        if not self.geometry.rotary:
            count = min(count, max(3, self.geometry.d_head * 3 // 16))
        return positions.apart(hole, flat, self.frequencies, self._waves(count), self.context)

    def amplitude(self, block: str, head: Head, wanted: str) -> float:
        """How large the code in `block` is by the time `head` reads it. Raises BadInput where nothing writes it.

        Heads of one kind add up; where several kinds write, the strongest kind counts, as they seldom agree. Marks are numbers
        and no codes: those of all kinds add up, and a reader asks for all of them.
        """
        by_kind: dict[str, float] = {}
        for other, recipe in self.recipes.items():
            planted = self.heads[other]
            if other.layer >= head.layer:
                continue
            for write in recipe.writes:
                if write.to == block and write.gain > 0:
                    kind = "" if write.value in MARKS else planted.kind
                    by_kind[kind] = by_kind.get(kind, 0.0) + write.gain * min(planted.strength, FULL)
        if not by_kind:
            raise BadInput(f"The {head} needs {wanted} in an earlier layer.", "Plant one there, or move it up.")
        return max(by_kind.values())

    def written(self, block: str, head: Head) -> bool:
        """Whether a head in an earlier layer writes into `block`."""
        return any(
            other.layer < head.layer and write.to == block
            for other, recipe in self.recipes.items()
            for write in recipe.writes
        )

    def _waves(self, count: int) -> tuple[int, ...]:
        total = len(self.frequencies)
        return tuple(round(i * (total - 1) / max(count - 1, 1)) for i in range(count))


@dataclass(frozen=True)
class Needs:
    """What the keys or the values of one KV group must hold: flags, code blocks, and waves of the position table."""

    flags: tuple[str, ...]
    blocks: tuple[str, ...]
    waves: tuple[int, ...]
    heads: tuple[HeadId, ...]


def key_needs(plan: Plan) -> Mapping[tuple[int, int], Needs]:
    """(layer, KV head) -> what its planted heads ask of the shared keys."""

    def of(recipe: Recipe) -> tuple[set[str], set[str], set[int]]:
        flags = {term.name for term in recipe.terms if isinstance(term, Flag)}
        blocks = {term.key for term in recipe.terms if isinstance(term, Match)}
        waves = {wave for term in recipe.terms if isinstance(term, Where) for wave in term.kernel.waves}
        return flags, blocks, waves

    return _needs(plan, of)


def value_needs(plan: Plan) -> Mapping[tuple[int, int], Needs]:
    """(layer, KV head) -> what its planted heads ask of the shared values."""

    def of(recipe: Recipe) -> tuple[set[str], set[str], set[int]]:
        values = {write.value for write in recipe.writes}
        return values & MARKS, values - MARKS, set()

    return _needs(plan, of)


def _needs(plan: Plan, of: Callable[[Recipe], tuple[set[str], set[str], set[int]]]) -> Mapping[tuple[int, int], Needs]:
    found: dict[tuple[int, int], Needs] = {}
    for head, recipe in plan.recipes.items():
        before = found.get(plan.geometry.group(head), Needs((), (), (), ()))
        flags, blocks, waves = of(recipe)
        found[plan.geometry.group(head)] = Needs(
            flags=tuple(sorted({*before.flags, *flags})),
            blocks=tuple(sorted({*before.blocks, *blocks})),
            waves=tuple(sorted({*before.waves, *waves})),
            heads=(*before.heads, head),
        )
    return found


__getattr__ = old_names(__name__)
