"""What the policies on a Wan transformer share: texts, pictures, caches, decoding, and guidance over passes.

What differs from diffusers' pipelines is the plumbing: batches, mixed reference counts, several videos a
prompt, and caches. Guidance runs its forward passes one after the other, as the stock pipelines do, not as
one batch: the numbers are the same, the memory is a fraction, and on a CPU the time is the same too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.backbones.base import Conditioning, ReferenceOrder
from igrpo_sdk.backbones.switching import AdapterUse, adapter_disabled
from igrpo_sdk.backbones.vae import clips_at_once, decode_sequence, encode_sequence
from igrpo_sdk.config import Geometry, Guidance
from igrpo_sdk.errors import NumericsError, WeightsError
from igrpo_sdk.references import Reference

__all__ = ["WanBackbone"]

NUM_TRAIN_TIMESTEPS = 1000


class _Cache:
    """The results of the last `size` different keys. What is kept is what was computed: equal bit for bit."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of `key`, made if it is not there; the one unused longest makes room."""
        if key not in self._items:
            self._items[key] = make()
        self._items.move_to_end(key)
        while len(self._items) > self._size:
            self._items.popitem(last=False)
        return self._items[key]

    def clear(self) -> None:
        self._items.clear()


class WanBackbone(ABC):
    """A `Backbone` of a Wan transformer, AutoencoderKLWan, UMT5EncoderModel and a tokenizer.

    `text_length`: tokens that prompts are padded to, as the stock pipeline's `max_sequence_length`. All parts
    lie on one device. Caches hold text embeddings by prompt, reference latents by picture and size, and the
    constant latents of an empty video by geometry; call `clear_caches` after changing the weights of the VAE
    or the text encoder.

    A policy says how its references reach the transformer: `_encode`, `_run` and `_letterbox`.
    """

    reference_order: ClassVar[ReferenceOrder]
    guides_by_image: ClassVar[bool]
    stock_class: ClassVar[str]
    """Name of the diffusers pipeline of the same parts."""
    transformer_class: ClassVar[str]
    """Name of the transformer's class in diffusers."""
    slots_in_front: ClassVar[bool]
    """Whether each reference takes a latent frame in front of the video's."""

    def __init__(
        self, transformer: Any, vae: Any, text_encoder: Any, tokenizer: Any, text_length: int
    ) -> None:
        """Raises `WeightsError` if the parts do not fit each other."""
        self.transformer, self.vae = transformer, vae
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.text_length = text_length
        # as the stock pipelines compute them
        self.spatial_scale = 2 ** len(vae.temperal_downsample)
        self._temporal_scale = 2 ** sum(vae.temperal_downsample)
        for name, needed in self._needed().items():
            found = transformer.config.get(name)
            if found != needed:
                raise WeightsError(f"transformer: {name} is {found}; its VAE and text encoder need {needed}")
        self._text_cache, self._picture_cache, self._empty_cache = _Cache(64), _Cache(64), _Cache(4)
        self.adapter_use = AdapterUse()
        self._decode_clips: Callable[[Any, Tensor], Tensor] = decode_sequence
        self._pinned = False

    def _needed(self) -> dict[str, int]:
        """What the VAE and the text encoder ask of the transformer's configuration."""
        return {"in_channels": self.vae.config.z_dim, "text_dim": self.text_encoder.config.d_model}

    @abstractmethod
    def _encode(
        self,
        references: Sequence[Sequence[Reference]],
        geometry: Geometry,
        prompt_embeds: Tensor,
        negative_embeds: Tensor | None,
    ) -> Conditioning:
        """The conditioning of B samples whose texts are encoded."""

    @abstractmethod
    def _run(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        branch: flow.Branch,
        embeds: Tensor,
    ) -> Tensor:
        """One forward pass of samples with as many references each: the transformer's output, shaped as
        `latents`. `latents` and `embeds` are in the transformer's precision.
        """

    @abstractmethod
    def _letterbox(self, person: Reference, height: int, width: int) -> Tensor:
        """The reference as the model sees it, float32 [3, height, width] in [-1, 1]."""

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        device: torch.device = self.transformer.patch_embedding.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """That of the patch embedding; norms and the like may be float32 beside it."""
        dtype: torch.dtype = self.transformer.patch_embedding.weight.dtype
        return dtype

    @property
    def components(self) -> dict[str, Any]:
        """The parts by diffusers' names."""
        names = ("transformer", "vae", "text_encoder", "tokenizer")
        return {name: getattr(self, name) for name in names}

    @property
    def repeated_blocks(self) -> list[torch.nn.Module]:
        """The transformer's blocks."""
        return list(self.transformer.blocks)

    def stock_pipeline(self, scheduler: Any) -> Any:
        """The diffusers pipeline of the same parts."""
        import diffusers

        return getattr(diffusers, self.stock_class)(**self.components, scheduler=scheduler)

    @property
    def size_multiple(self) -> tuple[int, int]:
        """Pixels per transformer token, (height, width)."""
        _, height, width = self.transformer.config.patch_size
        return self.spatial_scale * height, self.spatial_scale * width

    @property
    def temporal_scale(self) -> int:
        """Frames per latent frame."""
        return int(self._temporal_scale)

    def largest(self, num_references: int) -> tuple[int, int, int]:
        """(frames, height, width) that the rotary positions reach; a reference takes a latent frame of them,
        wherever it stands.
        """
        tokens = self.transformer.config.rope_max_seq_len
        latent_frames = tokens * self.transformer.config.patch_size[0] - num_references
        height, width = self.size_multiple
        return (latent_frames - 1) * self.temporal_scale + 1, tokens * height, tokens * width

    def count_tokens(self, text: str) -> int:
        """Tokens of the cleaned text with its end mark; 0 if the tokenizer knows nothing of what is left."""
        tokens = self.tokenizer(_clean(text)).input_ids
        return len(tokens) if self.tokenizer.decode(tokens, skip_special_tokens=True).strip() else 0

    def reads(self, word: str) -> bool:
        """Whether no part of the cleaned word is the tokenizer's unknown one."""
        return self.tokenizer.unk_token_id not in self.tokenizer(_clean(word)).input_ids

    def latent_shape(self, geometry: Geometry, num_references: int) -> tuple[int, int, int, int]:
        """(z, R + T, H / spatial scale, W / spatial scale)."""
        slots = num_references if self.slots_in_front else 0
        frames = (geometry.num_frames - 1) // self.temporal_scale + 1 + slots
        scale = self.spatial_scale
        return self.vae.config.z_dim, frames, geometry.height // scale, geometry.width // scale

    def least_memory(self, geometry: Geometry, num_references: int) -> int:
        """The states and the widest feed-forward activation of all tokens, or the frames in float32."""
        config, (_, step, other) = self.transformer.config, self.transformer.config.patch_size
        _, frames, height, width = self.latent_shape(geometry, num_references)
        if not self.slots_in_front:
            frames += num_references
        tokens = frames * (height // step) * (width // other)
        hidden = config.num_attention_heads * config.attention_head_dim
        states = int(tokens * (2 * hidden + config.ffn_dim) * self.dtype.itemsize)
        return max(states, geometry.num_frames * geometry.height * geometry.width * 3 * 4)

    @torch.no_grad()
    def encode(
        self,
        references: Sequence[Sequence[Reference]],
        prompts: Sequence[str],
        negatives: Sequence[str] | None,
        geometry: Geometry,
    ) -> Conditioning:
        """Encode B samples. Each text and each picture is encoded alone, so a batch changes no bit."""
        negative_embeds = None if negatives is None else self._texts(negatives)
        return self._encode(references, geometry, self._texts(prompts), negative_embeds)

    def velocity(
        self,
        latents: Tensor,
        sigma: float | Tensor,
        conditioning: Conditioning,
        guidance: Guidance,
        *,
        unconditional_gradient: bool = True,
    ) -> Tensor:
        """v with guidance, float32, shaped as `latents`. Samples with as many references run together, if the
        adapter is used at the noise level of all or of none of them.
        """
        assert latents.shape[0] == len(conditioning), (latents.shape, len(conditioning))
        # In float64 a whole number of thousandths comes back as that number.
        sigmas = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").expand(len(conditioning))
        timesteps = (sigmas * NUM_TRAIN_TIMESTEPS).float().to(latents.device)
        adapted = [self.adapter_use.at(level) for level in sigmas.tolist()]
        kinds = list(zip(conditioning.num_references, adapted, strict=True))
        if len(set(kinds)) == 1:
            gradient = unconditional_gradient
            return self._guided(latents, timesteps, conditioning, guidance, gradient, adapted[0])
        result = torch.zeros_like(latents, dtype=torch.float32)
        for kind in sorted(set(kinds)):
            rows = [row for row, other in enumerate(kinds) if other == kind]
            part = conditioning.select(rows)
            unused = conditioning.num_slots - part.num_slots
            result[rows, :, unused:] = self._guided(
                latents[rows, :, unused:], timesteps[rows], part, guidance, unconditional_gradient, kind[1]
            )
        return result

    def _guided(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: Guidance,
        gradient: bool,
        adapted: bool,
    ) -> Tensor:
        """v of samples with one number of references, with the adapter or as the base.

        Guidance of an adapter's own says nothing where there is no guidance: its one pass is adapted then.
        """
        own = self.adapter_use.guidance if adapted and guidance.needs_negatives else None
        hidden, found = latents.to(self.dtype), dict[flow.Pass, Tensor]()
        for branch, with_adapter in flow.pass_weights(guidance.text, guidance.image, own):
            embeds = conditioning.prompt_embeds if branch == "full" else conditioning.negative_embeds
            assert embeds is not None, "guidance needs negatives"
            learns = torch.is_grad_enabled() and (gradient or branch == "full")
            base = nullcontext() if with_adapter and adapted else adapter_disabled(self.transformer)
            with torch.set_grad_enabled(learns), base:
                output = self._run(hidden, timesteps, conditioning, branch, embeds.to(self.dtype))
            found[branch, with_adapter] = output.float()
        branches = {branch: v for (branch, with_adapter), v in found.items() if not (own and with_adapter)}
        if own is None:
            return flow.guide(branches, guidance.text, guidance.image)
        adapted_full = found["full", True]
        if ("full", False) not in found:  # w = g: guide(base) + g (adapted - base) is guide(adapted)
            return flow.guide({**branches, "full": adapted_full}, guidance.text, guidance.image)
        guided = flow.guide(branches, guidance.text, guidance.image)
        return flow.add_change(guided, adapted_full, branches["full"], own)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Frames, uint8 [B, F, H, W, 3] on the CPU; as many videos at a time as `clips_at_once` says."""
        mean, std_inverse = self._latent_statistics(self.vae.dtype)
        frames, scale = (latents.shape[2] - 1) * self.temporal_scale + 1, self.spatial_scale
        together = clips_at_once(self.vae, frames, latents.shape[3] * scale, latents.shape[4] * scale)
        decode = partial(self._decode_clips, self.vae) if together else self._decode_in_chunks
        shape = (len(latents), frames, latents.shape[3] * scale, latents.shape[4] * scale, 3)
        videos = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        # In equal parts: a compiled decoder is compiled anew for another number of clips.
        parts = -(-len(latents) // (together or 1))
        for target, some in zip(
            torch.tensor_split(videos, parts),
            torch.tensor_split(latents.to(self.vae.dtype), parts),
            strict=True,
        ):
            video = decode(some / std_inverse + mean)
            if not torch.isfinite(video).all():
                raise NumericsError("decode: the VAE's output is not finite; use a float32 VAE")
            pixels = ((video * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
            target.copy_(pixels.permute(0, 2, 3, 4, 1))
        return videos

    def compile_decoder(self, dtype: torch.dtype) -> None:
        """Compile the decoding of whole clips, with convolutions in `dtype`: for many clips of one size that
        only rewards look at. Fast on a GPU, from which frames then come into page-locked memory.
        """

        def decode(vae: Any, latents: Tensor) -> Tensor:
            with torch.autocast(latents.device.type, dtype, enabled=dtype != torch.float32):
                return decode_sequence(vae, latents)

        self._decode_clips = torch.compile(decode)
        self._pinned = self.device.type == "cuda"

    def clear_caches(self) -> None:
        """Forget everything encoded so far."""
        for cache in (self._text_cache, self._picture_cache, self._empty_cache):
            cache.clear()

    def _texts(self, texts: Sequence[str]) -> Tensor:
        """[B, L, D]: embeddings of texts, zeros behind the end of each, as the stock pipeline makes them."""
        cleaned = [_clean(text) for text in texts]
        return torch.stack([self._text_cache.get(text, partial(self._encode_text, text)) for text in cleaned])

    def _encode_text(self, cleaned: str) -> Tensor:
        """[L, D]: the embedding of one cleaned text."""
        tokens = self.tokenizer(cleaned).input_ids
        unused = self.text_length - len(tokens)
        assert unused >= 0, "a text is checked before it is encoded"
        # Padded by hand: a tokenizer told to pad pads for every thread that is using it at that moment.
        ids = torch.tensor([tokens + [self.tokenizer.pad_token_id] * unused], device=self.device)
        mask = torch.tensor([[1] * len(tokens) + [0] * unused], device=self.device)
        embeds: Tensor = self.text_encoder(ids, mask).last_hidden_state[0]
        return torch.where(mask[0, :, None] > 0, embeds, torch.zeros_like(embeds))

    def _picture(self, person: Reference, geometry: Geometry) -> Tensor:
        """[z, 1, h, w]: the latent of a reference, encoded as a video of one frame."""
        size = (geometry.height, geometry.width)

        def make() -> Tensor:
            return self._encode_pixels(self._letterbox(person, *size)[:, None])

        return self._picture_cache.get((person.hash, size), make)

    def _empty_video(self, geometry: Geometry) -> Tensor:
        """[z, T, h, w]: the latents of a grey video."""
        shape = (3, geometry.num_frames, geometry.height, geometry.width)
        return self._empty_cache.get(shape, lambda: self._encode_pixels(torch.zeros(shape)))

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised latents [z, T, h, w] of pixels [3, F, H, W] in [-1, 1]."""
        dtype = self.vae.dtype
        video = pixels[None].to(self.device, dtype)
        if clips_at_once(self.vae, *pixels.shape[1:]):
            latents = encode_sequence(self.vae, video).chunk(2, dim=1)[0]
        else:
            latents = self.vae.encode(video).latent_dist.mode()
        mean, std_inverse = self._latent_statistics(torch.float32)
        normalised: Tensor = ((latents.float() - mean) * std_inverse).to(dtype)[0]
        return normalised

    def _decode_in_chunks(self, z: Tensor) -> Tensor:
        """What `decode_sequence` gives, within the memory of a few frames."""
        video: Tensor = self.vae.decode(z, return_dict=False)[0]
        return video

    def _latent_statistics(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and 1 / std of the latents, [1, z, 1, 1, 1]."""
        shape, config = (1, -1, 1, 1, 1), self.vae.config
        mean = torch.tensor(config.latents_mean).view(shape).to(self.device, dtype)
        return mean, (1.0 / torch.tensor(config.latents_std).view(shape)).to(self.device, dtype)


def _clean(text: str) -> str:
    """The text as the stock pipeline cleans it: mojibake mended, HTML entities decoded, spaces single."""
    from diffusers.pipelines.wan.pipeline_wan_vace import prompt_clean

    cleaned: str = prompt_clean(text)
    return cleaned
