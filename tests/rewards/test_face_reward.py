"""The face reward: better videos score higher, no video scores NaN, no reference ends the training."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.identity.analyzer import FaceAnalyzer
from igrpo_sdk.identity.matching import Switch
from igrpo_sdk.identity.measuring import measure
from igrpo_sdk.identity.report import IdentityReport, PersonReport
from igrpo_sdk.references import Reference
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.faces import FaceReward, FaceWeights, face_score
from igrpo_sdk.training.rewards.measuring import Measurer, MeasuringConfig

FRAMES = 4


def person(
    similarity: float, owned: float | None = None, other: float | None = None, confusion: float = 0.0
) -> PersonReport:
    """The same in every frame; other: how much the face at their place is like somebody else."""

    def curve(value: float) -> tuple[float, ...]:
        return (value,) * FRAMES

    return PersonReport(
        name="person",
        boxes=((0.0, 0.0, 9.0, 9.0),) * FRAMES,
        similarity=curve(similarity),
        recognised=(True,) * FRAMES,
        margin=None,
        confusion=curve(confusion),
        id_conf=curve(0.0),
        copying=curve(0.0),
        place=None if owned is None else "left",
        owned=None if owned is None else curve(owned),
        owned_margin=None if owned is None or other is None else curve(owned - other),
    )


def report(*people: PersonReport, heads: int = 2, switches: int = 0) -> IdentityReport:
    change = (Switch(1, 0, 0, 1),) * switches
    return IdentityReport(
        "none", 0.4, tuple(range(FRAMES)), people, (heads,) * FRAMES, change, (0.1,) * (FRAMES - 1)
    )


def blurred(rollout: Rollout, radius: float) -> Rollout:
    pictures = [
        Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)) for frame in rollout.frames.numpy()
    ]
    return replace(rollout, frames=torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])))


def test_better_videos_score_higher(
    measurer: Measurer, right: Rollout, swapped: Rollout, strangers: Rollout, black: Rollout
) -> None:
    videos = [right, blurred(right, 1.5), strangers, black, swapped]
    scores = FaceReward(measurer).score(videos)
    assert None not in scores
    best, soft, others, nobody, places = map(float, filter(None, scores))
    assert best > soft > others > nobody
    assert best > 0.4 and others < 0.1
    assert nobody == pytest.approx(-0.25)  # two people missing
    assert places < others  # each is at the other's place, which is worse than nobody's likeness


def test_without_places_two_people_swapped_cannot_be_told(
    measurer: Measurer, right: Rollout, swapped: Rollout
) -> None:
    scores = FaceReward(measurer).score([replace(right, places=None), replace(swapped, places=None)])
    assert scores[0] == pytest.approx(scores[1], abs=0.15)


def test_one_person_missing_costs_the_worst(measurer: Measurer, right: Rollout) -> None:
    alone = right.frames.clone()
    alone[:, :, 96:] = alone[:, :1, 96:97]  # the right half is wall
    full, half = FaceReward(measurer).score([right, replace(right, frames=alone)])
    assert full is not None and half is not None and half < full - 0.3


def test_the_formula() -> None:
    weights = FaceWeights(mean=1.0, worst=2.0, confusion=0.5, switches=3.0, head_count=0.25)
    made = report(person(0.9, owned=0.6, other=0.2), person(0.8, owned=0.2, other=-0.4), heads=3, switches=2)
    expected = 1.0 * 0.4 + 2.0 * 0.2 - 0.5 * (0.2 + 0) / 2 - 3.0 * 2 / (2 * 3) - 0.25 * 0.5
    assert face_score(made, weights) == pytest.approx(expected)
    # Without places: the assigned face, and the best wrong match.
    free = report(person(0.9, confusion=0.3), person(0.5, confusion=0.1))
    assert face_score(free) == pytest.approx(0.5 * 0.7 + 0.5 * 0.5 - 0.25 * 0.2)
    # One person with a place: nobody to be taken for, but somebody may look like them.
    alone = report(person(0.9, owned=0.8, confusion=0.4), heads=1)
    assert face_score(alone) == pytest.approx(0.8 - 0.25 * 0.4)


similarities = st.floats(-1, 1)


@given(similarities, similarities, similarities, st.integers(0, 40), st.integers(0, 6))
def test_the_range_is_as_documented(a: float, b: float, other: float, heads: int, switches: int) -> None:
    weights = FaceWeights()
    made = report(
        person(0, owned=a, other=other), person(0, owned=b, other=other), heads=heads, switches=switches
    )
    assert -2.5 <= face_score(made, weights) <= 1.0


@pytest.mark.parametrize("fault", ["similarity", "confusion", "switches", "heads"])
def test_every_fault_costs(fault: str) -> None:
    good = person(0.9, owned=0.9, other=0.1)
    worse = {
        "similarity": report(person(0.9, owned=0.7, other=0.1), good),
        "confusion": report(person(0.9, owned=0.9, other=0.5), good),
        "switches": report(good, good, switches=1),
        "heads": report(good, good, heads=3),
    }
    assert face_score(worse[fault]) < face_score(report(good, good))


@pytest.mark.parametrize(
    "weights",
    [{"mean": -0.1}, {"worst": math.nan}, {"confusion": math.inf}, {"mean": 0.0, "worst": 0.0}],
)
def test_bad_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"mean|worst|confusion"):
        FaceWeights(**weights)


def test_no_video_scores_nan(measurer: Measurer, right: Rollout, frozen: Rollout, black: Rollout) -> None:
    noise = torch.randint(
        0, 256, right.frames.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    one = replace(right, frames=right.frames[:1])
    scores = FaceReward(measurer).score([frozen, black, replace(right, frames=noise), one])
    assert all(score is not None and math.isfinite(score) for score in scores)


def test_a_reference_without_one_face_is_told_once(
    analyzer: FaceAnalyzer, measurer: Measurer, right: Rollout, references: tuple[Reference, ...]
) -> None:
    blank = Reference.load(np.full((96, 96, 3), 200, np.uint8))
    both = Reference.load(np.concatenate([one.image for one in references], axis=1))
    assert len(analyzer.analyze(both.image[None])[0]) == 2
    lost = replace(right, references=(references[0], blank))
    crowd = replace(right, references=(both, references[1]))
    with pytest.warns(UserWarning, match="are not scored|is not scored") as told:
        scores = FaceReward(measurer).score([lost, right, crowd, lost])
    assert len(told) == 2 == len(measurer.problems)
    assert [score is None for score in scores] == [True, False, True, True]
    assert "sees no face" in measurer.problems[blank.hash] and "2 faces" in measurer.problems[both.hash]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FaceReward(measurer).score([replace(lost), right])[0] is None


class Counting:
    """An analyzer that counts the frames it is given."""

    def __init__(self, analyzer: FaceAnalyzer) -> None:
        self.inner, self.frames = analyzer, 0
        self.name, self.same_person = analyzer.name, analyzer.same_person

    def analyze(self, frames: np.ndarray) -> list[list]:  # type: ignore[type-arg]
        self.frames += len(frames)
        return self.inner.analyze(frames)


def test_videos_and_references_are_measured_once(
    analyzer: FaceAnalyzer, right: Rollout, swapped: Rollout
) -> None:
    counting = Counting(analyzer)
    measurer = Measurer(counting)
    first = measurer.reports([right, swapped, right])
    assert counting.frames == 2 + 6 + 6
    assert measurer.reports([swapped, right]) == [first[1], first[0]]
    assert counting.frames == 14
    measurer.reports([replace(right)])  # another rollout of the same references
    assert counting.frames == 20


class Hanging(Counting):
    """One that does not come back from its first video."""

    def __init__(self, analyzer: FaceAnalyzer) -> None:
        super().__init__(analyzer)
        self.first, self.go = True, threading.Event()

    def analyze(self, frames: np.ndarray) -> list[list]:  # type: ignore[type-arg]
        if len(frames) > 1 and self.first:
            self.first = False
            self.go.wait(250)
        return super().analyze(frames)


def test_who_hangs_while_measuring_stops_nobody_else(analyzer: FaceAnalyzer, right: Rollout) -> None:
    hanging = Hanging(analyzer)
    measurer = Measurer(hanging)
    with ThreadPoolExecutor() as pool:
        late = [pool.submit(measurer.reports, [right]) for _ in range(2)]
        while hanging.first:
            time.sleep(0.01)
        other = replace(right)
        (made,) = measurer.reports([other])
        assert made is not None and measurer.known([right, other]) == [None, made]
        hanging.go.set()
        assert [one.result() for one in late] == [[made], [made]]
    assert hanging.frames == 2 + 2 * 6  # both rewards that ask for a video have one report


def test_photographs_are_not_kept(measurer: Measurer, right: Rollout) -> None:
    """As much of a large one as is read from is; nothing that is measured changes."""
    image = np.pad(right.references[0].image, ((60, 140), (140, 60), (0, 0)), mode="edge")
    large = Reference.load(image)
    (made,) = measurer.reports([replace(right, references=(large,), places=("left",))])
    assert made is not None
    assert measurer._people[large.hash].picture.nbytes < 0.6 * image.nbytes
    clip = right.frames.numpy()
    (whole,) = measure(clip, [large], measurer.analyzer).people
    (trimmed,) = measure(clip, [measurer._people[large.hash]], measurer.analyzer).people
    assert np.allclose(whole.copying, trimmed.copying, atol=1e-5)
    assert whole.similarity == trimmed.similarity


def test_each_nth_frame(analyzer: FaceAnalyzer, right: Rollout) -> None:
    counting = Counting(analyzer)
    (made,) = Measurer(counting, MeasuringConfig(every=4)).reports([right])
    assert made is not None and len(made.heads) == 2
    assert made.frame_numbers == (0, 4)  # those of the video, by which credit finds the latents
    for wrong in ({"every": 0}, {"workers": -1}):
        with pytest.raises(InputError, match="at least"):
            MeasuringConfig(**wrong)


def ended(process: psutil.Process) -> bool:
    """Whether a process that is not our child runs no more; what it leaves may wait to be collected."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


PROGRAM = """
import time, numpy, torch
from igrpo_sdk.references import Reference
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.measuring import Measurer, MeasuringConfig

if __name__ == "__main__":
    measurer = Measurer.load(MeasuringConfig(workers=1))
    reference = Reference.load(numpy.load("reference.npy"))
    measurer.reports([Rollout(torch.zeros(2, 64, 64, 3, dtype=torch.uint8), (reference,), "nobody", 0)])
    print(*measurer._pool._processes, flush=True)
    time.sleep(600)
"""


def test_t13_worker_processes_end_with_a_trainer_that_is_killed(
    tmp_path: Path, references: tuple[Reference, ...]
) -> None:
    np.save(tmp_path / "reference.npy", references[0].image)
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    command = [sys.executable, "program.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        worker = psutil.Process(int(trainer.stdout.readline()))
        trainer.kill()
    assert any(time.sleep(0.1) or ended(worker) for _ in range(2500))


def test_processes_start_before_they_are_needed_with_one_thread_each() -> None:
    measurer = Measurer.load(MeasuringConfig(workers=2))
    try:
        assert measurer._pool is not None and len(measurer._pool._processes) == 2
        assert measurer._pool.submit(cv2.getNumThreads).result() == 1
    finally:
        measurer.close()


def test_processes_measure_the_same(measurer: Measurer, right: Rollout, swapped: Rollout) -> None:
    apart = Measurer(measurer.analyzer, MeasuringConfig(workers=1))
    try:
        assert apart.reports([right, swapped]) == measurer.reports([right, swapped])
        assert apart._pool is not None
        for process in apart._pool._processes.values():
            process.kill()
        with pytest.raises(ResourceError, match="has died"):
            apart.reports([replace(right)])
    finally:
        apart.close()
