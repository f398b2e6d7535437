"""Where pieces of work on a model are computed: in this program, or by workers that Ray starts.

`contract` says what an engine is and has the one of this program; `choosing` says which is in force; `ray_engine` hands units to `ray_worker`s; `shipping` packs them.
"""

from headatlas.engines.choosing import current, engine
from headatlas.engines.contract import Engine, Unit

__all__ = ["Engine", "Unit", "current", "engine"]
