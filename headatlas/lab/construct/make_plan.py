"""Shares out the dimensions of a planted model among what its heads read and write."""

from __future__ import annotations

from collections.abc import Sequence

from headatlas.errors import BadInput
from headatlas.lab.construct import positions
from headatlas.lab.construct.codes import token_codes
from headatlas.lab.construct.plan import LEAST_CODE, Geometry, Plan, key_needs, value_needs
from headatlas.lab.construct.terms import MARKS, Flag, Match, Where
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.spec import find_kind

_LARGEST_CODE = 40
_LEAST_JUNK = 4


def make_plan(geometry: Geometry, words: Words, heads: Sequence[Head]) -> Plan:
    """Share out the dimensions. Raises BadInput where the width or a head is too small for what is asked."""
    if geometry.rotary:
        frequencies = positions.rotary_frequencies(geometry.d_head, geometry.rope_theta)[: geometry.fast]
    else:
        most = 5 if geometry.width < 128 else 10
        frequencies = positions.table_frequencies(min(most, (geometry.d_head - 4) // 2), geometry.context)
    # A first draft shows which blocks and how many dimensions the heads need; gains come after the codes are known.
    draft = Plan(geometry, words, frequencies=frequencies)
    _write_recipes(draft, heads)
    code_dim, sizes = _sizes(draft)
    turning = any(write.forward for recipe in draft.recipes.values() for write in recipe.writes)
    # The codes are the same for all seeds; the seed turns them into a random place of the stream.
    codes = token_codes(len(words), code_dim, words.sequences if turning else (), 0)
    plan = Plan(geometry, words, frequencies=frequencies, code_dim=code_dim, coherence=codes.coherence, codes=codes)
    start = 0
    for name, size in sizes.items():
        plan.blocks[name] = slice(start, start + size)
        start += size
    _write_recipes(plan, heads)
    return plan


def _write_recipes(plan: Plan, heads: Sequence[Head]) -> None:
    """Ask each kind for its recipe, from the first layer up, since later heads read what earlier ones write."""
    plan.recipes = {}
    plan.heads = {head.id: head for head in heads}
    for head in sorted(heads, key=lambda head: head.id):
        plan.current = head
        plan.recipes[head.id] = find_kind(head.kind).recipe(head, plan)


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
            if fits < (LEAST_CODE if need.blocks else 0) or room < 0:
                raise BadInput(
                    f"The {which} of KV head {group[0]}.{group[1]} have {geometry.d_head} dimensions, too few for "
                    f"{', '.join(str(draft.heads[head]) for head in need.heads)}.",
                    "Put them into different KV groups, or plan wider heads (fewer heads, more width, or d_head).",
                )
            code_dim = min(code_dim, fits)
    terms = [term for recipe in draft.recipes.values() for term in recipe.terms]
    writes = [write for recipe in draft.recipes.values() for write in recipe.writes]
    coded = {"token", "next"} | {name for term in terms if isinstance(term, Match) for name in (term.query, term.key)}
    coded |= {name for write in writes if write.value not in MARKS for name in (write.value, write.to)} - {"junk"}
    flags = {"first"} | {term.name for term in terms if isinstance(term, Flag)}
    flags |= {term.asking for term in terms if isinstance(term, Where) and term.asking}
    flags |= {write.to for write in writes if write.value in MARKS} - {"junk"}
    position = 0 if geometry.rotary else 2 * len(draft.frequencies)
    # One dimension is the mean's, which layer norms remove, one the constant's, one balances the lengths of embeddings.
    room = geometry.width - 3 - len(flags) - position - _LEAST_JUNK
    code_dim = min(code_dim, room // len(coded))
    if code_dim < LEAST_CODE:
        raise BadInput(
            f"Width {geometry.width} is too small: {len(coded)} blocks of at least {LEAST_CODE} dimensions "
            f"({', '.join(sorted(coded))}), {len(flags)} flags and {position} position dimensions are needed.",
            "Use more width or fewer kinds of heads in one model.",
        )
    sizes = {name: code_dim for name in sorted(coded)} | {f"flag:{name}": 1 for name in sorted(flags)}
    if position:
        sizes["position"] = position
    sizes["junk"] = geometry.width - 3 - sum(sizes.values())
    return code_dim, sizes
