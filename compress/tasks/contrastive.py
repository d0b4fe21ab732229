"""Pairs of encoders, which put what belongs together close to each other (CLIP, SigLIP, CLAP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import ModelError
from compress.inputs.batch import Batch
from compress.metrics.similarity import PairSimilarity
from compress.registry import tasks
from compress.tasks.distance import cosine_distance
from compress.tasks.kind import Task

EMBEDS = ("image_embeds", "video_embeds", "text_embeds", "audio_embeds", "speech_embeds")


@tasks.add("contrastive")
class Contrastive(Task):
    """Two embeddings `[batch, width]` of each sample, and how like each is to each other one, `[batch, batch]`."""

    name, hub_task = "contrastive", "zero-shot-image-classification"
    logits = False

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that learn the scale of similarities."""
        scales = (getattr(model, name, None) for name in ("logit_scale", "logit_scale_a"))
        return any(isinstance(scale, nn.Parameter) for scale in scales)  # Cohere's is a number, of its vocabulary's

    def result(self, output: Any) -> Tensor:
        """Both embeddings, `[batch, 2, width]`. Of texts that are embedded for every sample it is the own one."""
        found = [value for name in EMBEDS if (value := getattr(output, name, None)) is not None]
        found = [value.diagonal().T if value.dim() == 3 and len(value) == value.shape[1] else value for value in found]
        if len(found) != 2 or any(one.dim() != 2 for one in found):
            raise ModelError(f"a {type(output).__name__} has no two embeddings of a sample")
        return torch.stack(found, 1)

    def compared(self, output: Any) -> Tensor:
        """Both embeddings, side by side: the similarities of two samples alone would hide much."""
        return self.result(output).flatten(1)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean over samples of how badly its own text is told from those of the other samples, and the other way round.

        −log softmax of the similarities both ways (Radford et al. 2021), or −log sigmoid of each pair where the model
        has a bias for these (Zhai et al. 2023). A sample alone has none to be told from: then it is 1 − cos.
        """
        pairs = getattr(output, "logits_per_text", None)
        if pairs is None:
            raise ModelError(f"a {type(output).__name__} does not say how like pairs are, so no loss is defined")
        if len(pairs) == 1:
            one, other = self.result(output).float().unbind(1)
            return 1 - torch.cosine_similarity(one, other).mean()
        pairs, own = pairs.float(), torch.eye(len(pairs), device=pairs.device)
        if hasattr(self.model, "logit_bias"):
            return -functional.logsigmoid(pairs * (2 * own - 1)).sum(-1).mean()
        right = torch.arange(len(pairs), device=pairs.device)
        return (functional.cross_entropy(pairs, right) + functional.cross_entropy(pairs.T, right)) / 2

    def metric(self, batch: Batch) -> PairSimilarity:
        """How like the dense model's embeddings are."""
        return PairSimilarity(self.result)

    def distance(self, one: Any, other: Any) -> Tensor:
        """1 − cos of either embedding, `[batch, 2]`."""
        return cosine_distance(self.result(one), self.result(other))
