"""The state of a training in one file, whole or not there: weights, moments of the optimiser, the step, and the points so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import BadInput, StoreError
from headatlas.reading import reason
from headatlas.store import whole_file

_MOMENTS = ("exp_avg", "exp_avg_sq")


def keep(
    path: Path, identity: str, step: int, points: Sequence[Mapping[str, Any]], model: Any, optimizer: Any,
    trained: Mapping[str, Tensor],
) -> None:  # fmt: skip
    """Write the state before `step`. identity: of the training. Raises StoreError."""
    from safetensors.torch import save_file

    tensors = {f"model {key}": value.detach().clone() for key, value in model.state_dict().items()}
    for key, parameter in trained.items():
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"{moment} {key}": moments[moment].clone() for moment in _MOMENTS if moment in moments}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as half:
        save_file(tensors, half, {"identity": identity, "step": str(step), "points": json.dumps(points)})


def recall(
    path: Path | None, identity: str, model: Any, optimizer: Any, trained: Mapping[str, Tensor]
) -> tuple[int, list[dict[str, Any]]]:
    """(the step to go on with, the points so far) of the state in a file, put into the model and the optimiser; (0, []) without one.

    Raises BadInput where it is of another training, StoreError where it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if path is None or not path.exists():
        return 0, []
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping, though it has keys)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} cannot be read: {reason(error)}.", "Remove it and train again.") from error
    if facts.get("identity") != identity:
        raise BadInput(f"{path} is the state of another training.", "Choose another folder, or remove it.")
    try:
        step, points = int(facts["step"]), json.loads(facts["points"])
        model.load_state_dict(
            {key.partition(" ")[2]: value for key, value in tensors.items() if key.startswith("model ")}
        )
        for key, parameter in trained.items() if step else ():
            moments = {moment: tensors[f"{moment} {key}"] for moment in _MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    except (KeyError, ValueError, RuntimeError) as error:
        raise StoreError(f"{path} is damaged: {reason(error)}.", "Remove it and train again.") from error
    return step, points
