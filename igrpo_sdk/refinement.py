"""Prompts completed with what is visible of each person, as in Identity-GRPO (arXiv 2510.14256).

A refiner is any callable (references, prompt) -> prompt; `QwenRefiner` asks a Qwen2.5-VL about each picture.
torch and transformers are imported when one is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from igrpo_sdk.errors import IgrpoError, InputError, ResourceError, WeightsError
from igrpo_sdk.hub.locate import Repository, locate
from igrpo_sdk.naming import ORDINALS
from igrpo_sdk.references import Reference

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEFAULT_REFINER",
    "QwenRefiner",
    "Refiner",
    "check_refiner",
    "complete_prompt",
    "refine_prompt",
]

DEFAULT_REFINER = "Qwen/Qwen2.5-VL-7B-Instruct"
"""What `QwenRefiner` loads by default: the model of the paper."""

_QUESTION = (
    "Describe the person in this picture in one short phrase, such as: a woman with long brown hair and"
    " glasses, in a blue coat. Say only what is visible of the person: man or woman, hair, glasses, beard,"
    " clothes. Leave out the background, the pose and the light. Answer with the phrase alone."
)
# Qwen2.5-VL's chat format. Written out, as its template lies in a file of the tokenizer or of the processor,
# by the age of the repository, and the processor needs torchvision.
_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{picture}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
)
_PICTURE, _END = "<|image_pad|>", "<|im_end|>"
# Pixels of a picture as the model sees it; the most is that of Identity-GRPO's reward, some 500 tokens.
_SIZE = {"shortest_edge": 56 * 56, "longest_edge": 399_360}
_MAX_TOKENS = 96  # of an answer: three times what is asked for


class Refiner(Protocol):
    """Completes a prompt; any function of these arguments is one."""

    def __call__(self, references: Sequence[Reference], prompt: str, /) -> str:
        """The prompt to use instead. Person i of the prompt is `references[i]`."""
        ...


def complete_prompt(prompt: str, descriptions: Sequence[str]) -> str:
    """The prompt, then a sentence for each person, in the order of the references.

    `descriptions`: such as "a man with grey hair"; a capital in front of "a" and a full stop behind are taken
    off. One person is "the person", several are "the first person", and so on.
    """
    text = prompt.strip()
    sentences = [text if text.endswith((".", "!", "?")) else f"{text}."]
    for index, description in enumerate(descriptions):
        name = f"The {ORDINALS[index]} person" if index < len(ORDINALS) else f"Person {index + 1}"
        sentences.append(f"{name if len(descriptions) > 1 else 'The person'} is {_phrase(description)}.")
    return " ".join(sentences)


def check_refiner(refine: object) -> None:
    """Raise `InputError` unless `refine` can be called, or is None."""
    if refine is not None and not callable(refine):
        raise InputError(f"refine: {refine!r}; give a callable, such as QwenRefiner.from_pretrained()")


def refine_prompt(refiner: Refiner, references: Sequence[Reference], prompt: str) -> str:
    """What a refiner makes of a prompt. Raises `InputError` if that is not text, or nothing."""
    refined: object = refiner(references, prompt)
    if not isinstance(refined, str):
        kind = type(refined).__name__
        raise InputError(f"refine: returned {kind} for {prompt!r}; it must return the whole prompt, a string")
    if not refined.strip():
        raise InputError(f"refine: returned an empty string for {prompt!r}; it must return the whole prompt")
    return refined


class QwenRefiner:
    """A `Refiner` that describes each picture by a Qwen2.5-VL, without sampling, and completes the prompt.

        refiner = QwenRefiner.from_pretrained(device="cuda")
        pipe(references, "Two people talk.", refine=refiner)

    Descriptions are kept by `Reference.hash`: a picture is looked at once. Calls from several threads wait
    for one another. The model stays in memory as long as the refiner does.
    """

    def __init__(self, model: Any, tokenizer: Any, images: Any) -> None:
        """transformers' Qwen2_5_VLForConditionalGeneration, its tokenizer and Qwen2VLImageProcessorPil.

        See `from_pretrained`. Raises `WeightsError` for a tokenizer of something else.
        """
        from transformers import GenerationConfig

        ends = [tokenizer.convert_tokens_to_ids(token) for token in (_PICTURE, _END)]
        # transformers makes an empty tokenizer of a folder without one, and says nothing.
        if ends[0] != model.config.image_token_id or ends[1] in (None, tokenizer.unk_token_id):
            raise WeightsError(
                f"refine: the tokenizer does not know {_PICTURE} and {_END}. Copy its files again"
            )
        self._model, self._tokenizer, self._images = model.eval().requires_grad_(False), tokenizer, images
        # In place of the model's own, which samples and penalises repetition.
        self._model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=_MAX_TOKENS, eos_token_id=ends[1], pad_token_id=ends[1]
        )
        self._end = ends[1]
        self._known: dict[str, str] = {}
        self._lock = Lock()  # transformers' model keeps the positions of the text it is at

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_REFINER,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
    ) -> QwenRefiner:
        """Load a Qwen2.5-VL: a directory, or a Hub repository.

        Args:
            model: What to load; only safetensors are read.
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
        from igrpo_sdk.backbones.loading import loading_error

        (source, revision), place = _find(model, revision), pick_device(device)
        dtype = dtype or (torch.float32 if place.type == "cpu" else torch.bfloat16)
        try:
            parts = _load(source, revision, dtype)
        except IgrpoError:
            raise
        except Exception as error:  # the loaders of three libraries raise what they like on a bad file
            raise loading_error(source, error, "refine: model") from error
        return cls(parts[0].to(place), *parts[1:])

    def __call__(self, references: Sequence[Reference], prompt: str, /) -> str:
        """`complete_prompt` with `describe` of each reference."""
        return complete_prompt(prompt, [self.describe(reference) for reference in references])

    def describe(self, reference: Reference) -> str:
        """What is visible of the person, such as "a man with a grey beard, in a blue shirt".

        Raises `InputError` for a picture of which the model says nothing, or finds no end; `ResourceError`
        when memory runs out.
        """
        with self._lock:
            if reference.hash not in self._known:
                self._known[reference.hash] = self._ask(reference)
            return self._known[reference.hash]

    def _ask(self, reference: Reference) -> str:
        """The model's answer, as a phrase."""
        import torch

        inputs = self._inputs(reference)
        try:
            with torch.inference_mode():
                tokens = self._model.generate(**inputs)[0, inputs["input_ids"].shape[1] :].tolist()
        except torch.OutOfMemoryError as error:
            reason = str(error).split("\n")[0]
            raise ResourceError(
                f"refine: out of memory ({reason}); use a smaller model or another device"
            ) from None
        name = "reference" if reference.source is None else f"reference {reference.source!r}"
        remedy = "use an Instruct model, or write this description yourself"
        if tokens[-1] != self._end:  # half a description may say the opposite of the whole
            raise InputError(f"refine: {name}: no end after {_MAX_TOKENS} tokens; {remedy}")
        answer = _phrase(self._tokenizer.decode(tokens, skip_special_tokens=True))
        if not answer:
            raise InputError(f"refine: {name}: the model says nothing of it; {remedy}")
        return answer

    def _inputs(self, reference: Reference) -> dict[str, Any]:
        """The question with one picture, as the model takes it."""
        import torch
        from PIL import Image

        made = self._images(images=[Image.fromarray(reference.image)], size=_SIZE, return_tensors="pt")
        grid = made["image_grid_thw"]
        count = int(grid.prod()) // self._images.merge_size**2
        text = _CHAT.format(picture=_PICTURE * count, question=_QUESTION)
        ids = torch.tensor([self._tokenizer(text).input_ids])
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            # Without it, the model takes the picture's positions for a line of text, and says nothing.
            "mm_token_type_ids": (ids == self._model.config.image_token_id).int(),
            "pixel_values": made["pixel_values"],
            "image_grid_thw": grid,
        }
        return {name: value.to(self._model.device) for name, value in inputs.items()}


def _phrase(description: str) -> str:
    """A description as it stands inside a sentence."""
    text = " ".join(description.split()).strip("\"' ").removesuffix(".")
    return text[:1].lower() + text[1:] if text.startswith(("A ", "An ")) else text


def _find(model: str | Path, revision: str | None) -> tuple[str | Path, str | None]:
    """(directory or repository, revision) of a name."""
    found = locate(model, revision)
    if isinstance(found, Repository):
        return found.id, found.revision
    if found is not None and found.is_dir():
        return found, None
    raise InputError(
        f"refine: {str(model)!r} is no directory or Hub repository; give a Qwen2.5-VL, such as"
        f" {DEFAULT_REFINER}"
    )


def _load(source: str | Path, revision: str | None, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor."""
    import transformers

    common: dict[str, Any] = {"revision": revision, "local_files_only": isinstance(source, Path)}
    config = transformers.AutoConfig.from_pretrained(source, **common)
    if config.model_type != "qwen2_5_vl":
        raise WeightsError(f"refine: model {source} is a {config.model_type}; give a Qwen2.5-VL")
    model, told = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        source, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **common
    )
    if told["missing_keys"]:  # transformers fills them with random numbers
        missing = ", ".join(sorted(told["missing_keys"])[:3])
        raise WeightsError(f"refine: model {source}: weights are missing ({missing}). Copy the files again")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
    # The one that needs no torchvision, so that the same picture gives the same numbers everywhere.
    return model, tokenizer, transformers.Qwen2VLImageProcessorPil.from_pretrained(source, **common)
