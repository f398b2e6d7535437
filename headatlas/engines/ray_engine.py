"""Units computed by actors of Ray, on this machine or on a cluster that is joined.

Ray starts a worker again that died, and gives it the same unit; a unit that ends its worker again and again is told. When this
program dies, the workers go with it, and what it had written down is where the next one goes on.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

from headatlas.engines.contract import Unit
from headatlas.engines.ray_worker import BEGUN, Worker
from headatlas.engines.shipping import Opening, packed
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.reading import reason

T = TypeVar("T")
RETRIES = 3  # times that a unit is begun again after its worker died
POLL = 0.5  # seconds between two looks at how far workers are
ANSWER = 5.0  # seconds in which a worker that has finished must have answered
TOGETHER = 4  # workers for each job that is under way, two jobs at least: while one has its last units computed, others have units
THREADS = 4  # of a worker, unless asked otherwise
_STORE = 256 << 20  # bytes in which Ray keeps results until they are fetched; a task's scan has a few megabytes
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}  # no report to its makers, no notes


class RayEngine:
    """See the module. Close it to end the workers, and Ray where it was started here."""

    def __init__(self, workers: int | None, threads: int | None, address: str | None) -> None:
        self._ray = _ray()
        self._began_ray = not self._ray.is_initialized()
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self._began_ray:
            self.threads = threads or min(THREADS, here)
            _start(self._ray, address, max(here, (workers or 1) * self.threads))
        there = int(self._ray.cluster_resources().get("CPU", 1))
        self.threads = threads or min(THREADS, there)
        self.workers = workers or max(1, there // self.threads)
        if self.workers * self.threads > there:
            self.close()
            raise BadInput(
                f"{self.workers} workers of {self.threads} threads need {self.workers * self.threads} processors, and the Ray "
                f"cluster has {there}.",
                "Ask for fewer --workers or --threads.",
            )
        self._turn, self._in_turns = threading.Lock(), contextvars.ContextVar("in turns", default=False)
        self._stopped = False
        self._idle: list[tuple[Any, Opening | None]] = []  # actors, each with the model that it has
        self._asked = workers
        self._began = False  # whether there are actors

    def demand(self, model: Model) -> None:
        """Raise BadInput for a model that others cannot load."""
        Opening.of(model)

    def map(self, model: Model, units: deque[Unit[T]], progress: Progress) -> Iterator[tuple[Unit[T], T]]:
        """Each unit with its result, as they come; the costliest begin first. Raises BadInput for what cannot be sent."""
        if not units:
            return
        opening = Opening.of(model)
        running: dict[Any, _Run] = {}
        try:
            while units or running:
                while units and (actor := self._taken(model, opening, wait=not running)) is not None:
                    unit = max(units, key=lambda one: one.cost)
                    units.remove(unit)
                    reference = actor.run.remote(opening, packed(unit.work, model, self._ray.cloudpickle))
                    running[reference] = _Run(actor, unit, _Relay(progress))
                with self._others_turn():
                    done, _ = self._ray.wait(list(running), num_returns=1, timeout=POLL)
                self._demand_going_on()
                self._listen(running.values())
                for reference in done:
                    run = running[reference]
                    found = self._outcome(reference, run)
                    del running[reference]
                    self._idle.append((run.actor, opening))
                    yield run.unit, found
        finally:
            for run in running.values():  # this call ended before its work did
                self._replace(run.actor, model)

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        if self._began_ray:
            self._ray.shutdown()
        else:
            for actor, _ in self._idle:
                self._ray.kill(actor)

    def together(self, jobs: Sequence[Callable[[], None]], at_once: int | None = None) -> None:
        """Do jobs in threads that take turns: one works in this program while others wait for workers.

        Never two at once: opening a model changes switches of torch that hold for the whole program (its default type).
        """

        def in_turns(job: Callable[[], None]) -> None:
            self._in_turns.set(True)
            with self._turn:
                self._demand_going_on()
                job()

        with ThreadPoolExecutor(at_once or max(2, self.workers // TOGETHER)) as pool:
            done = [pool.submit(contextvars.copy_context().run, in_turns, job) for job in jobs]
            try:
                for one in as_completed(done):
                    one.result()
            except BaseException:
                self._stopped = True  # jobs see it when they have waited
                raise

    @contextlib.contextmanager
    def _others_turn(self) -> Iterator[None]:
        """While this is entered, another job works in this program, if there is one."""
        if not self._in_turns.get():
            yield
            return
        self._turn.release()
        try:
            yield
        finally:
            self._turn.acquire()

    def _demand_going_on(self) -> None:
        if self._stopped:
            raise HeadAtlasError("The work was stopped.", "What was finished is kept.")

    # ---- workers ------------------------------------------------------------------------------------------------
    def _actor(self, model: Model) -> Any:
        cards = 1 if model.device.type == "cuda" else 0
        remote = self._ray.remote(
            num_cpus=self.threads, num_gpus=cards, max_restarts=-1, max_task_retries=RETRIES, max_concurrency=2
        )  # two at once: `run` and `events`
        return remote(Worker).remote(self.threads)

    def _taken(self, model: Model, opening: Opening, *, wait: bool) -> Any | None:
        """A worker that is free, one that has the model if there is one; None while none is, unless it is waited for."""
        if not self._began:
            self._demand_cards(model)
            self._idle, self._began = [(self._actor(model), None) for _ in range(self.workers)], True
        while not self._idle:
            if not wait:
                return None
            with self._others_turn():
                time.sleep(POLL / 10)
            self._demand_going_on()
        place = next((i for i, (_, known) in enumerate(self._idle) if known == opening), 0)
        return self._idle.pop(place)[0]

    def _demand_cards(self, model: Model) -> None:
        """On GPUs as many workers as there are; raise BadInput where more were asked for: they would wait for ever."""
        cards = int(self._ray.cluster_resources().get("GPU", 0))
        if model.device.type == "cuda" and self.workers > cards:
            if self._asked is not None:
                raise BadInput(
                    f"{self.workers} workers need a GPU each, and the Ray cluster has {cards}.", "Ask for fewer."
                )
            self.workers = max(1, cards)

    def _replace(self, actor: Any, model: Model) -> None:
        """End a worker with what it is at, and have another in its place."""
        with contextlib.suppress(Exception):  # Ray itself may be gone
            self._ray.kill(actor)
            self._idle.append((self._actor(model), None))

    def _listen(self, runs: Iterable[_Run]) -> None:
        """Pass on what workers have told; one that loads a model answers later, and is not waited for."""
        for run in runs:
            if run.asked is None:
                run.asked = run.actor.events.remote()
        asked = [run.asked for run in runs]
        heard = self._ray.wait(asked, num_returns=len(asked), timeout=0)[0]
        for run in runs:
            if run.asked in heard:
                self._hear(run)

    def _hear(self, run: _Run) -> None:
        if run.asked is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):  # its worker died, or is stuck
                run.relay.tell(self._ray.get(run.asked, timeout=ANSWER))
        run.asked = None

    def _outcome(self, reference: Any, run: _Run) -> Any:
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise HeadAtlasError(f"A worker could not hand over {run.unit.name}: {reason(error.cause)}.") from error
        except self._ray.exceptions.RayError as error:
            raise HeadAtlasError(
                f"{run.unit.name} ended its worker {RETRIES + 1} times ({type(error).__name__}).",
                "Was its memory too little, or is headatlas missing there? What was finished is kept.",
            ) from error
        self._hear(run)
        run.relay.tell(found.events)
        if found.error is not None:
            raise found.error
        return found.result


@dataclass(eq=False)
class _Run:
    """A unit that a worker is at. asked: what the worker will answer to the question how far it is."""

    actor: Any
    unit: Unit[Any]
    relay: _Relay
    asked: Any = None


class _Relay:
    """Tells a Progress what a unit told its own; of a unit that was begun again only what is new."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: set[str] = set()
        self._told: Counter[str] = Counter()
        self._now: Counter[str] = Counter()  # since the unit was begun last

    def tell(self, events: Sequence[tuple[Any, ...]]) -> None:
        """Pass these on."""
        for event in events:
            if event == BEGUN:
                self._now.clear()
            elif len(event) == 1 and event[0] not in self._lines:
                self._lines.add(event[0])
                self._progress.say(event[0])
            elif len(event) == 3:
                step, amount, of = event
                self._now[step] += amount
                new = self._now[step] - self._told[step]
                if new > 0:
                    self._told[step] += new
                    self._progress.advance(step, new, of)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise BadInput(
            f"The engine ray needs the package ray, which cannot be imported ({error}).",
            "Run: pip install 'headatlas[ray]'",
        ) from error


def _start(ray: Any, address: str | None, processors: int) -> None:
    """Start Ray on this machine, or join the cluster at an address; the program's own answers to signals stay. Raises BadInput."""
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    own = (
        {}
        if address is not None
        else {"num_cpus": processors, "object_store_memory": _STORE, "include_dashboard": False}
    )
    try:
        _demand_answer(address)
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # of many kinds: refused connections, versions, a full disk
        if address is not None:
            where, hint = f"No Ray cluster could be joined at {address}", "See that `ray status` answers there."
        else:
            where, hint = "Ray could not be started here", "Is the machine too busy, or the disk of /tmp full?"
        raise BadInput(f"{where}: {' '.join(str(error).split())[:200].rstrip('.')}.", hint) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _demand_answer(address: str | None) -> None:
    """Raise OSError where nothing listens at host:port: Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
