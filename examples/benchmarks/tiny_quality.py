"""How good tiny-vace is, on people it never saw: the numbers of docs/results/tiny_vace.json.

    python examples/benchmarks/tiny_quality.py generate --output runs/tiny_quality
    python examples/benchmarks/tiny_quality.py measure --output runs/tiny_quality

The numbers come to runs/tiny_quality/tiny_vace.json, or where `--results` says.

`generate` makes the clips: minutes on a GPU, about two hours on two CPU cores. `measure` has the
independent judge look at them on the CPU (extra [judge]). Both go on where they were when they are run
again, also on another machine if the folder is copied there. `--pairs 4` tries it out.

Scenes have two people of the test split. For identity nobody crosses or walks in, so that the place the
prompt gave says whose face it is; for prompt following they do everything. Of every clip the reader reads
all frames and the judge every fourth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clip_folder import ClipFolder
from identity_estimates import identity_estimates
from jsonargparse import auto_cli
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from igrpo_sdk import FaceAnalyzer, IdentityPipeline
from igrpo_sdk import measure as measure_identity
from igrpo_sdk.errors import FaceError, InputError
from igrpo_sdk.media.files import read_json
from igrpo_sdk.provenance import weights_mark
from igrpo_sdk.training.common.statistics import Estimate, bootstrap, mean
from igrpo_sdk.training.evaluation import ownership
from igrpo_sdk.training.evaluation.judge import judge_references, judge_signature, judge_videos
from igrpo_sdk.training.evaluation.making import GREY, keep_settings
from igrpo_sdk.training.evaluation.results import hardware, write_results
from igrpo_sdk.training.reader import network as reader
from igrpo_sdk.training.world.captions import caption
from igrpo_sdk.training.world.renderer import reference_pictures, render_scenes
from igrpo_sdk.training.world.scenes import STAYING, Scene, sample_scene

Frames = NDArray[np.uint8]

JUDGED_EVERY = 4
IDENTITY_SETS = ("renders", "vae", "generated", "blank")
FOLLOWING_SETS = ("following_renders", "following")
SHEET_ROWS = 10
BARS = (
    "vae_psnr_db", "render_coverage", "render_auc", "vae_auc", "generated_coverage", "generated_auc",
    "generated_auc_blank_refs", "prompt_following", "prompt_following_on_renders",
)  # fmt: skip


def scenes_of(name: str, pairs: int) -> list[Scene]:
    """The scenes of a set of clips: two people of the test split."""
    if name in FOLLOWING_SETS:
        return [sample_scene(10_000 + k, "test", 2) for k in range(pairs)]
    return [sample_scene(k, "test", 2, STAYING) for k in range(pairs)]


@dataclass(frozen=True)
class Studio:
    """Where clips are made: the models, the device, the folder."""

    output: Path
    pairs: int
    batch: int
    pipe: IdentityPipeline
    reader: reader.SceneReader

    def make(self) -> None:
        """Make the clips of all sets that are not there yet."""
        pictures, scenes = ClipFolder(self.output / "references"), scenes_of("generated", self.pairs)
        for index in pictures.missing(self.pairs):
            pictures.write(index, reference_pictures(scenes[index]), {})
        self.render("renders")
        self.render("following_renders")
        self.round_trip("vae")
        self.generate("generated")
        self.generate("blank", blank=True)
        self.generate("following")

    def parts(self, name: str) -> Iterator[list[int]]:
        """The numbers of the clips of a set that are not there yet, some at a time."""
        missing = ClipFolder(self.output / name).missing(self.pairs)
        for start in tqdm(range(0, len(missing), self.batch), desc=name):
            yield missing[start : start + self.batch]

    def store(self, name: str, index: int, frames: Frames, **facts: Any) -> None:
        """Read a clip and keep its judged frames."""
        reading = self.reader.read(frames[None])[0].as_json()
        ClipFolder(self.output / name).write(index, frames[::JUDGED_EVERY], {"reading": reading, **facts})

    def render(self, name: str) -> None:
        """Render the scenes of a set."""
        scenes = scenes_of(name, self.pairs)
        for part in self.parts(name):
            for index, frames in zip(part, self._rendered([scenes[k] for k in part]), strict=True):
                self.store(name, index, frames)

    def round_trip(self, name: str) -> None:
        """Send renders through the VAE: encode, decode."""
        scenes = scenes_of(name, self.pairs)
        for part in self.parts(name):
            real = self._rendered([scenes[k] for k in part])
            made = vae_round_trip(self.pipe.components["vae"], real)
            for index, before, after in zip(part, real, made, strict=True):
                self.store(name, index, after, psnr_db=psnr_db(after, before))

    def generate(self, name: str, blank: bool = False) -> None:
        """Generate videos: of the true references and mixed naming, or of blanks and naming by order only."""
        scenes = scenes_of(name, self.pairs)
        for part in self.parts(name):
            prompts = [caption(scenes[k], k, "order" if blank else "mixed") for k in part]
            people = [reference_pictures(scenes[k]) for k in part]
            pictures = [[np.full_like(p, GREY) if blank else p for p in pair] for pair in people]
            begin = time.monotonic()
            videos = self.pipe(pictures, prompts, seed=part, batch_size=len(part))
            seconds = (time.monotonic() - begin) / len(part)
            for index, prompt, video in zip(part, prompts, videos, strict=True):
                self.store(name, index, video.frames, prompt=prompt, seed=index, seconds=seconds)

    def _rendered(self, scenes: list[Scene]) -> Frames:
        size = self.pipe.preset.geometry
        made = render_scenes(
            scenes, size.height, size.width, size.num_frames, size.fps, self.pipe.backbone.device
        )
        return np.asarray(made.frames.cpu().numpy())


@torch.no_grad()
def vae_round_trip(vae: Any, clips: Frames) -> Frames:
    """Encode and decode clips uint8 (B, T, H, W, 3), one at a time, by the mode of the posterior."""
    made: list[Frames] = []
    for clip in clips:
        video = torch.from_numpy(clip).to(vae.device, vae.dtype).permute(3, 0, 1, 2)[None] / 127.5 - 1
        decoded = vae.decode(vae.encode(video).latent_dist.mode()).sample[0].float().clamp(-1, 1)
        made.append(((decoded.permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).cpu().numpy())
    return np.stack(made)


def psnr_db(made: Frames, real: Frames) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures in dB: 10 log10(255^2 / mean squared error), at most
    100.
    """
    error = np.square(made.astype(np.float64) - real.astype(np.float64)).mean()
    return float(min(100.0, 10 * np.log10(255**2 / max(error, 1e-12))))


def generate(
    output: str, pairs: int = 100, model: str = "tiny-vace", device: str = "auto", batch: int = 4
) -> None:
    """Make the clips of all sets.

    Args:
        output: folder for the clips.
        pairs: clips of each set.
        model: anything IdentityPipeline.from_pretrained takes; its own adapter is left out.
        device: "auto", "cpu" or "cuda".
        batch: clips made at once.
    """
    if pairs < 1 or batch < 1:
        raise InputError(f"pairs={pairs} and batch={batch} must be at least 1")
    folder = Path(output)
    pipe = IdentityPipeline.from_pretrained(model, adapter="none", device=device)
    network = reader.load_reader().to(pipe.backbone.device)
    settings = {"pairs": pairs, "model": pipe.preset.name, "steps": pipe.preset.steps}
    settings |= {"guidance_scale": pipe.preset.guidance_scale, "hardware": hardware()}
    parts = [pipe.components[name] for name in ("vae", "text_encoder", "transformer")]
    settings["weights"] = weights_mark(*parts, network)
    keep_settings(folder / "settings.json", settings)
    Studio(folder, pairs, batch, pipe, network).make()


@dataclass(frozen=True)
class Bench:
    """Where clips are measured."""

    output: Path
    workers: int | None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What `generate` was run with."""
        return dict(read_json(self.output / "settings.json"))

    @property
    def pairs(self) -> int:
        """Clips of each set."""
        return int(self.settings["pairs"])

    @cached_property
    def references(self) -> list[NDArray[np.float32] | None]:
        """Embeddings (2, 128) of every pair's references; None where the judge misses a face in one of
        them.
        """
        folder = ClipFolder(self.output / "references")
        todo = [k for k in range(self.pairs) if not _judged(folder, k)]
        pictures = [picture for k in todo for picture in folder.read(k).frames]
        seen = judge_references(pictures, self.workers)
        for k in tqdm(todo, desc="judge references"):
            pair = [next(seen), next(seen)]
            _note_judged(folder, k, [None if e is None else e.tolist() for e in pair])
        pairs = [_judged(folder, k)["seen"] for k in range(self.pairs)]
        return [None if None in pair else np.array(pair, np.float32) for pair in pairs]

    def owned(self, name: str) -> list[ownership.OwnedVideo]:
        """The clips of a set with owners by place, except those of pairs without two embedded references."""
        folder = ClipFolder(self.output / name)
        todo = [k for k in range(self.pairs) if not _judged(folder, k)]
        frames = (folder.read(k).frames for k in todo)
        for k, seen in zip(tqdm(todo, desc=f"judge {name}"), judge_videos(frames, self.workers), strict=True):
            faces = [[face.centre[0] for face in frame.faces] for frame in seen]
            _note_judged(folder, k, [faces, [frame.embeddings.round(5).tolist() for frame in seen]])
        scenes, width = scenes_of(name, self.pairs), folder.read(0).frames.shape[2]
        return [
            _own(_judged(folder, k)["seen"], references, scenes[k], width)
            for k, references in enumerate(self.references)
            if references is not None
        ]

    def followed(self, name: str) -> list[reader.Followed]:
        """How each clip of a set follows its prompt."""
        folder = ClipFolder(self.output / name)
        readings = [reader.Reading.from_json(folder.read(k).facts["reading"]) for k in range(self.pairs)]
        scenes = scenes_of(name, self.pairs)
        return [
            reader.follow(seen, reader.facts_of(scene)) for seen, scene in zip(readings, scenes, strict=True)
        ]

    def recognised(self, name: str) -> list[float]:
        """The share of (frame, person) that the tiny face pack recognises in each clip of a set.

        Left out are clips in one of whose references the pack does not find exactly one face.
        """
        analyzer, shares = FaceAnalyzer.load(), []
        for k in tqdm(range(self.pairs), desc=f"recognise {name}"):
            people = list(ClipFolder(self.output / "references").read(k).frames)
            try:
                report = measure_identity(ClipFolder(self.output / name).read(k).frames, people, analyzer)
            except FaceError:
                continue
            shares.append(float(np.mean([person.recognition for person in report.people])))
        return shares

    def facts(self, name: str, key: str) -> list[float]:
        """A number noted of every clip of a set."""
        return [float(ClipFolder(self.output / name).read(k).facts[key]) for k in range(self.pairs)]

    def sheet(self, name: str) -> None:
        """Write a contact sheet: a row a pair, its references and then its judged frames."""
        rows: list[Frames] = []
        for k in range(min(SHEET_ROWS, self.pairs)):
            frames = ClipFolder(self.output / name).read(k).frames
            if name in FOLLOWING_SETS:
                people = list(reference_pictures(scenes_of(name, self.pairs)[k]))
            else:
                people = list(ClipFolder(self.output / "references").read(k).frames)
            height = frames.shape[1]
            small = [np.asarray(Image.fromarray(person).resize((height, height))) for person in people]
            rows.append(np.concatenate([*small, *frames], axis=1))
        Image.fromarray(np.concatenate(rows)).save(self.output / f"{name}.png")


def _judged(folder: ClipFolder, index: int) -> Any:
    noted = folder.noted(index, "judged")
    return noted if noted and noted["judge"] == judge_signature() else None


def _note_judged(folder: ClipFolder, index: int, seen: Any) -> None:
    folder.note(index, "judged", {"judge": judge_signature(), "seen": seen})


def _own(
    seen: Sequence[Any], references: NDArray[np.float32], scene: Scene, width: int
) -> ownership.OwnedVideo:
    centres, embeddings = seen
    vectors = [np.array(rows, np.float32).reshape(-1, references.shape[1]) for rows in embeddings]
    return ownership.own_video(centres, vectors, references, [a.place for a in scene.actors], width)


def _follow_estimates(clips: Sequence[reader.Followed]) -> dict[str, Estimate]:
    def share(
        right: Callable[[reader.Followed], bool],
    ) -> Callable[[Sequence[reader.Followed]], float | None]:
        return lambda some: mean([float(right(clip)) for clip in some])

    return {
        "": bootstrap(clips, reader.prompt_following),
        "_background": bootstrap(clips, reader.background_share),
        "_who_does_what": bootstrap(clips, reader.who_does_what_share),
        "_everything_right": bootstrap(clips, share(lambda clip: clip.strict)),
        "_light": bootstrap(clips, share(lambda clip: clip.light)),
        "_count": bootstrap(clips, share(lambda clip: clip.count)),
        "_place": bootstrap(clips, lambda some: mean([float(p) for clip in some for p in clip.place])),
        "_action": bootstrap(clips, lambda some: mean([float(a) for clip in some for a in clip.action])),
    }


def measure(output: str, results: str | None = None, workers: int | None = None) -> None:
    """Judge the clips and write the numbers and contact sheets.

    Args:
        output: the folder that `generate` filled.
        results: JSON file for the numbers; OUTPUT/tiny_vace.json by default.
        workers: processes of the judge; one for each core by default.
    """
    bench, begin = Bench(Path(output), workers), time.monotonic()
    estimates: dict[str, Estimate] = {"vae_psnr_db": bootstrap(bench.facts("vae", "psnr_db"), mean)}
    for name, prefix in zip(IDENTITY_SETS, ("render", "vae", "generated", "generated_blank"), strict=True):
        found = identity_estimates(bench.owned(name))
        estimates |= {f"{prefix}_{key}": value for key, value in found.items()}
    estimates["generated_auc_blank_refs"] = estimates.pop("generated_blank_auc")
    estimates["generated_recognised"] = bootstrap(bench.recognised("generated"), mean)
    for name, prefix in (
        ("following", "prompt_following"),
        ("following_renders", "prompt_following_on_renders"),
    ):
        found = _follow_estimates(bench.followed(name))
        estimates |= {f"{prefix}{key}": value for key, value in found.items()}
    for name in (*IDENTITY_SETS, *FOLLOWING_SETS):
        bench.sheet(name)
    seconds = {
        "generate_one_video": round(mean(bench.facts("generated", "seconds")) or 0.0, 3),
        "measure": round(time.monotonic() - begin, 1),
    }
    _publish(bench, estimates, seconds, Path(results) if results else bench.output / "tiny_vace.json")


def _publish(bench: Bench, estimates: dict[str, Estimate], seconds: dict[str, float], path: Path) -> None:
    pairs, unseen = bench.pairs, sum(pair is None for pair in bench.references)
    script = "python examples/benchmarks/tiny_quality.py"
    made = f"{script} generate --output DIR --pairs {pairs} --model {bench.settings['model']}"
    command = f"{made} && {script} measure --output DIR"
    where = f"clips: {bench.settings['hardware']}; judge: {hardware()}"
    metrics: dict[str, Any] = {
        k: None if e.value is None else round(e.value, 4) for k, e in estimates.items()
    }
    metrics["details"] = {name: estimate.as_json() for name, estimate in estimates.items()}
    metrics["counts"] = {"pairs": pairs, "pairs_without_judged_reference": unseen}
    metrics["seconds"] = seconds
    notes = [
        f"Model {bench.settings['model']}, {bench.settings['steps']} steps, guidance "
        f"{bench.settings['guidance_scale']}; {pairs} scenes of two people of the test split in every set.",
        "details: bootstrap 95 % intervals, clips resampled. The judge sees every fourth frame.",
        "Coverage, AUC: nobody crosses or walks in; a face is owned by the place that its prompt gave.",
        "similarity: of everybody who should be seen, missing people as 0; own_similarity: of faces found.",
        "generated_recognised: share of (frame, person) that the tiny face pack recognises.",
        "generated_blank, generated_auc_blank_refs: grey pictures as references, people named by order only.",
        "prompt_following: mean of background and who-does-what, all actions, by a reader trained on renders "
        "of other people; prompt_following_on_renders, the same on renders, is the most it can give.",
    ]
    if unseen:
        notes.append(f"The judge saw no face in a reference of {unseen} pairs; they are left out of the AUC.")
    write_results(path, command, where, metrics, notes)
    for name in BARS:
        print(f"{name:30} {metrics[name]}")
    print(path)


if __name__ == "__main__":
    auto_cli([generate, measure], as_positional=False)
