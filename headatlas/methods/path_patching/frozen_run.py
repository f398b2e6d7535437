"""Runs in which no head attends: each gives what it gave in a cached run, unless it is the one whose change is followed.

Path patching asks what a change of some heads does to later parts while all other heads stay as they were (Wang et al. 2022,
section 3.1). Why a few tokens suffice for that, step by step:

1. Attention is the only place where tokens meet. With z of every head held at its cached value, what a layer's attention
   adds to a token's stream is a constant of that token, and norms, MLPs, parallel branches and multipliers work token by
   token. So what a change at some tokens does is worked out on these tokens alone (`Frozen.positions`), by the model's own
   blocks. `demand_tokenwise` tries that on the model and refuses those with other mixing (convolutions, state spaces).
2. Before the first changed layer nothing differs, so the run enters that block with the cached residual stream.
3. At each attention call, q, k and v are as they would be in the whole sequence, since position ids are those of the whole
   sequence; they are noted where a receiver wants them. Nothing is attended to: the call gives zeros, which are never used.
4. At the output projection its input is replaced by the cached z, with the edits of the senders on top. z was cached
   at this very point, behind any gate or norm that lies after the attention, so no such thing is run twice or left out.
5. MLPs are computed from the changed stream, or held by putting in what entered them in the cached run. Then nothing else of
   a block may feel the change; `Frozen.of(mlps=True)` tries that and refuses blocks whose MLP cannot be told apart.
6. Once all that was asked for has been seen, the pass is left by an exception of its own; hooks are taken away as always.

Copies of the examples lie one after the other along the batch, as in `headatlas.model.runs.cached_forward`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.edits import Scale
from headatlas.errors import UnsupportedModel
from headatlas.methods.path_patching.mlp_input import candidates, entries, first_tensor, with_first
from headatlas.methods.sweeps.cached_runs import side_by_side
from headatlas.model import Edit, LayerView, Model
from headatlas.model.core.forward_pass import Pass, Tap, apply_edit
from headatlas.model.core.hooks import Args, Kwargs, only_in, own_hooks
from headatlas.model.runs.cached_forward import few_logits, index_among, inputs_at, tiled
from headatlas.ops.types import LayerKey
from headatlas.task import Batch

Want = tuple[str, int]  # q, k, v, mlp (what enters) or residual (what enters the block), and the layer


class _Enough(Exception):
    """All that was asked for has been seen; the rest of the pass is not needed."""


@dataclass
class Frozen:
    """A cached run at some tokens: positions [example, r] (-1 for fillers), and by layer what was there.

    z: [example, r, head, width] of every head. residuals: [example, r, d_model] what entered the block; mlp: what entered its
    MLP, where asked for. entries: layer -> the modules that read what enters the MLP.
    """

    model: Model
    batch: Batch
    positions: Tensor
    z: dict[int, Tensor] = field(default_factory=dict)
    residuals: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    entries: Mapping[int, Sequence[nn.Module]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, batch: Batch, positions: Tensor, *, mlps: bool = False) -> Frozen:
        """Run `batch` and keep what there is at `positions`. mlps: MLP inputs too; raises UnsupportedModel where an MLP
        cannot be told from the rest of its block.
        """
        self = cls(model, batch, positions.to(model.device))
        self.entries = entries(model) if mlps else {}

        def keep_z(layer: LayerView) -> None:
            self.z[layer.index] = self._at(layer.z)

        def keep_residual(key: LayerKey, x: Tensor) -> None:
            self.residuals[key[1]] = self._at(x)

        def keep_input(layer: int) -> Callable[..., None]:
            def hook(_: nn.Module, args: Args, kwargs: Kwargs) -> None:
                whole = first_tensor(args, kwargs)
                self.mlp[layer] = self._at(whole.view(*batch.tokens.shape, -1))

            return hook

        tap = Tap([(layer.stack, layer.index) for layer in model.layers], keep_residual)
        with own_hooks() as hooks:
            for layer, modules in self.entries.items():
                hooks.before(modules[0], keep_input(layer))
            model.forward(batch, watch=keep_z, edits=[tap], logit_positions=torch.zeros(1, dtype=torch.long))
        if mlps:
            self._check_mlps()
        return self

    @property
    def bytes(self) -> int:
        """Memory held."""
        kept = [*self.z.values(), *self.residuals.values(), *self.mlp.values()]
        return sum(value.numel() * value.element_size() for value in kept)

    def _at(self, x: Tensor) -> Tensor:
        """x [example, pos, ...] at the cached tokens."""
        index = self.positions.clamp(min=0).view(*self.positions.shape, *[1] * (x.ndim - 2))
        return x.detach().gather(1, index.expand(-1, -1, *x.shape[2:]))

    def run(
        self,
        runs: Sequence[Sequence[Edit]],
        layer: int,
        wanted: Sequence[Want] = (),
        *,
        logit_positions: Tensor | None = None,
        tokens: Tensor | None = None,
        hold_mlps: bool = False,
        put: Mapping[int, Tensor] | None = None,
    ) -> tuple[dict[Want, Tensor], Tensor | None]:
        """Enter block `layer` with the cached residual stream, once per list of edits (of z), side by side.

        Returns what was wanted, each [copy, example, r, ...], and the logits [copy, example, n, vocabulary or `tokens`] at
        the positions logit_positions [example, n], or None without. hold_mlps: MLPs read what they read in the cached run.
        put: layer -> [copy, example, r, d_model] that enters its MLP instead.
        """
        model, copies = self.model, len(runs)
        inner = {at: x.flatten(0, 1) for at, x in (put or {}).items()}
        if hold_mlps:
            inner = {**{at: tiled(x, copies) for at, x in self.mlp.items()}, **inner}
        current = _FrozenPass(self, runs, wanted, inner, to_the_end=logit_positions is not None)
        inputs = inputs_at(model, self.batch, self.positions, copies)
        start = (model.block_index("decoder", layer), tiled(self.residuals[layer], copies))
        where = None
        if logit_positions is not None:
            where = tiled(index_among(self.positions, logit_positions.to(self.positions.device)), copies)
        logits: Tensor | None = None
        with few_logits(model, tokens), torch.no_grad(), current.watching_mlps(), contextlib.suppress(_Enough):
            logits = model.run(inputs, current, start, where).unflatten(0, (copies, -1))
        found = {want: x.unflatten(0, (copies, -1)) for want, x in current.found.items()}
        return found, logits if logit_positions is not None else None

    def _check_mlps(self) -> None:
        """With MLP inputs held, nothing else in the blocks may feel a change of the heads. Raises UnsupportedModel."""
        seen: list[dict[nn.Module, Tensor]] = [{}, {}]
        others = {
            module: layer.index
            for layer in self.model.layers
            for module in candidates(layer)
            if module not in self.entries[layer.index]
        }
        for edits, mine in zip(([], [Scale(self.model.heads, 0.5)]), seen, strict=True):

            def look(module: nn.Module, args: Args, kwargs: Kwargs, mine: dict[nn.Module, Tensor] = mine) -> None:
                mine[module] = first_tensor(args, kwargs).detach().clone()

            with own_hooks() as hooks:
                for module in others:
                    hooks.before(module, look)
                self.run([edits], min(self.residuals), logit_positions=self.positions[:, :1], hold_mlps=True)
        for module, layer in others.items():
            if not torch.allclose(seen[0][module], seen[1][module], rtol=1e-4, atol=1e-6):
                raise UnsupportedModel(
                    f"The MLP of block {layer} of {self.model.architecture} cannot be told from the rest of the block: "
                    f"its {type(module).__name__} reads what the heads write, too.",
                    "Let MLPs be recomputed, and choose receivers that are heads or the logits.",
                )


class _FrozenPass(Pass):
    """A pass over some tokens in which heads give what they gave in the cached run, and edits of z come on top.

    mlps: layer -> [copy x example, r, d_model] what enters its MLP in place of its own input. to_the_end: whether logits are
    asked for, so that the pass goes on when all that is `wanted` was found.
    """

    def __init__(
        self,
        frozen: Frozen,
        runs: Sequence[Sequence[Edit]],
        wanted: Sequence[Want],
        mlps: Mapping[int, Tensor],
        *,
        to_the_end: bool,
    ) -> None:
        model = frozen.model
        ends = [("decoder", layer) for what, layer in wanted if what == "residual"]
        tap = Tap(ends, lambda key, x: self._saw("residual", key[1], x))
        context = model.pass_context(fast=False, query_positions=frozen.positions)
        super().__init__(model.layers, context, edits=[*side_by_side(runs), tap])
        self.frozen, self.copies, self.mlps, self.to_the_end = frozen, len(runs), mlps, to_the_end
        self.missing = set(wanted)
        self.found: dict[Want, Tensor] = {}

    def attention_output(self, view: LayerView) -> Tensor:
        """Note what enters the layer; nothing is attended to, and `project` puts the cached z where these zeros go."""
        for what, x in (("q", view.q), ("k", view.k), ("v", view.v)):
            self._saw(what, view.index, x.transpose(1, 2))
        return view.q.new_zeros(len(view.q), view.n_queries, view.n_heads, view.v.shape[-1])

    def project(self, projection: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Put the cached outputs of the heads in, with the changed ones, as the input of the output projection."""
        view = self.open_views.pop(projection, None)
        if view is None:
            return None
        view.z = tiled(self.frozen.z[view.index], self.copies)
        for edit in self.edits_of(view.attention, "z"):
            view.z = apply_edit(edit, view, view.z)
        view.close()
        return (view.z.reshape(args[0].shape), *args[1:])

    @contextlib.contextmanager
    def watching_mlps(self) -> Iterator[None]:
        """Note what enters MLPs, and put other things in."""
        layers = {layer for what, layer in self.missing if what == "mlp"} | set(self.mlps)
        handles = []
        for layer in layers:
            for number, module in enumerate(self.frozen.entries[layer]):
                hook = self._at_mlp(layer, first=number == 0)
                handles.append(module.register_forward_pre_hook(only_in(self, hook), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _at_mlp(self, layer: int, *, first: bool) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if first:
                x = first_tensor(args, kwargs)
                self._saw("mlp", layer, x.view(self.copies * len(self.frozen.positions), -1, x.shape[-1]))
            return with_first(args, kwargs, self.mlps[layer]) if layer in self.mlps else None

        return hook

    def _saw(self, what: str, layer: int, x: Tensor) -> None:
        if (what, layer) in self.missing:
            self.missing.remove((what, layer))
            self.found[what, layer] = x.detach().clone()
        if not self.missing and not self.to_the_end:
            raise _Enough


def demand_tokenwise(model: Model, batch: Batch, positions: Tensor) -> None:
    """Refuse models in which paths cannot be followed token by token. Raises UnsupportedModel.

    positions: [example, n] tokens of `batch` whose logits are compared, those of the frozen run with the model's own.
    """
    if model.stacks != ("decoder",) or not model.restarts:
        raise UnsupportedModel(
            f"Paths are followed in decoder-only models whose blocks can be entered one by one; {model.architecture} is not one.",
            "Patch its heads instead: headatlas patch.",
        )
    if len(model.layers) != len(model.decoder_blocks()) or model.layers[0].index != 0:
        raise UnsupportedModel(
            f"{model.architecture} has {len(model.decoder_blocks()) - len(model.layers)} blocks that mix tokens without "
            "attention heads, so holding the heads does not keep tokens apart.",
            "Patch its heads instead: headatlas patch.",
        )
    one, last = batch.rows(slice(0, 1)), positions[:1, -1:].cpu()
    _, held = Frozen.of(model, one, last).run([[]], 0, logit_positions=last)
    plain = model.forward(one, logit_positions=last)
    assert held is not None
    half = model.dtype not in (torch.float32, torch.float64)
    limit = (5e-2 if half else 1e-4) * max(1.0, float(plain.abs().max()))
    if float((held[0] - plain).abs().max()) > limit:
        raise UnsupportedModel(
            f"With all heads of {model.architecture} held, its tokens still influence each other, so paths between heads "
            "cannot be followed.",
            "Patch its heads instead: headatlas patch.",
        )
