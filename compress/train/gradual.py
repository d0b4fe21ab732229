"""Magnitude pruning while a `transformers.Trainer` trains.

trainer = Trainer(model, args, train_dataset=texts, callbacks=[GradualPruning(0.8)])
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.pytorch_utils import Conv1D

from compress.console import warn
from compress.errors import InputError, ModelError
from compress.output_format.probe import stacks
from compress.sparse.masks import smallest
from compress.train.ramp import CubicRamp


class GradualPruning(TrainerCallback):
    """Zeroes more and more of the smallest weights, and keeps them zero (Zhu and Gupta 2017; Jin et al. 2025).

    At every step that `every` divides between `start` and `end` (shares of the run) the masks are taken anew, so that
    each matrix has the share of zeros that `CubicRamp` asks for; from `end` on it is `sparsity`, to the nearest weight.
    A step counts as the same compute however many weights are zero, as it does in dense matrices. Masks are applied
    after every step of the optimizer, so before anything is saved, logged or evaluated.

    A mask follows from the weights alone: pruned ones are 0 and so the smallest. Nothing is stored beside a checkpoint,
    and a run that resumes goes on with the masks it had. What is zero once is not tried again.

    Args:
        sparsity: share of each matrix that is zero in the end.
        start, end: of the ramp, as shares of the run's steps.
        every: steps from one change of the masks to the next.
        skip: globs on names of parameters to leave whole.

    Raises InputError (also when training begins) and, where the model has no repeated blocks, ModelError.
    """

    def __init__(
        self, sparsity: float, *, start: float = 0.25, end: float = 0.75, every: int = 100, skip: Sequence[str] = ()
    ) -> None:
        self.ramp = CubicRamp(sparsity, start, end)
        if every < 1:
            raise InputError(f"every {every}: masks change every step (1) or more seldom")
        self.every, self.skip = every, tuple(skip)
        self._weights: dict[str, nn.Parameter] = {}
        self._pruned: dict[str, Tensor] = {}
        self._share = 0.0

    def share(self, step: int, steps: int) -> float:
        """What share of each matrix is zero after `step` of `steps` optimizer steps."""
        ended = step >= self.ramp.end * steps
        return self.ramp.at((step if ended else step - step % self.every) / steps)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Find the weights; where training resumes, their masks too."""
        ramp = (self.ramp.end - self.ramp.start) * state.max_steps
        if self.every > max(ramp, 1):
            raise InputError(f"every {self.every}: the ramp lasts {ramp:g} steps of {state.max_steps}; take fewer")
        if args.fsdp or args.deepspeed:
            raise InputError("GradualPruning compares whole matrices; train without fsdp and deepspeed")
        if args.load_best_model_at_end:
            raise InputError(
                "load_best_model_at_end: the best checkpoint may be one from before the pruning; leave it out"
            )
        self._weights = prunable(given["model"], self.skip)
        self._pruned, self._share = {}, 0.0
        self._apply(state.global_step, state.max_steps)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Zero what is pruned; the Trainer counts the step only afterwards."""
        self._apply(state.global_step + 1, state.max_steps)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Say so where training stopped before the ramp's end."""
        if self._share < self.ramp.sparsity:
            warn(
                f"training stopped at step {state.global_step} of {state.max_steps}: {self._share:.1%} of the weights "
                f"are pruned, not {self.ramp.sparsity:.1%}"
            )

    @torch.no_grad()
    def _apply(self, step: int, steps: int) -> None:
        share = self.share(step, steps)
        if share != self._share:
            self._pruned = {name: _smallest(weight, share) for name, weight in self._weights.items()}
            self._share = share
        for name, pruned in self._pruned.items():
            self._weights[name].masked_fill_(pruned, 0)


def prunable(model: nn.Module, skip: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Weights of the linear layers inside the repeated blocks, and experts stacked as `[experts, ·, ·]`, by name.

    Raises ModelError where there are none, or they are not what training changes, InputError where a glob of `skip`
    matches none or all are skipped.
    """
    if hasattr(model, "peft_config"):
        raise ModelError("the model has adapters, and pruning them prunes nothing; merge them or train without")
    blocks = tuple(f"{stack.name}." for stack in stacks(model))
    found = {
        f"{place}.{name}": parameter
        for place, module in model.named_modules()
        if place.startswith(blocks)
        for name, parameter in module.named_parameters(recurse=False)
        if _is_matrix(module, name, parameter)
    }
    if not found:
        raise ModelError(f"{type(model).__name__} has no repeated blocks with linear layers")
    if bad := [name for name, weight in found.items() if not weight.is_floating_point()]:
        raise ModelError(f"{bad[0]} is quantized ({found[bad[0]].dtype}); gradual pruning trains ordinary weights")
    if bad := [glob for glob in skip if not any(fnmatch(name, glob) for name in found)]:
        raise InputError(f"skip: {bad[0]!r} matches none of the weights to prune, such as {next(iter(found))}")
    left = {name: weight for name, weight in found.items() if not any(fnmatch(name, glob) for glob in skip)}
    if not left:
        raise InputError("skip: nothing is left to prune; leave some weights to it")
    return left


def _is_matrix(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    if isinstance(module, nn.Linear | Conv1D):
        return name == "weight" and min(parameter.shape) > 1  # a single row is a gate, as of Qwen2-MoE's shared expert
    return parameter.dim() == 3 and not isinstance(module, _ConvNd)


def _smallest(weight: Tensor, share: float) -> Tensor:
    """Exactly the `share` of a matrix, or of each expert, bool like `weight`; of equal ones as many as it takes."""
    experts = len(weight) if weight.dim() == 3 else 1
    return smallest(weight.abs().reshape(experts, -1), share, "row").view_as(weight)
