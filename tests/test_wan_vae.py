"""The whole-clip passes equal diffusers' chunked ones, and train."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from tiny import tiny_pipeline

from igrpo_sdk.backbones.vae import decode_sequence, encode_sequence
from igrpo_sdk.errors import InputError

PLAIN: dict[str, Any] = {"dim_mult": [1, 2, 2], "temperal_downsample": [True, True], "num_res_blocks": 1}
RESIDUAL: dict[str, Any] = {
    **PLAIN,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 8,
}


def small_vae(config: dict[str, Any]) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        **{"scale_factor_spatial": 4, **config},
    )
    for name, parameter in vae.named_parameters():  # ones and zeros would hide a forgotten gain or bias
        if name.endswith(("gamma", "bias")):
            torch.nn.init.normal_(parameter, 0.5, 0.5)
    return vae


@pytest.mark.parametrize("config", [PLAIN, RESIDUAL])
@pytest.mark.parametrize("frames", [1, 5, 17])
@torch.no_grad()
def test_equals_chunked(config: dict[str, Any], frames: int) -> None:
    vae = small_vae(config)
    video = torch.rand(2, 3, frames, 16, 24) * 2 - 1
    moments = encode_sequence(vae, video)
    assert torch.allclose(moments, vae.encode(video).latent_dist.parameters, atol=1e-5, rtol=1e-5)
    z = torch.randn_like(moments[:, :4])
    decoded = decode_sequence(vae, z)
    assert decoded.shape == video.shape
    assert torch.allclose(decoded.clamp(-1, 1), vae.decode(z).sample, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    vae = small_vae(PLAIN)
    moments = encode_sequence(vae, torch.rand(1, 3, 5, 16, 16))
    decode_sequence(vae, moments[:, :4]).square().mean().backward()
    silent = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


def test_a_compiled_decoder_decodes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one graph, whose code is left to PyTorch's own kernels here: to write faster ones takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    backbone = tiny_pipeline().backbone
    latents = torch.randn(2, backbone.vae.config.z_dim, 2, 8, 8)
    plain = backbone.decode(latents).int()
    for dtype, furthest in ((torch.float32, 0), (torch.bfloat16, 8)):
        backbone.compile_decoder(dtype)
        difference = (backbone.decode(latents).int() - plain).abs()
        assert int(difference.max()) <= furthest and bool(difference.any()) == bool(furthest)


def test_channels_last_changes_nothing() -> None:
    vae = small_vae(PLAIN)
    video = torch.rand(2, 3, 5, 16, 16)
    expected = encode_sequence(vae, video)
    video = video.contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(encode_sequence(vae, video), expected, atol=1e-5)


@pytest.mark.parametrize("frames", [2, 4, 16])
def test_rejects_other_lengths(frames: int) -> None:
    with pytest.raises(InputError, match="4k"):
        encode_sequence(small_vae(PLAIN), torch.zeros(1, 3, frames, 16, 16))
