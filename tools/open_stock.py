"""Opens a pruned folder with stock transformers alone and compares it with the masked dense model.

    python tools/open_stock.py DENSE PRUNED

Nothing of compress is imported, and no plan is read: which rows were kept is found by looking the pruned producers'
rows up among the dense ones. The masked dense model is the dense one whose consumers read zeros where rows are gone,
with the consumers' weights and biases of the pruned folder (repairs change these). Where tokens are gone, the dense
model is given the same tokens in its own numbers, and its logits are those of the tokens that stay. Needs no more than
uniform or per-layer pruning of heads and MLP channels in the Llama and BERT families, and of the vocabulary; exits with
1 on a difference above 1e-3.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

CONSUMERS = {
    "self_attn.q_proj": "self_attn.o_proj",
    "mlp.up_proj": "mlp.down_proj",
    "attention.self.query": "attention.output.dense",
    "intermediate.dense": "output.dense",
}
TEXT = "Pruning removes whole attention heads and channels, and the smaller model opens like any other. " * 4
LIMIT = 1e-3


def ours(folder: Path) -> bool:
    """Whether the folder carries our modeling file, the only code that is run here."""
    return json.loads((folder / "config.json").read_text())["model_type"] == "compressed"


def load(folder: Path) -> nn.Module:
    """The model in float32 on eager attention; RuntimeError unless every tensor found its place."""
    config = json.loads((folder / "config.json").read_text())
    causal = any("CausalLM" in name for name in config.get("architectures", []))
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    model, info = auto.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
        trust_remote_code=ours(folder),
    )
    wrong = {name: found for name, found in info.items() if found}
    if wrong:
        raise RuntimeError(f"{folder} does not load cleanly: {wrong}")
    return model.eval()


def mask(dense: nn.Module, pruned: nn.Module) -> int:
    """Turn `dense` into the masked dense model in place; returns how many positions its consumers lost."""
    lost, state = 0, pruned.state_dict()
    for name, module in dense.named_modules():
        ending = next((end for end in CONSUMERS if name.endswith("." + end)), None)
        if ending is None or not isinstance(module, nn.Linear):
            continue
        kept = places(module.weight, state[f"{name}.weight"], name)
        target = name.removesuffix(ending) + CONSUMERS[ending]
        consumer = dense.get_submodule(target)
        assert isinstance(consumer, nn.Linear)
        weight = torch.zeros_like(consumer.weight)
        weight[:, kept] = state[f"{target}.weight"]
        consumer.weight = nn.Parameter(weight)
        if (bias := state.get(f"{target}.bias")) is not None:
            consumer.bias = nn.Parameter(bias.clone())
        lost += len(module.weight) - len(kept)
    return lost


def places(dense: Tensor, pruned: Tensor, name: str) -> list[int]:
    """Indices of the `pruned` rows `[kept, in]` among the `dense` ones `[out, in]`."""
    index = {row.numpy().tobytes(): place for place, row in enumerate(dense.detach())}
    try:
        return [index[row.numpy().tobytes()] for row in pruned]
    except KeyError:
        raise RuntimeError(f"{name}: a row of the pruned model is none of the dense model's") from None


def tokens(dense: nn.Module, pruned: nn.Module) -> Tensor:
    """The dense model's number of each of the pruned one's tokens, by their rows of the embedding."""
    whole, rows = (model.get_input_embeddings().weight.detach() for model in (dense, pruned))  # pyright: ignore
    if len(whole) == len(rows):
        return torch.arange(len(rows))
    return torch.tensor(places(whole, rows, "the embedding"))


@torch.no_grad()
def output(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits or the last hidden state for `ids` `[1, length]`."""
    found = model(input_ids=ids)
    return found.logits if "logits" in found else found.last_hidden_state


def main(dense_folder: Path, pruned_folder: Path) -> int:
    """Compare the two folders and say by how much they differ."""
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(pruned_folder, trust_remote_code=ours(pruned_folder))
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    pruned, dense = load(pruned_folder), load(dense_folder)
    kept = tokens(dense, pruned)
    said = f"{len(dense.get_input_embeddings().weight) - len(kept)} tokens"  # pyright: ignore
    own = transformers.AutoTokenizer.from_pretrained(dense_folder, trust_remote_code=ours(dense_folder))
    same = own.convert_ids_to_tokens(kept[ids[0]].tolist()) == tokenizer.convert_ids_to_tokens(ids[0].tolist())
    if not same:
        print(f"{pruned_folder}: its tokenizer calls rows of the embedding by other names", file=sys.stderr)
        return 1
    whole = output(dense, kept[ids])
    lost = mask(dense, pruned)
    masked, found = output(dense, kept[ids]), output(pruned, ids)
    if masked.shape[-1] != found.shape[-1]:
        whole, masked = whole[..., kept], masked[..., kept]
    apart = (found - masked).abs().max().item()
    print(
        f"{pruned_folder}: opened by transformers {transformers.__version__} as {type(pruned).__name__}; "
        f"{lost} rows and {said} gone; differs from the masked dense model by {apart:.1e} "
        f"(masking itself: {(masked - whole).abs().max().item():.1e})"
    )
    if not (lost or len(kept) < len(dense.get_input_embeddings().weight)) or not apart <= LIMIT:  # pyright: ignore
        print(f"more than {LIMIT:g}, or nothing was removed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
