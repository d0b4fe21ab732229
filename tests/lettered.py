"""Small tokenizers of every kind, learnt from questions that ship, and what they must still do with fewer pieces."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zoo
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from compress.evaluate.harness import SHIPPED
from compress.recipe.vocabulary import PruneVocab
from compress.steps.vocabulary.choose import Choice
from compress.tokenizer.file import TokenizerFile

NAMES = {
    "word_pieces": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
}
PLAIN = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]


@cache
def texts() -> tuple[str, ...]:
    """Short English texts, some with other letters."""
    lines = (SHIPPED / "word.jsonl").read_text(encoding="utf-8").splitlines()[:150]
    return (*(json.loads(line)["context"] for line in lines), "naïve café, 3.14 € 日本", "x = {'a': [1, 2]}\n\tŷ")


def byte_level(size: int = 600) -> Tokenizer:
    """As GPT-2's and Llama 3's: the alphabet are bytes."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    letters = pre_tokenizers.ByteLevel.alphabet()
    _train(made, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=letters))
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))  # pyright: ignore
    return made


def byte_fallback(size: int = 700) -> Tokenizer:
    """As Llama 2's, which was converted from sentencepiece: every way to put a piece together is a merge."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore
    _train(learnt, trainers.BpeTrainer(vocab_size=size - 256, special_tokens=SPECIAL))
    pieces = sorted(learnt.get_vocab(), key=learnt.get_vocab().__getitem__)
    spelled = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces[len(SPECIAL) :]]
    vocab = {piece: number for number, piece in enumerate(spelled)}
    merges = [
        (piece[:at], piece[at:])
        for piece in spelled[len(SPECIAL) + 256 :]
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    ]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # pyright: ignore
    made.decoder = decoders.Sequence(  # pyright: ignore
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    made.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return made


def word_pieces(size: int = 400) -> Tokenizer:
    """As BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()  # pyright: ignore
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore
    made.decoder = decoders.WordPiece()  # pyright: ignore
    _train(made, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # pyright: ignore
    made.enable_padding(pad_id=0, pad_token="[PAD]", length=8)
    made.enable_truncation(16)
    return made


def unigram(size: int = 400) -> Tokenizer:
    """As T5's."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore
    made.decoder = decoders.Metaspace()  # pyright: ignore
    _train(made, trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>"))
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])  # pyright: ignore
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "word_pieces": word_pieces,
    "unigram": unigram,
}


@cache
def written(kind: str) -> str:
    """The tokenizer.json of a kind."""
    return KINDS[kind]().to_str(pretty=True)


def whole(data: str | dict[str, Any]) -> Tokenizer:
    """A tokenizer of its file's content, that cuts nothing off."""
    made = Tokenizer.from_str(data if isinstance(data, str) else json.dumps(data))
    made.no_padding()
    made.no_truncation()
    return made


def counts(tokenizer: Tokenizer, some: Sequence[str], rows: int | None = None) -> np.ndarray:
    """How often the texts use each token, one after the other."""
    found = np.zeros(rows or tokenizer.get_vocab_size(), np.int64)
    for text in some:
        for number in tokenizer.encode(text, add_special_tokens=False).ids:
            found[number] += 1
    return found


def reduced(kind: str, folder: Path, used: np.ndarray, **budget: Any) -> tuple[Tokenizer, Tokenizer, dict[int, int]]:
    """The tokenizer, what is left of it by the budget, and old id → new id."""
    (folder / "tokenizer.json").write_text(written(kind), encoding="utf-8")
    file = TokenizerFile(folder / "tokenizer.json")
    kept = Choice(file, used, ()).kept(PruneVocab(prune="vocab", **budget))
    new = {int(old): number for number, old in enumerate(np.flatnonzero(kept))}
    return whole(written(kind)), whole(file.renumbered(new)), new


def model(name: str, kind: str, folder: Path, rows: int | None = None, data: str = "", **changes: Any) -> Path:
    """A model of the zoo with a tokenizer of the kind (or of `data`), and a text beside it of which it needs a part."""
    backend = Tokenizer.from_str(data or written(kind))
    zoo.save(name, folder, vocab_size=rows or backend.get_vocab_size(), **changes)
    PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES.get(kind, PLAIN)).save_pretrained(folder)
    (folder.parent / "text.txt").write_text("\n\n".join(texts()[:25]), encoding="utf-8")
    return folder


def fewer(kind: str, folder: Path) -> str:
    """The tokenizer.json of a kind with a fifth of its tokens gone, written through `folder`."""
    used = counts(whole(written(kind)), texts()[:25])
    (folder / "tokenizer.json").write_text(written(kind), encoding="utf-8")
    file = TokenizerFile(folder / "tokenizer.json")
    kept = Choice(file, used, ()).kept(PruneVocab(prune="vocab", remove=0.2))
    return json.dumps(file.renumbered({int(old): number for number, old in enumerate(np.flatnonzero(kept))}))


def _train(tokenizer: Tokenizer, trainer: Any) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(texts(), trainer)
