"""Types that many units share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LayerKey = tuple[str, int]  # (stack, layer): an attention layer of a model
