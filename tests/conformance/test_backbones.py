"""What every backbone does. No test here asks which one it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from tiny import TINY, people, tiny_stock
from tiny_phantom import TINY_PHANTOM, tiny_stock_phantom
from torch import Tensor

from igrpo_sdk.adapters.lora import LoraSettings, add_adapter
from igrpo_sdk.backbones.base import Conditioning
from igrpo_sdk.backbones.loading import PRESET_FILE
from igrpo_sdk.backbones.switching import AdapterUse, adapter_disabled
from igrpo_sdk.config import Guidance, Preset
from igrpo_sdk.errors import InputError, ResourceError, WeightsError
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.sampling import draw_noise

PROMPT = "Two people talk in front of a blue wall."
STOCK = {"vace": (tiny_stock, TINY), "phantom": (tiny_stock_phantom, TINY_PHANTOM)}
LEVEL = 0.7


@dataclass(frozen=True)
class Case:
    """A pipeline, and what its velocity is asked about."""

    pipe: IdentityPipeline

    @property
    def guidance(self) -> Guidance:
        return self.pipe.preset.generation().guidance

    def encode(self, counts: tuple[int, ...], prompts: tuple[str, ...] | None = None) -> Conditioning:
        """Samples of the first K of three people each."""
        texts = list(prompts or (PROMPT,) * len(counts))
        groups = [people(3)[:count] for count in counts]
        return self.pipe.encode(self.pipe.check_inputs(groups, texts, 1))

    def noise(self, *counts: int) -> Tensor:
        shapes = [self.pipe.backbone.latent_shape(self.pipe.preset.geometry, count) for count in counts]
        return draw_noise(range(len(counts)), shapes)

    @torch.no_grad()
    def velocity(self, counts: tuple[int, ...], **changes: Any) -> Tensor:
        conditioning = changes.pop("conditioning", None) or self.encode(counts)
        guidance, sigma = changes.pop("guidance", self.guidance), changes.pop("sigma", LEVEL)
        noise = changes.pop("noise", None)
        noise = self.noise(*counts) if noise is None else noise
        return self.pipe.backbone.velocity(noise, sigma, conditioning, guidance, **changes)


@pytest.fixture(scope="module", params=sorted(STOCK))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def case(kind: str) -> Case:
    make, preset = STOCK[kind]
    return Case(IdentityPipeline.from_components(**make().components, preset=preset))


@pytest.fixture
def own(kind: str) -> Case:
    """A pipeline that the test may change."""
    make, preset = STOCK[kind]
    return Case(IdentityPipeline.from_components(**make().components, preset=preset))


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= 1e-5 * other.norm())


def video(latents: Tensor, conditioning: Conditioning) -> Tensor:
    return latents[:, :, conditioning.num_slots :]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shapes(case: Case, count: int) -> None:
    conditioning, geometry = case.encode((count,)), case.pipe.preset.geometry
    z, frames, height, width = case.pipe.backbone.latent_shape(geometry, count)
    latent_frames = (geometry.num_frames - 1) // case.pipe.backbone.temporal_scale + 1
    assert frames == conditioning.num_slots + latent_frames
    v = case.velocity((count,))
    assert v.shape == (1, z, frames, height, width) and v.dtype == torch.float32
    assert torch.isfinite(v).all() and v.std() > 0


def test_a_size_that_no_memory_holds_is_refused_before_anything_runs(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = case.pipe.preset.geometry
    one, three = (case.pipe.backbone.least_memory(size, count) for count in (1, 3))
    assert 10_000 < one <= three
    monkeypatch.setattr(case.pipe.backbone, "velocity", None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**28))
    with pytest.raises(ResourceError, match="memory: 241 frames of 768x768 need 2 GiB at least"):
        case.pipe(people(1), PROMPT, num_frames=241, height=768, width=768)


def test_decoded_frames_are_those_of_the_geometry(case: Case) -> None:
    for frames in (1, 5, 9):
        request = case.pipe.check_inputs(people(2), PROMPT, 3, num_frames=frames, steps=1)
        trajectory = case.pipe.sample(request, case.pipe.encode(request), [3])
        size = case.pipe.preset.geometry
        assert case.pipe.decode(request, trajectory).shape == (1, frames, size.height, size.width, 3)


def test_slots_that_are_decoded_as_video_are_noticed(case: Case) -> None:
    request = case.pipe.check_inputs(people(2), PROMPT, 3, steps=1)
    trajectory = case.pipe.sample(request, case.pipe.encode(request), [3])
    longer = torch.cat([trajectory.latents, trajectory.latents[:, :, :2]], dim=2)
    with pytest.raises(AssertionError):
        case.pipe.decode(request, replace(trajectory, latents=longer))


def test_mixed_reference_counts_equal_single_calls(case: Case) -> None:
    counts = (2, 1, 3, 1)
    together, noise, batch = case.encode(counts), case.noise(*counts), case.velocity(counts)
    for row, count in enumerate(counts):
        alone = together.select([row])
        assert alone.num_references == (count,) and len(alone) == 1
        unused = together.num_slots - alone.num_slots
        single = case.velocity((count,), conditioning=alone, noise=noise[row : row + 1, :, unused:])
        assert close(batch[row : row + 1, :, unused:], single)
        assert not batch[row, :, :unused].any()


def test_a_batch_equals_single_calls_and_levels_are_told_to_each(case: Case) -> None:
    conditioning, noise = case.encode((2, 2)), case.noise(2, 2)
    levels = torch.tensor([0.9, 0.3])
    batch = case.velocity((2, 2), sigma=levels)
    for row, level in enumerate(levels.tolist()):
        one, x = conditioning.select([row]), noise[row : row + 1]
        assert close(batch[row : row + 1], case.velocity((2,), conditioning=one, noise=x, sigma=level))


def test_encoding_in_a_batch_changes_no_bit(case: Case) -> None:
    prompts = ("two people talk", "a person", "people")
    batch = case.encode((2, 1, 2), prompts)
    for row, (count, text) in enumerate(zip((2, 1, 2), prompts, strict=True)):
        alone, chosen = case.encode((count,), (text,)), batch.select([row])
        for name, value in vars(alone).items():
            other = getattr(chosen, name)
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other


def test_select_repeats_and_reorders(case: Case) -> None:
    batch = case.encode((1, 2))
    part = batch.select([1, 0, 1])
    assert part.num_references == (2, 1, 2) and len(part) == 3
    assert torch.equal(part.prompt_embeds, batch.prompt_embeds[[1, 0, 1]])
    assert part.select([1]).num_slots == batch.select([0]).num_slots


def test_blank_references_change_the_result(case: Case) -> None:
    blank = [torch.full((3, 40, 40), 128, dtype=torch.uint8)] * 2
    request = case.pipe.check_inputs(blank, PROMPT, 1)
    blanks = case.velocity((2,), conditioning=case.pipe.encode(request))
    seen = case.velocity((2,))
    conditioning = case.encode((2,))
    assert (video(seen, conditioning) - video(blanks, conditioning)).norm() > 0.01 * seen.norm()


def test_the_order_of_references_matters(case: Case) -> None:
    swapped = case.pipe.encode(case.pipe.check_inputs(people(3)[:2][::-1], PROMPT, 1))
    one, other = case.velocity((2,)), case.velocity((2,), conditioning=swapped)
    assert (video(one, swapped) - video(other, swapped)).norm() > 0.01 * one.norm()


def test_the_prompt_matters(case: Case) -> None:
    other = case.velocity((2,), conditioning=case.encode((2,), ("a person",)))
    assert (other - case.velocity((2,))).norm() > 0.01 * other.norm()


def test_a_seed_means_one_video_in_any_batch(case: Case) -> None:
    texts, groups = [PROMPT, "people talk"], [people(2), people(1)]
    together = case.pipe(groups, texts, seed=[5, 6], batch_size=2, steps=2)
    for group, text, seed, made in zip(groups, texts, (5, 6), together, strict=True):
        alone = case.pipe(group, text, seed=seed, steps=2)
        assert abs(alone.frames.astype(int) - made.frames).max() <= 1
        other = case.pipe(group, text, seed=seed + 10, steps=2)
        assert abs(other.frames.astype(int) - made.frames).max() > 1


def test_guidance_of_one_is_a_single_pass_and_needs_no_negatives(case: Case) -> None:
    calls: list[int] = []
    handle = case.pipe.backbone.transformer.register_forward_hook(lambda *_: calls.append(1))
    guided = case.velocity((2,))
    several = len(calls)
    alone = case.velocity((2,), guidance=Guidance())
    handle.remove()
    assert several > 1 and len(calls) == several + 1
    assert (guided - alone).norm() > 0.01 * guided.norm()
    changes = {"image_guidance_scale": 1.0} if case.guidance.image is not None else {}
    request = case.pipe.check_inputs(people(2), PROMPT, 1, guidance_scale=1.0, **changes)  # type: ignore[arg-type]
    assert case.pipe.encode(request).negative_embeds is None


def test_guidance_by_the_references_is_taken_where_there_is_such_a_pass(case: Case) -> None:
    if case.pipe.backbone.guides_by_image:
        more = case.velocity((2,), guidance=replace(case.guidance, image=5.0))
        assert (more - case.velocity((2,))).norm() > 0.01 * more.norm()
    else:
        with pytest.raises(InputError, match="image_guidance_scale: 3"):
            case.pipe.check_inputs(people(2), PROMPT, 1, image_guidance_scale=3.0)


def test_caches_change_no_bit(own: Case) -> None:
    fresh, cached = own.encode((2,)), own.encode((2,))
    own.pipe.backbone.clear_caches()  # type: ignore[attr-defined]
    again = own.encode((2,))
    for name, value in vars(fresh).items():
        if isinstance(value, Tensor):
            assert torch.equal(value, getattr(cached, name)) and torch.equal(value, getattr(again, name))


def with_adapter(own: Case) -> list[torch.nn.Parameter]:
    """Put an adapter that says something into a pipeline."""
    parameters = add_adapter(own.pipe.backbone.transformer, LoraSettings(rank=4), 0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05)
    return parameters


def test_a_gradient_reaches_every_parameter_of_an_adapter(own: Case) -> None:
    parameters = with_adapter(own)
    noise, conditioning = own.noise(1, 2), own.encode((1, 2))
    levels = torch.tensor([0.9, 0.4])
    v = own.pipe.backbone.velocity(noise, levels, conditioning, own.guidance)
    torch.autograd.backward(v.square().mean())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters)


def test_without_gradient_in_the_other_passes_the_velocity_is_the_same(own: Case) -> None:
    parameters = with_adapter(own)
    conditioning, noise = own.encode((2,)), own.noise(2)
    found = []
    for recorded in (True, False):
        v = own.pipe.backbone.velocity(
            noise, LEVEL, conditioning, own.guidance, unconditional_gradient=recorded
        )
        (slope,) = torch.autograd.grad(v.square().mean(), parameters[:1])
        found.append((v.detach(), slope))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1])


def test_an_adapter_that_is_off_is_the_base_bit_for_bit(own: Case) -> None:
    base = own.velocity((2,))
    with_adapter(own)
    assert (own.velocity((2,)) - base).norm() > 0.001 * base.norm()
    with adapter_disabled(own.pipe.backbone.transformer):
        assert torch.equal(own.velocity((2,)), base)
    own.pipe.backbone.adapter_use = AdapterUse((0.0, 0.5))
    assert torch.equal(own.velocity((2,)), base)  # at another noise level than its own
    mixed = own.velocity((2, 2), sigma=torch.tensor([LEVEL, 0.4]))
    assert close(mixed[:1], base)


@pytest.mark.parametrize("weight", [1.5, 3.0])
def test_an_adapter_with_guidance_of_its_own_is_added_once(own: Case, weight: float) -> None:
    """guided(base) + w (adapted - base) of the pass with the prompt and the references."""
    base, alone = own.velocity((2,)), own.velocity((2,), guidance=Guidance())
    with_adapter(own)
    own.pipe.backbone.adapter_use = AdapterUse(guidance=weight)
    adapted = own.velocity((2,), guidance=Guidance())
    torch.testing.assert_close(own.velocity((2,)), base + weight * (adapted - alone), rtol=1e-4, atol=1e-4)


def test_the_blocks_are_the_transformers(case: Case) -> None:
    blocks = list(case.pipe.backbone.repeated_blocks)
    inside = {id(module) for module in case.pipe.backbone.transformer.modules()}
    assert len(blocks) >= 3 and {id(block) for block in blocks} <= inside
    parameters = sum(p.numel() for block in blocks for p in block.parameters())
    assert parameters > 0.5 * sum(p.numel() for p in case.pipe.backbone.transformer.parameters())


def test_the_stock_pipeline_shares_the_parts_and_comes_back_from_a_directory(
    case: Case, tmp_path: Path
) -> None:
    stock = case.pipe.to_diffusers()
    assert stock.transformer is case.pipe.backbone.transformer and stock.vae is case.pipe.components["vae"]
    stock.save_pretrained(tmp_path)
    content = {name: value for name, value in asdict(case.pipe.preset).items() if value is not None}
    (tmp_path / PRESET_FILE).write_text(json.dumps(content), "utf-8")
    loaded = IdentityPipeline.from_pretrained(tmp_path, device="cpu")
    assert loaded.preset.architecture == case.pipe.preset.architecture
    ours, theirs = (pipe(people(2), PROMPT, seed=4, steps=2) for pipe in (case.pipe, loaded))
    assert abs(ours.frames.astype(int) - theirs.frames).max() <= 1


def test_a_directory_of_another_kind_says_which_kind_it_is(kind: str, tmp_path: Path) -> None:
    make, preset = STOCK[kind]
    stock = make()
    stock.save_pretrained(tmp_path)
    others = [other for name, (_, other) in STOCK.items() if name != kind]
    for other in others:
        content = {name: value for name, value in asdict(other).items() if value is not None}
        (tmp_path / PRESET_FILE).write_text(json.dumps(content), "utf-8")
        with pytest.raises(WeightsError, match=f"a {type(stock).__name__}, but its preset says"):
            IdentityPipeline.from_pretrained(tmp_path, device="cpu")
    assert isinstance(preset, Preset)
