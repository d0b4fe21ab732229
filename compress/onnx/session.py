"""A graph in ONNX Runtime: nothing of torch or transformers is needed to run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InputError

Arrays = dict[str, np.ndarray]
PAST, PRESENT = "past_key_values.", "present."


class Session:
    """A graph on the processor. `threads` zero leaves their number to ONNX Runtime.

    Raises InputError when onnxruntime is not installed or cannot open `path`.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError("onnxruntime is not installed: pip install 'compress-models[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no class
            raise InputError(f"{path}: ONNX Runtime cannot open it: {str(error).strip()}") from None
        self.shapes: dict[str, list[int | str]] = {each.name: each.shape for each in self._session.get_inputs()}
        self.outputs: list[str] = [each.name for each in self._session.get_outputs()]

    @property
    def cached(self) -> bool:
        """Whether the graph takes keys and values of earlier tokens."""
        return any(name.startswith(PAST) for name in self.shapes)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """All outputs by name. Inputs that the graph does not have are left out."""
        given = {name: value for name, value in inputs.items() if name in self.shapes}
        found: list[Any] = list(self._session.run(None, given))
        return dict(zip(self.outputs, found, strict=True))

    def empty(self, batch: int) -> Arrays:
        """The cache before the first token: keys and values `[batch, heads, 0, width]` of every layer."""
        past = {name: shape for name, shape in self.shapes.items() if name.startswith(PAST)}
        return {
            name: np.zeros((batch, *(0 if isinstance(size, str) else size for size in shape[1:])), np.float32)
            for name, shape in past.items()
        }

    def step(self, ids: np.ndarray, mask: np.ndarray, cache: Arrays) -> tuple[np.ndarray, Arrays]:
        """Logits `[batch, new, vocabulary]` of the tokens `ids` `[batch, new]`, and the cache that has them too.

        `mask` `[batch, past + new]` is zero at padding, which is on the left.
        """
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        found = self({"input_ids": ids, "attention_mask": mask, "position_ids": positions, **cache})
        return found["logits"], {PAST + name.removeprefix(PRESENT): found[name] for name in found if PRESENT in name}
