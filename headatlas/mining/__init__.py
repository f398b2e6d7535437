"""Mining: from a model to an atlas of its heads.

A run goes one way: `planning` chooses detectors, tasks and examples; `scan` scores all heads, a task at a time; `verdicts`
judges what was observed, a task at a time; `atlas_json` makes the atlas of both; `run` keeps what is done and publishes.
"""

from headatlas.mining.planning import Plan, plan
from headatlas.mining.run import mine

__all__ = ["Plan", "mine", "plan"]

from headatlas.renamed import old_names

__getattr__ = old_names(__name__)
