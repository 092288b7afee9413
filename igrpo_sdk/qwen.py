"""Qwen2.5-VL: loading it, and the layout of its chat, for whatever asks it about pictures.

torch and transformers are imported when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import IgrpoError, InputError, WeightsError
from igrpo_sdk.hub.locate import Repository, locate

if TYPE_CHECKING:
    import torch

__all__ = ["END", "PICTURE", "PIXELS", "Qwen", "chat"]

PICTURE, END = "<|image_pad|>", "<|im_end|>"
"""The token that stands for a part of a picture, and the one that ends what somebody says."""
PIXELS = (56 * 56, 399_360)
"""Bounds of a picture's pixels as the model sees it; the most is Identity-GRPO's, some 500 tokens."""


def chat(content: str) -> str:
    """What a user says, in Qwen2.5-VL's chat format, up to where the answer begins.

    Written out, as the template lies in a file of the tokenizer or of the processor, by the age of the
    repository, and the processor needs torchvision.
    """
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
    )


@dataclass(frozen=True, eq=False)
class Qwen:
    """A Qwen2.5-VL and what turns text and pictures into its inputs.

    model: Qwen2_5_VLForConditionalGeneration of transformers. tokenizer: its own. images: the image processor
    that needs no torchvision, so that the same picture gives the same numbers everywhere
    (Qwen2VLImageProcessorPil). name: what messages call the argument that it was given as.
    """

    model: Any
    tokenizer: Any
    images: Any
    name: str

    def __post_init__(self) -> None:
        """Raise WeightsError for the tokenizer of something else."""
        # transformers makes an empty tokenizer of a folder without one, and says nothing.
        if self.token(PICTURE) != self.model.config.image_token_id or self.token(END) in (
            None,
            self.tokenizer.unk_token_id,
        ):
            raise WeightsError(
                f"{self.name}: the tokenizer does not know {PICTURE} and {END}. Copy its files again"
            )

    @classmethod
    def load(
        cls,
        model: str | Path,
        name: str,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
    ) -> Qwen:
        """Load one from a directory or a Hub repository; only safetensors are read.

        Args:
            model: What to load.
            name: What messages call the argument that it was given as, such as "refine".
            revision: Of a Hub repository.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: By default bfloat16 on an accelerator, float32 on the CPU.

        Raises:
            InputError: A name that is nothing, or a device that is not there.
            WeightsError: Missing or damaged files, or those of another model.
            HubError: A repository cannot be had.
        """
        import torch

        from igrpo_sdk.acceleration import pick_device
        from igrpo_sdk.backbones.loading import loading_error, quiet_loaders

        found, place = locate(model, revision), pick_device(device)
        source: str | Path
        if isinstance(found, Repository):
            source, revision = found.id, found.revision
        elif found is not None and found.is_dir():
            source, revision = found, None
        else:
            raise InputError(
                f"{name}: {str(model)!r} is no directory or Hub repository; give a Qwen2.5-VL, such as"
                " Qwen/Qwen2.5-VL-7B-Instruct"
            )
        dtype = dtype or (torch.float32 if place.type == "cpu" else torch.bfloat16)
        try:
            with quiet_loaders():
                network, tokenizer, images = _load(source, revision, dtype, name)
        except IgrpoError:
            raise
        except Exception as error:  # the loaders of three libraries raise what they like on a bad file
            raise loading_error(source, error, f"{name}: model") from error
        return cls(network.to(place), tokenizer, images, name)

    def token(self, text: str) -> Any:
        """The number of a token."""
        return self.tokenizer.convert_tokens_to_ids(text)

    def inputs(
        self, content: Sequence[str | NDArray[np.uint8]], pixels: tuple[int, int] = PIXELS
    ) -> dict[str, Any]:
        """What a user says as the model takes it, on the model's device, a batch of one.

        Args:
            content: text, and pictures uint8 (H, W, 3), in their order; at least one picture.
            pixels: the least and the most pixels that a picture is resized to.

        Returns:
            input_ids, attention_mask and mm_token_type_ids (1, L), with as many picture tokens as the model
            makes of each picture; pixel_values (patches, numbers); image_grid_thw (pictures, 3).
        """
        import torch
        from PIL import Image

        pictures = [Image.fromarray(part) for part in content if not isinstance(part, str)]
        size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
        made = self.images(images=pictures, size=size, return_tensors="pt")
        counts = iter((made["image_grid_thw"].prod(-1) // self.images.merge_size**2).tolist())
        said = [part if isinstance(part, str) else _seen(next(counts)) for part in content]
        ids = torch.tensor([self.tokenizer(chat("".join(said))).input_ids])
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            # Without it, the model takes the pictures' positions for a line of text, and says nothing.
            "mm_token_type_ids": (ids == self.model.config.image_token_id).int(),
            "pixel_values": made["pixel_values"],
            "image_grid_thw": made["image_grid_thw"],
        }
        return {key: value.to(self.model.device) for key, value in inputs.items()}


def _seen(count: int) -> str:
    """A picture of so many tokens."""
    return f"<|vision_start|>{PICTURE * count}<|vision_end|>"


def _load(source: str | Path, revision: str | None, dtype: torch.dtype, name: str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor."""
    import transformers

    common: dict[str, Any] = {"revision": revision, "local_files_only": isinstance(source, Path)}
    config = transformers.AutoConfig.from_pretrained(source, **common)
    if config.model_type != "qwen2_5_vl":
        raise WeightsError(f"{name}: model {source} is a {config.model_type}; give a Qwen2.5-VL")
    model, told = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        source, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **common
    )
    if told["missing_keys"]:  # transformers fills them with random numbers
        missing = ", ".join(sorted(told["missing_keys"])[:3])
        raise WeightsError(f"{name}: model {source}: weights are missing ({missing}). Copy the files again")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
    return model, tokenizer, transformers.Qwen2VLImageProcessorPil.from_pretrained(source, **common)
