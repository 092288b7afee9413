"""Whole-clip passes through diffusers' AutoencoderKLWan.

`vae.encode` and `vae.decode` walk a clip in chunks of four frames (one latent frame) with a cache per
convolution, so that long videos fit into memory. At this size that is hundreds of tiny kernels a clip. The
functions here run the same modules over all frames at once and give the same result, because every piece of
the chunked walk has a closed form:

* a cached causal convolution is a convolution padded with two zero frames in front; for a single frame, the
  last time slice of its kernel is all that is left of it;
* `downsample3d` keeps the first frame and strides over windows that share a frame: cat(x[:1], time_conv(x));
* `upsample3d` keeps the first frame and doubles the rest, and its convolution sees zeros, never the first
  frame (the chunked code marks the first chunk "Rep" and starts the cache after it):
  cat(x[:1], interleave(time_conv(x[1:])));
* attention is within a frame.

Shapes: B clips, C channels, T frames (4k+1), H x W pixels; t, h, w the same in latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanCausalConv3d,
    WanMidBlock,
    WanResample,
    WanResidualBlock,
    WanRMS_norm,
    patchify,
    unpatchify,
)
from torch import Tensor

from igrpo_sdk.errors import InputError

_LARGEST_ACTIVATION = 256 * 2**20  # bytes
_LARGEST_BATCH = 2**30


def clips_at_once(vae: AutoencoderKLWan, frames: int, height: int, width: int) -> int:
    """How many whole clips go through the VAE together; 0 for a clip that has to go in chunks, alone.

    The widest activation of a clip must stay under 256 MiB; on a GPU, where launching the kernels for one
    small clip takes longer than they do, as many go together as stay under 1 GiB.
    """
    config = vae.config
    channels = max(config.base_dim, config.decoder_base_dim or 0)
    positions = frames * height * width // (config.patch_size or 1) ** 2
    size = channels * positions * vae.dtype.itemsize
    if size > _LARGEST_ACTIVATION:
        return 0
    return 1 if vae.device.type == "cpu" else int(_LARGEST_BATCH // size)


def encode_sequence(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Moments of the posterior of `video` [B, 3, T, H, W] in [-1, 1]: [B, 2z, t, h, w], means first.

    Equals `vae.encode(video).latent_dist.parameters`. Raises InputError unless T - 1 divides by the VAE's
    temporal scale.
    """
    step = 2 ** sum(vae.temperal_downsample)
    if video.ndim != 5 or (video.shape[2] - 1) % step:
        raise InputError(
            f"video must be [B, 3, {step}k+1, H, W], got {tuple(video.shape)}: cut it to {step}k+1 frames"
        )
    x = patchify(video, vae.config.patch_size) if vae.config.patch_size else video
    encoder = vae.encoder
    x = _causal(encoder.conv_in, x)
    for layer in encoder.down_blocks:
        x = _down(layer, x)
    x = _mid(encoder.mid_block, x)
    moments: Tensor = vae.quant_conv(_head(encoder.norm_out, encoder.conv_out, x))
    return moments


def decode_sequence(vae: AutoencoderKLWan, z: Tensor) -> Tensor:
    """Video of latents `z` [B, z, t, h, w] (not normalised): [B, 3, 4(t-1)+1, H, W], around [-1, 1].

    Equals `vae.decode(z).sample` before that clamps to [-1, 1]; a clamp would stop gradients of bright
    pixels.
    """
    if z.ndim != 5:
        raise InputError(f"z must be [B, z, t, h, w], got {tuple(z.shape)}")
    decoder = vae.decoder
    x = _mid(decoder.mid_block, _causal(decoder.conv_in, vae.post_quant_conv(z)))
    for block in decoder.up_blocks:
        x = _up(block, x)
    x = _head(decoder.norm_out, decoder.conv_out, x)
    return unpatchify(x, vae.config.patch_size) if vae.config.patch_size else x


def _norm_silu(x: Tensor, gamma: Tensor) -> Tensor:
    """silu of the RMS norm over channels; half precision is normalised in float32, as diffusers does."""
    y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return F.silu(F.normalize(y, dim=1) * (x.shape[1] ** 0.5 * gamma)).to(x.dtype)


def _causal(conv: WanCausalConv3d, x: Tensor) -> Tensor:
    """A 3x3x3 convolution that sees this frame and the two before it."""
    if x.shape[2] == 1:
        return F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, padding=1)[:, :, None]
    return F.conv3d(F.pad(x, (0, 0, 0, 0, 2, 0)), conv.weight, conv.bias, padding=(0, 1, 1))


def _residual_block(block: WanResidualBlock, x: Tensor) -> Tensor:
    y = _causal(block.conv1, _norm_silu(x, block.norm1.gamma))
    y = _causal(block.conv2, _norm_silu(y, block.norm2.gamma))
    skip: Tensor = block.conv_shortcut(x)
    return y + skip


def _head(norm: WanRMS_norm, conv: WanCausalConv3d, x: Tensor) -> Tensor:
    return _causal(conv, _norm_silu(x, norm.gamma))


def _mid(block: WanMidBlock, x: Tensor) -> Tensor:
    x = _residual_block(block.resnets[0], x)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual_block(resnet, attention(x))
    return x


def _down(layer: Any, x: Tensor) -> Tensor:
    if isinstance(layer, WanResidualBlock):
        return _residual_block(layer, x)
    if isinstance(layer, WanAttentionBlock):
        attended: Tensor = layer(x)
        return attended
    if isinstance(layer, WanResample):
        return _downsample(layer, x)
    y = x  # WanResidualDownBlock of Wan 2.2; its average pads in front once, as the first chunk does
    for resnet in layer.resnets:
        y = _residual_block(resnet, y)
    y = y if layer.downsampler is None else _downsample(layer.downsampler, y)
    return torch.add(y, layer.avg_shortcut(x))


def _up(block: Any, x: Tensor) -> Tensor:
    y = x
    for resnet in block.resnets:
        y = _residual_block(resnet, y)
    if hasattr(block, "upsamplers"):
        return y if block.upsamplers is None else _upsample(block.upsamplers[0], y)
    y = y if block.upsampler is None else _upsample(block.upsampler, y)
    return y if block.avg_shortcut is None else y + block.avg_shortcut(x, first_chunk=True)


def _downsample(layer: Any, x: Tensor) -> Tensor:
    y = _per_frame(layer.resample, x)
    if layer.mode == "downsample3d" and y.shape[2] > 1:
        y = torch.cat([y[:, :, :1], layer.time_conv(y)], dim=2)
    return y


def _upsample(layer: Any, x: Tensor) -> Tensor:
    if layer.mode == "upsample3d" and x.shape[2] > 1:
        pairs = layer.time_conv(x[:, :, 1:]).permute(0, 2, 3, 4, 1)  # [B, T - 1, H, W, 2C]: two frames each
        batch, frames, height, width, channels = pairs.shape
        pairs = pairs.reshape(batch, frames, height, width, 2, channels // 2).permute(0, 1, 4, 2, 3, 5)
        later = pairs.reshape(batch, 2 * frames, height, width, channels // 2).permute(0, 4, 1, 2, 3)
        x = torch.cat([x[:, :, :1], later], dim=2)
    convolution = layer.resample[1]
    # diffusers upsamples in float32; copying the nearest pixel is exact in any dtype
    return _per_frame(lambda y: convolution(F.interpolate(y, scale_factor=2.0, mode="nearest-exact")), x)


def _per_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    frames = function(x.transpose(1, 2).flatten(0, 1))
    return torch.unflatten(frames, 0, (x.shape[0], x.shape[2])).transpose(1, 2)
