"""Prompts completed with what is visible of each person, as in Identity-GRPO (arXiv 2510.14256).

A refiner is any callable (references, prompt) -> prompt; `QwenRefiner` asks a Qwen2.5-VL about each picture.
torch and transformers are imported when one is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.naming import ORDINALS
from igrpo_sdk.qwen import END, Qwen
from igrpo_sdk.reading import shortened
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
        raise InputError(
            f"refine: {shortened(refine)}; give a callable, such as QwenRefiner.from_pretrained()"
        )


def refine_prompt(refiner: Refiner, references: Sequence[Reference], prompt: str) -> str:
    """What a refiner makes of a prompt. Raises `InputError` if that is not text, or nothing."""
    refined: object = refiner(references, prompt)
    if not isinstance(refined, str):
        kind = type(refined).__name__
        raise InputError(
            f"refine: returned {kind} for {shortened(prompt)}; it must return the whole prompt, a string"
        )
    if not refined.strip():
        raise InputError(
            f"refine: returned an empty string for {shortened(prompt)}; it must return the whole prompt"
        )
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

        self._qwen = Qwen(model.eval().requires_grad_(False), tokenizer, images, "refine")
        end = self._qwen.token(END)
        # In place of the model's own, which samples and penalises repetition.
        model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=_MAX_TOKENS, eos_token_id=end, pad_token_id=end
        )
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
        """Load a Qwen2.5-VL from a directory or a Hub repository; arguments and errors are `Qwen.load`'s."""
        qwen = Qwen.load(model, "refine", revision=revision, device=device, dtype=dtype)
        return cls(qwen.model, qwen.tokenizer, qwen.images)

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

        inputs = self._qwen.inputs([reference.image, _QUESTION])
        try:
            with torch.inference_mode():
                made = self._qwen.model.generate(**inputs)
        except torch.OutOfMemoryError as error:
            reason = str(error).split("\n")[0]
            raise ResourceError(
                f"refine: out of memory ({reason}); use a smaller model or another device"
            ) from None
        tokens = made[0, inputs["input_ids"].shape[1] :].tolist()
        name = "reference" if reference.source is None else f"reference {shortened(reference.source)}"
        remedy = "use an Instruct model, or write this description yourself"
        if tokens[-1] != self._qwen.token(END):  # half a description may say the opposite of the whole
            raise InputError(f"refine: {name}: no end after {_MAX_TOKENS} tokens; {remedy}")
        answer = _phrase(self._qwen.tokenizer.decode(tokens, skip_special_tokens=True))
        if not answer:
            raise InputError(f"refine: {name}: the model says nothing of it; {remedy}")
        return answer


def _phrase(description: str) -> str:
    """A description as it stands inside a sentence."""
    text = " ".join(description.split()).strip("\"' ").removesuffix(".")
    return text[:1].lower() + text[1:] if text.startswith(("A ", "An ")) else text
