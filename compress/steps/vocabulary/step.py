"""Taking tokens out: rows of the embedding and the output head, the tokenizer's pieces, and ids in configs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from compress.data.tokens import corpus
from compress.errors import InputError
from compress.execution.context import Context
from compress.model.model import Model
from compress.output_format.find import find_output_format
from compress.recipe.vocabulary import PruneVocab
from compress.registry import steps
from compress.steps.kind import Decision, ModelStep
from compress.steps.units.masks import listed, masks
from compress.steps.vocabulary.choose import Choice
from compress.steps.vocabulary.read import count_tokens, full_config, named_tokens, read_tokenizer, vocabulary
from compress.surgery.claims.vocabulary import SameOnKept
from compress.surgery.cut import cut, output_specs
from compress.surgery.edit import Edit, Put
from compress.tokenizer.beside import changed_files, notes_of
from compress.tokenizer.named import Named

SAMPLE = 2000
"""Texts of the corpus that both tokenizers are compared on."""


@steps.add("prune-vocab")
class PruneTokens(ModelStep):
    """Remove tokens that a text uses little or never, from the model and its tokenizer."""

    settings, verb, subjects = PruneVocab, "prune", ("vocab",)
    writing = "cut"
    unforeseen = "which tokens stay is decided by the tokenizer and a text"
    step: PruneVocab

    def calibrates(self, *, given: bool) -> bool:
        """Text is read, though the model does not run."""
        return False

    def decide(self, context: Context, gathered: Any) -> dict[str, Any]:
        """`kept`: family → ids of the tokens that stay. `tokenizer`: the digest of the tokenizer.json that they are of.
        `counted`: tokens and characters of the text, how many tokens it `uses`, and the share of its tokens that
        stay."""
        source = context.source
        family = vocabulary(source)
        file, loaded = read_tokenizer(source)
        named, _, _ = named_tokens(source, loaded)
        counts, characters = count_tokens(context, loaded, family.size)
        kept = Choice(file, counts, named).kept(self.step)
        return {
            "kept": listed({family.name: kept}),
            "tokenizer": file.digest,
            "counted": {
                "tokens": int(counts.sum()),
                "characters": characters,
                "uses": int((counts > 0).sum()),
                "covered": float(counts[kept].sum() / counts.sum()),
            },
        }

    def edit(self, context: Context, decision: Decision, gathered: Any) -> Edit:
        source = context.source
        family = vocabulary(source)
        file, loaded = read_tokenizer(source)
        if decision["tokenizer"] != file.digest:
            raise InputError(f"{file.path}: not the tokenizer of the plan; plan anew")
        kept = masks(source.graph, decision["kept"])
        new = {int(old): number for number, old in enumerate(np.flatnonzero(kept[family.name]))}
        named, beside, own = named_tokens(source, loaded)
        if lost := sorted(named - new.keys()):
            raise InputError(f"token {lost[0]} is named by a config or the chat template, and the plan removes it")
        checkpoint = source.checkpoint
        files = changed_files(checkpoint.folder, checkpoint.side_files, file, new, family.size)
        config = Named(own.file, family.size).renumbered(full_config(source), new)
        output_format = find_output_format(_with_config(source, config), kept)
        specs = output_specs(source, kept, output_format)

        def produce(put: Put) -> None:
            cut(source, kept, output_format, specs, put)

        def texts() -> list[str]:
            return list(islice(corpus(context.recipe.calibrate, loaded, context.recipe.seed), SAMPLE))

        return Edit(
            specs,
            produce,
            output_format.config,
            SameOnKept(family.name, kept[family.name], texts),
            output_format.described,
            changed={**dict(_changed(checkpoint.config, config)), **output_format.edits},
            beside=files,
            kept=kept,
            notes=[
                *output_format.notes,
                *_notes(decision, files),
                *notes_of([*beside, own]),
                *_left(output_format.config, family.size),
            ],
        )

    @staticmethod
    def rows(decision: Decision) -> dict[str, str]:
        """How many tokens stay, and what share of the text they are."""
        (kept,) = decision["kept"].values()
        return {"tokens kept": f"{len(kept)} ({decision['counted']['covered']:.2%} of the text's)"}


def _with_config(source: Model, config: dict[str, Any]) -> Model:
    """The model as if its config.json were this one."""
    checkpoint = copy.copy(source.checkpoint)
    checkpoint.config = config
    return replace(source, checkpoint=checkpoint)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Path → (old, new) of values that differ."""
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            yield from _changed(old, value, f"{path}{key}.")
        elif value != old:
            yield path + key, (old, value)


def _left(config: Mapping[str, Any], rows: int, path: str = "config.json: ") -> Iterator[str]:
    """Numbers of tokens that no size of the model hangs on, a sentence each."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _left(value, rows, f"{path}{key}.")
        elif str(key).endswith("vocab_size") and value == rows:
            yield f"{path}{key} is {rows} as before, as no size of the model hangs on it; check whether it should be"


def _notes(decision: Decision, files: Mapping[str, str | None]) -> Iterator[str]:
    counted = decision["counted"]
    yield (
        f"of {counted['tokens']:,} tokens of text ({counted['characters']:,} characters, {counted['uses']:,} different "
        f"ones), {counted['covered']:.2%} are as before; the others are spelled by smaller ones"
    )
    if gone := [name for name, text in files.items() if text is None]:
        yield f"left out, as they number the tokens as before: {', '.join(gone)}; tokenizer.json says it all"
