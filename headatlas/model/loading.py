"""From a model's name to a checked Model."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from headatlas.choices import DTYPE
from headatlas.errors import BadInput, HeadAtlasError, SourceError, UnsupportedModel
from headatlas.model import layouts
from headatlas.model.core import dispatch, weights_hash
from headatlas.model.core.hooks import evaluating
from headatlas.model.core.model import Model
from headatlas.model.sources.builtin import BUILTINS
from headatlas.model.sources.checkpoint import load_config
from headatlas.model.sources.resolve import Source, resolve
from headatlas.model.structure import attention_layers, qkv_columns, selfcheck, wrapping
from headatlas.model.structure.selfcheck import Check
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.reading import reason

transformers.utils.logging.disable_progress_bar()  # our own progress is shown instead
_ROOM = 1 << 26  # numbers that any configuration may ask for
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def load(
    name: str | nn.Module,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
    bos: str = "auto",
    allow_pickle: bool = False,
) -> Model:
    """A model by its name, checked: a Hub id, a local folder, a `.gguf` file or a built-in such as smollm2-135m.

    A transformers model that is already in memory may be given instead of a name. dtype: auto (float32 on the CPU,
    the checkpoint's own type elsewhere), float32, bfloat16, float16. bos: auto, none or a literal token (recorded with
    every result). Raises SourceError, UnknownName or UnsupportedModel.
    """
    began = time.perf_counter()
    if isinstance(name, nn.Module):
        return attach(name, bos=bos)
    hf, source = _read(name, revision=revision, dtype=dtype, device=device, allow_pickle=allow_pickle)
    model = attach(hf, source=source, bos=bos)
    model.load_seconds = time.perf_counter() - began
    return model


def _read(
    name: str, *, revision: str | None, dtype: str, device: str | None, allow_pickle: bool
) -> tuple[nn.Module, Source]:
    """The transformers model that a name means, on its device."""
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cuda" and not torch.cuda.is_available():
        raise BadInput("No CUDA device can be used here.", "Leave --device out, or write --device cpu.")
    DTYPE.demand(dtype)
    source = resolve(name, revision=revision, allow_pickle=allow_pickle)
    config = load_config(source.folder, name)
    kind = _class_of(config)
    wanted: Any = _DTYPES.get(dtype) or (torch.float32 if where.type == "cpu" else "auto")
    try:
        _demand_room(kind, config, source)
        with _unreported():
            hf, found = kind.from_pretrained(
                source.folder,
                config=config,
                dtype=wanted,
                attn_implementation=_path_of(kind),
                trust_remote_code=False,
                use_safetensors=None if allow_pickle else True,
                output_loading_info=True,
            )
    except HeadAtlasError:
        raise
    except Exception as error:  # values of other kinds than a model expects make any line of it fail in any way
        hint = "Check that the folder holds a complete checkpoint."
        raise SourceError(f"{name} could not be loaded: {reason(error)}.", hint) from error
    # A pooler works on what attention is done with; every other absent weight would be a random number.
    absent = sorted(key for key in found["missing_keys"] if "pooler" not in key)
    if absent:
        raise SourceError(
            f"The checkpoint of {name} lacks {len(absent)} weights of {kind.__name__}, {absent[0]} among them.",
            "They would be random numbers; save the model with the class that its config names.",
        )
    return hf.to(where), source


def _demand_room(kind: Any, config: Any, source: Source) -> None:
    """Refuse a configuration of a far larger model than the weight files hold: transformers makes it before it complains.

    Counted on a model without memory. A byte holds at most two numbers (of 4 bits), and tied tensors are stored once.
    Raises SourceError.
    """
    with torch.device("meta"):
        planned = kind(copy.deepcopy(config))
    numbers = sum(one.numel() for one in (*planned.parameters(), *planned.buffers()))
    stored = sum(file.stat().st_size for file in source.folder.iterdir() if file.suffix in (".safetensors", ".bin"))
    if numbers > 4 * stored + _ROOM:
        raise SourceError(
            f"config.json of '{source.name}' describes a model of {numbers:,} numbers, where its weight files have "
            f"{stored:,} bytes.",
            "Fetch or save the model again.",
        )


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Without the table that transformers logs of missing and unfit weights: they are told in one line."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _class_of(config: Any) -> Any:
    for architecture in config.architectures or ():
        if hasattr(transformers, architecture):
            return getattr(transformers, architecture)
    if config.architectures:
        raise UnsupportedModel(
            f"transformers {transformers.__version__} has no architecture {config.architectures[0]}.",
            "Update transformers.",
        )
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModel):
        if type(config) in auto._model_mapping:
            return auto._model_mapping[type(config)]
    raise UnsupportedModel(
        f"transformers has no model for a configuration of type {type(config).__name__}.", "Update transformers."
    )


def _path_of(kind: type) -> str:
    return "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"


def attach(
    hf: nn.Module, *, source: Source | None = None, tokenizer: Tokenizer | None = None, bos: str = "auto"
) -> Model:
    """Look into a transformers model in memory: find its attention layers and run the self-check. Raises UnsupportedModel.

    A wrapper that only hands on to a transformers model (DataParallel, PeftModel) is looked through: `hf` is that model.
    """
    model, checks = examine(hf, source=source, tokenizer=tokenizer, bos=bos)
    selfcheck.demand(model, checks)
    return model


def examine(
    hf: nn.Module, *, source: Source | None = None, tokenizer: Tokenizer | None = None, bos: str = "auto"
) -> tuple[Model, list[Check]]:
    """The model with its self-check, whatever the outcome; `attach` is for use."""
    hf = wrapping.unwrapped(hf)
    with evaluating(hf):
        return _examine(hf, source, tokenizer, bos)


def _examine(hf: nn.Module, source: Source | None, tokenizer: Tokenizer | None, bos: str) -> tuple[Model, list[Check]]:
    config = hf.config.get_text_config() if hasattr(hf.config, "get_text_config") else hf.config  # type: ignore[operator]
    layout = layouts.layout_of(hf)
    inputs = selfcheck.sample(hf, config)
    _choose_attention(hf, config, layout)
    with torch.no_grad():
        reference = Model.read(_run(hf, inputs))
    layouts.install(hf)
    kind = _kind(hf, config, inputs, reference)
    if tokenizer is None:
        tokenizer = _tokenizer(source, hf, config, kind, bos)
    model = Model(hf, tokenizer, source, kind=kind, layout_path=layout.path if layout is not None else None)
    model.loaded_checksum = weights_hash.checksum(hf) if source is not None else None
    probe = attention_layers.LayerProbe(hf, model.path)
    with probe, torch.no_grad(), dispatch.receiving(probe):
        _run(hf, model.uncached(inputs))
    attention_layers.check_firing(probe, hf, type(hf).__name__)
    with torch.no_grad():
        model.layers = attention_layers.attention_layers(probe, hf, kind, _length(inputs, "decoder_input_ids"))
    model.block_returns = probe.blocks
    model.layers = qkv_columns.traced(model, inputs, probe.vector_maps)
    model.unembedding = attention_layers.unembedding(probe, hf) if kind != "encoder" else None
    return model, _checks(model, inputs, reference)


def _length(inputs: dict[str, Tensor], name: str) -> int | None:
    return inputs[name].shape[1] if name in inputs else None


def _choose_attention(hf: Any, config: Any, layout: layouts.Layout | None) -> None:
    """Let a model attend in a way that can be looked into; its owner's choice stays where it is one."""
    if layout is not None:
        hf.config._attn_implementation = layout.path  # the setter is for models that dispatch
    elif getattr(config, "_attn_implementation", None) not in dispatch.PATHS:
        hf.set_attn_implementation(_path_of(type(hf)))


def _checks(model: Model, inputs: dict[str, Tensor], reference: Tensor) -> list[Check]:
    checks = selfcheck.inspect_model(model, inputs, reference)
    if model.path == "sdpa" and not all(check.ok for check in checks):
        model.fast = (
            False  # the kernel with log-sum-exp is an optimisation; without it all goes through the model's own code
        )
        checks = selfcheck.inspect_model(model, inputs, reference)
    editable = next((check for check in checks if check.name.startswith("an identity edit")), None)
    if editable is not None and not editable.ok:
        for layer in model.layers:
            object.__setattr__(layer, "pattern_editable", False)
        checks[checks.index(editable)] = Check(
            "patterns can be edited",
            True,
            editable.value,
            editable.bound,
            "no: the output is not formed from the pattern alone; edits of patterns are refused",
        )
    checks.append(selfcheck.restart(model, inputs, reference))
    if "input_ids" in inputs:
        checks += selfcheck.padding(model, inputs["input_ids"], reference)
    return checks


def _run(hf: nn.Module, inputs: dict[str, Tensor]) -> Any:
    try:
        return hf(**inputs)
    except HeadAtlasError:
        raise
    except Exception as error:
        raise UnsupportedModel(
            f"{type(hf).__name__} does not run on plain tokens: {reason(error)}",
            "Does it need other inputs than text?",
        ) from error


def _kind(hf: nn.Module, config: Any, inputs: dict[str, Tensor], reference: Tensor) -> str:
    """decoder (causal), encoder (bidirectional) or encoder-decoder, by what a change of the last token does to the first position."""
    if getattr(hf.config, "is_encoder_decoder", False):
        return "encoder-decoder"
    tokens = inputs.get("input_ids")
    if tokens is None:
        return "encoder"
    other = tokens.clone()
    other[:, -1] = tokens[:, 0]
    with torch.no_grad():
        changed = Model.read(_run(hf, {**inputs, "input_ids": other}))
    moved = (changed - reference).abs().float()
    # Not equality: which experts other tokens choose can change the rounding of all.
    blind = float(moved[:, 0].max()) <= selfcheck.bound(reference.dtype, 1e-3, 5e-2) * float(moved.max())
    return "decoder" if blind else "encoder"


def _tokenizer(source: Source | None, hf: nn.Module, config: Any, kind: str, bos: str) -> Tokenizer:
    limits = [
        getattr(config, name, None)
        for name in ("max_position_embeddings", "n_positions", "max_target_positions", "seq_length")
    ]
    context = next((int(limit) for limit in limits if isinstance(limit, int) and limit > 0), 1 << 20)
    context -= _reserved_positions(hf, context)
    size = int(getattr(config, "vocab_size", 0) or 0)
    two = kind == "encoder-decoder"
    more: dict[str, Any] = {"two_stacks": two, "decoder_start": _decoder_start(hf, size) if two else None}
    if source is not None and source.has_tokenizer:
        folder = Path(source.folder)
        return Tokenizer.load(folder, causal=kind != "encoder", context=context, vocab_size=size, bos=bos, **more)
    start = getattr(config, "bos_token_id", None)
    known = isinstance(start, int) and 0 <= start < size
    return Tokenizer.bare(size, context, causal=kind != "encoder", bos=start if known else None, **more)


def _decoder_start(hf: Any, size: int) -> int | None:
    """The token that a decoder reads first, where transformers' own `generate` looks for it; None where none is named."""
    config, generation = hf.config, getattr(hf, "generation_config", None)
    inner = getattr(config, "decoder", None)
    named = [(generation, "decoder_start_token_id"), (config, "decoder_start_token_id"), (inner, "bos_token_id"),
             (generation, "bos_token_id"), (config, "bos_token_id")]  # fmt: skip
    found = (getattr(place, name, None) for place, name in named)
    return next((one for one in found if isinstance(one, int) and 0 <= one < size), None)


def _reserved_positions(hf: nn.Module, n: int) -> int:
    """How many of a model's `n` learned positions no token can have: RoBERTa counts from behind the padding's row."""
    for name, module in hf.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name and module.num_embeddings == n:
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def table_of(
    name: str, *, revision: str | None = None, dtype: str = "auto", device: str | None = None
) -> tuple[dict[str, Any], list[Check]]:
    """Facts about a model and its self-check, passed or not, for `headatlas check`."""
    hf, source = _read(name, revision=revision, dtype=dtype, device=device, allow_pickle=False)
    model, checks = examine(hf, source=source)
    groups = sorted({layer.n_groups for layer in model.layers})
    facts = {
        "model": model.name,
        "architecture": model.architecture,
        "kind": model.kind,
        "heads": len(model.heads),
        "layers": model.n_layers,
        "kv_groups": "/".join(map(str, groups)),
        "attention": model.path,
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights_mb": round(sum(p.numel() * p.element_size() for p in hf.parameters()) / 1e6),
        "bos": model.tokenizer.bos_policy,
    }
    return facts, checks


def builtins() -> list[dict[str, Any]]:
    """The models that have a short name."""
    return [{"name": model.name, "what": model.about, "origin": model.package} for model in BUILTINS.values()]
