"""One row of the table of families put to the test: what headatlas gives against what is true of untouched copies."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import headatlas as ha
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.heads import HeadId
from headatlas.model import Model, attach
from headatlas.model.families.build import CannotBuild, FamilyRow, sample
from tests.families import truth
from tests.families.truth import Writer, relative, run

SAME = 1e-6  # the model's own computation: no difference but rounding of another order
CLOSE = 1e-4  # computed another way
HALF = 2e-2  # in half precision
LENGTHS = (40, 29, 13)


@dataclass
class Verdict:
    """exact, refused, wrong, crash or not built; numbers of every step, and why."""

    row: str
    status: str
    why: str = ""
    right: bool | None = None  # of a refusal: whether the probe shows what it claims
    steps: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Refused(Exception):
    """A step that headatlas refused in words; not wrong, but a limit."""


def judge(row: FamilyRow, *, everything: bool = True) -> Verdict:
    """Build a row, open it, and compare. everything: also generation, half precision and the user's own eager choice."""
    began = time.perf_counter()
    try:
        hf = row.build()
    except CannotBuild as error:
        return Verdict(row.name, "not built", str(error))
    verdict = _judge(row, hf, everything)
    verdict.seconds = round(time.perf_counter() - began, 1)
    return verdict


def _judge(row: FamilyRow, hf: nn.Module, everything: bool) -> Verdict:
    fresh = copy.deepcopy(hf)  # before anything is opened
    try:
        model = attach(hf)
    except HeadAtlasError as error:
        right, shown = reachable(fresh, row.needs)
        return Verdict(row.name, "refused", str(error), right, facts={"probe": shown})
    except Exception as error:
        return Verdict(row.name, "crash", crash(error))
    trial = Trial(model, fresh)
    verdict = Verdict(row.name, "exact", facts=trial.facts)
    steps: dict[str, Callable[[], float | str]] = dict(STEPS | MORE if everything else STEPS)
    for name, step in steps.items():
        try:
            value: Any = step(trial)  # type: ignore[call-arg]
        except Refused as error:
            value = f"refused: {error}"
        except HeadAtlasError as error:
            value = f"refused: {error}"
        except Exception as error:
            value = f"crash: {crash(error)}"
        verdict.steps[name] = value
        limit = LIMITS.get(name, CLOSE)
        if isinstance(value, float) and not value <= limit:
            verdict.failed.append(name)
        if isinstance(value, str) and value.startswith(("crash", "wrong", *MUST_NOT_REFUSE.get(name, ()))):
            verdict.failed.append(name)
    if verdict.failed:
        crashed = all(str(verdict.steps[name]).startswith("crash") for name in verdict.failed)
        verdict.status = "crash" if crashed else "wrong"
        verdict.why = "; ".join(f"{name}: {verdict.steps[name]}" for name in verdict.failed)
    return verdict


def crash(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}"
        for f in frames
        if "headatlas" in f.filename or "models/" in f.filename
    ]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} @ {' < '.join(reversed(ours[-5:]))}"


def reachable(hf: nn.Module, needs: str) -> tuple[bool, str]:
    """Whether a refusal is right: on an untouched copy, does some attention not come through the interface?"""
    given = sample(hf)
    try:
        _, seen = run(hf, given)
    except Exception as error:
        return True, f"does not run on text alone: {type(error).__name__}: {str(error)[:100]}" + (
            f" ({needs})" * bool(needs)
        )
    kinds = sorted({type(call.module).__name__ for call in seen.calls})
    if seen.calls:
        where = truth.writer(hf, given, seen.calls[0])
        if where is None or not (where.exact or where.own_columns):
            return True, f"no linear map takes the outputs of single heads of {kinds[0]}"
        if truth.attends_several_times(hf, given):
            return True, f"one pass of {kinds[0]} mixes several attention calls"
    shown = f"{len(seen.calls)} calls of the interface ({', '.join(kinds)}), {len(seen.outside)} attentions outside it"
    return not seen.calls or bool(seen.outside), shown


class Trial:
    """An opened model, its untouched copies, and the truths that several steps need."""

    def __init__(self, model: Model, fresh: nn.Module) -> None:
        self.model, self.fresh = model, fresh
        self.plain = copy.deepcopy(fresh)
        self.given = sample(fresh)
        self.logits, self.seen = run(self.plain, self.given)
        self.facts: dict[str, Any] = {
            "kind": model.kind, "stacks": model.stacks, "path": model.path, "fast": model.fast,
            "left_padding": model.left_padding, "restarts": model.restarts, "layers": len(model.layers),
            "calls": len(self.seen.calls), "outside": len(self.seen.outside),
            "editable": all(layer.pattern_editable for layer in model.layers),
        }  # fmt: skip
        try:
            self.eager: nn.Module | None = truth.eager_copy(fresh)
            logits, self.eager_seen = run(self.eager, self.given)
            self.facts["eager against own"] = relative(logits, self.logits)
        except Exception as error:
            self.eager = None
            self.facts["eager"] = f"{type(error).__name__}: {str(error)[:80]}"
        self.writers: list[Writer | None] = []

    @property
    def comparable(self) -> bool:
        """Whether the model's own eager attention computes what its default one does."""
        return self.eager is not None and self.facts["eager against own"] < CLOSE

    def call_numbers(self) -> list[int | None]:
        """Which call of the interface each layer is, by the path of its module; None where it asks none."""
        paths = {module: path for path, module in self.plain.named_modules()}
        by_path: dict[str, list[int]] = {}
        for call in self.seen.calls:
            by_path.setdefault(paths[call.module], []).append(call.number)
        found: list[int | None] = []
        used: dict[str, int] = {}
        for layer in self.model.layers:
            numbers, n = by_path.get(layer.name, []), used.get(layer.name, 0)
            found.append(numbers[n] if n < len(numbers) else None)
            used[layer.name] = n + 1
        return found

    def find_writers(self) -> list[Writer | None]:
        if not self.writers:
            for layer, number in zip(self.model.layers, self.call_numbers(), strict=True):
                if number is not None:
                    found = truth.writer(self.plain, self.given, self.seen.calls[number])
                else:
                    module = self.plain.get_submodule(layer.name)
                    found = truth.last_map(self.plain, self.given, module, layer.n_heads)
                self.writers.append(found)
            self.facts["writers"] = sorted(
                {"none" if one is None else one.path.rsplit(".", 1)[-1] for one in self.writers}
            )
        return self.writers


@dataclass(frozen=True)
class LookAtFirst:
    """A pattern edit: a head looks at the first key alone."""

    head: HeadId
    component: str = "pattern"

    @property
    def heads(self) -> tuple[HeadId, ...]:
        return (self.head,)

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset({(self.head.stack, self.head.layer)})

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, self.head.head] = 0
        x[:, self.head.head, :, 0] = 1
        return x


@dataclass(frozen=True)
class AddVector:
    """A residual edit: a vector is added to what enters a block."""

    place: tuple[str, int]
    vector: Tensor
    component: str = "residual"
    heads: tuple[HeadId, ...] = ()

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset({self.place})

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        if x.ndim != 3:
            raise AssertionError(f"a residual edit was given {tuple(x.shape)}, not [example, pos, d_model]")
        return x + self.vector.to(x.dtype)


# ---- steps ----------------------------------------------------------------------------------------------------------


def unwatched(trial: Trial) -> float:
    return relative(trial.model.forward(trial.given), trial.logits)


def watching(trial: Trial) -> float:
    return relative(trial.model.forward(trial.given, watch=lambda layer: layer.pattern), trial.logits)


def plain_use(trial: Trial) -> float:
    return relative(run(trial.model.hf, trial.given)[0], trial.logits)


def longer_and_shorter(trial: Trial) -> float:
    """Other lengths than the one before, so that nothing is kept from pass to pass."""
    worst = 0.0
    for length in (100, 7):
        given = sample(trial.plain, length=length, seed=5)
        worst = max(worst, relative(trial.model.forward(given), run(trial.plain, given)[0]))
    return worst


def every_layer(trial: Trial) -> str | float:
    """Each attention call of an untouched copy is one layer, in the right stack, causal where it is."""
    numbers = trial.call_numbers()
    if trial.seen.calls and (None in numbers or len(set(numbers)) != len(trial.seen.calls)):
        return f"wrong: {len(trial.seen.calls)} attention calls, of which {len(set(numbers) - {None})} are layers"
    for layer, number in zip(trial.model.layers, numbers, strict=True):
        if number is None:
            continue
        call = trial.seen.calls[number]
        if "decoder_input_ids" in trial.given:
            stack = truth.stack_of(call, trial.given)
        elif trial.eager is not None and trial.eager_seen.calls[number].weights is not None:
            weights = trial.eager_seen.calls[number].weights
            square = weights.shape[-1] == weights.shape[-2]
            ahead = square and float(weights.triu(1).abs().max()) > 0
            stack = "encoder" if ahead else "decoder" if square else layer.stack
        else:
            continue
        if stack != layer.stack:
            return f"wrong: {layer.name} is {stack}, found as {layer.stack} {layer.index}"
    addresses = [(layer.stack, layer.index) for layer in trial.model.layers]
    return 0.0 if len(set(addresses)) == len(addresses) else "wrong: two layers share an address"


def patterns(trial: Trial) -> str | float:
    """Attention weights against those that an eager copy computes."""
    if not trial.comparable:
        return "no truth: the model's own eager attention gives other numbers, or there is none"
    ours: dict[tuple[str, int], Tensor] = {}
    trial.model.forward(
        trial.given, watch=lambda layer: ours.update({(layer.stack, layer.index): layer.pattern.clone()})
    )
    theirs = [trial.eager_seen.calls[n].weights if n is not None else None for n in trial.call_numbers()]
    if all(one is None for one in theirs):
        theirs = reported(trial)
    if all(one is None for one in theirs):
        return "no truth: the untouched model reports no weights of the attention that it computes"
    worst = 0.0
    for layer, expected in zip(trial.model.layers, theirs, strict=True):
        if expected is not None:
            found = ours[layer.stack, layer.index]
            worst = max(worst, float((found - expected).abs().max()) if found.shape == expected.shape else float("inf"))
    return worst


def reported(trial: Trial) -> list[Tensor | None]:
    """Attention weights that a model reports itself, of a family that asks no interface."""
    with torch.no_grad():
        output = trial.eager(**trial.given, output_attentions=True)  # type: ignore[misc]
    found = [layer for layer in (output.attentions or ()) if layer is not None]
    # Reporting may itself change what is computed (Falcon); then the report says nothing about the model as it runs.
    fits = len(found) == len(trial.model.layers) and relative(truth.read(output), trial.logits) < CLOSE
    return list(found) if fits else [None] * len(trial.model.layers)


def zeroing(trial: Trial) -> str | float:
    """One head of every layer zeroed, against zeros in its columns where it writes."""
    worst, least = 0.0, float("inf")
    for i, (layer, where) in enumerate(zip(trial.model.layers, trial.find_writers(), strict=True)):
        if where is None:
            return f"wrong: no linear map takes the heads of {layer.name}, and yet it opens"
        head = (i + 1) % layer.n_heads
        with truth.zeroed(trial.plain, where, head):
            expected, _ = run(trial.plain, trial.given)
        found = trial.model.forward(trial.given, edits=[ha.Zero(HeadId(layer.index, head, layer.stack))])
        worst, least = max(worst, relative(found, expected)), min(least, relative(expected, trial.logits))
    trial.facts["zeroing moves"] = least
    return worst


def pattern_edit(trial: Trial) -> str | float:
    if not trial.comparable:
        return "no truth: the model's own eager attention gives other numbers, or there is none"
    worst, refusal, tried = 0.0, "", 0
    for i, (layer, number) in enumerate(zip(trial.model.layers, trial.call_numbers(), strict=True)):
        if number is None or not truth.formed_from_weights(trial.eager_seen.calls[number]):
            continue
        tried += 1
        head = (i + 2) % layer.n_heads
        expected, _ = run(trial.eager, trial.given, truth.looking_at_first(number, head))  # type: ignore[arg-type]
        try:
            found = trial.model.forward(trial.given, edits=[LookAtFirst(HeadId(layer.index, head, layer.stack))])
        except HeadAtlasError as error:
            refusal = str(error)
            continue
        worst = max(worst, relative(found, expected))
    if refusal:
        raise Refused(refusal)
    return worst if tried else "no truth: outputs are not weights times values, or no interface is asked"


def residual_edit(trial: Trial) -> str | float:
    """A vector added to what enters the first and the last block of the main stack."""
    main = [
        layer
        for layer in trial.model.layers
        if layer.stack == trial.model.layers[-1].stack or len(trial.model.stacks) == 1
    ]
    if "cross" in trial.model.stacks:
        main = [layer for layer in trial.model.layers if layer.stack == "decoder"] or main
    worst = 0.0
    for layer in (main[0], main[-1]):
        block = truth.block_of(trial.plain, layer.name)
        if block is None:
            return "no truth: no list of blocks"
        width = truth.width_at(trial.plain, trial.given, block)
        vector = torch.randn(width, generator=torch.Generator().manual_seed(5))
        found = trial.model.forward(trial.given, edits=[AddVector((layer.stack, layer.index), vector)])
        with truth.added(trial.plain, block, vector):
            expected, _ = run(trial.plain, trial.given)
        worst = max(worst, relative(found, expected))
    return worst


def padding(side: str) -> Callable[[Trial], float | str]:
    def step(trial: Trial) -> float | str:
        generator = torch.Generator().manual_seed(9)
        texts = [torch.randint(5, 180, (n,), generator=generator) for n in LENGTHS]
        tokens = torch.full((len(texts), max(LENGTHS)), 7)
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        for i, text in enumerate(texts):
            where = slice(-len(text), None) if side == "left" else slice(0, len(text))
            tokens[i, where], mask[i, where] = text, True
        worst = 0.0
        try:
            found = trial.model.forward(SimpleNamespace(tokens=tokens, mask=mask))
        except BadInput as error:
            own = own_padding(trial, texts, tokens, mask)
            if own < CLOSE:
                return f"wrong: refused ({error}), and yet the untouched model takes it (off by {own:.1g})"
            raise Refused(f"{error} (the untouched model is off by {own:.2g} itself)") from error
        for i, text in enumerate(texts):
            expected, _ = run(trial.plain, both(trial, text[None]))
            worst = max(worst, relative(found[i, mask[i]], expected[0]))
        return worst

    return step


def both(trial: Trial, tokens: Tensor) -> dict[str, Tensor]:
    return {name: tokens for name in trial.given}


@torch.no_grad()
def own_padding(trial: Trial, texts: list[Tensor], tokens: Tensor, mask: Tensor) -> float:
    """How far a padded batch is from single texts in the untouched model, at best, whichever way padding is told."""
    places = (mask.long().cumsum(1) - 1).clamp(min=0)
    best = float("inf")
    for extra in ({}, {"position_ids": places}):
        try:
            given = {**both(trial, tokens.masked_fill(~mask, 0)), "attention_mask": mask.long(), **extra}
            if "decoder_input_ids" in given:
                given["decoder_attention_mask"] = mask.long()
            found, _ = run(trial.plain, given)
        except Exception:
            continue
        far = [
            relative(found[i, mask[i]], run(trial.plain, both(trial, text[None]))[0][0]) for i, text in enumerate(texts)
        ]
        best = min(best, max(far))
    return best


# ---- generation, types, and the user's own choice -------------------------------------------------------------------


def generation(kind: str, new: int = 6) -> Callable[[Trial], float | str]:
    """Cached generation (plain, with a head zeroed, with a head zeroed at one place of the prompt) against whole passes."""

    def step(trial: Trial) -> float | str:
        can = hasattr(trial.plain, "generate") and trial.plain.can_generate()
        if not can or trial.model.kind == "encoder" or not trial.model.has_logits:
            return "does not apply: it does not generate"
        prompt = {"input_ids": trial.given["input_ids"]}
        options = {
            "attention_mask": torch.ones_like(prompt["input_ids"]), "max_new_tokens": new, "min_new_tokens": new,
            "do_sample": False, "num_beams": 1, "output_logits": True, "return_dict_in_generate": True,
            "eos_token_id": None, "pad_token_id": 0, "use_cache": True,
        }  # fmt: skip
        seq2seq = "decoder_input_ids" in trial.given

        def whole(ids: Tensor) -> Tensor:
            given = {**prompt, "decoder_input_ids": ids[:, :-1]} if seq2seq else {"input_ids": ids[:, :-1]}
            return run(trial.plain, given)[0][:, -new:]

        try:
            own = copy.deepcopy(trial.fresh).generate(**prompt, **options)  # type: ignore[operator]
            drift = relative(torch.stack(own.logits, 1), whole(own.sequences))
        except Exception as error:
            return f"does not apply: the untouched model does not generate ({type(error).__name__}: {str(error)[:80]})"
        trial.facts["own cache against whole passes"] = drift
        index = max(i for i, layer in enumerate(trial.model.layers) if not seq2seq or layer.stack == "decoder")
        layer, where = trial.model.layers[index], trial.find_writers()[index]
        if where is None:
            return "no truth: nothing takes the heads' outputs"
        head = layer.n_heads - 1
        # An encoder-decoder's prompt is in its encoder; its decoder starts with one token.
        position = None if kind == "zero" else 0 if seq2seq else prompt["input_ids"].shape[1] - 1
        name = HeadId(layer.index, head, layer.stack)
        edits = (
            [] if kind == "plain" else [ha.Zero(name)] if position is None else [ha.Zero(name, positions=[position])]
        )
        with trial.model.edited(edits) as hf:
            found = hf.generate(**prompt, **options)  # type: ignore[operator]
        logits = torch.stack(found.logits, 1)
        other = copy.deepcopy(trial.fresh) if drift > CLOSE else trial.plain
        with truth.zeroed(other, where, head, position) if kind != "plain" else contextlib.nullcontext():
            if drift <= CLOSE:
                return relative(logits, whole(found.sequences))
            if kind == "place":
                return f"no truth: the untouched model's cached logits are off by {drift:.2g} from its whole passes"
            # A model whose cached passes differ from its whole ones: its own cached generation is the truth.
            return relative(logits, torch.stack(other.generate(**prompt, **options).logits, 1))  # type: ignore[operator]

    return step


def in_type(dtype: torch.dtype) -> Callable[[Trial], float | str]:
    """Unwatched, watched and with a head zeroed, in half precision."""

    def step(trial: Trial) -> float | str:
        hf = copy.deepcopy(trial.fresh).to(dtype)
        plain = copy.deepcopy(hf)
        try:
            expected, _ = run(plain, trial.given)
        except Exception as error:
            return f"does not apply: the untouched model does not run in it ({type(error).__name__})"
        if not bool(torch.isfinite(expected).all()):
            return "does not apply: the untouched model overflows in it"
        model = attach(hf)
        worst = relative(model.forward(trial.given), expected)
        worst = max(worst, relative(model.forward(trial.given, watch=lambda layer: layer.pattern), expected))
        layer, where = model.layers[0], trial.find_writers()[0]
        if where is not None:
            with truth.zeroed(plain, where, 0):
                expected, _ = run(plain, trial.given)
            found = model.forward(trial.given, edits=[ha.Zero(HeadId(layer.index, 0, layer.stack))])
            worst = max(worst, relative(found, expected))
        return worst

    return step


def chosen_eager(trial: Trial) -> float | str:
    """A user who chose eager attention keeps its numbers."""
    hf = copy.deepcopy(trial.fresh)
    try:
        hf.set_attn_implementation("eager")  # type: ignore[operator]
        expected, _ = run(hf, trial.given)
    except Exception as error:
        return f"does not apply: {type(error).__name__}"
    model = attach(copy.deepcopy(hf))
    return relative(model.forward(trial.given), expected)


STEPS: dict[str, Callable[[Trial], float | str]] = {
    "unwatched": unwatched,
    "watched": watching,
    "other lengths": longer_and_shorter,
    "layers": every_layer,
    "pattern": patterns,
    "zeroed head": zeroing,
    "pattern edit": pattern_edit,
    "residual edit": residual_edit,
    "right padding": padding("right"),
    "left padding": padding("left"),
}
MORE: dict[str, Callable[[Trial], float | str]] = {
    "generation": generation("plain"),
    "generation, zeroed head": generation("zero"),
    "generation, zeroed at a place": generation("place"),
    "bfloat16": in_type(torch.bfloat16),
    "float16": in_type(torch.float16),
    "chosen eager": chosen_eager,
    "plain use after all": plain_use,
}
LIMITS = {"unwatched": SAME, "watched": SAME, "other lengths": SAME, "plain use after all": SAME}
LIMITS |= {"bfloat16": HALF, "float16": HALF}
# Steps that may not be refused once a model is open; the others may, with a reason.
MUST_NOT_REFUSE = {
    name: ("refused",) for name in ("unwatched", "watched", "other lengths", "zeroed head", "right padding")
}
