"""Types that several units share, named once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]  # numbers per example, per head ...; the docstring that uses it says of what shape
LayerKey = tuple[str, int]  # (stack, layer): the address of an attention layer, such as ("decoder", 9)
