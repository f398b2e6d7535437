"""Weights as associative memories: bigrams first, then one memory of an induction head after the other. Bietti et al. 2023.

Embeddings, unembeddings, positions, queries and the values of both layers are random and fixed; keys of both layers, the
output of layer 2 and its MLP are trained. What a matrix has stored is asked of it directly.
"""

from typing import Any

import torch
from torch import Tensor, nn

from headatlas.lab.toy.probes import losses, next_token_loss
from headatlas.lab.toy.study import Claim, Panel, Study, Variant, held_out, order
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.models import small_gpt2
from headatlas.lab.training.options import TrainOptions

_VOCAB, _LENGTH, _WIDTH, _TRIGGERS, _BATCH, _EXAMPLES = 48, 64, 64, 5, 32, 64


def _language() -> Tensor:
    """[token, next token] bigrams that all texts share; the tokens are in the order of their frequency."""
    frequent = 1 / torch.arange(1, _VOCAB + 1).float()
    chance = torch.Generator().manual_seed(0)
    rows = -(torch.rand(_VOCAB, _VOCAB, generator=chance).log() ** 2) * frequent  # few nexts are likely
    return rows / rows.sum(-1, keepdim=True)


def _texts(n: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """([n, length] texts, [n, length] bool: tokens that the context tells).

    The most frequent tokens are triggers: each text has a token of its own, no trigger, that always follows each of them. It
    is told by the context from the trigger's second time on. All other tokens follow the bigrams.
    """
    bigrams, each = _language(), torch.arange(n)
    outputs = torch.randint(_TRIGGERS, _VOCAB, (n, _TRIGGERS), generator=chance)
    uniform = torch.rand(n, _LENGTH, generator=chance)
    texts, told = torch.zeros(n, _LENGTH, dtype=torch.long), torch.zeros(n, _LENGTH, dtype=torch.bool)
    seen = torch.zeros(n, _VOCAB, dtype=torch.bool)
    texts[:, 0] = torch.randint(_VOCAB, (n,), generator=chance)
    for place in range(1, _LENGTH):
        here = texts[:, place - 1]
        drawn = (bigrams[here].cumsum(-1) < uniform[:, place, None]).sum(-1).clamp(max=_VOCAB - 1)
        trigger = here < _TRIGGERS
        texts[:, place] = torch.where(trigger, outputs.gather(1, here.clamp(max=_TRIGGERS - 1)[:, None])[:, 0], drawn)
        told[:, place] = trigger & seen[each, here]
        seen[each, here] = True
    return texts, told


def _make(seed: int) -> Any:
    model = small_gpt2(_VOCAB, _LENGTH, _WIDTH, 1, mlp=4 * _WIDTH, seed=seed)
    chance = torch.Generator().manual_seed(seed)

    def fixed(parameter: nn.Parameter, value: Tensor) -> None:
        parameter.data.copy_(value)
        parameter.requires_grad_(False)

    for parameter in (model.transformer.wte.weight, model.transformer.wpe.weight, model.lm_head.weight):
        fixed(parameter, torch.randn(parameter.shape, generator=chance) / _WIDTH**0.5)
    keys = torch.zeros(_WIDTH, 3 * _WIDTH)
    keys[:, _WIDTH : 2 * _WIDTH] = 1.0
    for layer, block in enumerate(model.transformer.h):
        turn = torch.linalg.qr(torch.randn(_WIDTH, _WIDTH, generator=chance)).Q
        zero = torch.zeros(_WIDTH, _WIDTH)
        block.attn.c_attn.weight.data.copy_(torch.cat([torch.eye(_WIDTH), zero, turn], 1))
        block.attn.c_attn.weight.register_hook(lambda grad: grad * keys)  # keys alone are trained
        fixed(block.attn.c_attn.bias, torch.zeros(3 * _WIDTH))
        fixed(block.attn.c_proj.bias, torch.zeros(_WIDTH))
        if layer:
            block.attn.c_proj.weight.data.zero_()
        else:
            fixed(block.attn.c_proj.weight, torch.eye(_WIDTH))
            for parameter in block.mlp.parameters():
                fixed(parameter, torch.zeros_like(parameter))
        for norm in (block.ln_1, block.ln_2):
            norm.requires_grad_(False)
    model.transformer.ln_f.requires_grad_(False)
    return model


def _recall(model: Any) -> dict[str, float]:
    """What the memories give back: shares of tokens, triggers and places that are the first of all."""
    layers = [block.attn for block in model.transformer.h]
    tokens, places, read = model.transformer.wte.weight, model.transformer.wpe.weight, model.lm_head.weight
    (k0, v0), (k1, v1) = (attn.c_attn.weight[:, _WIDTH:].split(_WIDTH, 1) for attn in layers)
    own = torch.arange(_VOCAB)
    copied = tokens @ v1 @ layers[1].c_proj.weight @ read.T
    matched = tokens[:_TRIGGERS] @ (tokens @ v0 @ layers[0].c_proj.weight @ k1).T
    stepped = places[1:] @ (places @ k0).T
    return {
        "copying (W_O 2)": float((copied.argmax(-1) == own).float().mean()),
        "matching (W_K 2)": float((matched.argmax(-1) == own[:_TRIGGERS]).float().mean()),
        "stepping back (W_K 1)": float((stepped.argmax(-1) == torch.arange(_LENGTH - 1)).float().mean()),
    }


def _measure(seed: int) -> Measure:
    texts, told = _texts(_EXAMPLES, held_out(seed))
    predictable, others = told[:, 1:], texts[:, :-1] >= _TRIGGERS

    def measured(model: Any) -> dict[str, float]:
        logits = model(texts).logits
        each, right = losses(logits, texts), logits[:, :-1].argmax(-1) == texts[:, 1:]
        return {
            "in-context accuracy": float(right[predictable].float().mean()),
            "bigram loss": float(each[others].mean()),
            "held-out loss": float(each.mean()),
            **_recall(model),
        }

    return measured


_MEMORIES = ("copying (W_O 2)", "matching (W_K 2)", "stepping back (W_K 1)")
birth = Study(
    name="birth",
    about="bigrams that all texts share, and triggers with a successor of their own in each text",
    paper="bietti-2023-birth-of-a-transformer",
    variants=(
        Variant(
            "plain",
            _make,
            lambda model, chance: next_token_loss(model, _texts(_BATCH, chance)[0]),
            TrainOptions(1500, learning_rate=3e-3, weight_decay=0.0),
            _measure,
        ),
    ),
    claims=(
        Claim("tokens that the context tells are right", lambda r: r["plain"].last("in-context accuracy"), least=0.9),
        Claim("recall of W_O of layer 2: tokens that it copies", lambda r: r["plain"].last(_MEMORIES[0]), least=0.95),
        Claim("recall of W_K of layer 2: triggers that find their note", lambda r: r["plain"].last(_MEMORIES[1]), least=0.9),
        Claim("recall of W_K of layer 1: places that find the one before", lambda r: r["plain"].last(_MEMORIES[2]), least=0.5),
        Claim("bigrams come before the memories of the head (1: halfway no later than copying)",
              lambda r: order(r["plain"].halfway("bigram loss"), r["plain"].halfway(_MEMORIES[0])), least=1.0),
        Claim("order: copying, then matching, then stepping back (share of neighbours in order, halfway)",
              lambda r: order(*(r["plain"].halfway(name) for name in _MEMORIES)), least=1.0),
        Claim("in-context accuracy jumps with stepping back: steps at which both are halfway, as a ratio",
              lambda r: r["plain"].halfway("in-context accuracy") / r["plain"].halfway(_MEMORIES[2]), least=0.5, most=2.0),
    ),
    panels=(
        Panel("memory recall", {name: ("plain", name) for name in _MEMORIES}),
        Panel("tokens that the context tells", {"accuracy": ("plain", "in-context accuracy")}),
        Panel("loss of tokens after no trigger (nats)", {"bigrams": ("plain", "bigram loss")}),
    ),
    ablated="held-out loss",
)  # fmt: skip
