"""config.json."""

from __future__ import annotations

from functools import partial
from typing import Any

from bad_inputs.case import Case, Prepare, config, edit_json

FILE = "config.json"


def _fields(name: str, *says: str, code: int = 2, **changes: Any) -> Case:
    return Case(name, (FILE, *says) if code else ("wrote out",), partial(config, **changes), code=code)


def _text(name: str, text: str | bytes, *says: str) -> Case:
    def prepare(folder):
        (folder / "base/config.json").write_bytes(text.encode() if isinstance(text, str) else text)

    return Case(name, says, prepare)


def _gone(folder) -> None:
    (folder / "base/config.json").unlink()


def _instead(make: Prepare) -> Prepare:
    """config.json is something else altogether."""

    def prepare(folder):
        _gone(folder)
        make(folder / "base/config.json")

    return prepare


AGAIN = "fetch or save the checkpoint again"
CASES = [
    _text("empty", "", FILE, "not valid JSON", AGAIN),
    _text("cut off", '{"model_type": "lla', FILE, "not valid JSON", AGAIN),
    _text("a list", "[1, 2]", FILE, "not a JSON object", AGAIN),
    _text("a number", "3", FILE, "not a JSON object", AGAIN),
    _text("null", "null", FILE, "not a JSON object", AGAIN),
    _text("binary", bytes(range(256)), FILE, "not valid JSON", AGAIN),
    _text("UTF-16", '{"model_type": "llama"}'.encode("utf-16"), FILE, "not valid JSON", AGAIN),
    _text("nested without end", "[" * 100_000, FILE, "not valid JSON", AGAIN),
    _text("an empty object", "{}", FILE, "no model_type", "add it"),
    _text("a giant number", '{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}", FILE, "not valid JSON"),
    Case("missing", ("base", "no config.json", "give the folder that holds a model"), _gone),
    Case("missing, an adapter's there", ("base/adapter_config.json", "not the config of a LoRA adapter"),
         lambda folder: (folder / "base/config.json").rename(folder / "base/adapter_config.json")),
    Case("in a folder below", ("no config.json", "perhaps you mean", "base"), command="inspect ."),
    Case("a folder", (FILE,), _instead(lambda file: file.mkdir())),
    Case("a dangling link", (FILE, "link", "nowhere"), _instead(lambda file: file.symlink_to("nowhere"))),
    Case("a link to itself", (FILE, "link"), _instead(lambda file: file.symlink_to(file))),
    Case("a pipe", (FILE, "named pipe", "ordinary file"), _instead(lambda file: __import__("os").mkfifo(file))),
    Case("a device", (FILE, "device", "ordinary file"), _instead(lambda file: file.symlink_to("/dev/zero"))),
    _fields("no model_type", "no model_type", "add it", model_type=None),
    _fields("model_type unknown", "not understood", "nosuch", model_type="nosuch"),
    _fields("model_type a number", "model_type", "3", model_type=3),
    _fields("model_type a list", "model_type", "llama", model_type=["llama"]),
    _fields("model_type of another family", "GPT2LMHeadModel", "needs", "transformer.wte.weight", code=3,
          model_type="gpt2",
            architectures=["GPT2LMHeadModel"]),
    _fields("architectures of numbers", "architectures", "[3]", architectures=[3]),
    _fields("architectures a string", "architectures", "LlamaForCausalLM", architectures="LlamaForCausalLM"),
    _fields("architectures an object", "architectures", "{'a': 1}", architectures={"a": 1}),
    _fields("architectures unknown", "LlamaForNothing", "install the version", code=3,
            architectures=["LlamaForNothing"]),
    _fields("architectures a function", "no class", "set_seed", code=3, architectures=["set_seed"]),
    _fields("architectures no model", "LlamaConfig", code=3, architectures=["LlamaConfig"]),
    _fields("architectures of another head", "score.weight", code=3,
            architectures=["LlamaForSequenceClassification"]),
    _fields("auto_map a list", "auto_map", "[1]", auto_map=[1]),
    _fields("auto_map a string", "auto_map", "x.Y", auto_map="x.Y"),
    _fields("auto_map of numbers", "code that comes with the checkpoint", auto_map={"AutoConfig": 3}),
    _fields("hidden_size a string", "hidden_size", "32", "int", hidden_size="32"),
    _fields("hidden_size a float", "hidden_size", "32.5", hidden_size=32.5),
    _fields("hidden_size a list", "hidden_size", "[32]", hidden_size=[32]),
    _fields("hidden_size zero", code=3, hidden_size=0),
    _fields("hidden_size negative", "hidden_size", "-32", "negative", hidden_size=-32),
    _fields("hidden_size twice the stored", "model.safetensors", "model.embed_tokens.weight", "[400, 32]", "[400, 64]",
            code=3, hidden_size=64),
    _fields("hidden_size half the stored", "model.safetensors", "[400, 32]", "[400, 16]", code=3, hidden_size=16),
    _fields("hidden_size of a galaxy", "model.embed_tokens.weight", "[400, 32]", code=3, hidden_size=2**40),
    _fields("intermediate_size another", "mlp.gate_proj.weight", "[48, 32]", "[47, 32]", code=3, intermediate_size=47),
    _fields("intermediate_size negative", "intermediate_size", "-48", "negative", intermediate_size=-48),
    _fields("vocab_size larger", "model.embed_tokens.weight", "[400, 32]", "[401, 32]", code=3, vocab_size=401),
    _fields("vocab_size smaller", "model.embed_tokens.weight", "[400, 32]", "[399, 32]", code=3, vocab_size=399),
    _fields("vocab_size negative", "vocab_size", "-1", "negative", vocab_size=-1),
    _fields("vocab_size a string", "vocab_size", "many", vocab_size="many"),
    _fields("key-value heads another number", "k_proj.weight", "[16, 32]", "[32, 32]", code=3, num_key_value_heads=4),
    _fields("heads that do not divide", "attention heads (5)", num_attention_heads=5),
    _fields("heads none", "num_attention_heads", num_attention_heads=0),
    _fields("heads twice as many", "q_proj.weight", "[32, 32]", "[64, 32]", code=3, num_attention_heads=8),
    _fields("head_dim another", "q_proj.weight", "[32, 32]", "[64, 32]", code=3, head_dim=16),
    _fields("head_dim negative", "head_dim", "-8", "negative", head_dim=-8),
    _fields("layers negative", "num_hidden_layers", "-4", "negative", num_hidden_layers=-4),
    _fields("layers a million", "num_hidden_layers", "1000000", "3", "model.safetensors", code=3,
            num_hidden_layers=1_000_000),
    _fields("layers a sextillion", "num_hidden_layers", "model.safetensors", code=3, num_hidden_layers=10**21),
    _fields("layers one more", "num_hidden_layers", "4", "model.layers.3", "set num_hidden_layers to 3", code=3,
            num_hidden_layers=4),
    _fields("layers one less", "num_hidden_layers", "2", "model.layers.2", "set num_hidden_layers to 3", code=3,
            num_hidden_layers=2),
    _fields("layers none", "num_hidden_layers", "0", "model.layers.0", code=3, num_hidden_layers=0),
    _fields("layers a string", "num_hidden_layers", "three", num_hidden_layers="three"),
    _fields("layers a float", "num_hidden_layers", "3.5", num_hidden_layers=3.5),
    _fields("layers true", "num_hidden_layers", num_hidden_layers=True),
    _fields("hidden_act unknown", "hidden_act", "nosuch", code=3, hidden_act="nosuch"),
    _fields("hidden_act a number", "hidden_act", "7", hidden_act=7),
    _fields("dtype unknown", "nosuch", dtype="nosuch"),
    _fields("rope of an unknown kind", "nosuch",
            rope_parameters={"rope_type": "nosuch", "rope_theta": 10000.0}, code=3),
    _fields("rope a list", "rope_parameters", rope_parameters=[1]),
    _fields("attention bias that is not stored", "q_proj.bias", "stored", code=3, attention_bias=True),
    _fields("ties that are none", "lm_head.weight", "stored", code=3, tie_word_embeddings=False),
    _fields("eps a string", "rms_norm_eps", "small", rms_norm_eps="small"),
    _fields("quality of no field", code=0, nosuch=3),
    _fields("max_position_embeddings negative", "max_position_embeddings", "-1", max_position_embeddings=-1),
    _fields("pad_token_id beyond the vocabulary", "pad", pad_token_id=100_000, code=3),
    Case("a vision model", (FILE, "ViTModel", "needs"), partial(config, model_type="vit",
          architectures=["ViTModel"]), code=3),
    Case("generation_config of another kind", ("wrote out",),
         lambda folder: edit_json(folder / "base/generation_config.json", nosuch=3), code=0),
    Case("inspect with a wrong shape", (FILE, "[400, 64]"), partial(config, hidden_size=64), "inspect base", 3),
    Case("plan with a wrong shape", (FILE, "[400, 64]"), partial(config, hidden_size=64), "plan m.yaml base", 3),
    Case("eval with a wrong shape", ("[400, 64]", "model.embed_tokens.weight"), partial(config, hidden_size=64),
         "eval base --data text.txt --samples 2", 3),
    Case("eval with a layer too many", ("model.layers.3",), partial(config, num_hidden_layers=4),
         "eval base --data text.txt --samples 2", 3),
    Case("export with a wrong shape", (FILE, "[400, 64]"), partial(config, hidden_size=64), "export base -o out", 3),
    Case("compare with a wrong shape", (FILE, "[400, 64]"), partial(config, hidden_size=64),
         "compare m.yaml base -o out --no-latency", 3),
]  # fmt: skip
