"""Pruned models against the dense one: perplexity or likeness of embeddings, and latency; one model in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from compress.calibrate.data import load_tokenizer
from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.console import task
from compress.errors import InputError
from compress.evaluate.latency import Latency, latency
from compress.evaluate.load import held_out, load_model
from compress.evaluate.perplexity import Perplexity, perplexity
from compress.evaluate.similarity import Similarity, compare, embed

LARGEST = 2_000_000_000
"""Bytes of a checkpoint up to which it is loaded whole."""

SAMPLES, LENGTH = 16, 256
CAUSAL = ("CausalLM", "LMHead", "MaskedLM", "Conditional")


@dataclass(frozen=True)
class Evaluation:
    """What was measured; `notes` say what was not, and why."""

    latency_before: Latency | None = None
    latency_after: Latency | None = None
    perplexity_before: Perplexity | None = None
    perplexity_after: Perplexity | None = None
    similarity: Similarity | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """One model: its perplexity where it predicts tokens, else its embeddings `[samples, hidden]`; `length` tokens."""

    latency: Latency | None
    perplexity: Perplexity | None = None
    embeddings: Tensor | None = None
    length: int = 0


class Evaluator:
    """Measures any number of pruned models against one dense model, which is measured once, when first needed.

    In float32 (half precision on an accelerator), on text that calibration does not see: the `docs` source's split
    `test`, shuffled by `seed`. A model without a tokenizer has its latency measured only, on random tokens.
    Checkpoints above 2 GB are not loaded. `timed` says whether latency is measured.
    """

    def __init__(self, dense: Checkpoint, *, seed: int = 0, device: str = "cpu", timed: bool = True) -> None:
        self._dense, self._seed, self._device, self._timed = dense, seed, device, timed
        self._has_tokenizer = load_tokenizer(dense) is not None
        self._rows: list[dict[str, Tensor]] = []
        self._before: Measured | None = None

    def __call__(self, folder: Path) -> Evaluation:
        """The pruned model in `folder` beside the dense one."""
        if self._dense.bytes > LARGEST:
            return Evaluation(notes=[f"not evaluated: checkpoints above {LARGEST / 1e9:.0f} GB are not loaded whole"])
        with task("evaluating", 2) as advance:
            try:
                before = self.before()
            except InputError as error:
                return Evaluation(notes=[f"not evaluated: {error}"])
            advance()
            after = self._measure(open_checkpoint(folder, trust_remote_code=self._dense.trust_remote_code))
            advance()
        alike = None
        if before.embeddings is not None and after.embeddings is not None:
            alike = compare(before.embeddings, after.embeddings, before.length)
        notes = ["quality not evaluated: the model has no tokenizer"] if not self._has_tokenizer else []
        return Evaluation(before.latency, after.latency, before.perplexity, after.perplexity, alike, notes)

    def before(self) -> Measured:
        """The dense model's figures. Raises InputError where no text fits the model."""
        if self._before is None:
            self._rows = held_out(self._dense, length=LENGTH, samples=SAMPLES, seed=self._seed)
            self._before = self._measure(self._dense)
        return self._before

    def _measure(self, checkpoint: Checkpoint) -> Measured:
        model = load_model(checkpoint, self._device)
        one = {name: value[:1] for name, value in self._rows[0].items()}
        timed = latency(model, one) if self._timed else None
        if not self._has_tokenizer:
            return Measured(timed)
        if any(word in type(model).__name__ for word in CAUSAL):
            return Measured(timed, perplexity(model, self._rows))
        return Measured(timed, None, *embed(model, self._rows))
