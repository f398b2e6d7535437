"""One pass over sentences with gold syntax, and what each head does with words and their relations."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headatlas.choices import ROW_DISTANCE, SYNTAX, WORD_ROWS
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import LayerView, Model
from headatlas.model.given import demand_numbers
from headatlas.progress import Progress, Silent
from headatlas.store import write_text
from headatlas.treebanks.constituents import ConstituentCounts, Constituents
from headatlas.treebanks.coreference import Coreference, CoreferenceCounts
from headatlas.treebanks.dependencies import Dependencies, DependencyCounts
from headatlas.treebanks.grammar import generated_sentences
from headatlas.treebanks.likeness_map import drawn
from headatlas.treebanks.probe import Probe, ProbeCounts
from headatlas.treebanks.sentences import Sentence, known, read_treebank
from headatlas.treebanks.sieve import Sieve, SieveCounts
from headatlas.treebanks.surface import Likeness, LikenessSums, Surface, SurfaceCounts
from headatlas.treebanks.trees import TreeCounts, Trees
from headatlas.treebanks.words import WordBatch, batches

MEASURES = SYNTAX.values
DEFAULT = ("dependencies", "sieve", "surface")
GENERATED = 500


@dataclass(frozen=True)
class SyntaxOptions:
    """How sentences are read.

    rows: "mean" over a split word's pieces, or its "last" piece. special: whether start and end tokens stand around each
    sentence. distance, bias: of constituents, see `headatlas.treebanks.constituents`. punctuation: whether trees have to find its
    edges too. tokens: of a batch. Raises BadInput.
    """

    rows: str = "mean"
    special: bool = True
    distance: str = "hellinger"
    bias: float = 0.0
    punctuation: bool = False
    tokens: int = 2048

    def __post_init__(self) -> None:
        demand_numbers(self)
        WORD_ROWS.demand(self.rows)
        ROW_DISTANCE.demand(self.distance)
        if not math.isfinite(self.bias):
            raise BadInput(f"The bias is {self.bias:g}.", "Give a number that is finite.")
        if self.tokens < 1:
            raise BadInput(f"A batch of {self.tokens} tokens holds nothing.", "Give 1 or more.")


@dataclass(frozen=True)
class Syntax:
    """What heads do with the words of sentences; each measure is None where it was not asked for.

    n: sentences read. left_out: names of those that were not (too long for the model, or a word without a token).
    facts: model, treebank, options.
    """

    heads: tuple[HeadId, ...]
    n: int
    left_out: tuple[str, ...]
    facts: dict[str, Any]
    dependencies: Dependencies | None = None
    trees: Trees | None = None
    constituents: Constituents | None = None
    coreference: Coreference | None = None
    sieve: Sieve | None = None
    probe: Probe | None = None
    surface: Surface | None = None
    likeness: Likeness | None = None

    def __repr__(self) -> str:
        asked = ", ".join(name for name in MEASURES if getattr(self, name) is not None)
        return f"Syntax({len(self.heads)} heads of {self.facts['model']} on {self.n} sentences: {asked})"

    def save_map(self, path: str | os.PathLike[str]) -> Path:
        """Draw the heads as SVG, likeness as nearness; needs measures "surface" and "likeness".

        Raises BadInput, StoreError, and HeadAtlasError without matplotlib.
        """
        if self.likeness is None or self.surface is None:
            raise BadInput("The map needs two measures.", 'Ask for measures=["surface", "likeness"].')
        target = Path(path)
        write_text(target, drawn(self.facts["model"], self.likeness, self.surface))
        return target


def syntax(
    model: Model,
    sentences: str | Path | Sequence[Sentence] | None = None,
    *,
    measures: Sequence[str] = DEFAULT,
    n: int | None = None,
    seed: int = 0,
    options: SyntaxOptions | None = None,
    progress: Progress | None = None,
) -> Syntax:
    """How each head's attention follows dependencies, trees, constituents, and what stands around words.

    sentences: a CoNLL-U file, a file of bracketed trees, or Sentence objects; None: sentences that a grammar of this package
    makes with `seed`, with dependencies and constituents. n: how many of them (default all; of made ones 500). measures: any
    of MEASURES ("trees" and "likeness" take longest). Attention is taken between words (Clark et al. 2019); of an
    encoder-decoder the encoder's is. Memory does not grow with the number of sentences. Raises BadInput, UnfitTask.
    """
    options, progress = options or SyntaxOptions(), progress or Silent()
    chosen = demand_measures(measures)
    if n is not None and n < 1:
        raise BadInput(f"There is nothing to read in {n} sentences.", "Give 1 or more.")
    if sentences is None:
        given: Sequence[Sentence] = generated_sentences(n or GENERATED, seed)
        origin = f"{n or GENERATED} sentences of the built-in grammar, seed {seed}"
    else:
        given = read_treebank(sentences) if isinstance(sentences, (str, Path)) else list(sentences)
        given = given[:n]
        origin = str(sentences) if isinstance(sentences, (str, Path)) else f"{len(given)} sentences"
    for measure, what in (
        ("dependencies", "heads"),
        ("trees", "heads"),
        ("constituents", "spans"),
        ("coreference", "mentions"),
        ("probe", "heads"),
    ):
        if measure in chosen:
            known(given, what)
    return _measured(model, given, chosen, options, progress, origin)


def demand_measures(measures: Sequence[str]) -> tuple[str, ...]:
    """The measures in their order. Raises BadInput for one that there is not."""
    if not measures:
        raise BadInput("No measure is named.", f"Choose among {', '.join(MEASURES)}.")
    for one in measures:
        SYNTAX.demand(one)
    return tuple(one for one in MEASURES if one in measures)


def _measured(
    model: Model,
    given: Sequence[Sentence],
    chosen: tuple[str, ...],
    options: SyntaxOptions,
    progress: Progress,
    origin: str,
) -> Syntax:
    stack = "encoder" if "encoder" in model.stacks else "decoder"
    heads = tuple(head for head in model.heads if head.stack == stack)
    if not heads:
        raise UnsupportedModel("The model has no attention among the words of one text.")
    start = {layer: min(i for i, head in enumerate(heads) if head.layer == layer) for layer in {h.layer for h in heads}}
    causal = model.layer(heads[0].layer, stack).causal
    parts, left_out = batches(model.tokenizer, given, tokens=options.tokens, special=options.special)
    read = [given[i] for i in sorted(i for part in parts for i in part.index)]
    reads = {
        "dependencies": lambda: DependencyCounts(heads, read, causal=causal),
        "trees": lambda: TreeCounts(heads, read, causal=causal, punctuation=options.punctuation),
        "constituents": lambda: ConstituentCounts(
            heads, read, causal=causal, distance=options.distance, bias=options.bias
        ),
        "coreference": lambda: CoreferenceCounts(heads, read, causal=causal),
        "sieve": lambda: SieveCounts(heads, read, causal=causal),
        "probe": lambda: ProbeCounts(heads, read, causal=causal),
        "surface": lambda: SurfaceCounts(heads, read, causal=causal),
        "likeness": lambda: LikenessSums(heads, read, causal=causal),
    }
    counts: dict[str, Any] = {name: reads[name]() for name in chosen}

    def watch(layer: LayerView) -> None:
        if layer.stack != stack:
            return
        place = slice(start[layer.index], start[layer.index] + layer.n_heads)
        if counts.keys() - {"surface", "likeness"}:
            maps = part.maps(layer, options.rows)
        for name, one in counts.items():
            if name in ("surface", "likeness"):
                one.add(place, layer)
            elif name == "sieve":
                one.add(place, maps, layer, sink)
            else:
                one.add(place, maps)

    for part in parts:
        sink = part.batch.mask & (part.word < 0)
        for one in counts.values():
            one.begin(part)
        with torch.inference_mode():
            model.forward(part.batch, watch=watch, **_no_logits(model, part))
        if "likeness" in counts:
            counts["likeness"].end()
        progress.advance("sentences", len(part.sentences), of=len(read))
    facts = {
        "model": model.name, "sentences": origin, "rows": options.rows, "special_tokens": options.special,
        "start_end": model.tokenizer.bos_policy if options.special else "none, as asked",
        "distance": options.distance, "bias": options.bias, "punctuation": options.punctuation, "causal": causal,
    }  # fmt: skip
    return Syntax(heads, len(read), tuple(left_out), facts, **{name: one.result() for name, one in counts.items()})


def _no_logits(model: Model, part: WordBatch) -> dict[str, Any]:
    """Ask for the logits of one position only, which nobody reads, where the model has any."""
    if not model.has_logits:
        return {}
    return {"logit_positions": torch.zeros(len(part.sentences), 1, dtype=torch.long)}
