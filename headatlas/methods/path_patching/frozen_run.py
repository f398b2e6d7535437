"""Runs in which no head attends: each gives what it gave in a kept run, unless it is the one whose change is followed.

With all heads held, tokens no longer mix. What a change does to later layers is then worked out for the tokens at which
it acts alone, by the model's own blocks (norms, MLPs, parallel branches, multipliers), entered at the changed layer and
left after the last layer that is asked about.
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
from headatlas.model.core.dispatch import delegate
from headatlas.model.core.forward_pass import Pass, Tap
from headatlas.model.runs.cached_forward import few_logits
from headatlas.task import Batch

Want = tuple[str, int]  # q, k, v, mlp (what enters) or residual (what enters the block), and the layer


class _Enough(Exception):
    """All that was asked for has been seen; the rest of the pass is not needed."""


@dataclass
class Frozen:
    """A kept run at some tokens: columns [example, r] (-1 for fillers), and per layer z [example, r, head, width],
    residual stream and MLP input [example, r, d_model].
    """

    model: Model
    batch: Batch
    columns: Tensor
    z: dict[int, Tensor] = field(default_factory=dict)
    residuals: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    entries: Mapping[int, Sequence[nn.Module]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, batch: Batch, columns: Tensor, *, mlps: bool = False) -> Frozen:
        """Run `batch` and keep what there is at `columns`. mlps: MLP inputs too; raises UnsupportedModel where an MLP
        cannot be told from the rest of its block.
        """
        self = cls(model, batch, columns.to(model.device))
        self.entries = entries(model) if mlps else {}

        def keep_z(layer: LayerView) -> None:
            self.z[layer.index] = self._at(layer.z)

        def keep_residual(place: tuple[str, int], x: Tensor) -> None:
            self.residuals[place[1]] = self._at(x)

        def keep_input(layer: int) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                whole = first_tensor(args, kwargs)
                self.mlp[layer] = self._at(whole.view(*batch.tokens.shape, -1))

            return hook

        handles = [
            modules[0].register_forward_pre_hook(keep_input(layer), with_kwargs=True)
            for layer, modules in self.entries.items()
        ]
        tap = Tap([(layer.stack, layer.index) for layer in model.layers], keep_residual)
        try:
            model.forward(batch, watch=keep_z, edits=[tap], logit_positions=torch.zeros(1, dtype=torch.long))
        finally:
            for handle in handles:
                handle.remove()
        if mlps:
            self._check_mlps()
        return self

    @property
    def bytes(self) -> int:
        """Memory held."""
        kept = [*self.z.values(), *self.residuals.values(), *self.mlp.values()]
        return sum(value.numel() * value.element_size() for value in kept)

    def _at(self, x: Tensor) -> Tensor:
        """x [example, pos, ...] at the columns."""
        index = self.columns.clamp(min=0).view(*self.columns.shape, *[1] * (x.ndim - 2))
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
        """Enter block `layer` with the kept residual stream, once per list of edits (of z), side by side.

        Returns what was wanted, each [copy, example, r, ...], and the logits [copy, example, n, vocabulary or `tokens`] at
        the positions logit_positions [example, n], or None without. hold_mlps: MLPs give what they gave in the kept run.
        put: layer -> [copy, example, r, d_model] that enters its MLP instead.
        """
        model, copies, columns = self.model, len(runs), self.columns
        inner = {place: x.flatten(0, 1) for place, x in (put or {}).items()}
        if hold_mlps:
            inner = {**{layer: x.repeat(copies, 1, 1) for layer, x in self.mlp.items()}, **inner}
        current = _FrozenPass(self, runs, wanted, inner, to_the_end=logit_positions is not None)
        safe = columns.clamp(min=0)
        inputs: dict[str, Any] = {"input_ids": self.batch.tokens.to(model.device).gather(1, safe).repeat(copies, 1)}
        if "position_ids" in model._accepts:
            inputs["position_ids"] = self._position_ids().gather(1, safe).repeat(copies, 1)
        start = (model.block_index("decoder", layer), self.residuals[layer].repeat(copies, 1, 1))
        where = None
        if logit_positions is not None:
            asked = (columns[:, None, :] == logit_positions.to(columns.device)[:, :, None]).long()
            assert bool((asked.sum(-1) == 1)[logit_positions >= 0].all()), (
                "logits are asked for at tokens that are not kept"
            )
            where = asked.argmax(-1).repeat(copies, 1)
        logits: Tensor | None = None
        with few_logits(model, tokens), torch.no_grad(), current.watching_mlps(), contextlib.suppress(_Enough):
            logits = model.run(inputs, current, start, where).unflatten(0, (copies, -1))
        found = {want: x.unflatten(0, (copies, -1)) for want, x in current.found.items()}
        return found, logits if logit_positions is not None else None

    def _position_ids(self) -> Tensor:
        mask = self.batch.mask.to(self.model.device)
        if bool(mask[:, 0].all()):
            return torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
        return (mask.long().cumsum(-1) - 1).clamp(min=0)

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

            def look(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], mine: dict[nn.Module, Tensor] = mine
            ) -> None:
                mine[module] = first_tensor(args, kwargs).detach().clone()

            handles = [module.register_forward_pre_hook(look, with_kwargs=True) for module in others]
            try:
                self.run([edits], min(self.residuals), logit_positions=self.columns[:, :1], hold_mlps=True)
            finally:
                for handle in handles:
                    handle.remove()
        for module, layer in others.items():
            if not torch.allclose(seen[0][module], seen[1][module], rtol=1e-4, atol=1e-6):
                raise UnsupportedModel(
                    f"The MLP of block {layer} of {self.model.architecture} cannot be told from the rest of the block: "
                    f"its {type(module).__name__} reads what the heads write, too.",
                    "Let MLPs be recomputed, and choose receivers that are heads or the logits.",
                )


class _FrozenPass(Pass):
    """A pass over some tokens in which heads give what they gave in the kept run, and edits of z come on top."""

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
        tap = Tap(ends, lambda place, x: self._saw("residual", place[1], x))
        super().__init__(
            model.layers, view_type=LayerView, path=model.path, valid={}, watch=None, edits=[*side_by_side(runs), tap],
            unembedding=model.unembedding, fast=False, block_bytes=model.block_bytes,
        )  # fmt: skip
        self.frozen, self.copies, self.mlps, self.to_the_end = frozen, len(runs), mlps, to_the_end
        self.columns = frozen.columns
        self.missing = set(wanted)
        self.found: dict[Want, Tensor] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Note what enters the layer; nothing is attended to."""
        found = self._queue.get(module)
        if not found:
            return delegate(self.path, module)(module, query, key, value, mask, **kwargs)
        layer = found[0]  # path patching takes models in which each block has an attention layer of its own
        for what, x in (("q", query), ("k", key), ("v", value)):
            self._saw(what, layer.index, x.transpose(1, 2))
        self._open[layer.projection] = self.look(layer, query, key, value, mask, kwargs)
        return query.new_zeros(len(query), query.shape[2], layer.n_heads, value.shape[-1]), None

    def project(self, projection: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Put the kept outputs of the heads in, with the changed ones, as the input of the output projection."""
        view = self._open.pop(projection, None)
        if view is None:
            return None
        view.z = self.frozen.z[view.index].repeat(self.copies, 1, 1, 1)
        for edit in self.of(view.attention, "z"):
            view.z = self._apply(edit, view, view.z)
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
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _at_mlp(self, layer: int, *, first: bool) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if first:
                x = first_tensor(args, kwargs)
                self._saw("mlp", layer, x.view(self.copies * len(self.frozen.columns), -1, x.shape[-1]))
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

    positions: [example, n] tokens of `batch` whose logits are compared, those of the kept run with the model's own.
    """
    if model.stacks != ("decoder",) or not model.restarts:
        raise UnsupportedModel(
            f"Paths are followed in decoder-only models whose blocks can be entered one by one; {model.architecture} is none.",
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
