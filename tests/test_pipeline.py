"""The pipeline on real classes with random weights: batches, seeds, caches, threads, cancelling."""

from __future__ import annotations

import json
import sys
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, people, tiny_pipeline
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.config import Guidance
from igrpo_sdk.errors import Cancelled, InputError, NumericsError, ResourceError, WeightsError
from igrpo_sdk.media.video import IdentityVideo
from igrpo_sdk.pipeline import IdentityPipeline, Progress
from igrpo_sdk.sampling import draw_noise
from igrpo_sdk.seeds import video_seed

PROMPT = "Two people talk."
GROUPS = [people(2), people(1, 1), people(3, 2), people(2, 3)]
PROMPTS = [PROMPT, "The first person nods.", "Two people laugh.", "The second smiles."]


@pytest.fixture(scope="module")
def pipe() -> IdentityPipeline:
    return tiny_pipeline()


def latents_of(pipe: IdentityPipeline, references: Any, prompt: Any, seed: Any, **changes: Any) -> Tensor:
    request = pipe.check_inputs(references, prompt, seed, **changes)
    trajectory = pipe.sample(request, pipe.encode(request), [seed for _, seed in request.videos])
    return trajectory.video_latents


def test_one_video(pipe: IdentityPipeline) -> None:
    references = people(2)
    video = pipe(references, PROMPT, seed=7)
    size = TINY.geometry
    assert isinstance(video, IdentityVideo)
    assert video.frames.shape == (size.num_frames, size.height, size.width, 3)
    assert video.frames.dtype == np.uint8
    assert video.fps == size.fps
    settings = json.loads(json.dumps(video.settings))
    assert settings["references"] == [reference.hash for reference in references]
    expected = {
        "model": "random",
        "prompt": PROMPT,
        "seed": 7,
        "steps": 3,
        "guidance_scale": 2.5,
        "height": 48,
    }
    assert expected.items() <= settings.items()
    assert {"torch", "diffusers", "igrpo-sdk"} <= settings["versions"].keys()


def test_a_batch_of_mixed_counts_equals_single_calls(pipe: IdentityPipeline) -> None:
    together = latents_of(pipe, GROUPS, PROMPTS, [1, 2, 3, 4])
    for index, (group, prompt) in enumerate(zip(GROUPS, PROMPTS, strict=True)):
        alone = latents_of(pipe, group, prompt, index + 1)[0]
        assert (together[index] - alone).norm() <= 1e-5 * alone.norm()


def test_results_come_in_the_order_of_the_inputs(pipe: IdentityPipeline) -> None:
    seeds = [1, 2, 3, 4]
    videos = pipe(GROUPS, PROMPTS, seed=seeds, batch_size=3, steps=2)
    assert [video.settings["prompt"] for video in videos] == PROMPTS
    for group, prompt, seed, video in zip(GROUPS, PROMPTS, seeds, videos, strict=True):
        alone = pipe(group, prompt, seed=seed, steps=2)
        assert np.abs(alone.frames.astype(int) - video.frames).max() <= 1
        assert alone.settings == video.settings


def test_several_videos_a_pair(pipe: IdentityPipeline) -> None:
    first, second = pipe(GROUPS[:2], PROMPTS[:2], seed=7, num_videos=3, steps=1)
    assert len(first) == len(second) == 3
    assert [video.settings["seed"] for video in second] == [7, video_seed(7, 1), video_seed(7, 2)]
    assert len({video.frames.tobytes() for video in first}) == 3
    flat = pipe(GROUPS[0], PROMPTS[0], seed=7, num_videos=2, steps=1)
    assert [np.array_equal(*pair) for pair in zip(_frames(flat), _frames(first[:2]), strict=True)] == [
        True
    ] * 2
    (lone,) = pipe(GROUPS[0], PROMPTS[0], seed=7, num_videos=1, steps=1)
    assert np.array_equal(lone.frames, first[0].frames)
    replayed = pipe(GROUPS[0], PROMPTS[0], seed=first[2].settings["seed"], steps=1)
    assert np.array_equal(replayed.frames, first[2].frames)


def _frames(videos: list[IdentityVideo]) -> list[Any]:
    return [video.frames for video in videos]


def test_the_same_seed_gives_the_same_bits(pipe: IdentityPipeline) -> None:
    first, again = (latents_of(pipe, GROUPS[0], PROMPT, 7) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, latents_of(tiny_pipeline(), GROUPS[0], PROMPT, 7))
    assert not torch.equal(first, latents_of(pipe, GROUPS[0], PROMPT, 8))


def test_without_a_seed_one_is_drawn_and_told(pipe: IdentityPipeline) -> None:
    video, other = (pipe(GROUPS[1], PROMPT, steps=1) for _ in range(2))
    assert video.settings["seed"] != other.settings["seed"]
    again = pipe(GROUPS[1], PROMPT, steps=1, seed=video.settings["seed"])
    assert np.array_equal(again.frames, video.frames)


def test_cached_conditions_equal_fresh_ones(pipe: IdentityPipeline) -> None:
    request = pipe.check_inputs(GROUPS, PROMPTS, 7)
    pipe.backbone.clear_caches()
    fresh, cached = pipe.encode(request), pipe.encode(request)
    pipe.backbone.clear_caches()
    alone = pipe.encode(pipe.check_inputs(GROUPS[0], PROMPTS[0], 7))
    for name in ("prompt_embeds", "negative_embeds", "control"):
        assert torch.equal(getattr(fresh, name), getattr(cached, name))
    assert torch.equal(fresh.prompt_embeds[:1], alone.prompt_embeds)
    assert torch.equal(fresh.control[:1, :, 1:], alone.control)


def test_caches_are_bounded_and_told_apart(pipe: IdentityPipeline) -> None:
    pipe.backbone.clear_caches()
    small = pipe.check_inputs(GROUPS[1], PROMPT, 7, height=24, width=24, num_frames=1)
    other = pipe.check_inputs(people(1, 5), PROMPT, 7, height=24, width=24, num_frames=1)
    assert not torch.equal(pipe.encode(small).control, pipe.encode(other).control)
    assert pipe.encode(pipe.check_inputs(GROUPS[1], PROMPT, 7)).control.shape[-2:] == (12, 15)
    for number in range(70):
        pipe.encode(pipe.check_inputs(GROUPS[1], f"{number} people", 7, height=24, width=24, num_frames=1))
    assert len(pipe.backbone._text_cache._items) == 64


def test_guidance_is_its_formula_and_one_is_a_single_pass(pipe: IdentityPipeline) -> None:
    request = pipe.check_inputs(GROUPS[0], PROMPT, 7)
    conditions, calls = pipe.encode(request), []
    x = draw_noise([7], [pipe.backbone.latent_shape(TINY.geometry, 2)])
    handle = pipe.backbone.transformer.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        v = {g: pipe.backbone.velocity(x, 0.5, conditions, Guidance(g)) for g in (0.0, 1.0, 3.0)}
    handle.remove()
    assert len(calls) == 1 + 1 + 2  # a pass of weight 0 is not run
    assert torch.equal(v[3.0], flow.guide({"full": v[1.0], "image": v[0.0]}, 3.0))
    unguided = pipe.encode(pipe.check_inputs(GROUPS[0], PROMPT, 7, guidance_scale=1))
    assert unguided.negative_embeds is None


def test_velocity_takes_one_sigma_a_sample_and_gives_gradients(pipe: IdentityPipeline) -> None:
    transformer = pipe.backbone.transformer
    conditions = pipe.encode(pipe.check_inputs(GROUPS[:2], PROMPTS[:2], 7))
    x = draw_noise([1, 2], [pipe.backbone.latent_shape(TINY.geometry, count) for count in (2, 1)])
    transformer.requires_grad_(True)
    try:
        v = pipe.backbone.velocity(x, torch.tensor([0.9, 0.25]), conditions, Guidance(2.0))
        torch.autograd.backward(v.square().mean())
        assert all(parameter.grad is not None for parameter in transformer.parameters())
    finally:
        transformer.requires_grad_(False)
        transformer.zero_grad()
    assert not v[1, :, 0].any()  # the slot that the second sample does not use
    with torch.no_grad():
        single = pipe.backbone.velocity(x[1:, :, 1:], 0.25, conditions.select([1]), Guidance(2.0))
    torch.testing.assert_close(v[1:, :, 1:].detach(), single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"references": []}, "at least 1 reference"),
        ({"references": people(4)}, "4 given.*at most 3"),
        ({"references": "ann.png"}, "references: str.*list"),
        ({"references": [people(1)[0], b"no picture"]}, r"references\[1\]"),
        ({"prompt": ""}, "prompt: empty"),
        ({"prompt": "&nbsp; &#32;"}, "prompt: holds nothing that random reads"),
        ({"prompt": "\u200b"}, "prompt: holds nothing that random reads"),  # a space of no width
        ({"prompt": "</s> <pad>"}, "prompt: holds nothing that random reads"),
        ({"prompt": 7}, "prompt: int"),
        ({"prompt": "talk " * 500}, r"prompt: \d+ tokens; random takes 64"),
        ({"negative_prompt": "talk " * 500}, r"negative_prompt: \d+ tokens"),
        ({"prompt": []}, "prompt: an empty list"),
        ({"prompt": [PROMPT]}, "references: .* list of 1 lists"),
        ({"prompt": [PROMPT, "x\0"], "references": GROUPS[:2]}, r"prompt\[1\]: character 1 is U\+0000"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": [1, 2]}, "seed: 2 seeds for 1 prompts"),
        ({"height": 50}, "height: 50.*48 or 60"),
        ({"num_frames": 8}, "num_frames: 8.*5 or 9"),
        ({"num_frames": 257}, "num_frames: 257"),
        ({"steps": 0}, "steps: 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale: nan"),
        ({"num_videos": 0}, "num_videos: 0"),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_bad_input_is_refused_before_any_model_runs(
    pipe: IdentityPipeline, change: dict[str, Any], word: str
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a model ran")

    models = (pipe.backbone.transformer, pipe.backbone.vae.encoder, pipe.backbone.text_encoder)
    handles = [model.register_forward_pre_hook(refuse) for model in models]
    try:
        with pytest.raises(InputError, match=word):
            pipe(**{"references": people(2), "prompt": PROMPT, **change})
    finally:
        for handle in handles:
            handle.remove()


def test_progress_of_all_phases(pipe: IdentityPipeline) -> None:
    told: list[Progress] = []
    pipe(GROUPS[:3], PROMPTS[:3], seed=1, steps=2, batch_size=2, progress=told.append)
    assert [(one.phase, one.step, one.total) for one in told] == [
        ("encode", 0, 1),
        ("encode", 1, 1),
        *[("sample", step, 4) for step in (1, 2, 3, 4)],
        *[("decode", step, 3) for step in (1, 2, 3)],
    ]


def test_cancelling_leaves_the_pipeline_usable(pipe: IdentityPipeline) -> None:
    cancel, seen = Event(), []

    def stop(step: int, sigma: float, latents: Tensor) -> None:
        seen.append(step)
        cancel.set()

    with pytest.raises(Cancelled):
        pipe(GROUPS[0], PROMPT, seed=7, callback=stop, cancel=cancel)
    assert seen == [0]
    with pytest.raises(Cancelled):
        pipe(GROUPS[0], PROMPT, seed=7, cancel=cancel)
    assert np.array_equal(
        pipe(GROUPS[0], PROMPT, seed=7).frames, tiny_pipeline()(GROUPS[0], PROMPT, seed=7).frames
    )


def test_an_error_in_a_callback_goes_through(pipe: IdentityPipeline) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pipe(GROUPS[0], PROMPT, seed=7, callback=fail)
    assert pipe(GROUPS[0], PROMPT, seed=7, steps=1)


@pytest.mark.parametrize(
    ("videos", "size", "advice"),
    [(2, 2, "batch_size=1"), (2, 1, "smaller size"), (2, 64, "batch_size=1"), (1, 64, "smaller size")],
)
def test_memory_that_runs_out(pipe: IdentityPipeline, videos: int, size: int, advice: str) -> None:
    def exhaust(*_: Any) -> None:
        torch.empty(2**60)

    with pytest.raises(ResourceError, match=f"48x60x9.*{advice}"):
        pipe(GROUPS[:videos], PROMPTS[:videos], seed=7, callback=exhaust, batch_size=size)
    assert pipe(GROUPS[0], PROMPT, seed=7, steps=1)


def test_weights_that_are_no_numbers() -> None:
    broken = tiny_pipeline()
    with torch.no_grad():
        broken.backbone.transformer.proj_out.bias.fill_(float("nan"))
    with pytest.raises(NumericsError, match="step 0"):
        broken(GROUPS[0], PROMPT, seed=7)


def test_threads_wait_for_one_another(pipe: IdentityPipeline) -> None:
    results: dict[int, Any] = {}

    def make(index: int) -> None:
        results[index] = pipe(GROUPS[index], PROMPTS[index], seed=index, steps=2).frames

    threads = [Thread(target=make, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, frames in results.items():
        assert np.array_equal(frames, pipe(GROUPS[index], PROMPTS[index], seed=index, steps=2).frames)
    assert len(results) == 4


def test_texts_are_counted_and_encoded_by_threads_at_once(pipe: IdentityPipeline) -> None:
    backbone, expected, found = pipe.backbone, pipe.backbone.count_tokens(PROMPT), set()
    switch = sys.getswitchinterval()

    def encode() -> None:
        for _ in range(200):
            backbone._encode_text("people talk.")

    thread = Thread(target=encode)
    try:
        sys.setswitchinterval(1e-5)
        thread.start()
        while thread.is_alive():
            found.add(backbone.count_tokens(PROMPT))
    finally:
        sys.setswitchinterval(switch)
        thread.join()
    assert found == {expected}


def test_a_callback_may_call_the_pipeline(pipe: IdentityPipeline) -> None:
    inner: list[Any] = []

    def look(*_: Any) -> None:
        inner.append(pipe(GROUPS[1], PROMPTS[1], seed=3, steps=1).frames)

    outer = pipe(GROUPS[0], PROMPT, seed=7, steps=2, callback=look).frames
    assert np.array_equal(outer, pipe(GROUPS[0], PROMPT, seed=7, steps=2).frames)
    assert np.array_equal(inner[0], pipe(GROUPS[1], PROMPTS[1], seed=3, steps=1).frames)


def test_without_a_number_of_videos_it_is_one(pipe: IdentityPipeline) -> None:
    assert isinstance(pipe(GROUPS[0], PROMPT, seed=7, steps=1, num_videos=None), IdentityVideo)


def test_parts_that_do_not_fit() -> None:
    parts = tiny_pipeline().components
    parts["transformer"].register_to_config(text_dim=99)
    with pytest.raises(WeightsError, match="text_dim is 99"):
        IdentityPipeline.from_components(**parts, preset=TINY)


def test_warnings_of_the_references_come_with_the_video(pipe: IdentityPipeline) -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (40, 40), dtype=np.uint16)
    from PIL import Image

    from igrpo_sdk.references import Reference

    image = Image.fromarray(deep)
    image.info["icc_profile"] = b"rubbish"
    reference = Reference.load(image)
    assert reference.warnings
    expected = tuple(f"references[1]: {warning}" for warning in reference.warnings)
    assert pipe([*people(1), reference], PROMPT, seed=1, steps=1).warnings == expected
