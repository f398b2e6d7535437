"""Changes of a model after which it computes the same: each says where its heads then stand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import transformers as T
from torch import Tensor, nn

from headatlas.heads import HeadId
from tests.metamorphic.weights import attentions, blocks, readers, writers

Moved = dict[HeadId, HeadId]  # head of the model as it was -> the same head after the change
Transformation = Callable[[nn.Module], tuple[nn.Module, Moved]]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _orthogonal(n: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(n, n, generator=generator).double()).Q


def _in_place(moved: Callable[[nn.Module], Moved | None]) -> Transformation:
    def change(hf: nn.Module) -> tuple[nn.Module, Moved]:
        other = copy.deepcopy(hf)
        with torch.no_grad():
            found = moved(other)
        return other, {head: head for head in _heads(hf)} | (found or {})

    change.__name__ = moved.__name__
    change.__doc__ = moved.__doc__
    return change


def _heads(hf: nn.Module) -> list[HeadId]:
    return [HeadId(layer, head) for layer, own in enumerate(attentions(hf)) for head in range(len(own.q))]


@_in_place
def values_scaled(hf: nn.Module) -> None:
    """V up and W_O down, by another factor in each group."""
    for own in attentions(hf):
        factor = torch.logspace(-1, 1, len(own.v)).double()[:, None]
        own.v.mul_(factor[..., None])
        own.o.div_(factor.repeat_interleave(own.each, 0)[..., None])
        if own.biases is not None:
            own.biases[2].mul_(factor)


@_in_place
def values_turned(hf: nn.Module) -> None:
    """V times an orthogonal matrix and W_O times its inverse."""
    generator = _generator()
    for own in attentions(hf):
        for group in range(len(own.v)):
            turn = _orthogonal(own.v.shape[1], generator)
            own.v[group] = turn @ own.v[group]
            for head in range(group * own.each, (group + 1) * own.each):
                own.o[head] = turn @ own.o[head]
            if own.biases is not None:
                own.biases[2][group] = turn @ own.biases[2][group]


@_in_place
def queries_scaled(hf: nn.Module) -> None:
    """Q up and K down, by another factor in each group."""
    for own in attentions(hf):
        factor = torch.logspace(-1, 1, len(own.k)).double()[:, None]
        each = factor.repeat_interleave(own.each, 0)
        own.q.mul_(each[..., None])
        own.k.div_(factor[..., None])
        if own.biases is not None:
            own.biases[0].mul_(each)
            own.biases[1].div_(factor)


@_in_place
def rotary_pairs_turned(hf: nn.Module) -> None:
    """Q and K turned within the pairs of dimensions that rotary embeddings turn together (any turn, without them)."""
    generator = _generator()
    for own in attentions(hf):
        size = own.q.shape[1]
        for group in range(len(own.k)):
            if isinstance(hf, T.GPT2LMHeadModel):
                turn = _orthogonal(size, generator)
            else:
                angle = torch.rand(size // 2, generator=generator).double() * 6
                cos, sin = angle.cos().diag(), angle.sin().diag()
                turn = torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])
            for part, which in ((own.q, range(group * own.each, (group + 1) * own.each)), (own.k, [group])):
                for one in which:
                    part[one] = turn @ part[one]
                    if own.biases is not None:
                        bias = own.biases[0 if part is own.q else 1]
                        bias[one] = turn @ bias[one]


@_in_place
def heads_permuted(hf: nn.Module) -> Moved:
    """KV groups in another order, and the query heads of each group too, in each layer differently."""
    generator = _generator()
    moved = {}
    for layer, own in enumerate(attentions(hf)):
        groups = torch.randperm(len(own.k), generator=generator)
        heads = torch.cat([group * own.each + torch.randperm(own.each, generator=generator) for group in groups])
        for part, order in ((own.q, heads), (own.o, heads), (own.k, groups), (own.v, groups)):
            part.copy_(part[order].clone())
        if own.biases is not None:
            for bias, order in zip(own.biases, (heads, groups, groups), strict=True):
                bias.copy_(bias[order].clone())
        moved |= {HeadId(layer, old): HeadId(layer, new) for new, old in enumerate(heads.tolist())}
    return moved


def groups_expanded(hf: nn.Module) -> tuple[nn.Module, Moved]:
    """Each query head with a key and value head of its own (GQA to MHA)."""
    config = copy.deepcopy(hf.config)
    config.num_key_value_heads = config.num_attention_heads
    other = type(hf)(config).eval().double()
    state = hf.state_dict()
    for name, value in state.items():
        if ".k_proj." in name or ".v_proj." in name:
            groups = value.unflatten(0, (hf.config.num_key_value_heads, -1))
            each = config.num_attention_heads // hf.config.num_key_value_heads
            state[name] = groups.repeat_interleave(each, 0).flatten(0, 1)
    other.load_state_dict(state)
    return other, {head: head for head in _heads(hf)}


def _fold(hf: nn.Module) -> None:
    for norm, maps in readers(hf):
        gain = norm.weight.data.clone()
        bias = getattr(norm, "bias", None)
        for weight, into in maps:
            if bias is not None and into is not None:
                into.add_(weight @ bias.data)
            weight.mul_(gain)
        if bias is not None:
            # What reads the last norm has no bias to take the norm's: it stays, as the folded weights want it.
            bias.data.copy_(bias.data / gain if maps[0][1] is None else torch.zeros_like(bias))
        norm.weight.data.fill_(1.0)


@_in_place
def gains_folded(hf: nn.Module) -> None:
    """The norms' gains (and biases) multiplied into what reads them."""
    _fold(hf)


@_in_place
def stream_turned(hf: nn.Module) -> None:
    """Gains folded, then the residual stream in another orthogonal basis; LayerNorm's leaves the mean where it is."""
    _fold(hf)
    width = hf.get_input_embeddings().weight.shape[1]
    turn = _orthogonal(width, _generator())
    if isinstance(hf, T.GPT2LMHeadModel):
        basis = torch.linalg.qr(
            torch.cat([torch.ones(width, 1).double(), turn[:, 1:]], 1)
        ).Q  # the mean is its first axis
        inner = torch.block_diag(torch.ones(1, 1).double(), _orthogonal(width - 1, _generator()))
        turn = basis @ inner @ basis.T
        hf.transformer.ln_f.bias.data.copy_(hf.transformer.ln_f.bias.data @ turn)
    for _, maps in readers(hf):
        for weight, _ in maps:
            weight.copy_(weight @ turn)
    for written in writers(hf):
        written.copy_(written @ turn)


@_in_place
def logits_shifted(hf: nn.Module) -> None:
    """One vector added to all rows of the unembedding: all logits of a position move alike."""
    hf.lm_head.weight.data.add_(torch.randn(hf.lm_head.weight.shape[1], generator=_generator()).double())


def layer_inserted(at: int) -> Transformation:
    """A layer that attends and writes nothing before layer `at`."""

    def change(hf: nn.Module) -> tuple[nn.Module, Moved]:
        config = copy.deepcopy(hf.config)
        name = "n_layer" if isinstance(hf, T.GPT2LMHeadModel) else "num_hidden_layers"
        setattr(config, name, getattr(config, name) + 1)
        if getattr(config, "layer_types", None):
            config.layer_types = [*config.layer_types, config.layer_types[-1]]
        other = type(hf)(config).eval().double()
        kept = [layer for layer in range(len(blocks(other))) if layer != at]
        state = other.state_dict()
        prefix = "transformer.h" if isinstance(hf, T.GPT2LMHeadModel) else "model.layers"
        for key, value in hf.state_dict().items():
            if key.startswith(prefix):
                number, _, rest = key.removeprefix(f"{prefix}.").partition(".")
                key = f"{prefix}.{kept[int(number)]}.{rest}"
            state[key] = value
        source = blocks(hf)[min(at, len(blocks(hf)) - 1)].state_dict()
        for rest, value in source.items():  # it looks like a neighbour, so that its heads attend somewhere
            silent = any(part in rest for part in ("o_proj", "down_proj", "c_proj"))
            state[f"{prefix}.{at}.{rest}"] = torch.zeros_like(value) if silent else value
        other.load_state_dict(state)
        return other, {head: HeadId(kept[head.layer], head.head) for head in _heads(hf)}

    change.__name__ = f"layer_inserted_{at}"
    return change


def all_of(*changes: Transformation) -> Transformation:
    """One after the other."""

    def change(hf: nn.Module) -> tuple[nn.Module, Moved]:
        moved = {head: head for head in _heads(hf)}
        for one in changes:
            hf, then = one(hf)
            moved = {start: then[end] for start, end in moved.items()}
        return hf, moved

    return change
