"""The tiny text encoder: its shape, its use, and a short pretraining on reading captions.

From a caption alone it learns to say, for each place, which reference stands there and what that person does,
and the background and the light. The small readers that ask are thrown away; the flow transformer then trains
the encoder further. Captions that name people by their looks do not tell who is who, so there that question
is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from igrpo_sdk.acceleration import pick_device
from igrpo_sdk.config import check_numbers, check_seed
from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.seeds import generator, mix

from ..common.average import Average
from ..world.captions import captions
from ..world.scenes import ACTIONS, BACKGROUNDS, LIGHTS, MAX_PEOPLE, Scene, sample_scene
from .latents import tokenizer_function
from .loop import Budget, Clock
from .tokenizer import train_tokenizer
from .trainer import Every, Optimisation, make_optimizers, restore, train, write_model

NOBODY = MAX_PEOPLE
UNKNOWN = -100  # cross_entropy skips it
QUESTIONS: tuple[tuple[str, int], ...] = (
    *((f"who_{place}", MAX_PEOPLE + 1) for place in PLACES),
    *((f"action_{place}", len(ACTIONS) + 1) for place in PLACES),
    ("background", len(BACKGROUNDS)),
    ("light", len(LIGHTS)),
)
"""What is asked of a caption, with the number of answers; the last who and action is "nobody"."""


@dataclass(frozen=True)
class TextModel:
    """Architecture; the names are those of transformers' UMT5Config."""

    vocab_size: int = 1024
    d_model: int = 128
    d_ff: int = 320
    d_kv: int = 32
    num_layers: int = 4
    num_heads: int = 4

    def build(self, vocabulary: int) -> UMT5EncoderModel:
        """An encoder with random weights for `vocabulary` tokens."""
        return UMT5EncoderModel(
            UMT5Config(
                vocab_size=vocabulary,
                d_model=self.d_model,
                d_ff=self.d_ff,
                d_kv=self.d_kv,
                num_layers=self.num_layers,
                num_heads=self.num_heads,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                pad_token_id=0,
                eos_token_id=1,
                decoder_start_token_id=0,
                use_cache=False,
            )
        )


@dataclass(frozen=True)
class TextRecipe:
    """One pretraining run of tokenizer and text encoder."""

    budget: Budget
    hardware: str = ""
    seed: int = 0
    model: TextModel = field(default_factory=TextModel)
    optimisation: Optimisation = field(default_factory=Optimisation)
    every: Every = field(default_factory=Every)
    captions: int = 60_000
    """Training captions, written before the first step."""
    held_out: int = 1024
    batch: int = 512

    def __post_init__(self) -> None:
        check_numbers(self, "recipe")
        check_seed(self.seed)
        if min(self.captions, self.held_out, self.batch) < 1:
            raise InputError("captions, held_out and batch must be at least 1")


def embed_text(encoder: UMT5EncoderModel, tokens: Tensor) -> Tensor:
    """Embeddings [B, L, d] of token ids [B, L] padded with 0; zeros where padded, as diffusers does."""
    mask = tokens != 0
    hidden: Tensor = encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    return hidden * mask[..., None]


def answers(scene: Scene, by_order: bool) -> list[int]:
    """The right answers to `QUESTIONS`; who is who is unknown unless the caption names people by order."""
    who = dict.fromkeys(PLACES, NOBODY)
    action = dict.fromkeys(PLACES, len(ACTIONS))
    for reference, actor in enumerate(scene.actors):
        who[actor.place] = reference if by_order else UNKNOWN
        action[actor.place] = ACTIONS.index(actor.action)
    background, light = BACKGROUNDS.index(scene.background), LIGHTS.index(scene.light)
    return [*(who[p] for p in PLACES), *(action[p] for p in PLACES), background, light]


def write_examples(count: int, split: str, seed: int) -> tuple[list[str], Tensor]:
    """Captions, every other one naming people by order, and their answers [count, questions]."""
    texts: list[str] = []
    labels: list[list[int]] = []
    half = -(-count // 2)
    for by_order in (True, False):
        scenes = [sample_scene(mix(seed, "caption", i, str(by_order)), split) for i in range(half)]
        texts += captions(scenes, list(range(half)), "order" if by_order else "mixed")
        labels += [answers(scene, by_order) for scene in scenes]
    shuffled = torch.randperm(2 * half, generator=generator(torch.device("cpu"), seed, split))[
        :count
    ].tolist()
    return [texts[i] for i in shuffled], torch.tensor([labels[i] for i in shuffled])


class Reader(nn.Module):
    """One attention query a question over a text's embeddings; only for pretraining and measuring."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(QUESTIONS), width) / width**0.5)
        self.answers = nn.ModuleList(nn.Linear(width, size) for _, size in QUESTIONS)

    def forward(self, hidden: Tensor, mask: Tensor) -> list[Tensor]:
        """Logits [B, answers] per question from embeddings [B, L, d] and mask [B, L]."""
        scores = torch.einsum("qd,bld->bql", self.queries, hidden)
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1)
        read = torch.einsum("bql,bld->bqd", weights, hidden)
        return [answer(read[:, i]) for i, answer in enumerate(self.answers)]


class TextTask:
    """The text encoder with its reader, captions and answers."""

    def __init__(self, recipe: TextRecipe, device: torch.device) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        texts, labels = write_examples(recipe.captions, "train", recipe.seed)
        held_texts, held_labels = write_examples(recipe.held_out, "validation", recipe.seed)
        self.tokenizer = train_tokenizer(texts[:20_000], recipe.model.vocab_size)
        tokenize = tokenizer_function(self.tokenizer)
        self.tokens, self.labels = tokenize(texts).to(device), labels.to(device)
        self.held_tokens, self.held_labels = tokenize(held_texts).to(device), held_labels.to(device)
        self.encoder = recipe.model.build(len(self.tokenizer)).to(device)
        self.reader = Reader(recipe.model.d_model).to(device)
        self.modules: Mapping[str, nn.Module] = {"encoder": self.encoder, "reader": self.reader}
        self.average = Average(self.modules, recipe.optimisation.average)

    def draw(self, step: int, progress: float) -> tuple[Tensor, Tensor]:
        """Captions and the answers to them."""
        random = generator(torch.device("cpu"), self.recipe.seed, "step", step)
        index = torch.randint(len(self.tokens), (self.recipe.batch,), generator=random).to(self.tokens.device)
        return self.tokens[index].long(), self.labels[index]

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy summed over the questions."""
        tokens, labels = batch
        losses = [
            F.cross_entropy(logit, labels[:, i], ignore_index=UNKNOWN)
            for i, logit in enumerate(self._read(tokens))
        ]
        return torch.stack(losses).sum(), {}

    def _read(self, tokens: Tensor) -> list[Tensor]:
        longest = int((tokens != 0).sum(1).max())
        tokens = tokens[:, : -(-longest // 8) * 8]
        logits: list[Tensor] = self.reader(embed_text(self.encoder, tokens), tokens != 0)
        return logits

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Share of right answers on held-out captions: who (where it is told), action, background, light."""
        with self.average.applied():
            parts = [self._read(tokens.long()) for tokens in torch.split(self.held_tokens, 256)]
        right: dict[str, list[Tensor]] = {}
        for i, (name, _) in enumerate(QUESTIONS):
            label = self.held_labels[:, i]
            correct = torch.cat([part[i].argmax(1) for part in parts]) == label
            right.setdefault(name.partition("_")[0], []).append(correct[label != UNKNOWN])
        return {name: float(torch.cat(parts).float().mean()) for name, parts in right.items()}

    def export(self, output: Path) -> Path:
        """Write `text_encoder` (averaged weights, float16) and `tokenizer` under `output`."""
        with self.average.applied():
            encoder = self.recipe.model.build(len(self.tokenizer))
            encoder.load_state_dict(self.encoder.state_dict())
        write_model(encoder.half(), output / "text_encoder")
        self.tokenizer.save_pretrained(output / "tokenizer")
        return output


def train_text(recipe: TextRecipe, output: Path, resume: str | None = None, device: str = "auto") -> Path:
    """Train both; writes `output/tokenizer` and `output/text_encoder`."""
    clock = Clock(recipe.budget)
    task = TextTask(recipe, pick_device(device))
    parameters = [p for module in task.modules.values() for p in module.parameters()]
    optimizers = make_optimizers(recipe.optimisation, [], parameters)
    restore(task, optimizers, clock, output, resume)
    clock.start()
    train(task, optimizers, clock, recipe.optimisation.clip_norm, recipe.every, output)
    return task.export(output)
