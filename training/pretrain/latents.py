"""Rendered clips as VAE latents in device memory: what the flow transformer trains on.

One pool per number of people, because a batch has one sequence length. Latents are normalised with the VAE's
mean and deviation, as pipelines normalise them, and kept in float16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from igrpo_sdk.backbones.wan_vae import encode_sequence
from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError

from ..world.captions import captions
from ..world.renderer import Rendered, render_references, render_scenes
from ..world.scenes import Scene, actor_keys, sample_scene
from .clips import letterbox_squares, per_latent, to_video
from .loop import generator, mix
from .readout import Facts, Truth

TEXT_LENGTH = 128
"""Tokens of a prompt, shorter ones padded with zeros behind the text encoder."""


@dataclass(frozen=True)
class LatentConfig:
    """How many clips are cached, and with how many captions and pictures each."""

    clips: int = 40_000
    odds: tuple[float, ...] = (0.15, 0.65, 0.20)
    """Share of clips, and of batches, with one, two, three people."""
    captions: int = 4
    pictures: int = 2
    """Reference pictures of each person; one is drawn each time."""
    chunk: int = 64
    """Clips rendered and encoded in one call."""
    seed: int = 0
    renew_every: int = 0
    """Steps after which the oldest chunk makes room for clips never seen before; 0 keeps the first ones."""

    def __post_init__(self) -> None:
        if abs(sum(self.odds) - 1) > 1e-6 or not 1 <= len(self.odds) <= 3 or min(self.odds) < 0:
            raise InputError(f"odds={self.odds} must be one to three shares that sum to 1")
        if min(self.clips, self.captions, self.pictures, self.chunk) < 1 or self.renew_every < 0:
            raise InputError(
                f"{self}: clips, captions, pictures and chunk must be at least 1, renew_every not negative"
            )

    def count(self, people: int) -> int:
        """Clips of `people` people, a multiple of `chunk`, at least one chunk."""
        return max(1, round(self.clips * self.odds[people - 1] / self.chunk)) * self.chunk


@dataclass(frozen=True)
class Batch:
    """Training examples with K people each; z latent channels, t x h x w latent cells."""

    video: Tensor
    """[B, z, t, h, w]."""
    references: Tensor
    """[B, K, z, h, w], in the order of the actors."""
    heads: Tensor
    """[B, t, h, w] in {0, 1}: cells where a head is."""
    tokens: Tensor
    """[B, TEXT_LENGTH] token ids, padded with 0."""
    truth: Truth

    def without_prompt(self, rows: Tensor, empty: Tensor) -> Batch:
        """The same, but where `rows` [B] (bool) says so the prompt is `empty` [1, TEXT_LENGTH] and the
        references are those of another example, so that they tell nothing about the video.
        """
        truth = replace(self.truth, known=self.truth.known * ~rows)
        return replace(
            self,
            tokens=torch.where(rows[:, None], empty, self.tokens),
            references=torch.where(
                rows.view(-1, 1, 1, 1, 1), self.references.roll(1, dims=0), self.references
            ),
            truth=truth,
        )


class Encoder:
    """The frozen VAE, with the normalisation pipelines apply to its latents."""

    def __init__(self, vae: AutoencoderKLWan, device: torch.device, half: bool) -> None:
        self.vae = vae.to(device).requires_grad_(False).eval()
        self.device, self._half = device, half
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(vae.config.latents_mean, device=device).view(shape)
        self._deviation = torch.tensor(vae.config.latents_std, device=device).view(shape)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Normalised posterior mean [B, z, t, h, w] of video [B, 3, T, H, W] in [-1, 1].

        float16 autocast rather than bfloat16: values are normalised everywhere, and it keeps three more bits.
        """
        with torch.autocast(self.device.type, torch.float16, enabled=self._half):
            mean = encode_sequence(self.vae, video).float().chunk(2, dim=1)[0]
        normalised: Tensor = (mean - self._mean) / self._deviation
        return normalised

    def grey(self, clip: Geometry) -> Tensor:
        """Latents [1, z, t, h, w] of the all-zero (grey) video, VACE's "generate everything"."""
        shape = (1, 3, clip.num_frames, clip.height, clip.width)
        return self.encode(torch.zeros(shape, device=self.device))


class LatentPool:
    """Clips with `people` people, filled chunk by chunk at construction and renewed in the same order.

    What it holds is a function of the configuration and of the number of renewals alone, so that a resumed
    run sees the same data.
    """

    def __init__(
        self,
        config: LatentConfig,
        clip: Geometry,
        people: int,
        count: int,
        split: str,
        encoder: Encoder,
        tokenize: Callable[[Sequence[str]], Tensor],
    ) -> None:
        self.people, self._pictures, self._captions = people, config.pictures, config.captions
        self._config, self._clip, self.split = config, clip, split
        self._encoder, self._tokenize = encoder, tokenize
        z = encoder.vae.config.z_dim
        scale = encoder.vae.config.scale_factor_spatial
        cells = (clip.height // scale, clip.width // scale)
        t = (clip.num_frames - 1) // 4 + 1
        device = encoder.device
        self._video = torch.empty((count, z, t, *cells), dtype=torch.float16, device=device)
        self._references = torch.empty(
            (count, config.pictures, people, z, *cells), dtype=torch.float16, device=device
        )
        self._heads = torch.empty((count, t, *cells), dtype=torch.bool, device=device)
        self._tokens = torch.empty((count, config.captions, TEXT_LENGTH), dtype=torch.int32, device=device)
        self._facts = Facts(clip.fps, clip.num_frames, device)
        self.num_chunks = count // config.chunk
        self._generations = [0] * self.num_chunks
        self._truth = Truth.join([self._fill(chunk, 0) for chunk in range(self.num_chunks)])

    def __len__(self) -> int:
        return len(self._video)

    def renew(self, renewals: int) -> None:
        """Bring the pool to where it is after so many renewals of one chunk each; mostly a no-op."""
        for chunk in range(self.num_chunks):
            due = (renewals + self.num_chunks - 1 - chunk) // self.num_chunks
            if due != self._generations[chunk]:
                self._truth.put(self._rows(chunk), self._fill(chunk, due))
                self._generations[chunk] = due

    def _rows(self, chunk: int) -> slice:
        return slice(chunk * self._config.chunk, (chunk + 1) * self._config.chunk)

    def _fill(self, chunk: int, generation: int) -> Truth:
        """Render and encode the clips that a chunk holds in its n-th generation; returns their truth."""
        config, clip, people, here = self._config, self._clip, self.people, self._rows(chunk)
        device, cells = self._encoder.device, tuple(self._video.shape[-2:])
        first = generation * len(self)
        seeds = [mix(config.seed, self.split, people, first + i) for i in range(here.start, here.stop)]
        scenes = [sample_scene(seed, self.split, people) for seed in seeds]
        made = render_scenes(scenes, clip.height, clip.width, clip.num_frames, clip.fps, device)
        self._video[here] = self._encoder.encode(to_video(made.frames))
        self._heads[here] = head_cells(made, (cells[0], cells[1]), clip.height // cells[0])
        pictures = reference_pictures(scenes, seeds, config.pictures, clip, device)
        self._references[here] = self._encoder.encode(pictures).view(self._references[here].shape)
        written = [text for i in range(config.captions) for text in captions(scenes, [i] * len(scenes))]
        tokens = self._tokenize(written).view(config.captions, len(scenes), TEXT_LENGTH)
        self._tokens[here] = tokens.transpose(0, 1).to(device)
        return self._facts.of(scenes, made)

    def sample(self, batch: int, *seed: int | str) -> Batch:
        """Random examples; which ones, with which caption and pictures, depends on the seed only."""
        random = torch.rand((batch, 3), generator=generator(torch.device("cpu"), *seed)).to(
            self._video.device
        )
        sizes = torch.tensor([len(self), self._pictures, self._captions], device=random.device)
        index, picture, text = (random * sizes).long().unbind(1)
        return Batch(
            self._video[index].float(),
            self._references[index, picture].float(),
            self._heads[index].float(),
            self._tokens[index, text].long(),
            self._truth[index],
        )


def reference_pictures(
    scenes: Sequence[Scene], seeds: Sequence[int], pictures: int, clip: Geometry, device: torch.device
) -> Tensor:
    """Letterboxed one-frame videos of all actors: [scenes * pictures * people, 3, 1, H, W] in [-1, 1]."""
    actors = [actor for scene in scenes for _ in range(pictures) for actor in scene.actors]
    identities, looks = actor_keys(actors)
    per_scene = pictures * len(scenes[0].actors)
    drawn = torch.tensor([mix(seed, "picture", i) >> 33 for seed in seeds for i in range(per_scene)])
    squares = render_references(identities, drawn, clip.height, looks, device)
    return to_video(letterbox_squares(squares, clip.height, clip.width)[:, None])


def head_cells(made: Rendered, cells: tuple[int, int], scale: int) -> Tensor:
    """Latent cells [B, t, h, w] (bool) that a visible head's box covers in any of the cell's frames."""
    device = made.boxes.device
    y = (torch.arange(cells[0], device=device) + 0.5) * scale
    x = (torch.arange(cells[1], device=device) + 0.5) * scale
    x0, y0, x1, y1 = made.boxes.unsqueeze(-1).unbind(3)  # [B, P, T, 1] each
    shown = (made.visible > 0)[..., None, None]
    inside = ((y >= y0) & (y < y1))[..., :, None] & ((x >= x0) & (x < x1))[..., None, :] & shown
    return per_latent(inside.any(1).float(), 1, torch.amax).bool()  # of [B, T, h, w]


def tokenizer_function(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[str]], Tensor]:
    """Texts to ids [N, TEXT_LENGTH], padded with 0; InputError if a text is longer."""

    def tokenize(texts: Sequence[str]) -> Tensor:
        found = tokenizer(list(texts), padding="max_length", max_length=TEXT_LENGTH, truncation=False)[
            "input_ids"
        ]
        longest = max(map(len, found))
        if longest > TEXT_LENGTH:
            raise InputError(
                f"a caption has {longest} tokens; prompts have at most {TEXT_LENGTH}: shorten the grammar"
            )
        return torch.tensor(found, dtype=torch.int32)

    return tokenize
