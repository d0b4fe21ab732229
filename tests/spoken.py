"""Tiny random models that read and write text, for what needs a tokenizer."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import zoo
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from compress.evaluate.harness import SHIPPED

VOCABULARY = 400


def save(name: str, folder: Path, **changes) -> Path:
    """A model of the zoo beside a byte-level tokenizer learnt from the questions that ship."""
    zoo.save(name, folder, vocab_size=VOCABULARY, max_position_embeddings=512, **changes)
    _tokenizer().save_pretrained(folder)
    return folder


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    backend.decoder = decoders.ByteLevel()  # pyright: ignore
    texts = [json.loads(line)["context"] for line in (SHIPPED / "word.jsonl").read_text().splitlines()[:100]]
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<pad>", "<s>", "</s>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        mask_token="<mask>",
        model_max_length=512,
    )
