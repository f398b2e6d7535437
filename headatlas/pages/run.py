"""`headatlas page`: a corpus is read once, then the heads asked for are looked at closely, and removed where they act."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headatlas.atlas import Atlas
from headatlas.errors import BadInput, StoreError, UnsupportedModel
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.methods.weights.qk_ov import TopTokens, attends_to, writes_of
from headatlas.model import Model
from headatlas.model.core.forward_pass import Edit
from headatlas.model.given import demand_numbers
from headatlas.model.identity import identity_of
from headatlas.pages import events as looking
from headatlas.pages import removal, written
from headatlas.pages.clusters import Behaviours, behaviours
from headatlas.pages.corpus import TOKENS, Corpus, read_corpus
from headatlas.pages.events import Event, Place, look_at
from headatlas.pages.generated import Generated, measure_generated
from headatlas.pages.removal import demand_loss, price, remove_at, usable
from headatlas.pages.result import HeadPage, HeadPages, Removed, places
from headatlas.pages.roles import played, roles_of
from headatlas.pages.scan import EVERY, SAMPLE, Counts, Settings, mean_z, scan
from headatlas.pages.sources import Given
from headatlas.progress import Progress, Silent
from headatlas.render.numbers import count
from headatlas.store import claimed, give_name, partial_of, read_arrays, short_id, write_arrays
from headatlas.version import __version__

COUNTS = "counts.npz"  # of a folder under way
BEHAVIOURS = "behaviours"  # step of progress
TOP = 20  # heads that are removed at their events where all heads are asked for
RANDOM, EXAMPLES = 8, 4  # random events of a page, and examples of each behaviour
FREQUENT = 2000  # tokens among which the QK circuit's are shown
SOURCES = 5  # tokens of the strongest events that the circuits are asked about
KEEP = 20.0  # seconds between two notes of how far a scan has come


@dataclass(frozen=True)
class PageOptions:
    """How a corpus is read.

    tokens: of the corpus that are read. length: of a window, start and end tokens included (default 512, at most the model's
    context). every: one in so many positions is a sampled query. sample: random events kept of a head. seed: of all that is
    drawn. generate: tokens that the model writes after the beginning of each of the corpus' texts, and that are read in its
    place; 0: the corpus itself. Raises BadInput.
    """

    tokens: int = TOKENS
    length: int | None = None
    every: int = EVERY
    sample: int = SAMPLE
    seed: int = 0
    generate: int = 0

    def __post_init__(self) -> None:
        demand_numbers(self)
        for name, least in (("tokens", 16), ("every", 1), ("sample", 64), ("generate", 0)):
            if getattr(self, name) < least:
                raise BadInput(f"{name} is {getattr(self, name)}.", f"Give {least} or more.")


def head_pages(
    model: Model,
    corpus: Given = None,
    heads: Heads | None = None,
    *,
    causal: bool = True,
    atlas: str | Path | None = None,
    options: PageOptions | None = None,
    out: str | Path | None = None,
    edits: Sequence[Edit] = (),
    progress: Progress | None = None,
) -> HeadPages:
    """What heads do all day on a text: what each reads and writes, its behaviours, and what removing it there does to the loss.

    corpus: a text file, a table with a column "text", a folder of these, a Hub data set, or a list of texts; None: the bundled
    prose. heads: whose pages are made; None: all of them. causal: remove the named heads (of all heads the TOP that write
    most) at the events of each behaviour; needs a decoder. atlas: a run folder of `mine`, whose observed roles are looked for
    in the text, and whose report gets links to the pages. out: a new folder for the pages; an interrupted call goes on from there. edits: in force throughout. Raises
    BadInput, StoreError, UnsupportedModel.
    """
    options, progress = options or PageOptions(), progress or Silent()
    asked = model.heads if heads is None else tuple(dict.fromkeys(parse_heads(heads, model.heads)))
    model.require(asked)
    if causal:
        demand_loss(model)
        if edits:
            raise BadInput("Heads are not removed from a model under edits.", "Give causal=False with edits.")
    roles = roles_of(atlas, model) if atlas is not None else {}
    given = corpus_for(model, corpus, options)
    with kept(None if out is None else Path(out), facts_of(model, given, options, edits)) as place:
        read = _written(model, corpus, options, place, progress) if options.generate else given
        facts = facts_of(model, read, options, edits)
        found = scanned(model, read, facts, options, place=place, edits=edits, progress=progress)
        removed = () if not causal else asked if heads is not None else writing_most(found)
        pages = make_pages(model, read, found, asked, removed=removed, roles=roles, edits=edits, progress=progress)
        traces: Generated | None = (
            measure_generated(model, read, edits=edits, progress=progress) if options.generate else None
        )
        done = replace(found, pages=pages, generated=traces)
        if place is not None:
            from headatlas.pages.html import write_files

            write_files(done, place)
            for name in (COUNTS, written.KEPT):
                (place / name).unlink(missing_ok=True)
    if atlas is not None and out is not None:
        Atlas(atlas).link_pages(out)
    return done


def corpus_for(model: Model, corpus: Given, options: PageOptions) -> Corpus:
    """What is read: the corpus, or the beginnings of its texts, from which the model goes on. Raises BadInput, UnsupportedModel."""
    if options.generate:
        return written.beginnings(model, corpus, options.tokens, options.length, options.generate)
    return read_corpus(model.tokenizer, corpus, tokens=options.tokens, length=options.length)


def _written(model: Model, corpus: Given, options: PageOptions, place: Path | None, progress: Progress) -> Corpus:
    """What the model writes."""
    return written.generated_corpus(
        model, corpus, options.tokens, options.length, options.generate, place=place, progress=progress
    )


def scanned(
    model: Model,
    corpus: Corpus,
    facts: Mapping[str, Any],
    options: PageOptions,
    *,
    place: Path | None = None,
    edits: Sequence[Edit] = (),
    progress: Progress | None = None,
) -> HeadPages:
    """The scan of all heads, without pages. place: a folder in which it is noted how far it has come, to go on from."""
    settings = Settings(options.every, options.seed, options.sample)
    counts = _scanned(model, corpus, settings, place, edits, progress or Silent())
    return HeadPages(model.name, facts, model.heads, counts, {})


def make_pages(
    model: Model,
    corpus: Corpus,
    found: HeadPages,
    heads: Sequence[HeadId],
    *,
    removed: Sequence[HeadId] = (),
    roles: Mapping[HeadId, Mapping[str, str]] | None = None,
    edits: Sequence[Edit] = (),
    progress: Progress | None = None,
) -> dict[HeadId, HeadPage]:
    """The pages of `heads` from a scan of the corpus. removed: those that are removed at their events too. roles: see `roles_of`."""
    progress = progress or Silent()
    progress.plan([(BEHAVIOURS, len(heads))])
    groups = {}
    for head in heads:
        groups[head] = _behaviours(found, head, int(found.facts["seed"]))
        progress.advance(BEHAVIOURS)
    seen = _looked_at(model, corpus, found, groups, edits, progress)
    removals = _removed(model, corpus, found, {head: groups[head] for head in removed}, progress) if removed else {}
    return {
        head: HeadPage(
            head, groups[head], strongest, deciles, random, examples, removals.get(head, {}), played(found, head, (roles or {}).get(head, {})),
            _weights(model, strongest, head) if len(heads) <= TOP else {},
        )
        for head, (strongest, deciles, random, examples) in seen.items()
    }  # fmt: skip


def writing_most(found: HeadPages) -> tuple[HeadId, ...]:
    """The TOP heads that write most, as far as they do not rest, on average over the sample."""
    sample = _sample(found)
    writes = ((1 - found.counts.pool_rest) * found.counts.pool_write)[:, sample].mean(1)
    return tuple(found.heads[i] for i in np.argsort(-writes, kind="stable")[:TOP])


def facts_of(model: Model, corpus: Corpus, options: PageOptions, edits: Sequence[Edit]) -> dict[str, Any]:
    """What decides the numbers, with an id made of it."""
    facts = {
        "model": model.name, "sha256": model.sha256(), "dtype": str(model.dtype).removeprefix("torch."), "start_end": model.tokenizer.bos_policy,
        **identity_of(model), "corpus": corpus.name, "texts": corpus.digest, "windows": len(corpus.windows), "n_texts": len(corpus.texts),
        "left_out": corpus.left_out, **asdict(options), "tokens": corpus.n_tokens, "length": corpus.length, "edits": [repr(edit) for edit in edits],
        "headatlas": __version__,
    }  # fmt: skip
    return {"id": short_id(facts), **facts}


@contextmanager
def kept(out: Path | None, facts: Mapping[str, Any]) -> Iterator[Path | None]:
    """The folder in which work under way lies, which gets its name at the end; None where nothing is kept. Raises StoreError."""
    if out is None:
        yield None
        return
    with claimed(out, facts):
        place = partial_of(out)
        yield place
        give_name(place, out)


def _scanned(
    model: Model, corpus: Corpus, settings: Settings, place: Path | None, edits: Sequence[Edit], progress: Progress
) -> Counts:
    """The counts of a scan; what an interrupted one had counted is taken up again."""
    file = None if place is None else place / COUNTS
    counts = None
    if file is not None and file.exists():
        arrays = {name: torch.from_numpy(values) for name, values in read_arrays(file).items()}
        wanted = Counts.empty(model, settings).arrays
        batches = arrays.pop("batches", None)
        if batches is None or {name: x.shape for name, x in arrays.items()} != {
            name: x.shape for name, x in wanted.items()
        }:
            raise StoreError(f"{file} does not hold the counts of this model.", f"Remove {place} and run again.")
        counts = Counts(int(batches), arrays)
    noted = time.monotonic()
    found = counts
    for found in scan(model, corpus, settings, counts, edits=edits, progress=progress):
        if file is not None and time.monotonic() - noted > KEEP:
            write_arrays(
                file, {"batches": np.array(found.batches), **{name: x.numpy() for name, x in found.arrays.items()}}
            )
            noted = time.monotonic()
    assert found is not None
    if file is not None:
        write_arrays(
            file, {"batches": np.array(found.batches), **{name: x.numpy() for name, x in found.arrays.items()}}
        )
    return found


def _sample(found: HeadPages) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Numbers of the random events that are filled, in the order drawn."""
    events = found.counts.pool_event
    order = np.argsort(found.counts.pool_draw, kind="stable")
    kept: np.ndarray[Any, np.dtype[np.int64]] = order[events[order, 0] >= 0]
    return kept


def _behaviours(found: HeadPages, head: HeadId, seed: int) -> Behaviours:
    i, sample = found.heads.index(head), _sample(found)
    pool, rest = found.counts.pool[i, sample].astype(np.float64), found.counts.pool_rest[i, sample].astype(np.float64)
    return behaviours(pool, rest, found.kinds_chance[i], seed=seed)


def _looked_at(
    model: Model,
    corpus: Corpus,
    found: HeadPages,
    groups: Mapping[HeadId, Behaviours],
    edits: Sequence[Edit],
    progress: Progress,
) -> dict[HeadId, tuple[tuple[Event, ...], tuple[Event, ...], tuple[Event, ...], dict[int, tuple[Event, ...]]]]:
    """For each head its strongest, decile and random events, and examples of each behaviour (the first that were drawn)."""
    sample, counts = _sample(found), found.counts
    drawn = places(counts.pool_event[sample])
    chosen: dict[HeadId, tuple[list[Place], list[Place], list[Place], dict[int, list[Place]]]] = {}
    for head, one in groups.items():
        i = found.heads.index(head)
        strength = ((1 - counts.pool_rest[i]) * counts.pool_write[i])[sample]
        ranked = np.argsort(-strength, kind="stable")
        deciles = [drawn[ranked[int((k + 0.5) * len(ranked) / 10)]] for k in range(10)] if len(ranked) >= 10 else []
        examples = {k: [drawn[j] for j in group.members[:EXAMPLES]] for k, group in enumerate(one.groups)}
        chosen[head] = places(counts.top_event[i]), deciles, drawn[:RANDOM], examples
    wanted = {head: {*a, *b, *c, *(p for part in d.values() for p in part)} for head, (a, b, c, d) in chosen.items()}
    seen = look_at(model, corpus, wanted, edits=edits, progress=progress)
    take = lambda head, some: tuple(seen[head, place] for place in some)  # noqa: E731
    return {
        head: (take(head, a), take(head, b), take(head, c), {k: take(head, part) for k, part in d.items()})
        for head, (a, b, c, d) in chosen.items()
    }


def _removed(
    model: Model, corpus: Corpus, found: HeadPages, groups: Mapping[HeadId, Behaviours], progress: Progress
) -> dict[HeadId, dict[int, Removed]]:
    """Each behaviour's removals beside as many random events of the head's other doings; the price is told first."""
    drawn = places(found.counts.pool_event[_sample(found)])
    plan: dict[tuple[HeadId, int], tuple[list[Place], list[Place]]] = {}
    for head, one in groups.items():
        for k, group in enumerate(one.groups):
            mine = set(group.members.tolist())
            own = usable(corpus, [drawn[j] for j in group.members])
            others = usable(corpus, [place for j, place in enumerate(drawn) if j not in mine])[: len(own)]
            if own:
                plan[head, k] = own, others
    jobs: dict[Hashable, tuple[HeadId, list[Place]]] = {
        (head, k, which): (head, events[which]) for (head, k), events in plan.items() for which in (0, 1)
    }
    total = sum(len(events) for _, events in jobs.values())
    times = price(model, corpus, jobs) / max(found.facts["tokens"], 1)
    progress.say(
        f"removals: {count(len(plan), 'behaviour')} of {count(len(groups), 'head')} at {count(total, 'event')}, for about the price of reading "
        f"the corpus {times:.1f} times"
    )
    progress.plan([(removal.STEP, total)])
    done = remove_at(model, corpus, jobs, mean_z(model, found.counts), progress=progress)
    result: dict[HeadId, dict[int, Removed]] = {}
    for head, k in plan:
        result.setdefault(head, {})[k] = Removed(done[head, k, 0], done[head, k, 1])
    return result


def _weights(model: Model, strongest: Iterable[Event], head: HeadId) -> dict[str, Any]:
    """What the weights alone say for tokens of the strongest events: raised when attended to (OV), looked for (QK)."""
    sources, queries = [], []
    for event in strongest:
        best = int(np.argmax(event.weights))
        near = (event.weights[best], event.tokens[best])
        sources.append(max([near, *((weight, token) for _, token, weight in event.far)])[1])
        queries.append(event.tokens[event.query])
    single = model.tokenizer.single if model.tokenizer.has_text else lambda _: None
    frequent = torch.tensor(model.tokenizer.plain_ids()[:FREQUENT])

    def asked(texts: Sequence[str]) -> torch.Tensor:
        ids = [one for text in dict.fromkeys(texts) if (one := single(text)) is not None]
        return torch.tensor(list(dict.fromkeys(ids))[:SOURCES], dtype=torch.long)

    def rows(ids: torch.Tensor, top: TopTokens) -> dict[str, list[str]]:
        name = model.tokenizer.pieces
        return {name([int(one)])[0]: name([int(x) for x in line]) for one, line in zip(ids, top.tokens, strict=True)}

    result: dict[str, Any] = {}
    for view, ids in (("ov", asked(sources)), ("qk", asked(queries))):
        if not len(ids):
            continue
        try:
            top = (writes_of if view == "ov" else attends_to)(model, head, ids, looking.TOKENS, among=frequent)[0]
        except UnsupportedModel:  # such as an encoder, which has no read-out
            continue
        result[view] = rows(ids, top)
    return result
