"""Where the weights of a model lie that is too large for one place: on several devices, in memory, or on disk until they are used.

accelerate moves them: a module whose weights lie on disk has them for the time of its own call, from the files of the model where
these have the wanted type, else from a copy in the cache folder.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from headatlas.choices import DEVICE_MAP, parse_size
from headatlas.errors import BadInput
from headatlas.model.sources.cache import home_folder, writing_to

DeviceMap = str | Mapping[str, int | str]
_DISK = 1 << 50  # bytes: as many as it takes


def demand_placement(device_map: DeviceMap | None, weight_memory: int | str | None, device: str | None) -> None:
    """Raise BadInput for what cannot be asked for together, is no way to fill devices, or names a device that is not there."""
    if device_map is None and weight_memory is None:
        return
    if device is not None and device != "cpu":
        raise BadInput("device names one place, device_map and weight_memory several.", "Leave one of them out.")
    if weight_memory is not None:
        _bytes(weight_memory)
        if isinstance(device_map, Mapping):
            raise BadInput("A device_map of modules says what lies on disk; weight_memory does too.", "Leave one out.")
    if isinstance(device_map, str):
        DEVICE_MAP.demand(device_map)
    for place in set(device_map.values()) if isinstance(device_map, Mapping) else ():
        cards = torch.cuda.device_count()
        number = place if isinstance(place, int) else str(place).removeprefix("cuda:")
        if place not in ("cpu", "disk", "cuda") and not (str(number).isdigit() and int(number) < cards):
            raise BadInput(f"The device map names '{place}', and there are {cards} CUDA devices.", "Write cpu or disk.")


def placed(
    kind: Any, config: Any, dtype: Any, device_map: DeviceMap | None, weight_memory: int | str | None
) -> dict[str, Any]:
    """What `from_pretrained` must be told so that weights lie there; nothing where they are to lie in one place.

    weight_memory: bytes (or "200MB") of weights that main memory may hold at any time, those of a module under way included.
    Raises BadInput where one module alone needs more.
    """
    if device_map is None and weight_memory is None:
        return {}
    limits: dict[Any, int] | None = None
    with torch.device("meta"):
        planned = kind(copy.deepcopy(config))
    planned.tie_weights()
    if weight_memory is not None:
        allowed, largest = _bytes(weight_memory), max(_sizes(planned, dtype), default=0)
        if largest > allowed:
            raise BadInput(
                f"weight_memory allows {allowed:,} bytes, and one module of the model alone has {largest:,}.",
                f"Allow {-(-largest // 10**6)} MB or more, or a dtype with fewer bytes.",
            )
        cards = torch.cuda.device_count() if device_map is not None else 0
        limits = {i: int(0.9 * torch.cuda.mem_get_info(i)[0]) for i in range(cards)}
        limits |= {"cpu": allowed - largest, "disk": _DISK}
        if device_map is None:  # accelerate's own plan would leave no room for the module under way
            from accelerate import infer_auto_device_map

            device_map = infer_auto_device_map(
                planned, limits, no_split_module_classes=getattr(planned, "_no_split_modules", None), dtype=_type(dtype)
            )
            limits = None
    home = home_folder() / "offloaded"
    with writing_to(home):
        home.mkdir(parents=True, exist_ok=True)
        place = tempfile.mkdtemp(dir=home)
    return {"device_map": device_map, "max_memory": limits, "offload_folder": place}


def forget_with(hf: nn.Module, options: Mapping[str, Any]) -> None:
    """Remove the copies of weights on disk when the model goes."""
    if "offload_folder" in options:
        weakref.finalize(hf, shutil.rmtree, options["offload_folder"], ignore_errors=True)


def _bytes(size: int | str) -> int:
    return parse_size(size) if isinstance(size, str) else size


def _type(dtype: Any) -> torch.dtype | None:
    return dtype if isinstance(dtype, torch.dtype) else None


def _sizes(planned: nn.Module, dtype: Any) -> Iterator[int]:
    """Bytes of the weights that each module has itself, which are there together."""
    for module in planned.modules():
        own = module.parameters(recurse=False)
        yield sum(one.numel() * (_type(dtype) or one.dtype).itemsize for one in own)
