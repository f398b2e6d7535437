"""A training loop in plain torch: AdamW, checkpoints on a log scale, and an interrupted training that goes on to the same bits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import HeadAtlasError
from headatlas.lab.training.interventions import Intervention, demand_heads, in_force
from headatlas.lab.training.options import TrainOptions
from headatlas.lab.training.state import keep, recall
from headatlas.progress import Progress, Silent
from headatlas.store import new_folder

Objective = Callable[[Any, torch.Generator], Tensor]  # (model, where chance comes from) -> loss of one step
Measure = Callable[[Any], Mapping[str, float]]  # model in evaluation mode, without gradients -> numbers by name
CHECKPOINTS, STATE = "checkpoints", "state.safetensors"


@dataclass(frozen=True)
class Point:
    """A training as it stood after so many steps. loss: the objective on fresh examples of the step; values: what was measured."""

    step: int
    loss: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """A finished training: the model, and its points at the steps of checkpoints."""

    model: Any
    points: tuple[Point, ...]

    @property
    def steps(self) -> list[int]:
        """The steps of the points."""
        return [point.step for point in self.points]

    def series(self, name: str) -> list[float]:
        """A measured number at each point; "loss" is the objective's."""
        return [point.loss if name == "loss" else point.values[name] for point in self.points]

    def last(self, name: str) -> float:
        """A measured number at the end."""
        return self.series(name)[-1]

    def reaches(self, name: str, level: float) -> float:
        """The first step at which a number is at least `level`; infinite where it never is."""
        return next((s for s, value in zip(self.steps, self.series(name), strict=True) if value >= level), float("inf"))

    def falls_to(self, name: str, level: float) -> float:
        """The first step at which a number is at most `level`; infinite where it never is."""
        return next((s for s, value in zip(self.steps, self.series(name), strict=True) if value <= level), float("inf"))

    def halfway(self, name: str) -> float:
        """The first step at which a number has come half the way from its first value to its last."""
        values = self.series(name)
        middle = (values[0] + values[-1]) / 2
        return self.reaches(name, middle) if values[-1] >= values[0] else self.falls_to(name, middle)


def train(
    model: Any,
    objective: Objective,
    options: TrainOptions,
    *,
    seed: int = 0,
    measure: Measure | None = None,
    interventions: Sequence[Intervention] = (),
    folder: Path | None = None,
    save: Callable[[Any, Path], object] | None = None,
    name: str = "training",
    progress: Progress | None = None,
) -> Training:
    """Train `model` in place: its parameters that ask for gradients.

    Chance of step s is a function of `seed` and s alone (the generator that `objective` is given, and torch's own for
    dropout), so that a training that is taken up again ends in the same bits. folder: keeps the state there, and goes on
    from one that an interrupted training of the same options left; save(model, folder) writes a checkpoint, into
    `folder`/checkpoints/step-0000100 and so on. One thread is used, whatever torch is set to: for small models it is as
    fast, and sums are the same on every machine of a kind. Raises BadInput where the folder holds another training.
    """
    progress = progress or Silent()
    demand_heads(model, interventions)
    identity = json.dumps([asdict(options), seed, list(map(str, interventions))], sort_keys=True)
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(
        trained.values(), lr=options.learning_rate, betas=options.betas, weight_decay=options.weight_decay, fused=True
    )
    state = folder / STATE if folder is not None else None
    first, known = recall(state, identity, model, optimizer, trained)
    points = [Point(**point) for point in known]
    looked = set(options.checkpoints) - {point.step for point in points}
    progress.plan([(name, options.steps)])
    if first:
        progress.advance(name, first)
        progress.say(f"{name}: goes on from step {first}.")
    with _one_thread():
        for step in range(first, options.steps + 1):
            if step in looked:
                with in_force(model, interventions, step):
                    points.append(_look(model, objective, measure, seed, step))
                if save is not None and folder is not None:
                    _checkpoint(model, folder / CHECKPOINTS / f"step-{step:07d}", save)
                progress.say(_told(name, points[-1]))
            if state is not None and (step in looked or (step % options.keep_every == 0 and step > first)):
                keep(state, identity, step, [asdict(point) for point in points], model, optimizer, trained)
            if step < options.steps:
                for group in optimizer.param_groups:
                    group["lr"] = options.rate(step)
                _step(model, objective, optimizer, options.clip, interventions, seed, step)
                progress.advance(name)
    return Training(model.eval(), tuple(points))


def _step(
    model: Any,
    objective: Objective,
    optimizer: Any,
    clip: float,
    interventions: Sequence[Intervention],
    seed: int,
    step: int,
) -> None:
    model.train()
    with _chance(seed, step) as generator, in_force(model, interventions, step) as penalty:
        loss = objective(model, generator) + penalty()
        if not bool(loss.isfinite()):
            raise HeadAtlasError(
                f"The loss is no longer a number at step {step}.", "Train with a smaller learning rate."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], clip)
        optimizer.step()


def _look(model: Any, objective: Objective, measure: Measure | None, seed: int, step: int) -> Point:
    """What is known of the model before a step: the loss of the examples that it is about to learn from, and the measures."""
    model.eval()
    with torch.no_grad(), _chance(seed, step) as generator:
        loss = float(objective(model, generator))
        values = dict(measure(model)) if measure is not None else {}
    return Point(step, loss, values)


def _checkpoint(model: Any, target: Path, save: Callable[[Any, Path], object]) -> None:
    """Write a checkpoint, unless an interrupted training got as far as to write this one, which has the same bits."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(target) as half:
            save(model, half)


def _told(name: str, point: Point) -> str:
    numbers = ", ".join(f"{key} {value:.3g}" for key, value in list(point.values.items())[:5])
    return f"{name}, step {point.step}: loss {point.loss:.4f}" + (f", {numbers}" if numbers else "")


@contextlib.contextmanager
def _chance(seed: int, step: int) -> Iterator[torch.Generator]:
    """The generator of one step; torch's own chance is set by it too, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 1_000_003 + step)
        yield torch.Generator().manual_seed(seed * 1_000_003 + step + (1 << 40))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
