"""Which engine is in force."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from headatlas.choices import ENGINE, demand_engine
from headatlas.engines.contract import Engine, Local, threads_of

_CURRENT: ContextVar[Engine] = ContextVar("headatlas engine")
_LOCAL = Local()


def current() -> Engine:
    """The engine in force in this context."""
    return _CURRENT.get(_LOCAL)


@contextlib.contextmanager
def engine(
    engine: str | Engine = ENGINE.values[0],
    *,
    workers: int | None = None,
    threads: int | None = None,
    address: str | None = None,
) -> Iterator[Engine]:
    """Compute what is asked for in here (`mine`, `campaign`, sweeps over heads) elsewhere: `with engine("ray", workers=2): mine(model)`.

    engine: "local" is this program (or an Engine of your own); "ray" hands tasks, and parts of sweeps, to processes that each load the model once. Ray is
    started on this machine, or joined where `address` says ("auto", or host:port). Models must have been loaded by name.
    workers: how many processes; default one for each `threads` processors. threads: of each piece of work, which is what equal
    numbers to the last bit hang on; default 4 or as many processors as there are (ray), or what torch has chosen (local).
    Raises BadInput, also where the package ray is missing, or no cluster answers.
    """
    if isinstance(engine, str):
        demand_engine(engine, workers, threads, address)
    with contextlib.ExitStack() as stack:
        chosen: Engine = _LOCAL if isinstance(engine, str) else engine
        if engine == "ray":
            from headatlas.engines.ray_engine import RayEngine  # the package ray is an extra

            chosen = stack.enter_context(contextlib.closing(RayEngine(workers, threads, address)))
        elif threads is not None:
            stack.enter_context(threads_of(threads))
        token = _CURRENT.set(chosen)
        try:
            yield chosen
        finally:
            _CURRENT.reset(token)
