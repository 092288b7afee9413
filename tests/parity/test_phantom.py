"""Phantom against the formulas of its released code: T + K frames, three forward passes, dead latents and
all."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image, ImageOps
from tiny import TEXT_LENGTH, people
from tiny_phantom import TINY_PHANTOM, tiny_stock_phantom
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.backbones.canvas import fit_on_white
from igrpo_sdk.config import Guidance
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.references import Reference
from igrpo_sdk.sampling import draw_noise

PROMPT = "Two people talk in front of a blue wall."


@pytest.fixture(scope="module")
def stock() -> Any:
    return tiny_stock_phantom()


def released_canvas(picture: Image.Image, height: int, width: int) -> Image.Image:
    """A reference as the released `load_ref_images` shows it to the model."""
    if picture.width / picture.height > width / height:
        size = (width, int(width / (picture.width / picture.height)))
    else:
        size = (int(height * (picture.width / picture.height)), height)
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    right, below = width - size[0], height - size[1]
    border = (right // 2, below // 2, right - right // 2, below - below // 2)
    return ImageOps.expand(picture, border, fill=(255, 255, 255))


@pytest.mark.parametrize("size", [(144, 144), (100, 140), (300, 200), (33, 131)])
def test_the_canvas_is_the_released_one(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    theirs = np.asarray(released_canvas(Image.fromarray(pixels), 144, 192), np.float32) / 255
    ours = fit_on_white(Reference.load(pixels), 144, 192)
    assert torch.equal(ours, (torch.from_numpy(theirs).permute(2, 0, 1) - 0.5) / 0.5)


def released_loop(
    stock: Any,
    noise: Tensor,
    references: Tensor,
    texts: tuple[Tensor, Tensor],
    guidance: Guidance,
    steps: int,
) -> Tensor:
    """The released sampling loop: noise [1, z, T + K, h, w], references [1, z, K, h, w]; returns T frames."""
    count = references.shape[2]
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=TINY_PHANTOM.flow_shift
    )
    scheduler.set_timesteps(steps)
    latents = noise.clone()
    for timestep in scheduler.timesteps:

        def forward(shown: Tensor, embeds: Tensor, time: Tensor = timestep, x: Tensor = latents) -> Tensor:
            hidden = torch.cat([x[:, :, :-count], shown], dim=2)
            output: Tensor = stock.transformer(hidden, time.expand(1).float(), embeds, return_dict=False)[0]
            return output

        both = forward(references, texts[0])
        image = forward(references, texts[1])
        neither = forward(torch.zeros_like(references), texts[1])
        assert guidance.image is not None
        guided = neither + guidance.image * (image - neither) + guidance.text * (both - image)
        latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return latents[:, :, :-count]


@torch.no_grad()
@pytest.mark.parametrize(("text", "image"), [(3.0, 2.0), (7.5, 5.0), (4.0, 4.0), (3.0, 1.0)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_video_is_that_of_the_released_loop(stock: Any, count: int, text: float, image: float) -> None:
    pipe = IdentityPipeline.from_components(**stock.components, preset=TINY_PHANTOM)
    size, references = TINY_PHANTOM.geometry, people(count)
    request = pipe.check_inputs(
        references, PROMPT, 11, steps=5, guidance_scale=text, image_guidance_scale=image
    )
    ours = pipe.sample(request, pipe.encode(request), [11]).video_latents

    texts = stock.encode_prompt(PROMPT, TINY_PHANTOM.negative_prompt, max_sequence_length=TEXT_LENGTH)
    mean, std = (torch.tensor(part).view(1, -1, 1, 1, 1) for part in (
        stock.vae.config.latents_mean, stock.vae.config.latents_std
    ))  # fmt: skip
    encoded = []
    for person in references:
        canvas = released_canvas(Image.fromarray(person.image), size.height, size.width)
        pixels = (torch.from_numpy(np.array(canvas, np.float32)) / 255 - 0.5) / 0.5
        latents = stock.vae.encode(pixels.permute(2, 0, 1)[None, :, None]).latent_dist.mode()
        encoded.append((latents - mean) / std)
    start = draw_noise([11], [pipe.backbone.latent_shape(size, count)])
    dead = torch.randn(1, start.shape[1], count, *start.shape[3:])
    theirs = released_loop(
        stock, torch.cat([start, dead], 2), torch.cat(encoded, 2), texts, Guidance(text, image), 5
    )
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@torch.no_grad()
@pytest.mark.parametrize(
    ("text", "image", "passes"),
    [
        (7.5, 5.0, 3),
        (5.0, 5.0, 2),
        (7.5, 1.0, 2),
        (7.5, None, 2),
        (1.0, 5.0, 3),
        (1.0, 1.0, 1),
        (0.0, 5.0, 2),
    ],
)
def test_passes_of_weight_zero_are_not_run(stock: Any, text: float, image: float | None, passes: int) -> None:
    pipe = IdentityPipeline.from_components(**stock.components, preset=TINY_PHANTOM)
    conditioning = pipe.encode(pipe.check_inputs(people(2), PROMPT, 1))
    x = draw_noise([1], [pipe.backbone.latent_shape(TINY_PHANTOM.geometry, 2)])
    calls: list[int] = []
    handle = stock.transformer.register_forward_hook(lambda *_: calls.append(1))
    v = pipe.backbone.velocity(x, 0.7, conditioning, Guidance(text, image))
    handle.remove()
    assert len(calls) == passes
    run = pipe.backbone._run  # type: ignore[attr-defined]
    negative = conditioning.negative_embeds
    both = run(x, torch.tensor([700.0]), conditioning, "full", conditioning.prompt_embeds)
    seen, none = (
        run(x, torch.tensor([700.0]), conditioning, branch, negative) for branch in ("image", "none")
    )
    scale = 1.0 if image is None else image
    theirs = none + scale * (seen - none) + text * (both - seen)
    assert (v - theirs).norm() <= 1e-5 * theirs.norm()


def test_weights_add_up_to_one_and_are_those_of_the_formula() -> None:
    for (text, image), own in [((7.5, 5.0), None), ((3.0, None), None), ((7.5, 5.0), 3.0), ((7.5, 5.0), 7.5)]:
        weights = flow.pass_weights(text, image, own)
        assert abs(sum(weights.values()) - 1) < 1e-12 and 0 not in weights.values()
    assert flow.pass_weights(4.0) == {("full", True): 4.0, ("image", True): -3.0}
    assert flow.pass_weights(7.5, 5.0) == {("full", True): 7.5, ("image", True): -2.5, ("none", True): -4.0}
    assert flow.pass_weights(7.5, 5.0, 7.5) == {
        ("image", False): -2.5, ("none", False): -4.0, ("full", True): 7.5
    }  # fmt: skip
    assert flow.pass_weights(1.0) == {("full", True): 1.0}


def test_one_more_zero_reference_is_not_no_reference(stock: Any) -> None:
    """There is no mask: this is why samples with fewer references run apart."""
    pipe = IdentityPipeline.from_components(**stock.components, preset=TINY_PHANTOM)
    conditioning = pipe.encode(pipe.check_inputs(people(1), PROMPT, 1))
    x = draw_noise([1], [pipe.backbone.latent_shape(TINY_PHANTOM.geometry, 1)])
    blank = torch.cat([conditioning.references, torch.zeros_like(conditioning.references)], 2)  # type: ignore[attr-defined]
    with torch.no_grad():
        one = pipe.backbone.velocity(x, 0.7, conditioning, Guidance())
        padded = pipe.backbone.velocity(
            x,
            0.7,
            replace(conditioning, references=blank),
            Guidance(),  # type: ignore[call-arg]
        )
    assert (one - padded).norm() > 0.01 * one.norm()


def test_guidance_is_paired_in_order() -> None:
    parts = [torch.randn(4, dtype=torch.float64) for _ in range(3)]
    whole = dict(zip(("none", "image", "full"), parts, strict=True))
    guided = flow.guide(whole, 7.5, 5.0)  # type: ignore[arg-type]
    steps = [
        scale * (after - before) for scale, (before, after) in zip((5.0, 7.5), pairwise(parts), strict=True)
    ]
    torch.testing.assert_close(guided, parts[0] + steps[0] + steps[1])
