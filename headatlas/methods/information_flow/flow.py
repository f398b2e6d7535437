"""Information flow of a text or of a task's prompts in one call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headatlas.errors import BadInput
from headatlas.methods.information_flow import export
from headatlas.methods.information_flow.routes import THRESHOLD, Route, Shares, extract, importances, shares
from headatlas.methods.texts import Texts, texts_as_batch, token_at
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.start_end import said_of
from headatlas.progress import Progress


def flow(
    model: Model,
    prompt: Inputs | Texts | None = None,
    *,
    task: str | None = None,
    position: int | str = -1,
    threshold: float = THRESHOLD,
    out: str | Path | None = None,
    n: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Route | Shares:
    """Follow a prediction back to the tokens and heads it was built from (information flow routes).

    prompt: what is read, as `model.forward` takes it (a text, several, a chat, ids, a Batch), or `Texts`. Of one text the Route
    is returned; position: the token whose prediction is followed, -1 for the last, or a named one ("subject", a span of the file: its last token); out: a file for the route, .svg, .html,
    .graphml or .json. Of several, and of `n` prompts of the built-in task `task`, the Shares of all heads. threshold:
    importance above which an edge is followed. Raises BadInput, UnknownName, UnsupportedModel.
    """
    if (prompt is None) == (task is None):
        raise BadInput("Say what is read.", "Give either --text TEXT or --task NAME.")
    given = Texts(task=task, n=n, seed=seed) if prompt is None else prompt
    batch = texts_as_batch(model, given)
    if len(batch) > 1 or task is not None:
        if out is not None:
            raise BadInput("--out keeps the route of one text.", "Give --text TEXT once, or leave --out out.")
        if position != -1:
            raise BadInput("Shares are those of whole texts; a position is followed in one text.", "Leave it out.")
        return shares(model, batch, threshold=threshold, progress=progress)
    mask = batch.mask[0]
    tokens = batch.tokens[0][mask]
    if isinstance(position, str):
        position = int(mask[: token_at(batch, position)].sum())  # padding is left out of the route
    route = extract(tokens, importances(model, tokens), position=position, threshold=threshold)
    route = replace(route, start_end=said_of(batch.facts))
    if out is not None:
        export.write(model, route, Path(out))
    return route
