"""Types that many modules share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]  # of any shape; the docstring of the function that takes or gives it says which
LayerKey = tuple[str, int]  # (stack, index of the layer in it), such as ("decoder", 3)
