"""An unmodified Hugging Face model whose attention can be watched and edited: facts about it, and forward passes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId, Heads
from headatlas.model.core import hooks, weights_hash
from headatlas.model.core.attention_layer import AttentionLayer, all_heads, demand_heads, layer_at, main_blocks
from headatlas.model.core.dispatch import active, receiving
from headatlas.model.core.forward_pass import Edit, Pass, on_heads
from headatlas.model.core.linear_and_norm import device_of, dtype_of
from headatlas.model.core.model_inputs import (
    demand_positions,
    logit_positions_given,
    model_inputs,
    real_tokens,
    uncached,
    without_absent,
)
from headatlas.model.core.pass_context import Inputs, PassContext
from headatlas.model.core.refusals import key_choices, read_output, refuse_copy, refuse_modes, refuse_overflow
from headatlas.model.core.unembedding import Unembedding, unembedding_of
from headatlas.model.core.view import LayerView
from headatlas.model.looking.attention_map import AttentionMap, attention_map
from headatlas.model.looking.prediction import Prediction, predict
from headatlas.model.sources.resolve import Source
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.renamed import Renamed, renamed_arguments


class Model:
    """A transformer that can be looked into; made by `headatlas.load`.

    hf: the unmodified transformers model. heads: every attention head. layers: every attention layer.
    kind: "decoder", "encoder" or "encoder-decoder". accepts: names of the inputs that the model's own forward takes.
    read_as: how the tokens of the last pass were made.
    """

    def __init__(
        self,
        hf: nn.Module,
        tokenizer: Tokenizer,
        source: Source | None,
        *,
        kind: str,
        layout_path: str | None = None,
        block_bytes: int = 1 << 26,
    ) -> None:
        self.hf, self.tokenizer, self.source, self.kind = hf, tokenizer, source, kind
        self._layout_path = layout_path
        self.block_bytes = block_bytes  # attention rows held at once where they must be recomputed
        self.load_seconds = 0.0
        self.read_as = ""  # how the tokens of the last `forward` were made: by which start and end tokens, or as given
        self.loaded_by: Mapping[str, Any] | None = None  # the arguments of `load`; None: it was in memory already
        self.loaded_checksum: int | None = None  # of the weights as they came from their files
        self.fast = True  # whether the kernel with log-sum-exp may be used
        self.right_padding = True  # whether padding behind a text changes nothing; where it does, it is refused
        self.left_padding: str | None = "positions"  # how left padding is passed on; None: refused
        self.left_choices = False  # whether left padding changes nothing where sparse attention chooses keys
        self.layers: tuple[AttentionLayer, ...] = ()
        self.unembedding: Unembedding | None = None
        self.block_returns: dict[nn.Module, int] = {}
        self.restarts = True  # whether a run may start at a layer; the self-check finds out
        self.on_close: Callable[[Model], None] | None = None  # puts back what opening changed; set by who opened
        self.closed = False
        self._running: set[Pass] = set()  # in any thread or task
        self.accepts = frozenset(inspect.signature(hf.forward).parameters)

    site, sites = Renamed("layer"), Renamed("layers")

    # ---- facts --------------------------------------------------------------------------------------------------
    @property
    def config(self) -> PretrainedConfig:
        """The model's configuration; the text part of a multimodal one."""
        config = cast(PretrainedConfig, self.hf.config)
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    @property
    def path(self) -> str:
        """What computes attention where no pattern is edited: the owner's choice, "sdpa" or "eager"; a layout's, if it has one."""
        return self._layout_path or str(self.config._attn_implementation)

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self.source.name if self.source is not None else type(self.hf).__name__

    @property
    def architecture(self) -> str:
        """Class name of the transformers model."""
        return type(self.hf).__name__

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """Every attention head, in the order of the layers."""
        return all_heads(self.layers)

    @property
    def stacks(self) -> tuple[str, ...]:
        """Stacks with attention, such as ("decoder",) or ("encoder", "decoder", "cross")."""
        return tuple(dict.fromkeys(layer.stack for layer in self.layers))

    @property
    def n_layers(self) -> int:
        """Blocks of the deepest stack, with or without attention."""
        return max(layer.index for layer in self.layers) + 1

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.layers[0].d_model

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; of those that are not quantised, where some are."""
        return dtype_of(self.hf)

    @property
    def device(self) -> torch.device:
        """Where the first weights are, or are moved to when they are used."""
        return device_of(self.hf)

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return int(getattr(self.config, "vocab_size", 0) or 0)

    @property
    def has_logits(self) -> bool:
        """Whether the model gives token logits."""
        return unembedding_of(self.hf) is not None

    def fingerprint(self) -> str:
        """A sha256 over the weights in memory."""
        return weights_hash.fingerprint(self.hf)

    def sha256(self) -> str:
        """What tells these weights from others: the hash of the files they came from, or of themselves if they changed since."""
        if self.source is not None and self.loaded_checksum == weights_hash.checksum(self.hf):
            return self.source.sha256
        return self.fingerprint()

    def layer(self, layer: int, stack: str = "decoder") -> AttentionLayer:
        """The attention layer `layer` of a stack; raises BadInput naming what there is."""
        return layer_at(self.name, self.layers, layer, stack)

    def require(self, heads: Iterable[HeadId]) -> None:
        """Raise BadInput unless every head exists."""
        demand_heads(self.name, self.layers, heads)

    def require_edits(self, edits: Iterable[Edit]) -> list[Edit]:
        """The edits, with the heads that patterns name here. Raises BadInput for a head or a layer that does not exist."""
        found = [on_heads(edit, self.heads) for edit in edits]
        for edit in found:
            self.require(edit.heads)
            for stack, layer in edit.layers:
                self.layer(layer, stack)
        return found

    # ---- forward ------------------------------------------------------------------------------------------------
    @renamed_arguments(logits_at="logit_positions")
    def forward(
        self,
        batch: Inputs,
        *,
        watch: Callable[[LayerView], None] | None = None,
        edits: Sequence[Edit] = (),
        start_at: tuple[int, Tensor] | None = None,
        logit_positions: Tensor | None = None,
        grad: bool = False,
    ) -> Tensor:
        """Run the model: logits [example, pos, vocab], or last hidden states [example, pos, d_model] where there is no head.

        batch: a Batch; a text or several, which get the start and end tokens of the model; ids, taken as they are; or the
        model's own inputs by name, such as a tokenizer returns. `read_as` says what became of them. An encoder-decoder given
        one text has its decoder read the same text behind its start token.

        watch(layer) is called once per attention layer; `edits` act where they say. start_at = (layer, residual
        [example, pos, d_model]) skips the blocks before `layer` and enters it with that residual stream.
        logit_positions [n] or [example, n]: compute logits only there; -1 in a row of [example, n] means none (its logits are
        to be ignored; NaN where an example has no position at all). Raises BadInput for edits of heads or at positions that
        do not exist, for logits wanted where there is no token, and for padding that the model cannot take.
        """
        inputs, valid, self.read_as = model_inputs(self, batch)
        edits = self.require_edits(edits)
        real = real_tokens(self.kind, inputs, valid)
        demand_positions(edits, real)
        if logit_positions is not None:
            read = next((real[stack] for stack in ("decoder", "encoder") if stack in real), None)
            n, length = (0, None) if read is None else read.shape
            logit_positions = logit_positions_given(logit_positions, n, length) if n else logit_positions
        current = Pass(self.layers, self.pass_context(valid=valid, fast=self.fast), watch=watch, edits=edits)
        with torch.set_grad_enabled(grad):
            return self.run(inputs, current, start_at, logit_positions)

    __call__ = forward

    def attention(self, batch: Inputs, heads: Heads) -> AttentionMap:
        """Where heads attend in one text, to look at: "18.6", a list, or "18.*" for a whole layer. Raises BadInput."""
        return attention_map(self, batch, heads)

    def predict(self, batch: Inputs, k: int = 10) -> Prediction:
        """The `k` most likely next tokens after each text, with probabilities. Raises BadInput for a model without logits."""
        return predict(self, batch, k)

    def __repr__(self) -> str:
        layers = f"{len(self.layers)} attention layers, {len(self.heads)} heads"
        return f"Model({self.name}: {self.architecture}, {self.kind}, {layers}, {self.dtype} on {self.device})"

    def pass_context(
        self,
        *,
        fast: bool,
        valid: Mapping[str, Tensor | None] | None = None,
        query_positions: Tensor | None = None,
    ) -> PassContext:
        """The facts of a forward pass (`PassContext`). valid: stack -> [example, pos]; query_positions [example, query]."""
        read_out, choices = self.unembedding, self.left_choices
        return PassContext(self.path, self.block_bytes, fast, read_out, valid or {}, query_positions, choices)

    def run(
        self,
        inputs: Mapping[str, Any],
        current: Pass,
        start_at: tuple[int, Tensor] | None,
        logit_positions: Tensor | None,
    ) -> Tensor:
        """One pass on prepared inputs. start_at: a layer, and its [example, pos, d_model]; logit_positions [example, n]."""
        refuse_modes(self.device, inputs)
        inputs = self.uncached(inputs)
        start = None if start_at is None else hooks.start(self, *start_at)
        with self.exclusive(), self._installed(current, start, logit_positions):
            output = self.hf(**inputs)
        current.demand_reached(hooks.left_out(self.layers, inputs, start))
        found = self.read(output)
        if self.dtype == torch.float16:
            refuse_overflow(self.hf, found, inputs, current.context.valid)
        return without_absent(found, logit_positions) if self.has_logits else found

    def uncached(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The same inputs, asking for no keys and values to be kept where the model knows such a request."""
        return uncached(self.accepts, inputs)

    @property
    def current(self) -> Pass | None:
        """The pass of this model that runs in this context (thread or task), None while none does, or a watcher's turn is."""
        found = active()
        return found if isinstance(found, Pass) and found.attends(self.layers[0].module) else None

    def close(self) -> None:
        """Give the transformers model back as its owner had it: its choice of attention, and no method of ours on it.

        Another Model of the same module stays open, and what both need stays until the last one is closed. A closed Model
        can still be asked for facts; its passes raise BadInput. Closing twice does nothing. Raises BadInput during a pass.
        """
        with self.exclusive():
            if self._running:
                raise BadInput("A model cannot be closed while a forward pass of it runs.", "Finish the pass first.")
            if not self.closed and self.on_close is not None:
                self.on_close(self)
            self.closed = True

    __deepcopy__ = refuse_copy

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exclusive(self) -> contextlib.AbstractContextManager[Any]:
        """While this is held, `forward` of each Model of `hf` waits in other threads; plain calls, also under `edited`, do not."""
        return hooks.exclusive(self.hf)

    @contextlib.contextmanager
    def edited(self, edits: Sequence[Edit]) -> Iterator[nn.Module]:
        """The plain transformers model with edits in force, for its own `forward` and `generate`, cached decoding included.

        They are in force in this context: in tasks begun in here and in `asyncio.to_thread` too, not in other threads. A
        generator that yields in here leaves them in force for its caller until it goes on. Raises BadInput where the model
        was called in other threads only.
        """
        current = Pass(self.layers, self.pass_context(fast=False), edits=self.require_edits(edits))
        elsewhere = 0

        def count(*_: object) -> None:
            nonlocal elsewhere
            elsewhere += active() is None

        counting = self.hf.register_forward_pre_hook(count)
        try:
            with self._installed(current, None, None):
                yield self.hf
        finally:
            counting.remove()
        if current.context.begun:
            current.demand_reached(forwards=None)
        elif elsewhere:
            raise BadInput(
                f"{self.name} was called {elsewhere} times while edits were in force, but never in the thread or task that put "
                "them in force, so that they did nothing.",
                "Call it there, or in asyncio.to_thread or contextvars.copy_context().run, which take the context along.",
            )

    @staticmethod
    def read(output: Any) -> Tensor:
        """The logits of a transformers output, or its last hidden states. Raises UnsupportedModel where it has neither."""
        return read_output(output)

    @contextlib.contextmanager
    def _installed(self, current: Pass, start: hooks.Start | None, logit_positions: Tensor | None) -> Iterator[None]:
        """Install a pass with its hooks; everything is put back on exit, also after an exception."""
        if self.closed:
            raise BadInput(f"{self.name} was closed, so no pass can run.", "Open it again: headatlas.load(...).")
        if self.current is not None:  # whose edits hold for it would not be clear
            raise BadInput(
                "A forward pass was started inside another one of the same model.",
                "Finish the first, or load the model twice.",
            )
        with (
            hooks.counted(self._running, current),
            hooks.evaluating(self.hf),
            hooks.installed(self.hf, self.layers, current, start, logit_positions),
            key_choices(self.hf, self.layers, current),
            receiving(current),
        ):
            yield

    def decoder_blocks(self) -> list[nn.Module]:
        """The blocks of the main stack in order (the decoder's; the encoder's in an encoder)."""
        return main_blocks(self.hf, self.layers)

    def block_index(self, stack: str, layer: int) -> int:
        """Where the block of an attention layer stands among `decoder_blocks`, for `start_at`."""
        block = self.layer(layer, stack).block
        found = next((i for i, one in enumerate(self.decoder_blocks()) if one is block), None)
        if found is None:
            raise UnsupportedModel(f"Layer {layer} of the {stack} is in no block at which a run could start.")
        return found
