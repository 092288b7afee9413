"""A Qwen2.5-VL of transformers' own classes, small enough for every test, that has learnt to tell colours.

Random weights would never end an answer, and would say the same of every picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from igrpo_sdk import refinement
from igrpo_sdk.qwen import Qwen, chat
from igrpo_sdk.references import Reference

ANSWERS = {"red": "A man with a beard, in red.", "blue": " a woman with glasses,\nin blue"}
DESCRIPTIONS = {"red": "a man with a beard, in red", "blue": "a woman with glasses, in blue"}
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# What Qwen's own template says, as far as pictures go.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def person(colour: str, shade: int = 200) -> Reference:
    """A picture of one colour."""
    pixels = np.zeros((60, 84, 3), np.uint8)
    pixels[..., ("red", "green", "blue").index(colour)] = shade
    return Reference.load(pixels)


def tiny_tokenizer() -> Any:
    """Qwen's kind of tokenizer, with its special tokens, and merges for what is said here."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    asked = chat("<|vision_start|>{picture}<|vision_end|>{question}")
    tokenizer.train_from_iterator([asked, refinement._QUESTION, *ANSWERS.values()], trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def tiny_model(tokenizer: Any) -> Any:
    """Two layers of text, two of pictures, random weights."""
    torch.manual_seed(0)
    names = ("image", "video", "vision_start", "vision_end")
    words = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    ids = {f"{n}_token_id": tokenizer.convert_tokens_to_ids(w) for n, w in zip(names, words, strict=True)}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024,
        "bos_token_id": 0, "eos_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))


def save_tiny_qwen(directory: Path) -> Path:
    """Teach a tiny model its two answers, and save it as a repository of the Hub has it."""
    tokenizer = tiny_tokenizer()
    model, images = tiny_model(tokenizer), Qwen2VLImageProcessorPil()
    qwen = Qwen(model, tokenizer, images, "refine")
    rows = []
    for colour, answer in ANSWERS.items():
        inputs = qwen.inputs([person(colour).image, refinement._QUESTION])
        said = torch.tensor([tokenizer(answer + "<|im_end|>").input_ids])
        ids = torch.cat([inputs["input_ids"], said], 1)
        labels = torch.cat([torch.full_like(inputs["input_ids"], -100), said], 1)
        more = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        more["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
        rows.append(inputs | more)
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(400):
        losses = [model(**row).loss for row in rows]
        if max(loss.item() for loss in losses) < 0.02:
            break
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    else:
        raise AssertionError("not learnt")
    # What Qwen's own repositories come with; a refiner must not use it.
    model.generation_config = type(model.generation_config)(
        do_sample=True, temperature=5.0, repetition_penalty=9.0
    )
    for part in (model, tokenizer, images):
        part.save_pretrained(directory)
    return directory
