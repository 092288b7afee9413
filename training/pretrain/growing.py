"""Weights of a trained part made to fit a larger or finer one, so that it goes on instead of starting anew.

Both functions take and give state dicts and change no other layer than those that meet the latents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

_NEW_LOG_VARIANCE = -6.0  # of latent channels that nothing reads yet: less noise than they say anything


def grown_vae(state: Mapping[str, Tensor], channels: int, random: torch.Generator) -> State:
    """The weights of an AutoencoderKLWan with `channels` latent channels instead of the z of `state`.

    The new channels come behind the old ones. The encoder fills them with random mixtures of its last
    features, drawn from `random` as strong as the old ones are; the decoder does not read them yet, so that
    what it makes of a video is the same as before.
    """
    out = dict(state)
    z = state["post_quant_conv.weight"].shape[0]
    new = channels - z
    if new == 0:
        return out
    wide, bias = state["encoder.conv_out.weight"], state["encoder.conv_out.bias"]
    drawn = torch.randn((new, *wide.shape[1:]), generator=random) * wide.float().std()
    silent = torch.zeros((new, *wide.shape[1:]))
    out["encoder.conv_out.weight"] = torch.cat([wide, drawn.to(wide), silent.to(wide)])
    out["encoder.conv_out.bias"] = torch.cat([bias, bias.new_zeros(2 * new)])
    # The encoder's features come as old means, old variances, new means, new variances; what leaves is all
    # means, then all variances.
    mixed = F.pad(state["quant_conv.weight"], (0, 0, 0, 0, 0, 0, 0, 2 * new))
    passed = torch.eye(2 * z + 2 * new)[2 * z :].to(mixed)[..., None, None, None]
    kept = state["quant_conv.bias"]
    out["quant_conv.weight"] = torch.cat([mixed[:z], passed[:new], mixed[z:], passed[new:]])
    log_variance = kept.new_full((new,), _NEW_LOG_VARIANCE)
    out["quant_conv.bias"] = torch.cat([kept[:z], kept.new_zeros(new), kept[z:], log_variance])
    square = state["post_quant_conv.weight"][..., 0, 0, 0]
    out["post_quant_conv.weight"] = torch.block_diag(square, torch.eye(new).to(square))[..., None, None, None]
    out["post_quant_conv.bias"] = F.pad(state["post_quant_conv.bias"], (0, new))
    read = state["decoder.conv_in.weight"]
    out["decoder.conv_in.weight"] = torch.cat([read, read.new_zeros(read.shape[0], new, *read.shape[2:])], 1)
    return out


def refitted_transformer(state: Mapping[str, Tensor], patch: int, channels: int, mask: int) -> State:
    """The weights of a WanVACETransformer3DModel for patches of `patch` x `patch` cells.

    Args:
        state: weights of a model with patches at least as large and at most as many latent channels.
        patch: side of the new patches in latent cells.
        channels: latent channels of the new model; the first of them are those that `state` knows.
        mask: channels of the mask in the control input, the square of the VAE's spatial factor.

    A kernel becomes the mean of its windows of the new size. Where tokens are read it is scaled by the ratio
    of the areas, so that an even picture gives the same token. New channels are not read, and come out as 0.
    """
    out = dict(state)
    for name in ("patch_embedding.weight", "vace_patch_embedding.weight"):
        out[name] = _windows(state[name], patch) * (state[name].shape[-1] / patch) ** 2
    old, side = state["patch_embedding.weight"].shape[1], state["patch_embedding.weight"].shape[-1]
    new = channels - old
    out["patch_embedding.weight"] = _with_silent(out["patch_embedding.weight"], new)
    held, generated, masks = out["vace_patch_embedding.weight"].split([old, old, mask], 1)
    parts = [_with_silent(held, new), _with_silent(generated, new), masks]
    out["vace_patch_embedding.weight"] = torch.cat(parts, 1)
    # Rows of the output are ordered by the cell's row and column in the patch, then by channel.
    for name in ("proj_out.weight", "proj_out.bias"):
        cells = state[name].unflatten(0, (side, side, old)).movedim((0, 1), (-2, -1))
        cells = _windows(cells, patch).movedim((-2, -1), (0, 1))
        silent = cells.new_zeros(patch, patch, new, *cells.shape[3:])
        out[name] = torch.cat([cells, silent], 2).flatten(0, 2)
    return out


def _windows(kernel: Tensor, side: int) -> Tensor:
    """The mean of all windows of side x side of kernels [..., k, k]."""
    last = kernel.shape[-1] - side + 1
    found = [kernel[..., y : y + side, x : x + side] for y in range(last) for x in range(last)]
    return torch.stack(found).mean(0)


def _with_silent(kernel: Tensor, count: int) -> Tensor:
    """Kernels [out, in, ...] with `count` more inputs, which they do not read."""
    return torch.cat([kernel, kernel.new_zeros(kernel.shape[0], count, *kernel.shape[2:])], 1)
