"""Loads a pruned checkpoint whose layers differ in width: a stock transformers model whose tensors are then reshaped.

This file travels inside the checkpoint and needs transformers only. `config.json` is that of the original model plus
`compressed`: `model_type` and `architecture` of the original, `shapes` of the tensors that differ from what the
configuration gives, `biases` that the original lacks, and `attributes` of modules to set before the first forward (see
`patch`).

    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
"""

import inspect
from functools import cache, partial
from math import prod

import torch
import transformers
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.loss.loss_utils import LOSS_MAPPING

MODEL_TYPE = "compressed"
# Those of a model's auto classes that come first, where several lead to one class.
_USUAL = ("", "ForCausalLM", "ForMaskedLM", "ForSeq2SeqLM")
_OTHERS = sorted(name.removeprefix("AutoModel") for name in dir(transformers) if name.startswith("AutoModelFor"))
_ENDS = {"": "Model", "ForSeq2SeqLM": "ForConditionalGeneration"}
# Auto class → the class of this file that answers for it. The names end as transformers' do: it reads losses off them.
ENTRIES = {f"AutoModel{end}": f"Compressed{_ENDS.get(end, end)}" for end in dict.fromkeys((*_USUAL, *_OTHERS))}


class CompressedConfig(PretrainedConfig):
    """Reads `config.json`; what it returns is a configuration of the original class that saves itself as this one."""

    model_type = MODEL_TYPE

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        raw, kwargs = PretrainedConfig.get_config_dict(pretrained_model_name_or_path, **kwargs)
        return cls.from_dict(raw, **kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        model_type = config_dict["compressed"]["model_type"]
        return config_class(model_type).from_dict({**config_dict, "model_type": model_type}, **kwargs)


class _SavesAsCompressed:
    base = PretrainedConfig

    # In memory the model type stays the original's, as modeling code, caches and weight conversions ask for it.
    def to_dict(self):
        return _as_saved(super().to_dict(), type(self))  # type: ignore

    def to_diff_dict(self):
        return _as_saved(super().to_diff_dict(), type(self))  # type: ignore


def _as_saved(values, cls):
    module = __name__.rsplit(".", 1)[-1]
    answered = {auto: f"{module}.{entry}" for auto, entry in ENTRIES.items() if stock_class(auto, cls.base) is not None}
    return {**values, "model_type": MODEL_TYPE, "auto_map": {"AutoConfig": f"{module}.CompressedConfig", **answered}}


@cache
def config_class(model_type):
    """Subclass of the stock configuration class of `model_type`."""
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"a pruned {model_type} model, which transformers {transformers.__version__} does not know; import the "
            f"package that registers {model_type} models first, or update transformers"
        )
    base = CONFIG_MAPPING[model_type]
    body = {"__module__": __name__, "base": base, "_auto_class": "AutoConfig"}
    made = type("CompressedConfig", (_SavesAsCompressed, base), body)
    for auto in ENTRIES:
        if stock_class(auto, base) is not None:
            getattr(transformers, auto).register(made, globals()[ENTRIES[auto]], exist_ok=True)
    return made


def stock_class(auto, base):
    """The class that transformers' `auto` class gives a configuration of class `base`, or None."""
    found = getattr(transformers, auto)._model_mapping.get(base, None)
    return found[0] if isinstance(found, tuple) else found


@cache
def model_class(auto, base, architecture):
    """Subclass of the stock model class that reshapes itself when built."""
    stock = stock_class(auto, base)
    named = getattr(transformers, architecture, stock)  # another package's class is registered with its auto class
    if auto == "AutoModel" and named not in [stock_class(other, base) for other in ENTRIES]:
        stock = named  # an architecture that no auto class leads to, such as an encoder alone
    body = {"__module__": __name__, "config_class": CompressedConfig, "_auto_class": auto, "stock": stock.__name__}
    return type(ENTRIES[auto], (_Reshaped, stock), body)


class _Reshaped:
    stock = ""  # name of the stock class

    def __init__(self, config, *args, **kwargs):
        self.config_class = type(config)  # models of two models compare the two
        super().__init__(config, *args, **kwargs)  # type: ignore
        if self.stock in LOSS_MAPPING:  # some have a loss of their own, which goes by the whole name
            self.loss_type = self.stock
        reshape(self, **{key: config.compressed[key] for key in ("shapes", "biases", "attributes")})


class CompressedModel:
    """What an auto class finds; the model itself is of a class made for its architecture."""

    config_class = CompressedConfig
    _auto = "AutoModel"

    @classmethod
    def class_for(cls, config, auto=None):
        """The model class that `auto` (this class's own by default) leads to for this configuration."""
        return model_class(auto or cls._auto, type(config).base, config.compressed["architecture"])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, **kwargs):
        config = CompressedConfig.from_pretrained(pretrained_model_name_or_path) if config is None else config
        return cls.class_for(config).from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config, **kwargs):
        return cls.class_for(config)._from_config(config, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoModel"):
        """Classes made here know their auto class already."""


for _auto, _entry in ENTRIES.items():
    if _auto != "AutoModel":
        globals()[_entry] = type(_entry, (CompressedModel,), {"_auto": _auto, "__module__": __name__})


class ConfigView:
    """The shared configuration as one module sees it: some numbers are its own, all else is read through."""

    def __init__(self, config, own):
        self.__dict__.update(_config=config, _own=own)

    def __getattr__(self, name):
        if name.startswith("__") or "_own" not in self.__dict__:
            raise AttributeError(name)
        return self._own[name] if name in self._own else getattr(self._config, name)

    def __setattr__(self, name, value):
        setattr(self._config, name, value)


def reshape(model, shapes, biases, attributes):
    """Give parameters and buffers new shapes, add biases, set attributes; ties stay ties. Names are the full model's.

    `shapes` and `biases` map names to shapes, `attributes` maps module names to {attribute: integer} (see `patch`).
    Kept values are the first of each dimension.
    """
    places = {}
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for leaf, tensor in kind.items():
                if tensor is not None:
                    places.setdefault(id(tensor), []).append((kind, leaf, module))
    for name, shape in {**shapes, **biases}.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = _find(model, owner_name)
        if owner is None:
            continue  # a head that this class does not have
        kind = owner._buffers if leaf in owner._buffers else owner._parameters
        old = kind.get(leaf)
        if old is None:
            like = next(iter(owner.parameters()))
            kind[leaf] = nn.Parameter(torch.zeros(tuple(shape), dtype=like.dtype, device=like.device))
            continue
        new = old.detach()[tuple(slice(n) for n in shape)].clone()
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for other_kind, other_leaf, module in places.get(id(old), [(kind, leaf, owner)]):
            other_kind[other_leaf] = new
            _agree(module)
        places[id(new)] = places.pop(id(old), [(kind, leaf, owner)])
    for module_name, values in attributes.items():
        module = _find(model, module_name)
        if module is not None:
            patch(module, values)
            _agree(module)


def patch(module, values):
    """Set integers of a module; those named `config.x` on its own view of the configuration.

    `view.n` says in which place a view of n sizes that does not fit its input takes what the input leaves: the code has
    a width from elsewhere, as `y.view(rows, length, channels)`.
    """
    own = {name[len("config.") :]: value for name, value in values.items() if name.startswith("config.")}
    if own:
        module.config = ConfigView(module.config, own)
    places = {int(name[len("view.") :]): value for name, value in values.items() if name.startswith("view.")}
    if places:
        _follow(module, places)
    for name, value in values.items():
        if not name.startswith(("config.", "view.")):
            setattr(module, name, value)


class _Following(TorchFunctionMode):
    """While a forward runs: views that do not fit are as `places` says."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        sizes = view_sizes(func, args, kwargs or {})
        if sizes is not None and len(sizes) in self.places and -1 not in sizes and prod(sizes) != args[0].numel():
            args = args[0], [-1 if place == self.places[len(sizes)] else size for place, size in enumerate(sizes)]
        return func(*args, **(kwargs or {}))


def view_sizes(func, args, kwargs):
    """The sizes that a view is asked for; None of what is none, or takes them by name."""
    if func not in (torch.Tensor.view, torch.Tensor.reshape, torch.reshape) or kwargs or len(args) < 2:
        return None
    sizes = args[1] if isinstance(args[1], (tuple, list)) else args[1:]
    return None if any(isinstance(size, torch.dtype) for size in sizes) else list(sizes)


def _follow(module, places):
    signature = inspect.signature(module.forward)  # models look at what their layers take
    named = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    module.forward = partial(_forward, module, places)  # a copy of the model copies the module in it too
    module.forward.__signature__ = inspect.Signature(named)  # pyright: ignore[reportAttributeAccessIssue]


def _forward(module, places, *args, **kwargs):
    with _Following(places):
        return type(module).forward(module, *args, **kwargs)


def _find(model, name):
    """The module of that name, with or without the prefix of the model under its head."""
    prefix = model.base_model_prefix + "."
    for candidate in (name, name.removeprefix(prefix), prefix + name):
        try:
            return model.get_submodule(candidate)
        except AttributeError:
            continue
    return None


def _agree(module):
    """Make the sizes that common modules note about themselves those of their weight."""
    stacked = getattr(module, "down_proj", None)
    if isinstance(stacked, nn.Parameter) and hasattr(module, "num_experts"):
        module.num_experts = len(stacked)
    weight = getattr(module, "weight", None)
    if weight is None:
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, transformers.pytorch_utils.Conv1D):
        module.nx, module.nf = weight.shape
    elif hasattr(module, "normalized_shape"):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = len(weight)
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_groups * len(weight) // module.num_channels  # only whole groups go
        module.num_channels = len(weight)
    elif isinstance(module, nn.modules.conv._ConvNd):
        _agree_convolution(module, weight)


def _agree_convolution(module, weight):
    """Of a depth-wise convolution the groups are its channels; other groups are attributes of the checkpoint."""
    outer, inner = (1, 0) if module.transposed else (0, 1)
    if module.groups > 1 and module.groups == module.in_channels == module.out_channels:
        module.groups = weight.shape[0]
    wide = weight.shape[outer] * (module.groups if module.transposed else 1)
    deep = weight.shape[inner] * (1 if module.transposed else module.groups)
    module.out_channels, module.in_channels = wide, deep
