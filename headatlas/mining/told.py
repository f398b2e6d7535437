"""What whoever follows a run is told of it at once: its price, each task's map, each detector's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headatlas import catalogue, engines, report
from headatlas.detector import ModelDetector
from headatlas.heads import HeadId
from headatlas.mining.atlas_json import ModelFacts, RunFacts, atlas_json
from headatlas.mining.checks.records import DetectorVerdict, HeadVerdict
from headatlas.mining.planning import Plan, tokens_a_second
from headatlas.mining.task_scan import TaskScan
from headatlas.model import Model
from headatlas.progress import Progress, Silent
from headatlas.render.numbers import count, seconds
from headatlas.report.atlas_schema import VERDICTS
from headatlas.task import Batch, Task

_SHOWN = 4  # heads of a verdict in the line of a detector


@dataclass(frozen=True)
class Tell:
    """Tells whoever follows a run what it will cost and what each scan found, at once."""

    model: ModelFacts
    run: RunFacts
    progress: Progress

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return type(self.progress) is not Silent

    def cost(self, model: Model, chosen: Plan, tasks: Sequence[Task]) -> None:
        """What the passes over these tasks' texts will take on this machine, measured on one batch of the first."""
        if not self.heard or not tasks:
            return
        workers = engines.current().workers
        here = "here" if workers == 1 else f"by {workers} workers"
        speed = tokens_a_second(model, chosen.batches[tasks[0]])
        tokens = sum(int(part.mask.sum()) for task in tasks for part in parts(chosen.batches[task]))
        whole = sum(isinstance(one, ModelDetector) for task in tasks for one in chosen.by_task[task])
        more = f"; {count(whole, 'detector')} of the whole model and the verdicts come on top" if whole else ""
        self.progress.say(
            f"{count(len(tasks), 'task')}, {tokens:,} tokens with their controls: about {seconds(tokens / speed / workers)} for the "
            f"passes over them {here} ({speed:,.0f} tokens a second on one batch of {tasks[0].name}){more}."
        )

    def scan(self, found: TaskScan) -> None:
        """The map of one task; nothing was removed yet, so that all heads count as untested."""
        if self.heard:
            told = atlas_json(self.model, self.run, (), [found], None)
            self.progress.say(f"{found.task}: {report.scan_text(told, catalogue.extras())}")


def verdict_line(task: str, detector: str, found: DetectorVerdict) -> str:
    """What became of a detector's heads, in one line: those that matter with their effects, the largest first; the others counted."""
    by_word: dict[str, list[HeadId]] = {}
    for head, word in found.verdicts.items():
        by_word.setdefault(word, []).append(head)
    told = []
    for word in sorted(by_word, key=VERDICTS.index):
        heads = by_word[word]
        if word in ("causal", "group"):
            effects = {head: _decisive(found.heads[head]) for head in heads}
            first = sorted(heads, key=lambda head: -abs(effects[head]))[:_SHOWN]
            more = [f"and {len(heads) - _SHOWN} more"] if len(heads) > _SHOWN else []
            told.append(f"{word} {', '.join([*(f'{head} {effects[head]:+.2f}' for head in first), *more])}")
        else:
            told.append(f"{len(heads)} {word}")
    return f"{task}: {detector}: {'; '.join(told)} ({found.unit} of {found.metric}; the run's other tests are not counted yet)"


def _decisive(found: HeadVerdict) -> float:
    return (found.beside if found.verdict == "group" and found.beside is not None else found.alone).effect


def parts(batch: Batch) -> list[Batch]:
    """A task's batch and its control, where it has one."""
    return [batch] if batch.control is None else [batch, batch.control]
