"""Information flow of a text or of a task's prompts in one call."""

from __future__ import annotations

from pathlib import Path

from headatlas.errors import BadInput
from headatlas.methods.information_flow import export
from headatlas.methods.information_flow.routes import THRESHOLD, Route, Shares, extract, importances, shares
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.reading import one_of
from headatlas.progress import Progress
from headatlas.task import find_task


def flow(
    model: Model,
    prompt: Inputs | None = None,
    *,
    task: str | None = None,
    position: int = -1,
    threshold: float = THRESHOLD,
    out: str | Path | None = None,
    n: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Route | Shares:
    """Follow a prediction back to the tokens and heads it was built from (information flow routes).

    prompt: one prompt, as `model.forward` takes it (a text, a chat, ids), whose Route is returned; position: the token whose prediction is followed, -1 for the last; out: a file
    for the route, .svg, .html, .graphml or .json. task: a built-in task, of which the Shares of all heads over `n` prompts are
    returned. threshold: importance above which an edge is followed. Raises BadInput, UnknownName, UnsupportedModel.
    """
    if (prompt is None) == (task is None):
        raise BadInput("Say what is read.", "Give either --prompt TEXT or --task NAME.")
    if task is not None:
        if out is not None:
            raise BadInput("--out keeps the route of one text.", "Give --prompt TEXT, or leave --out out.")
        batch = find_task(task)(model.tokenizer, n, seed)
        return shares(model, batch, threshold=threshold, progress=progress)
    one = one_of(prompt, model.tokenizer)
    tokens = one.tokens[0][one.mask[0]]
    route = extract(tokens, importances(model, tokens), position=position, threshold=threshold)
    if out is not None:
        export.write(model, route, Path(out))
    return route
