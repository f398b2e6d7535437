"""Decides how the residual stream and each head's few dimensions are shared out, before any weight is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.construct import positions
from headatlas.lab.construct.codes import Codes, token_codes
from headatlas.lab.construct.positions import Array, Kernel
from headatlas.lab.construct.terms import FULL, Flag, Match, Recipe, Where
from headatlas.lab.construct.words import Words
from headatlas.lab.spec import Head, find_kind

_LEAST_CODE, _LARGEST_CODE = 8, 40
_LEAST_JUNK = 4


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
    code_dim: int = _LEAST_CODE
    coherence: float = 0.5
    codes: Codes | None = None
    blocks: dict[str, slice] = field(default_factory=dict)
    _current: Head | None = None

    @property
    def context(self) -> int:
        """The longest input."""
        return self.geometry.context

    def only(self, offset: int) -> Kernel:
        """The kernel that singles out one distance; used by heads that compare nothing else."""
        if not 0 <= offset < self.context // 2:
            raise BadInput(f"The {self._current} looks {offset} back.", f"Write 0 to {self.context // 2 - 1}.")
        return positions.only(offset, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def near(self, width: int) -> Kernel:
        """The kernel of a window."""
        if not 2 <= width <= self.context // 4:
            raise BadInput(f"The {self._current} has width {width}.", f"Write 2 to {self.context // 4}.")
        return positions.near(width, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def fading(self, levels: Sequence[float]) -> Kernel:
        """The kernel with the given values at the first distances, for heads that also look at a flag."""
        return positions.fading(levels, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def recent(self, reach: int) -> Kernel:
        """The kernel that prefers near keys, for heads that also look at a flag."""
        return positions.recent(reach, self.frequencies, self._waves(len(self.frequencies)), self.context)

    def apart(self, hole: int, flat: int) -> Kernel:
        """The kernel that excludes near keys, for heads that also compare codes and so have fewer waves to spend."""
        if not 1 <= hole < flat <= self.context // 4:
            raise BadInput(f"The {self._current} reaches from {flat} tokens on.", f"Write 2 to {self.context // 4}.")
        count = len(self.frequencies)
        if not self.geometry.rotary:
            count = min(count, max(3, self.geometry.d_head * 3 // 16))
        return positions.apart(hole, flat, self.frequencies, self._waves(count), self.context)

    def amplitude(self, block: str, head: Head, wanted: str) -> float:
        """How large the code in `block` is by the time `head` reads it. Raises BadInput where nothing writes it.

        Heads of one kind add up; where several kinds write, the strongest kind counts, as they seldom agree.
        """
        by_kind: dict[str, float] = {}
        for other, recipe in self.recipes.items():
            gain = sum(write.gain for write in recipe.writes if write.to == block)
            if other.layer < head.layer and gain > 0:
                planted = self.heads[other]
                by_kind[planted.kind] = by_kind.get(planted.kind, 0.0) + gain * min(planted.strength, FULL)
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

    def write_recipes(self, heads: Sequence[Head]) -> None:
        """Ask each kind for its recipe, from the first layer up, since later heads read what earlier ones write."""
        self.recipes = {}
        self.heads = {head.id: head for head in heads}
        for head in sorted(heads, key=lambda head: head.id):
            self._current = head
            self.recipes[head.id] = find_kind(head.kind).recipe(head, self)


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
        return values - {"token"}, values & {"token"}, set()

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


def make_plan(geometry: Geometry, words: Words, heads: Sequence[Head]) -> Plan:
    """Share out the dimensions. Raises BadInput where the width or a head is too small for what is asked."""
    if geometry.rotary:
        frequencies = positions.rotary_frequencies(geometry.d_head, geometry.rope_theta)[: geometry.fast]
    else:
        most = 5 if geometry.width < 128 else 10
        frequencies = positions.table_frequencies(min(most, (geometry.d_head - 4) // 2), geometry.context)
    # A first draft shows which blocks and how many dimensions the heads need; gains come after the codes are known.
    draft = Plan(geometry, words, frequencies=frequencies)
    draft.write_recipes(heads)
    code_dim, sizes = _sizes(draft)
    turning = any(write.forward for recipe in draft.recipes.values() for write in recipe.writes)
    # The codes are the same for all seeds; the seed turns them into a random place of the stream.
    codes = token_codes(len(words), code_dim, words.sequences if turning else (), 0)
    plan = Plan(geometry, words, frequencies=frequencies, code_dim=code_dim, coherence=codes.coherence, codes=codes)
    start = 0
    for name, size in sizes.items():
        plan.blocks[name] = slice(start, start + size)
        start += size
    plan.write_recipes(heads)
    return plan


def _sizes(draft: Plan) -> tuple[int, dict[str, int]]:
    """(code dimensions, block -> dimensions) for what the draft's heads read and write."""
    geometry = draft.geometry
    code_dim = _LARGEST_CODE
    for needs, which in ((key_needs(draft), "keys"), (value_needs(draft), "values")):
        for group, need in needs.items():
            room = geometry.d_head - len(need.flags)
            if which == "keys":
                room -= 2 * geometry.fast if geometry.rotary else 2 * len(need.waves)
            fits = room // len(need.blocks) if need.blocks else _LARGEST_CODE
            if fits < (_LEAST_CODE if need.blocks else 0) or room < 0:
                raise BadInput(
                    f"The {which} of KV head {group[0]}.{group[1]} have {geometry.d_head} dimensions, too few for "
                    f"{', '.join(str(draft.heads[head]) for head in need.heads)}.",
                    "Put them into different KV groups, or plan wider heads (fewer heads, more width, or d_head).",
                )
            code_dim = min(code_dim, fits)
    terms = [term for recipe in draft.recipes.values() for term in recipe.terms]
    writes = [write for recipe in draft.recipes.values() for write in recipe.writes]
    coded = {"token", "next"} | {name for term in terms if isinstance(term, Match) for name in (term.query, term.key)}
    coded |= {write.to for write in writes if write.value == "token"} - {"junk"}
    flags = {"first"} | {term.name for term in terms if isinstance(term, Flag)}
    flags |= {write.to for write in writes if write.value != "token"} - {"junk"}
    position = 0 if geometry.rotary else 2 * len(draft.frequencies)
    # One dimension is the mean's, which layer norms remove, one the constant's, one balances the lengths of embeddings.
    room = geometry.width - 3 - len(flags) - position - _LEAST_JUNK
    code_dim = min(code_dim, room // len(coded))
    if code_dim < _LEAST_CODE:
        raise BadInput(
            f"Width {geometry.width} is too small: {len(coded)} blocks of at least {_LEAST_CODE} dimensions "
            f"({', '.join(sorted(coded))}), {len(flags)} flags and {position} position dimensions are needed.",
            "Use more width or fewer kinds of heads in one model.",
        )
    sizes = {name: code_dim for name in sorted(coded)} | {f"flag:{name}": 1 for name in sorted(flags)}
    if position:
        sizes["position"] = position
    sizes["junk"] = geometry.width - 3 - sum(sizes.values())
    return code_dim, sizes
