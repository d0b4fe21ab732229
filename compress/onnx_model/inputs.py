"""What an ONNX graph reads: random inputs to trace and verify by, arrays or text to calibrate on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compress.checkpoint.side_files import side_files
from compress.console import warn
from compress.data.tokens import load_tokenizer, token_rows
from compress.errors import InputError
from compress.graph.example import Example
from compress.inputs.batch import Batch, rows
from compress.inputs.given import Given
from compress.onnx_model.arrays import DTYPES, to_tensor
from compress.onnx_model.examples import SIZES, Sizes, examples, rows_looked_up, shapes
from compress.onnx_model.file import is_cache
from compress.onnx_model.module import OnnxModule
from compress.recipe.part import Part

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

RANDOM, ARRAYS = Part("random"), ".npz"


@dataclass(frozen=True)
class _Vocabulary:
    """As much of a config as `token_rows` reads."""

    vocab_size: int
    max_position_embeddings: int | None

    def get_text_config(self) -> _Vocabulary:
        """Itself."""
        return self


@dataclass(frozen=True)
class _Beside:
    """As much of a checkpoint as `load_tokenizer` reads."""

    folder: Path
    side_files: list[Path]
    trust_remote_code: bool = False
    code: tuple[str, ...] = ()


class OnnxInputs(Given):
    """The inputs of a graph, by their names in the file. `sizes`: of what the file leaves open."""

    noun, data = "samples", RANDOM

    def __init__(self, module: OnnxModule, sizes: Sizes = SIZES[0]) -> None:
        self.sizes = sizes
        self.loss, self.calibration = None, []
        self._module, self._tables = module, rows_looked_up(module)

    @property
    def tokens(self) -> str | None:
        """The input that holds text, None where there is none."""
        named = [name for name in self._tables if name.endswith(("tokens", "ids"))]
        named = [name for name in named if "type" not in name and "position" not in name]
        return max(named, key=lambda name: self._tables[name], default=None)

    def example(self) -> Example:
        """Small inputs; what the file leaves open of the first dimension is the batch, of the tokens' second their
        number."""
        sizes = shapes(self._module, sizes=self.sizes)
        tensors = {
            each.name: torch.empty(sizes[each.name], dtype=DTYPES[each.type.tensor_type.elem_type], device="meta")
            for each in self._module.onnx_file.inputs
        }
        axes: dict[str, tuple[str, int]] = {}
        for each in self._module.onnx_file.inputs:
            dims = each.type.tensor_type.shape.dim
            for place, (axis, wanted) in enumerate((("batch", True), ("sequence", each.name == self.tokens))):
                if wanted and place < len(dims) and dims[place].dim_value <= 0:
                    axes.setdefault(axis, (each.name, place))
        return Example(tensors, axes, caches=[name for name in tensors if is_cache(name)])

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Random inputs."""
        return examples(self._module, self.sizes, rows=rows, seed=seed, caches=False)

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three samples."""
        return {
            name: value.to(device) for name, value in examples(self._module, self.sizes, rows=3, caches=False).items()
        }

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Of an .npz file its arrays, by the names of the inputs; text, where a tokenizer lies beside the file; else
        random numbers, of which a user is warned.

        Raises InputError for arrays that do not fit the inputs.
        """
        source = calibrate.data
        if isinstance(source, str) and source.endswith(ARRAYS):
            return self._in_batches(self._arrays(Path(source).expanduser(), calibrate.samples), calibrate)
        name = self.tokens
        beside = self._tokenizer()
        if name is not None and beside is not None and source != RANDOM:
            config: Any = _Vocabulary(self._tables[name], None)
            asked = calibrate if source is not None else calibrate.model_copy(update={"data": Part("docs")})
            ids = token_rows(asked, beside, config, seed)
            return self._in_batches(self._around(name, ids), calibrate)
        if isinstance(source, str):  # a file, a folder, a dataset: somebody means it
            raise InputError(
                f"calibrate.data: {source}: the graph reads {', '.join(shapes(self._module))}; give an .npz file with "
                f"arrays of these names{'' if name is None else ', or put the tokenizer beside the file'}, or `random`"
            )
        if source != RANDOM:
            warn(
                f"{checkpoint.folder}: calibrated on random numbers, which say little of what the model reads; give an "
                f".npz file with arrays {', '.join(shapes(self._module))}: --set calibrate.data=samples.npz"
            )
        sizes = self.sizes if self.tokens is None else replace(self.sizes, length=calibrate.length)
        at_once = self._rows(calibrate)
        found = [
            examples(self._module, sizes, rows=min(at_once, calibrate.samples - done), seed=seed + done, caches=False)
            for done in range(0, calibrate.samples, at_once)
        ]
        return found, _key(found)

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """Random numbers: of other data nothing is known."""
        return RANDOM

    def length(self, batch: Batch) -> int:
        """Tokens of a sample; one where it has none."""
        return batch[self.tokens].shape[1] if self.tokens in batch else 1

    def _rows(self, calibrate: Calibrate) -> int:
        """Samples in a batch: as many as the file has fixed, if it has."""
        first = self._module.onnx_file.inputs[0].type.tensor_type.shape.dim
        return first[0].dim_value if len(first) and first[0].dim_value > 0 else calibrate.batch

    def _in_batches(self, arrays: Batch, calibrate: Calibrate) -> tuple[list[Batch], str]:
        """Samples in batches; what has no dimension of samples goes along with each of these."""
        samples, at_once = rows(arrays), self._rows(calibrate)
        found = [
            {
                name: value[done : done + at_once] if value.dim() and len(value) == samples else value
                for name, value in arrays.items()
            }
            for done in range(0, samples - samples % at_once if samples > at_once else samples, at_once)
        ]
        return found, _key(found)

    def _tokenizer(self) -> Any:
        folder = self._module.onnx_file.path.parent
        beside: Any = _Beside(folder, side_files(folder, ()).travelling)
        return load_tokenizer(beside)

    def _around(self, name: str, ids: Tensor) -> Batch:
        """Tokens, and what else the graph takes for as many."""
        count, length = ids.shape
        found = examples(self._module, Sizes(length=length), rows=count, caches=False)
        kinds = {each.name: DTYPES[each.type.tensor_type.elem_type] for each in self._module.onnx_file.inputs}
        for other, value in found.items():
            if value.dim() == 2 and not value.is_floating_point():
                positions = torch.arange(length).expand(count, -1) if "position" in other else torch.zeros_like(ids)
                found[other] = (torch.ones_like(value) if "mask" in other else positions).to(kinds[other])
        found[name] = ids.to(kinds[name])
        return found

    def _arrays(self, file: Path, samples: int) -> Batch:
        try:
            with np.load(file, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"calibrate.data: {file}: no readable .npz file: {error}") from None
        wanted = {each.name: each for each in self._module.onnx_file.inputs if not is_cache(each.name)}
        if lacking := [name for name in wanted if name not in arrays]:
            raise InputError(f"calibrate.data: {file}: has no array {lacking[0]}, which the graph reads")
        batch: Batch = {}
        for name, each in wanted.items():
            dtype, dims = DTYPES[each.type.tensor_type.elem_type], each.type.tensor_type.shape.dim
            fixed = [(place, dim.dim_value) for place, dim in enumerate(dims) if dim.dim_value > 0 and place]
            shape = arrays[name].shape
            if len(shape) != len(dims) or any(shape[place] != size for place, size in fixed):
                asked = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "any" for dim in dims]
                raise InputError(f"calibrate.data: {file}: {name} is {list(shape)}, the graph reads {asked}")
            batch[name] = to_tensor(arrays[name]).to(dtype)
        count = rows(batch)
        return {name: x[:samples] if x.dim() and len(x) == count else x for name, x in batch.items()}


def _key(batches: Iterable[Batch]) -> str:
    """Stands for the numbers in them."""
    digest = blake2b(digest_size=16)
    for batch in batches:
        for name, value in batch.items():
            digest.update(f"{name}{list(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()
