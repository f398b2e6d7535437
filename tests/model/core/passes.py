"""A small model's text and edits, and whether the plain model and passes of one's own give what they should."""

import torch

import headatlas as ha
from headatlas.model import Model
from headatlas.model.core.forward_pass import Tap

EDITS = [ha.Zero("0.1 1.2")]


def tokens(n: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(0))


IDS = tokens()


def plain(hf: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found = hf(input_ids=IDS, use_cache=False)
    return found.logits if "logits" in found else found.last_hidden_state


def right(model: Model, truth: tuple[torch.Tensor, torch.Tensor]) -> bool:
    """Whether the plain model and a pass of one's own give what they should, here and now."""
    rest = {}
    model.forward(IDS, edits=[Tap([("decoder", 1)], lambda key, x: rest.update({key: x}))])
    late = model.forward(IDS, edits=EDITS[:0], start_at=(1, rest["decoder", 1]))
    with model.edited(EDITS) as hf:
        edited = plain(hf)
    return (
        torch.equal(plain(model.hf), truth[0])
        and torch.equal(model.forward(IDS, edits=EDITS), truth[1])
        and torch.equal(edited, truth[1])
        and torch.allclose(late, truth[0], atol=1e-6)
    )
