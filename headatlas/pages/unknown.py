"""Heads that matter on text and that no known kind of reading explains: where the next head type would be found.

Three steps, each by a rule that stands here: a scan says how much of what a head attends to the known kinds explain, beyond
chance; the heads that they explain least are removed one by one on other windows of the corpus (mean ablation), and those
without which the loss rises remain; these are grouped by what they read.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.options import RunOptions
from headatlas.methods.sweeps.ablation import ablate
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.pages.clusters import ACTIVE, UNNAMED, told
from headatlas.pages.corpus import Corpus, read_corpus
from headatlas.pages.kinds import OFFSETS, PARTITION, columns
from headatlas.pages.removal import demand_loss
from headatlas.pages.result import HeadPages
from headatlas.pages.run import COUNTS, PageOptions, corpus_for, facts_of, kept, make_pages, scanned
from headatlas.pages.sources import Given
from headatlas.progress import Progress, Silent
from headatlas.render.numbers import count, percent, signed
from headatlas.store import short_id
from headatlas.task import Batch, next_token_loss

LEAST = 0.5  # of what is left beyond chance: below it the known kinds do not explain a head
MATTERS = 0.002  # nats by which the mean loss must rise without the head, with an interval above zero
ALIKE = 0.35  # of what two heads read may differ (mean total variation between groups) for them to be called alike
EFFECTS = "effects"  # of a folder under way
WINDOWS, SPAN, SKIPPED = (
    16,
    128,
    16,
)  # windows on which heads are removed, their tokens, and the first that are not scored
MOST = 60  # heads that are removed: those explained least


@dataclass(frozen=True)
class Unknown:
    """Heads that matter and are not explained.

    pages: of these heads, with the scan of all. effects: head -> (rise of the loss in nats, low, high) when it is removed.
    tried: heads that known kinds do not explain, and that were removed. groups: heads that are alike, the largest effect first.
    """

    pages: HeadPages
    effects: dict[HeadId, tuple[float, float, float]]
    tried: tuple[HeadId, ...]
    groups: tuple[tuple[HeadId, ...], ...]

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """All of them, group by group."""
        return tuple(head for group in self.groups for head in group)

    def describe(self, group: Sequence[HeadId]) -> str:
        """What the heads of a group read, in words."""
        return told(
            dict(
                zip(PARTITION[1:], map(float, profiles(self.pages, group).mean(0)[: len(PARTITION) - 1]), strict=True)
            ),
            4,
            0.05,
        )

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        found = self.pages
        rows = {
            str(head): {**found.row(head), "beyond_chance": float(beyond_chance(found)[found.heads.index(head)]), "effect": self.effects[head][0],
                        "effect_low": self.effects[head][1], "effect_high": self.effects[head][2]}
            for head in self.heads
        }  # fmt: skip
        return {
            "schema": "headatlas/unknown/1", "model": found.model, "facts": dict(found.facts), "tried": list(map(str, self.tried)),
            "groups": [{"reads": self.describe(group), "heads": list(map(str, group))} for group in self.groups], "heads": rows,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """What was found, in words."""
        found = [
            f"{count(len(self.tried), 'head')} of {len(self.pages.heads)} whose reading known kinds explain by less than {percent(LEAST)} beyond chance "
            f"were removed; the loss rises by {MATTERS} nats or more, interval above zero, without {len(self.heads)} of them."
        ]
        for group in self.groups:
            named = ", ".join(f"{head} ({signed(self.effects[head][0])})" for head in group)
            found.append(f"reads {self.describe(group)}: {named}")
        return found

    def __repr__(self) -> str:
        return "\n".join([f"Unknown({self.pages.model})", *(f"  {line}" for line in self.lines())])


def unknown_heads(
    model: Model,
    corpus: Given = None,
    *,
    options: PageOptions | None = None,
    causal: bool = False,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Unknown:
    """Heads that matter on a corpus and that no known kind explains, grouped by likeness, each with its page.

    corpus, options: as `head_pages` takes them. causal: remove each at the events of its behaviours too. out: a new folder for
    their pages and an index of the groups; an interrupted call goes on from there. Raises BadInput, StoreError, UnsupportedModel.
    """
    options, progress = options or PageOptions(), progress or Silent()
    demand_loss(model)
    if options.generate:
        raise BadInput("Heads of no known kind are looked for on a corpus.", "Leave generate out.")
    read = corpus_for(model, corpus, options)
    short = read_corpus(model.tokenizer, corpus, tokens=options.tokens, length=min(SPAN, model.tokenizer.context))
    batch = _scored(short, options.seed)
    facts = facts_of(model, read, options, ())
    with kept(None if out is None else Path(out), {**facts, "id": short_id({**facts, "asked": "unknown"})}) as place:
        found = scanned(model, read, facts, options, place=place, progress=progress)
        tried = _unexplained(found)
        effects = _effects(model, batch, tried, place, progress)
        groups = _alike(
            found, [head for head in tried if effects[head][0] >= MATTERS and effects[head][1] > 0], effects
        )
        heads = [head for group in groups for head in group]
        removed = heads if causal else ()
        pages = make_pages(model, read, found, heads, removed=removed, progress=progress) if heads else {}
        result = Unknown(replace(found, pages=pages), effects, tried, groups)
        if place is not None:
            _write(result, place)
            (place / COUNTS).unlink(missing_ok=True)
            shutil.rmtree(place / EFFECTS, ignore_errors=True)
    return result


def _unexplained(found: HeadPages) -> tuple[HeadId, ...]:
    """The heads that are removed: those that known kinds explain least, as far as they do not rest."""
    weak, resting = beyond_chance(found), found.counts.rest / found.counts.n
    order = [i for i in np.argsort(weak, kind="stable") if weak[i] < LEAST and 1 - resting[i] >= ACTIVE]
    return tuple(found.heads[i] for i in order[:MOST])


def beyond_chance(found: HeadPages) -> Array:
    """[head] how much of what chance leaves the known kinds explain: (explained - chance) / (1 - chance)."""
    beyond: Array = (found.explained - found.chance) / np.maximum(1 - found.chance, 1e-12)
    return beyond


def profiles(found: HeadPages, heads: Sequence[HeadId]) -> Array:
    """[head, part] how a head's attention beside resting places falls on the partition, then on distances; each sums to one."""
    index = [found.heads.index(head) for head in heads]
    active = found.active[index, None]
    parts = found.counts.mass[index][:, columns()["partition"]][:, 1:] / active
    offsets = found.counts.mass[index][:, columns()["offsets"]] / active
    assert offsets.shape[1] == len(OFFSETS)
    joined: Array = np.concatenate([parts, offsets], 1)
    return joined


def _effects(
    model: Model, batch: Batch, heads: Sequence[HeadId], place: Path | None, progress: Progress
) -> dict[HeadId, tuple[float, float, float]]:
    """(rise of the loss, low, high) without each head, on windows from all over what is read.

    place: a folder in which what was measured is kept, to go on from.
    """
    if not heads:
        return {}
    options = RunOptions(out=None if place is None else place / EFFECTS)
    found = ablate(model, batch, list(heads), metric=next_token_loss, options=options, progress=progress)
    return {one.head: (one.effect, one.low, one.high) for one in found.summary()}


def _scored(corpus: Corpus, seed: int) -> Batch:
    """WINDOWS whole windows drawn by chance, scored on every token behind the first SKIPPED. Raises BadInput where there are too few."""
    room = max(window.stop - window.start for window in corpus.windows)
    whole = [number for number, window in enumerate(corpus.windows) if window.stop - window.start == room]
    if len(whole) < 2 or room <= SKIPPED + 1:
        raise BadInput("The corpus is too short to remove heads on.", f"Give two windows of {room} tokens or more.")
    chosen = np.random.default_rng(seed).permutation(whole)[:WINDOWS]
    batch = corpus.batch(sorted(int(one) for one in chosen))
    front = len(corpus.front)
    places = torch.arange(front + SKIPPED, front + room - 1).expand(len(batch.tokens), -1)
    return Batch(batch.tokens, batch.mask, {"predict": places, "end": places[:, -1]})


def _alike(
    found: HeadPages, heads: Sequence[HeadId], effects: dict[HeadId, tuple[float, float, float]]
) -> tuple[tuple[HeadId, ...], ...]:
    """Heads in groups of like profiles, those of the largest effect first (scikit-learn, average linkage of total variation)."""
    if len(heads) < 2:
        return (tuple(heads),) if heads else ()
    from sklearn.cluster import AgglomerativeClustering

    rows = profiles(found, heads)
    apart = np.abs(rows[:, None] - rows).sum(-1) / 4  # two profiles, each of which sums to one
    labels: NDArray[np.int64] = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=ALIKE
    ).fit_predict(apart)
    groups: dict[int, list[HeadId]] = {}
    for head, label in sorted(zip(heads, labels, strict=True), key=lambda pair: -effects[pair[0]][0]):
        groups.setdefault(int(label), []).append(head)
    return tuple(tuple(group) for group in groups.values())


def _write(result: Unknown, place: Path) -> None:
    from headatlas.pages.html import index_html, write_files
    from headatlas.store import write_json, write_text

    write_files(result.pages, place)
    write_json(place / "unknown.json", result.data, 6)
    tables = [
        (f"{UNNAMED} group {number}: reads {result.describe(group)}", group)
        for number, group in enumerate(result.groups, 1)
    ]
    write_text(place / "index.html", index_html(result.pages, tables, result.lines()[:1], result.effects))
