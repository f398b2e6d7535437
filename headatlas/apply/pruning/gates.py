"""Hard-concrete gates under an L0 penalty (Louizos et al. 2018), one for each head: Voita et al. 2019.

A head's output is multiplied by g between 0 and 1 whose distribution has mass at 0 and at 1 exactly, so that the expected number
of open gates, sum of P(g != 0), has a gradient. The model's weights stay as they are, where the paper trains them along; it
starts from a converged model, and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.apply.recipe.learning import learn
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric

TEMPERATURE, LOW, HIGH = (
    0.33,
    -0.1,
    1.1,
)  # beta, gamma and zeta of the paper's code: s in (0, 1) is stretched to (LOW, HIGH)
EDGE = 1e-6  # noise stays so far from 0 and 1
START = 2.0  # log alpha of every head: nearly open, as the model was trained
OPEN = 0.5  # from here on a gate without noise counts as open


def _stretched(s: Tensor) -> Tensor:
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def sampled(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """[head] gates drawn with noise [head], uniform in (0, 1); gradients flow into log_alpha where a gate is neither 0 nor 1."""
    noise = noise.clamp(EDGE, 1 - EDGE)
    return _stretched(((noise.log() - (1 - noise).log() + log_alpha) / TEMPERATURE).sigmoid())


def settled(log_alpha: Tensor) -> Tensor:
    """[head] gates as they are used: without noise and temperature."""
    return _stretched(log_alpha.sigmoid())


def open_probability(log_alpha: Tensor) -> Tensor:
    """[head] P(g != 0): sigmoid(log_alpha - TEMPERATURE * ln(-LOW / HIGH))."""
    return (log_alpha - TEMPERATURE * torch.tensor(-LOW / HIGH).log()).sigmoid()


@dataclass(frozen=True)
class L0Gates:
    """log_alpha, gates, probability [head]: what was learned, the gates without noise, and P(g != 0); by head of the model.

    metric: at each step, mean over its prompts, with the noise of that step.
    """

    heads: tuple[HeadId, ...]
    log_alpha: Array
    gates: Array
    probability: Array
    metric: tuple[float, ...]

    @property
    def open(self) -> frozenset[HeadId]:
        """The heads whose gates stay open."""
        return frozenset(head for head, gate in zip(self.heads, self.gates, strict=True) if gate >= OPEN)

    @property
    def data(self) -> dict[str, Any]:
        """As JSON: how many are open, closed (exactly 0) and neither, and the metric as it went."""
        return {
            "open": sorted(map(str, self.open)), "exactly_open": int((self.gates == 1).sum()),
            "exactly_closed": int((self.gates == 0).sum()), "metric_by_step": list(self.metric),
        }  # fmt: skip


def l0_gates(
    model: Model,
    batch: Batch,
    metric: Metric,
    *,
    penalty: float,
    steps: int,
    rate: float,
    seed: int,
    progress: Progress,
) -> L0Gates:
    """Train a gate for each head: metric (as a loss) + penalty * sum of P(g != 0), with the weights frozen.

    Raises UnsupportedModel for weights through which gradients do not flow.
    """
    generator = torch.Generator().manual_seed(seed)
    log_alpha = torch.full((len(model.heads),), START, device=model.device, requires_grad=True)

    def gates() -> tuple[Mapping[HeadId, Tensor], Mapping[HeadId, Tensor]]:
        noise = torch.rand(len(model.heads), generator=generator, dtype=torch.float32).to(model.device)
        return dict(zip(model.heads, sampled(log_alpha, noise)[:, None].unbind(0), strict=True)), {}

    reached = learn(
        model, batch, metric, gates, [log_alpha], penalty=lambda: penalty * open_probability(log_alpha).sum(), steps=steps, rate=rate,
        seed=seed, progress=progress,
    )  # fmt: skip
    found = log_alpha.detach()
    learned, gates_left, probability = (
        x.double().cpu().numpy() for x in (found, settled(found), open_probability(found))
    )
    return L0Gates(model.heads, learned, gates_left, probability, tuple(reached))
