"""A checkpoint's architecture: its config, its class, and the module tree built without memory for the weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.errors import InputError, ModelError
from compress.graph.numbers import set_numbers
from compress.model.fields import check_auto_map, check_fields, reason
from compress.model.unstored import as_constants, check_computed
from compress.registry.importing import uncollected

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from compress.checkpoint.open import Checkpoint


EXTRA_OUTPUTS = ("output_hidden_states", "output_attentions", "output_router_logits")
"""What a config may ask a forward to return beside its result; a model that is traced or run here does not."""


@uncollected(freeze=True)
def load_config(checkpoint: Checkpoint) -> PretrainedConfig:
    """The checkpoint's config as transformers understands it; how attention and experts are computed is left open.

    A folder of this package's own kind is read by this package's classes, never by code in the folder. Raises
    InputError when transformers refuses config.json, or it needs the checkpoint's own code and that was not
    allowed.
    """
    from transformers import AutoConfig

    from compress.model.modeling_compress import MODEL_TYPE, CompressedConfig

    AutoConfig.register(MODEL_TYPE, CompressedConfig, exist_ok=True)
    raw = checkpoint.config
    file = checkpoint.folder / "config.json"
    check_fields(checkpoint)
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code)
    except Exception as error:  # transformers raises whatever its validators do
        if "config.json: auto_map" in checkpoint.code:
            raise InputError(_needs_code(checkpoint)) from None
        if not raw.get("model_type"):
            raise InputError(f"{file}: no model_type, so the architecture is unknown; add it") from None
        raise InputError(f"{file}: not understood by transformers: {reason(error, raw)}") from error
    check_auto_map(checkpoint, config)
    config._attn_implementation = config._experts_implementation = None  # a kernel of the hub would be fetched and run
    return config


@uncollected()
def model_class(config: PretrainedConfig, checkpoint: Checkpoint | None = None) -> type[nn.Module]:
    """The class that the checkpoint was saved from: `architectures[0]` in transformers, registered, or its own code.

    A config without `architectures` gets the bare encoder or decoder (AutoModel). Raises InputError when the class is
    code of the checkpoint's that was not allowed, ModelError when there is no such class.
    """
    import transformers
    from transformers import AutoModel

    name: str = (getattr(config, "architectures", None) or [""])[0]
    remote: dict[str, Any] = getattr(config, "auto_map", None) or {}
    reference = next((r for r in remote.values() if isinstance(r, str) and r.rpartition(".")[2] == name), None)
    if isinstance(found := getattr(transformers, name, None) if name else None, type):
        return found
    if found := _registered(config, name):
        return found
    if name and reference is not None and checkpoint is not None:
        if not checkpoint.trust_remote_code:
            raise InputError(_needs_code(checkpoint))
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        return get_class_from_dynamic_module(reference, checkpoint.folder)
    if not name and type(config) in AutoModel._model_mapping:  # pyright: ignore[reportOperatorIssue]
        return AutoModel._model_mapping[type(config)]  # pyright: ignore
    raise ModelError(
        f"{_file(config)}no class {name or 'for the config ' + type(config).__name__} in the installed transformers "
        f"{transformers.__version__}; install the version that the checkpoint was made with"
    )


def empty_model(config: PretrainedConfig, cls: type[nn.Module] | None = None) -> nn.Module:
    """The model in evaluation mode on the meta device: no memory, well under a second. Only single numbers that modules
    compute for themselves are real.

    Attention is the eager one and experts run as one batched product, so that operators can be recorded.
    Raises ModelError when the class cannot be built from the config.
    """
    model = _build(config, cls or model_class(config), torch.float32, "eager", "batched_mm")
    set_numbers(model)
    _keep_nothing(model, *EXTRA_OUTPUTS)  # a loss that balances experts would tie the experts of all layers together
    return model


def runnable_model(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model with parameters and stored buffers on the meta device, and every other buffer real and right.

    Its forward keeps no cache and returns nothing beside its result, whatever the config asks for.
    Those others (rotary frequencies, position ids, scales of embeddings) are in no checkpoint. They are computed as
    `from_pretrained` does it: transformers' own initialisation, told that all that is stored is initialised already.
    Raises ModelError when the model's code leaves such a buffer unset.
    """
    if checkpoint.architecture is not None:
        return checkpoint.architecture.runnable(dtype)
    config = load_config(checkpoint)
    model = _build(config, model_class(config, checkpoint), dtype, None, None)
    constants = as_constants(checkpoint, model)
    stored = model.state_dict(keep_vars=True)
    for tensor in stored.values():
        tensor._is_hf_initialized = True
    made = []
    kept = {id(tensor) for tensor in stored.values()}
    for name, buffer in list(model.named_buffers()):
        if id(buffer) not in kept and buffer.is_meta:
            parent, _, own = name.rpartition(".")
            real = torch.zeros_like(buffer, device="cpu")
            if real.is_floating_point():
                real.fill_(torch.nan)  # so that one left unset is found below
            model.get_submodule(parent)._buffers[own] = real
            made.append(name)
    model.initialize_weights()  # pyright: ignore[reportCallIssue]
    for name in made:
        if torch.isnan(model.get_buffer(name)).any():
            raise ModelError(f"the buffer {name} is in no file and the model's code does not compute it on loading")
    check_computed(model, constants)
    _keep_nothing(model, *EXTRA_OUTPUTS, "use_cache")
    return model


def _build(
    config: PretrainedConfig, cls: type[nn.Module], dtype: torch.dtype, attention: str | None, experts: str | None
) -> nn.Module:
    config = copy.deepcopy(config)  # building writes into it
    chosen = {"attn_implementation": attention, "experts_implementation": experts}
    build: Any = cls
    try:
        with torch.device("meta"):
            model = build._from_config(config, dtype=dtype, **{k: v for k, v in chosen.items() if v is not None})
    except Exception as error:
        why = reason(error, config.to_dict())
        raise ModelError(f"{_file(config)}{cls.__name__} cannot be built from its config: {why}") from error
    _forget_values(model)
    return model.eval().requires_grad_(False)


def _forget_values(model: nn.Module) -> None:
    """Put all that a checkpoint stores onto the meta device: some functions (`torch.normal`) make numbers elsewhere,
    which would be taken for loaded weights."""
    empty: dict[int, Any] = {}  # a tied tensor stays one
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not tensor.is_meta:
            parent, _, own = name.rpartition(".")
            module, made = model.get_submodule(parent), tensor.to("meta")
            made = nn.Parameter(made, requires_grad=False) if own in module._parameters else made
            (module._parameters if own in module._parameters else module._buffers)[own] = empty.setdefault(
                id(tensor), made
            )


def _file(config: PretrainedConfig) -> str:
    """Where the config was read, as a message begins."""
    return f"{config.name_or_path}/config.json: " if config.name_or_path else ""


def _keep_nothing(model: nn.Module, *names: str) -> None:
    """Switch options of its configs off; stacks of one model have configs of their own (T5)."""
    for module in model.modules():
        for name in names:
            if getattr(own := getattr(module, "config", None), name, False):
                setattr(own, name, False)


def _registered(config: PretrainedConfig, name: str) -> type[nn.Module] | None:
    """The class `name` if some package registered it with the Auto classes for this type of config."""
    from transformers.models.auto import modeling_auto

    for auto in vars(modeling_auto).values():
        mapping = getattr(auto, "_model_mapping", None)
        extra = getattr(mapping, "_extra_content", {})
        found = extra.get(type(config))
        for cls in found if isinstance(found, tuple) else (found,):
            if cls is not None and cls.__name__ == name:
                return cls
    return None


def _needs_code(checkpoint: Checkpoint) -> str:
    return (
        f"{checkpoint.folder / 'config.json'}: the model needs code that comes with the checkpoint; "
        f"read it, then pass --trust-remote-code if you trust it"
    )
