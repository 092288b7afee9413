"""Our loop against diffusers' own WanVACEPipeline: the same weights, noise and solver give the same video."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TEXT_LENGTH, TINY, people, tiny_stock

from igrpo_sdk.backbones.attention import FusibleAttnProcessor
from igrpo_sdk.config import Guidance
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.sampling import draw_noise

PROMPT = "Two people  talk &amp; laugh in front of a blue wall."


@pytest.fixture(scope="module")
def stock() -> Any:
    return tiny_stock()


def call_stock(stock: Any, references: list[Any], guidance: float, output_type: str, **noise: Any) -> Any:
    return stock(
        prompt=PROMPT,
        negative_prompt=TINY.negative_prompt,
        reference_images=[Image.fromarray(reference.image) for reference in references],
        height=TINY.geometry.height,
        width=TINY.geometry.width,
        num_frames=TINY.geometry.num_frames,
        num_inference_steps=5,
        guidance_scale=guidance,
        max_sequence_length=TEXT_LENGTH,
        output_type=output_type,
        **noise,
    ).frames


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_latents_and_frames_equal_stock(stock: Any, count: int, guidance: float) -> None:
    pipe = IdentityPipeline.from_components(**stock.components, preset=TINY)
    references = people(count)
    request = pipe.check_inputs(references, PROMPT, 11, steps=5, guidance_scale=guidance)
    trajectory = pipe.sample(request, pipe.encode(request), [11])
    noise = draw_noise([11], [pipe.backbone.latent_shape(request.config.geometry, count)])

    theirs = call_stock(stock, references, guidance, "latent", latents=noise)
    assert trajectory.latents.shape == theirs.shape
    assert (trajectory.latents - theirs).norm() <= 1e-4 * theirs.norm()

    frames = pipe.decode(request, trajectory)[0].numpy()
    stock_frames = (call_stock(stock, references, guidance, "np", latents=noise)[0] * 255).round()
    assert frames.shape == stock_frames.shape
    assert np.abs(frames - stock_frames).max() <= 1  # a value on the edge between two may fall either way
    assert (frames == stock_frames).mean() > 0.999


def test_a_seed_means_the_same_noise_as_in_stock(stock: Any) -> None:
    pipe = IdentityPipeline.from_components(**stock.components, preset=TINY)
    references = people(2)
    video = pipe(references, PROMPT, seed=5, steps=5)
    generator = torch.Generator("cpu").manual_seed(5)
    theirs = call_stock(stock, references, TINY.guidance_scale, "np", generator=generator)[0]
    assert np.abs(video.frames - (theirs * 255).round()).max() <= 1


def test_the_order_of_references_matters_and_is_that_of_stock(stock: Any) -> None:
    pipe = IdentityPipeline.from_components(**stock.components, preset=TINY)
    references = people(2)
    request = pipe.check_inputs(references, PROMPT, 11)
    swapped = pipe.check_inputs(references[::-1], PROMPT, 11)
    ours, theirs = pipe.encode(request).control, pipe.encode(swapped).control
    assert torch.equal(ours[:, :, 0], theirs[:, :, 1])
    assert not torch.equal(ours[:, :, 0], ours[:, :, 1])
    first = pipe.sample(request, pipe.encode(request), [11]).video_latents
    second = pipe.sample(swapped, pipe.encode(swapped), [11]).video_latents
    assert (first - second).norm() > 0.01 * first.norm()  # far from what parity tolerates


def test_attention_that_compiles_well_is_that_of_stock_bit_for_bit() -> None:
    """What it says; its gradients are sums in another order."""
    pipe = IdentityPipeline.from_components(**tiny_stock().components, preset=TINY)
    transformer, request = pipe.backbone.transformer, pipe.check_inputs(people(2), PROMPT, 11)
    latents = draw_noise([11], [pipe.backbone.latent_shape(TINY.geometry, 2)])
    transformer.requires_grad_(True)

    def run() -> tuple[torch.Tensor, list[Any]]:
        transformer.zero_grad()
        velocity = pipe.backbone.velocity(latents, 0.5, pipe.encode(request), Guidance())
        velocity.square().sum().backward()
        return velocity.detach(), [weight.grad for weight in transformer.parameters()]

    velocity, gradients = run()
    transformer.set_attn_processor(FusibleAttnProcessor())
    velocity_after, gradients_after = run()
    assert torch.equal(velocity, velocity_after)
    for one, other in zip(gradients, gradients_after, strict=True):
        assert (one is None and other is None) or (one - other).norm() <= 1e-5 * one.norm()
