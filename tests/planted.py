"""Checkpoints with code planted wherever transformers looks for some; what of it runs leaves a file in `marks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import spoken

MODULES = {
    "evil_config": (
        "from transformers import LlamaConfig\nclass EvilConfig(LlamaConfig):\n    pass\n",
        {"AutoConfig": "evil_config.EvilConfig"},
    ),
    "evil_model": (
        "from transformers import LlamaForCausalLM\nclass EvilForCausalLM(LlamaForCausalLM):\n    pass\n",
        {auto: "evil_model.EvilForCausalLM" for auto in ("AutoModel", "AutoModelForCausalLM")},
    ),
    "evil_tokenizer": (
        "from transformers import PreTrainedTokenizerFast\nclass EvilTokenizer(PreTrainedTokenizerFast):\n    pass\n",
        {"AutoTokenizer": [None, "evil_tokenizer.EvilTokenizer"]},
    ),
    "evil_processor": (
        "class EvilProcessor:\n    pass\n",
        {auto: "evil_processor.EvilProcessor" for auto in ("AutoProcessor", "AutoImageProcessor")},
    ),
}
PLACES = {
    "config.json": ("evil_config", "evil_model", "evil_tokenizer"),
    "tokenizer_config.json": ("evil_tokenizer",),
    "processor_config.json": ("evil_processor",),
    "preprocessor_config.json": ("evil_processor",),
    "video_preprocessor_config.json": ("evil_processor",),
    "generation_config.json": (),
}
"""File → the modules that its `auto_map` names."""

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ ''.__class__.__mro__[1].__subclasses__() }}"


def plant(folder: Path, marks: Path) -> Path:
    """A tiny Llama with a tokenizer, stock in every tensor, that asks for code in every file that may."""
    spoken.save("llama", folder)
    marks.mkdir(exist_ok=True)
    for name, (code, _) in MODULES.items():
        (folder / f"{name}.py").write_text(f"{_mark(marks, name)}{code}")
    for module in ("torch", "sitecustomize", "conftest"):  # found first where the folder is on Python's path
        (folder / f"{module}.py").write_text(_mark(marks, module))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(_mark(marks, "custom_generate") + "def generate(**_): pass\n")
    for name, modules in PLACES.items():
        data = json.loads(file.read_text()) if (file := folder / name).exists() else {}
        data["auto_map"] = {auto: place for module in modules for auto, place in MODULES[module][1].items()}
        if name == "config.json":
            data["custom_pipelines"] = {"evil": {"impl": "evil_model.EvilForCausalLM", "pt": ["AutoModel"]}}
            data["attn_implementation"] = data["_attn_implementation"] = "evil/attention"
        if name == "generation_config.json":
            data["custom_generate"] = "evil/generate"
        file.write_text(json.dumps({key: value for key, value in data.items() if value != {}}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def watch(monkeypatch: pytest.MonkeyPatch, marks: Path) -> None:
    """What would be fetched or imported of a checkpoint leaves a mark too."""
    from transformers import dynamic_module_utils
    from transformers.integrations import hub_kernels

    def kernel(repo: str, *_: Any, **__: Any) -> Any:
        (marks / "kernel").write_text(repo)
        raise ValueError("no kernel is fetched in tests")

    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", kernel)
    module = dynamic_module_utils.get_cached_module_file

    def cached(where: Any, file: str, *args: Any, **kwargs: Any) -> Any:
        (marks / f"asked for {Path(file).name}").touch()
        return module(where, file, *args, **kwargs)

    monkeypatch.setattr(dynamic_module_utils, "get_cached_module_file", cached)


def traces(folder: Path) -> list[str]:
    """What of the planted code, or of the wish for it, is in an output folder, whose report may name it."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "report.json"):
        if file.suffix == ".py" and file.name != "modeling_compress.py":
            found.append(str(file.relative_to(folder)))
        elif file.suffix == ".json" and "evil" in file.read_text():
            found.append(f"{file.relative_to(folder)} names code")
    return found


def _mark(marks: Path, name: str) -> str:
    return f"import pathlib\npathlib.Path({str(marks / name)!r}).touch()\n"
