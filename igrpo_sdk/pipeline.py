"""`IdentityPipeline`: references and a prompt in, videos out.

A call is five steps a user can also make one by one: `check_inputs`, `encode`, `sample`, `decode`, and the
wrapping of frames and settings into `IdentityVideo`s. With a refiner, `refine` comes after the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Unpack, overload

from torch import Tensor

from igrpo_sdk.acceleration import check_memory, memory_errors
from igrpo_sdk.backbones.base import Conditioning
from igrpo_sdk.comparison import Comparison
from igrpo_sdk.config import GenerationChanges
from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.analyzer import Analyzer
from igrpo_sdk.identity.measuring import measure
from igrpo_sdk.identity.people import Person, find_people
from igrpo_sdk.inputs import Request, make_request, refine_request
from igrpo_sdk.media.video import IdentityVideo
from igrpo_sdk.model import Model
from igrpo_sdk.provenance import library_versions
from igrpo_sdk.reading import shortened
from igrpo_sdk.references import People, load_people
from igrpo_sdk.refinement import Refiner, check_refiner
from igrpo_sdk.replaying import replay
from igrpo_sdk.sampling import (
    Progress,
    StepCallback,
    Trajectory,
    check_cancel,
    decode,
    draw_noise,
    make_solver,
    sample,
    shifted,
)

__all__ = ["CallOptions", "IdentityPipeline", "Progress", "Request"]


class CallOptions(GenerationChanges, total=False):
    """Options of a call beside references, prompt, seed and number of videos
    (`IdentityPipeline.__call__`)."""

    progress: Callable[[Progress], None] | None
    callback: StepCallback | None
    cancel: Event | None
    batch_size: int | None
    analyzer: Analyzer | None
    refine: Refiner | None


class IdentityPipeline(Model):
    """Makes videos in which the people of reference pictures appear together.

        pipe = IdentityPipeline.from_pretrained("tiny-vace")
        video = pipe(["ann.png", "bob.png"], "Two people talk.", seed=7)

    Calls from several threads wait for one another.
    """

    def compare(
        self,
        references: People,
        prompt: str,
        *,
        seed: int | None = None,
        **options: Unpack[CallOptions],
    ) -> Comparison:
        """The video of the base beside that of the adapter, from the same seed.

        `options`: those of a call. Raises what a call does, and `InputError` without an
        adapter.
        """
        if self.adapter is None:
            raise InputError(
                f"adapter: none is loaded to compare {self.preset.name} with; load_adapter first"
            )
        if not isinstance(prompt, str):
            raise InputError(f"prompt: {type(prompt).__name__}; give one string to compare")
        with self._lock:
            aligned = self(references, prompt, seed=seed, **options)
            used = aligned.settings
            if used["refined_prompt"] is not None:  # asked again, it could say something else
                options["refine"] = lambda *_: used["refined_prompt"]
            with self.adapter.disabled():
                base = self(references, prompt, seed=used["seed"], **options)
        return Comparison(base, aligned, load_people(references))

    def replay(
        self, video: IdentityVideo, references: People, progress: Callable[[Progress], None] | None = None
    ) -> IdentityVideo:
        """Make a video again from its settings; its warnings say in what this pipeline or machine differs.

        `references`: the pictures that it was made of, in their order. Raises `InputError` for other
        pictures, for settings that do not say how it was made, and where another model or adapter is loaded
        than it was made with; what a call does.
        """
        with self._lock:
            return replay(self, self.preset.name, self.adapter, video, references, progress)

    @overload
    def __call__(
        self,
        references: People,
        prompt: str,
        *,
        seed: int | None = None,
        num_videos: None = None,
        **options: Unpack[CallOptions],
    ) -> IdentityVideo: ...

    @overload
    def __call__(
        self,
        references: People,
        prompt: str,
        *,
        seed: int | None = None,
        num_videos: int,
        **options: Unpack[CallOptions],
    ) -> list[IdentityVideo]: ...

    @overload
    def __call__(
        self,
        references: Sequence[People],
        prompt: list[str] | tuple[str, ...],
        *,
        seed: int | Sequence[int] | None = None,
        num_videos: None = None,
        **options: Unpack[CallOptions],
    ) -> list[IdentityVideo]: ...

    @overload
    def __call__(
        self,
        references: Sequence[People],
        prompt: list[str] | tuple[str, ...],
        *,
        seed: int | Sequence[int] | None = None,
        num_videos: int,
        **options: Unpack[CallOptions],
    ) -> list[list[IdentityVideo]]: ...

    def __call__(
        self,
        references: People | Sequence[People],
        prompt: str | list[str] | tuple[str, ...],
        *,
        seed: int | Sequence[int] | None = None,
        num_videos: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        progress: Callable[[Progress], None] | None = None,
        callback: StepCallback | None = None,
        cancel: Event | None = None,
        batch_size: int | None = None,
        analyzer: Analyzer | None = None,
        refine: Refiner | None = None,
    ) -> Any:
        """Make videos.

        Args:
            references: Pictures, one of each person (see `Reference.load`): person i of the prompt is picture
                i. Or a mapping from names to pictures: "@ann" in the prompt is then the person of that name.
                With a list of prompts, a list of such lists or mappings.
            prompt: Who does what, where; or a list, one for each list of references.
            seed: 0 to 2**32 - 1, for every pair, or a list, one a pair; None draws one. The seed that was
                used is in the settings of the video: a call with it makes that video again, alone.
            num_videos: Videos per pair, from different noise, as a list, which one video is too; the first is
                that of the seed itself. None makes one and gives it without a list.
            height, width: Size in pixels; they divide by the model's stride. This and all below are the
                preset's by default.
            num_frames: Number of frames, 4k+1 for Wan.
            steps: Solver steps, 1 to 1000.
            guidance_scale: Weight of the prompt, 0 to 30; 1 is no guidance and twice as fast.
            image_guidance_scale: Weight of the references, 0 to 30, for models that have it (Phantom).
            negative_prompt: What should not be seen.
            progress: Told the phase, the step and the total.
            callback: callback(step, sigma, latents) after every step, with a copy of the latents.
            cancel: Set it from another thread to stop before the next step.
            batch_size: Videos sampled at once, mixed reference counts included. By default 1 on the CPU,
                where more is no faster, and 4 elsewhere. The result does not depend on it but for rounding.
            analyzer: Measures every video, as `FaceAnalyzer.load()` does, and puts the `IdentityReport` into
                `video.report`. Every reference must then show a face. A video that cannot be measured comes
                without a report, and a warning in `video.warnings` says why.
            refine: Completes each prompt, as `QwenRefiner` does: a callable (references, prompt) -> prompt.
                What it returns is used, and stands in the settings as `refined_prompt` beside `prompt`.

        Returns:
            An `IdentityVideo` for one prompt, or with `num_videos` a list of them; for a list of prompts a
            list of either.

        Raises:
            InputError: An argument is not usable, or what `refine` returned is not; no video model has run.
            FaceError: A reference does not show exactly one face; only the analyzer has run.
            Cancelled, NumericsError, ResourceError: The work ended; the pipeline can be used again.
        """
        if batch_size is None:
            batch_size = 1 if self.backbone.device.type == "cpu" else 4
        elif not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size: {shortened(batch_size)}; give a whole number of 1 or more")
        check_refiner(refine)
        request = self.check_inputs(
            references,
            prompt,
            seed,
            height=height,
            width=width,
            num_frames=num_frames,
            steps=steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            negative_prompt=negative_prompt,
            num_videos=num_videos,
        )
        most = max(len(group) for group in request.references)
        size = request.config.geometry
        check_memory(self.backbone.device, self.backbone.least_memory(size, most), size)
        people = [find_people(group, analyzer) if analyzer else [] for group in request.references]
        if refine is not None:
            request = self.refine(request, refine, progress, cancel)
        count, batch_size = request.config.num_videos, min(batch_size, len(request.videos))
        with self._lock, memory_errors(request.config.geometry, batch_size):
            frames = self._run(request, batch_size, progress or (lambda _: None), callback, cancel)
            videos = [self._wrap(request, *made) for made in zip(request.videos, frames, strict=True)]
        if analyzer:
            for (pair, _), video in zip(request.videos, videos, strict=True):
                _report(video, people[pair], analyzer)
        starts = range(0, len(videos), count)
        takes: list[Any] = [videos[start : start + count] for start in starts]
        pairs = takes if num_videos is not None else videos
        return pairs[0] if isinstance(prompt, str) else pairs

    def check_inputs(
        self,
        references: People | Sequence[People],
        prompt: str | list[str] | tuple[str, ...],
        seed: int | Sequence[int] | None = None,
        *,
        num_videos: int | None = None,
        **changes: Unpack[GenerationChanges],
    ) -> Request:
        """Step 1: load the references and check every argument; no model runs.

        `changes`: arguments of `Geometry` and `GenerationConfig` that differ from the preset's; None is no
        change. Raises `InputError`.
        """
        config = self.preset.generation(num_videos, **changes)
        return make_request(self.backbone, self.preset, references, prompt, seed, config)

    def refine(
        self,
        request: Request,
        refiner: Refiner,
        progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> Request:
        """Between 1 and 2, with a refiner: the request with its prompts refined, and checked again."""
        return refine_request(request, refiner, self.backbone, self.preset, progress, cancel)

    def encode(self, request: Request) -> Conditioning:
        """Step 2: the conditioning of the P pairs of a request."""
        config = request.config
        negatives = (
            [config.negative_prompt] * len(request.prompts) if config.guidance.needs_negatives else None
        )
        return self.backbone.encode(request.references, request.texts, negatives, config.geometry)

    def sample(
        self,
        request: Request,
        conditioning: Conditioning,
        seeds: Sequence[int],
        *,
        progress: Callable[[Progress], None] | None = None,
        callback: StepCallback | None = None,
        cancel: Event | None = None,
    ) -> Trajectory:
        """Step 3: latents of B videos, of which sample b has `seeds[b]` and row b of `conditioning`."""
        geometry, counts = request.config.geometry, conditioning.num_references
        noise = draw_noise(seeds, [self.backbone.latent_shape(geometry, count) for count in counts])
        solver = make_solver(self.preset.solver, request.config.steps, self.preset.flow_shift)
        return sample(
            self.backbone,
            conditioning,
            noise.to(self.backbone.device),
            solver,
            request.config.guidance,
            progress=progress,
            callback=callback,
            cancel=cancel,
        )

    def decode(self, request: Request, trajectory: Trajectory) -> Tensor:
        """Step 4: frames, uint8 [B, F, H, W, 3] on the CPU."""
        return decode(self.backbone, trajectory.video_latents, request.config.geometry.num_frames)

    def _run(
        self,
        request: Request,
        batch_size: int,
        progress: Callable[[Progress], None],
        callback: StepCallback | None,
        cancel: Event | None,
    ) -> list[Tensor]:
        """The frames of every video, [F, H, W, 3] each; `batch_size` of them sampled at a time."""
        check_cancel(cancel)
        progress(Progress("encode", 0, 1))
        conditioning = self.encode(request)
        progress(Progress("encode", 1, 1))
        videos, steps = request.videos, request.config.steps
        total = steps * -(-len(videos) // batch_size)
        latents: list[Tensor] = []
        for start in range(0, len(videos), batch_size):
            pairs, seeds = zip(*videos[start : start + batch_size], strict=True)
            told = shifted(progress, start // batch_size * steps, total)
            part = conditioning.select(pairs)
            trajectory = self.sample(request, part, seeds, progress=told, callback=callback, cancel=cancel)
            latents.extend(trajectory.video_latents)
        frames = []
        for index, latent in enumerate(latents):
            check_cancel(cancel)
            frames.append(decode(self.backbone, latent[None], request.config.geometry.num_frames)[0])
            progress(Progress("decode", index + 1, len(latents)))
        return frames

    def _wrap(self, request: Request, video: tuple[int, int], frames: Tensor) -> IdentityVideo:
        """A result with the settings that make it again."""
        settings = {
            "model": self.preset.name,
            "revision": self.preset.revision,
            "adapter": self.adapter.settings if self.adapter else None,
            **request.settings(*video),
            "solver": self.preset.solver,
            "flow_shift": self.preset.flow_shift,
            "device": self.backbone.device.type,
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
            "versions": library_versions(),
        }
        warnings = (self.adapter.warnings if self.adapter else ()) + request.warnings(video[0])
        return IdentityVideo(frames.numpy(), request.config.geometry.fps, settings, warnings)


def _report(video: IdentityVideo, people: Sequence[Person], analyzer: Analyzer) -> None:
    """Give a video its report, or a warning: what fails now must not take the videos that were made."""
    try:
        video.report = measure(video.frames, people, analyzer)
    except Exception as error:
        video.warnings += (f"identity is not measured: {type(error).__name__}: {error}",)
