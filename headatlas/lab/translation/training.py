"""Training of the translator, and what is trained on from there: pruned by gates, with learned sparsity."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from headatlas.lab.translation import gates
from headatlas.lab.translation.model import HEADS, LAYERS, Translator
from headatlas.treebanks.language_pair import Language, Sentences

BATCH, RATE, WARM = 64, 3e-3, 100
Say = Callable[[str], None]


def trained(seed: int, steps: int, say: Say) -> Translator:
    """A translator of its own weights for each seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Translator()
    language = Language(np.random.default_rng(seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM) * (1 - step / steps)
        loss = model.loss(Sentences.of(language.pairs(BATCH)))
        _step(optimizer, loss, model)
        if step % 100 == 0 or step + 1 == steps:
            say(f"training, step {step}: loss {loss.item():.3f}")
    return model.eval()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, model: nn.Module) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def pruned(model: Translator, penalty: float, seed: int, steps: int) -> tuple[Translator, Tensor]:
    """The model trained on with a gate for each encoder head, `penalty` for each that is open: (model, gates [layer, head]).

    Voita et al. 2019: from a converged model, cross-entropy plus penalty times the sum of P(gate is not 0).
    """
    found = copy.deepcopy(model).train()
    log_a = torch.full((LAYERS, HEADS), 2.0, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [log_a], "lr": 0.1}, {"params": found.parameters(), "lr": 5e-4}])
    language, generator = Language(np.random.default_rng([seed, 1])), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for module, row in zip(found.encoder_attention, gates.sampled(log_a, generator), strict=True):
            module.gate = row
        loss = found.loss(Sentences.of(language.pairs(BATCH))) + penalty * gates.open_probability(log_a).sum()
        _step(optimizer, loss, found)
    kept = gates.settled(log_a).detach()
    for module, row in zip(found.encoder_attention, kept, strict=True):
        module.gate = row
    return found.eval(), kept


def sparse(model: Translator, seed: int, steps: int) -> Translator:
    """The model trained on with entmax in place of softmax, an alpha for each head, from nearly softmax on."""
    found = copy.deepcopy(model).train()
    for module in found.attention:
        module.raw_alpha = nn.Parameter(torch.full((module.num_heads,), -2.0))
    raw = [module.raw_alpha for module in found.attention]
    rest = [one for name, one in found.named_parameters() if "raw_alpha" not in name]
    optimizer = torch.optim.Adam([{"params": raw, "lr": 0.05}, {"params": rest, "lr": 5e-4}])
    language = Language(np.random.default_rng([seed, 2]))
    for _ in range(steps):
        _step(optimizer, found.loss(Sentences.of(language.pairs(BATCH))), found)
    return found.eval()
