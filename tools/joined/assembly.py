"""A tower, a projector and a Llama put together as transformers' Llava, with what prepares its inputs."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken
from transformers import (
    BitImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

IMAGE = "<image>"
LAYER = -2
"""The tower's hidden state that the projector reads, without the class token's."""
TEMPLATE = (
    "{% for message in messages %}{{ bos_token if message['role'] == 'user' else ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endif %}{% endfor %}"
)


def join(tower: PreTrainedModel, llama: Any, tokenizer: Any, tokens: int) -> LlavaForConditionalGeneration:
    """Both as one model with a projector that is not trained yet; `tokens` of an image. `tokenizer` gets its word."""
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(IMAGE, special=True, normalized=False)]})
    lacking = len(tokenizer) - llama.get_input_embeddings().weight.shape[0]
    if lacking > 0:
        llama.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for config in (tower.config, llama.config):
        config._name_or_path = ""  # a folder of this machine
    config: Any = LlavaConfig(
        vision_config=tower.config,
        text_config=llama.config,
        image_seq_length=tokens,
        vision_feature_layer=LAYER,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(llama.model.state_dict())
    model.tie_weights()
    settings: Any = model.generation_config
    settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    settings.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def processor(
    tokenizer: PreTrainedTokenizerBase, side: int, patch: int, mean: list[float], std: list[float]
) -> LlavaProcessor:
    """What makes inputs of pictures with `side` pixels a side."""
    images = BitImageProcessorPil(
        size={"height": side, "width": side}, do_center_crop=False, image_mean=mean, image_std=std
    )
    # The class token is counted, and then taken off again by the strategy.
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=patch,
        chat_template=TEMPLATE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def prompt(tokenizer: Any, question: str, image: bool = True) -> str:
    """What the model is asked with, as the chat template writes it."""
    return f"{tokenizer.bos_token}{IMAGE if image else ''}{question}"


def reply(tokenizer: Any, answer: str) -> list[int]:
    """The tokens that are right behind the prompt, the end among them."""
    return [*tokenizer(f" {answer}", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
