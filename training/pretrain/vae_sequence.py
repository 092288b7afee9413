"""Whole-clip passes through diffusers' AutoencoderKLWan.

`vae.encode` and `vae.decode` walk a clip in chunks of four frames (one latent frame) with a cache per
convolution, so that long videos fit into memory. At this size that is hundreds of tiny kernels a clip. The
functions here run the same modules over all frames at once and give the same result, because every piece of
the chunked walk has a closed form:

* a cached causal convolution is a convolution padded with two zero frames in front;
* `downsample3d` keeps the first frame and strides over windows that share a frame: cat(x[:1], time_conv(x));
* `upsample3d` keeps the first frame and doubles the rest, and its convolution sees zeros, never the first
  frame (the chunked code marks the first chunk "Rep" and starts the cache after it):
  cat(x[:1], interleave(time_conv(x[1:])));
* attention is within a frame.

Shapes: B clips, C channels, T frames (4k+1), H x W pixels; t, h, w the same in latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

# One 3x3x3 causal convolution: two frames in front, one pixel around.
_CAUSAL_PAD = (1, 1, 1, 1, 2, 0)


def norm_silu_pad(x: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu(RMS-norm over channels of x + bias), zero-padded for a causal 3x3x3 convolution.

    x [B, C, T, H, W], gamma [C, 1, 1, 1], bias [C] (that of the convolution before, so that one kernel does
    both); returns [B, C, T + 2, H + 2, W + 2] in the dtype of x. Half precision is normalised in float32, as
    diffusers does.
    """
    y = x if bias is None else x + bias.to(x.dtype).view(-1, 1, 1, 1)
    y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
    y = F.normalize(y, dim=1) * (x.shape[1] ** 0.5 * gamma)
    return F.pad(F.silu(y).to(x.dtype), _CAUSAL_PAD)


def add_bias(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    """x + bias + residual for x, residual [B, C, T, H, W] and bias [C], in the dtype of x."""
    return x + bias.to(x.dtype).view(-1, 1, 1, 1) + residual.to(x.dtype)


@dataclass(frozen=True)
class Kernels:
    """The two element-wise pieces of a residual block; training swaps in compiled ones."""

    norm_silu_pad: Callable[..., Tensor] = norm_silu_pad
    add_bias: Callable[..., Tensor] = add_bias


EAGER = Kernels()


def compiled_kernels() -> Kernels:
    """The same two pieces through torch.compile: between convolutions a clip is read and written once.

    One compilation serves all sizes of one channel count, because inputs are brought to one memory layout
    first. Single frames would need compilations of their own and are few: they run eagerly.
    """
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    fast_norm = torch.compile(norm_silu_pad, dynamic=True)
    fast_add = torch.compile(add_bias, dynamic=True)

    def norm(x: Tensor, gamma: Tensor, bias: Tensor | None = None) -> Tensor:
        return norm_silu_pad(x, gamma, bias) if x.shape[2] == 1 else fast_norm(_channels_last(x), gamma, bias)

    def add(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        if x.shape[2] == 1:
            return add_bias(x, bias, residual)
        return fast_add(_channels_last(x), bias, _channels_last(residual))

    return Kernels(norm, add)


def encode_sequence(vae: AutoencoderKLWan, video: Tensor, kernels: Kernels = EAGER) -> Tensor:
    """Moments of the posterior of `video` [B, 3, T, H, W] in [-1, 1]: [B, 2z, t, h, w], means first.

    Equals `vae.encode(video).latent_dist.parameters`. Raises InputError unless T = 4k+1.
    """
    if video.ndim != 5 or video.shape[2] % 4 != 1:
        raise InputError(f"video must be [B, 3, 4k+1, H, W], got {tuple(video.shape)}: cut it to 4k+1 frames")
    x = patchify(video, vae.config.patch_size) if vae.config.patch_size else video
    encoder = vae.encoder
    x = encoder.conv_in(x)
    for layer in encoder.down_blocks:
        x = _down(layer, x, kernels)
    x = _mid(encoder.mid_block, x, kernels)
    moments: Tensor = vae.quant_conv(_head(encoder.norm_out, encoder.conv_out, x, kernels))
    return moments


def decode_sequence(vae: AutoencoderKLWan, z: Tensor, kernels: Kernels = EAGER) -> Tensor:
    """Video of latents `z` [B, z, t, h, w] (not normalised): [B, 3, 4(t-1)+1, H, W], around [-1, 1].

    Equals `vae.decode(z).sample` before that clamps to [-1, 1]; a clamp would stop gradients of bright
    pixels.
    """
    if z.ndim != 5:
        raise InputError(f"z must be [B, z, t, h, w], got {tuple(z.shape)}")
    decoder = vae.decoder
    x = _mid(decoder.mid_block, decoder.conv_in(vae.post_quant_conv(z)), kernels)
    for block in decoder.up_blocks:
        x = _up(block, x, kernels)
    x = _head(decoder.norm_out, decoder.conv_out, x, kernels)
    return unpatchify(x, vae.config.patch_size) if vae.config.patch_size else x


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _residual_block(block: WanResidualBlock, x: Tensor, kernels: Kernels) -> Tensor:
    if isinstance(block.conv_shortcut, WanCausalConv3d):
        skip = F.conv3d(x, block.conv_shortcut.weight, block.conv_shortcut.bias)
    else:
        skip = x
    y = F.conv3d(kernels.norm_silu_pad(x, block.norm1.gamma), block.conv1.weight)
    y = F.conv3d(kernels.norm_silu_pad(y, block.norm2.gamma, block.conv1.bias), block.conv2.weight)
    return kernels.add_bias(y, block.conv2.bias, skip)


def _head(norm: WanRMS_norm, conv: WanCausalConv3d, x: Tensor, kernels: Kernels) -> Tensor:
    return F.conv3d(kernels.norm_silu_pad(x, norm.gamma), conv.weight, conv.bias)


def _mid(block: WanMidBlock, x: Tensor, kernels: Kernels) -> Tensor:
    x = _residual_block(block.resnets[0], x, kernels)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual_block(resnet, attention(x), kernels)
    return x


def _down(layer: Any, x: Tensor, kernels: Kernels) -> Tensor:
    if isinstance(layer, WanResidualBlock):
        return _residual_block(layer, x, kernels)
    if isinstance(layer, WanAttentionBlock):
        attended: Tensor = layer(x)
        return attended
    if isinstance(layer, WanResample):
        return _downsample(layer, x)
    y = x  # WanResidualDownBlock of Wan 2.2; its average pads in front once, as the first chunk does
    for resnet in layer.resnets:
        y = _residual_block(resnet, y, kernels)
    y = y if layer.downsampler is None else _downsample(layer.downsampler, y)
    return torch.add(y, layer.avg_shortcut(x))


def _up(block: Any, x: Tensor, kernels: Kernels) -> Tensor:
    y = x
    for resnet in block.resnets:
        y = _residual_block(resnet, y, kernels)
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
