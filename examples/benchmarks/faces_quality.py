"""How good the tiny face pack is, on people it never saw: the numbers of docs/results/faces.json.

    python examples/benchmarks/faces_quality.py --results docs/results/faces.json

Everything is found by insightface with the files of the pack (extra [faces]), a frame at a time, as a user
would. A few minutes on two CPU cores, most of them rendering. `--evaluation DIR` adds the agreement with the
independent judge on the generated videos of an `igrpo eval --model ...` run that has ended in DIR.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement import Agreement, agreement, agreement_share
from jsonargparse import auto_cli
from numpy.typing import NDArray
from tqdm import tqdm

from igrpo_sdk.errors import DependencyError, InputError
from igrpo_sdk.identity.analyzer import FaceAnalyzer
from igrpo_sdk.identity.matching import assign
from igrpo_sdk.identity.people import find_people
from igrpo_sdk.media.decoding import sample_frames
from igrpo_sdk.media.files import read_json
from igrpo_sdk.training.common.statistics import Estimate, auc, bootstrap
from igrpo_sdk.training.data.rows import read_cases
from igrpo_sdk.training.evaluation.measures import JUDGED_EVERY, Lab, video_file
from igrpo_sdk.training.evaluation.results import hardware, write_results
from igrpo_sdk.training.pretrain.clips import CLIP, draw_people
from igrpo_sdk.training.pretrain.faces.data import portraits, scene_rows
from igrpo_sdk.training.pretrain.faces.detector import Found
from igrpo_sdk.training.pretrain.faces.detector_training import Counts, compare
from igrpo_sdk.training.pretrain.faces.export import DETECTOR_FILE, PACK_FILE, RECOGNISER_FILE
from igrpo_sdk.training.pretrain.faces.recogniser_training import (
    EVALUATED_YAW,
    centred,
    verification_pairs,
)
from igrpo_sdk.training.world.scenes import sample_scene

PACK = Path(__file__).resolve().parents[2] / "igrpo_sdk" / "assets" / "tiny-faces"
Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

FRAMES_A_SCENE = 3
BATCH = 17  # frames of one clip


@dataclass(frozen=True)
class Pack:
    """The files of a face pack."""

    folder: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        """pack.json."""
        return dict(read_json(self.folder / PACK_FILE))

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what the detector sees."""
        height, width = self.settings["input_size"]
        return height, width

    @cached_property
    def insightface(self) -> Any:
        """insightface with these files."""
        try:
            from insightface.app import FaceAnalysis
        except ImportError as error:
            raise DependencyError(
                f"insightface cannot be imported ({error}): pip install 'igrpo-sdk[faces]'"
            ) from None
        app = FaceAnalysis(name=str(self.folder), providers=["CPUExecutionProvider"])
        app.prepare(ctx_id=-1, det_size=self.canvas[::-1])
        return app

    def look(self, frame: Frames) -> list[Any]:
        """insightface's faces of a frame uint8 (H, W, 3), RGB."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its use of scikit-image
            return list(self.insightface.get(np.ascontiguousarray(frame[..., ::-1])))

    def normalise(self, embeddings: Floats) -> Floats:
        """Embeddings (N, D) less the mean of training people, of length 1."""
        return centred(embeddings, np.array(self.settings["mean"], np.float32))

    def embeddings(self, faces: Sequence[Any]) -> Floats:
        """Those of insightface's faces, normalised, (faces, D)."""
        rows = [face.embedding for face in faces]
        return self.normalise(np.array(rows, np.float32).reshape(-1, len(self.settings["mean"])))


def detector_counts(pack: Pack, num_scenes: int) -> list[Counts]:
    """What is found in each scene of two and three people of the test split."""
    counts: list[Counts] = []
    for k in tqdm(range(num_scenes), desc="detector"):
        scene = sample_scene(k, "test", 2 + k % 2)
        rows = scene_rows([scene], FRAMES_A_SCENE, CLIP, torch.device("cpu"))
        counts.append(Counts())
        for t, frame in enumerate(rows["frames"].numpy()):
            counts[-1] += compare(_found(pack.look(frame)), rows["boxes"][t], rows["visible"][t])
    return counts


def _found(faces: Sequence[Any]) -> Found:
    faces = sorted(faces, key=lambda face: -face.det_score)
    rows = {name: [np.asarray(face[name]) for face in faces] for name in ("bbox", "kps", "det_score")}
    boxes, points, scores = (torch.tensor(np.array(value, np.float32)) for value in rows.values())
    return Found(boxes.view(-1, 4), points.view(-1, 5, 2), scores)


def person_embeddings(pack: Pack, people: int, views: int, redrawn: float) -> list[Floats | None]:
    """Embeddings (V, D) of the largest face in `views` pictures of each of `people` of the test split; None
    where a picture shows no face.
    """
    numbers = draw_people(people, "test", "faces quality")[0].repeat_interleave(views)
    seeds = draw_people(len(numbers), "test", "faces quality views")[1]
    found: list[Floats | None] = []
    for k in tqdm(range(people), desc="with other hair and clothes" if redrawn else "as they are"):
        here = slice(k * views, (k + 1) * views)
        rows = portraits(numbers[here], seeds[here], CLIP.height, EVALUATED_YAW, redrawn)
        faces = [pack.look(picture) for picture in rows["pictures"].numpy()]
        if not all(faces):
            found.append(None)
            continue
        largest = [max(some, key=lambda face: face.bbox[2] - face.bbox[0]) for some in faces]
        found.append(pack.embeddings(largest))
    return found


def recogniser_auc(people: Sequence[Floats]) -> float | None:
    """AUC of pairs of one person against pairs of two; None of fewer than two people."""
    if len(people) < 2:
        return None
    own, other = verification_pairs(np.concatenate(people), len(people[0]))
    return auc(own.tolist(), other.tolist())


def frames_per_second(pack: Pack, seconds: float) -> tuple[float, float]:
    """Frames a second of detecting, embedding and matching two people: in batches, and by insightface frame
    by frame.
    """
    scene = sample_scene(1, "test", 2, ("talk",))
    frames = scene_rows([scene], BATCH, CLIP, torch.device("cpu"))["frames"].numpy()
    analyzer = FaceAnalyzer.load(pack.folder)
    references = pack.embeddings(pack.look(frames[0]))

    def one_by_one() -> None:
        for frame in frames:
            assign(references @ pack.embeddings(pack.look(frame)).T)

    def all_at_once() -> None:
        for faces in analyzer.analyze(frames):
            found = np.array([face.embedding for face in faces]).reshape(-1, references.shape[1])
            assign(references @ found.T)

    return _rate(all_at_once, seconds), _rate(one_by_one, seconds)


def _rate(work: Callable[[], None], seconds: float) -> float:
    """Frames a second of the fastest repetition, as timeit counts: others measure what else was running."""
    work()
    end, fastest = time.perf_counter() + seconds, math.inf
    while time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - begin)
    return BATCH / fastest


def judge_agreement(pack: Pack, folder: Path) -> Estimate:
    """How often pack and judge say the same of a face of the base's videos: is it its own person's, or more
    like another's? Over the cases with two or more people who have places.
    """
    analyzer = FaceAnalyzer.load(pack.folder)
    lab = Lab(folder / "measures", analyzer, with_judge=False)
    found: list[Agreement] = []
    cases = [case for case in read_cases(folder / "suite.jsonl") if case.places and len(case.places) > 1]
    for case in tqdm(cases, desc="agreement"):
        judged, file = lab.read("base", case).judged, video_file(folder / "videos" / "base", case)
        if judged is None or file is None:
            continue
        faces = analyzer.analyze(sample_frames(file).frames[::JUDGED_EVERY])
        if len(faces) != len(judged.boxes):
            raise InputError(f"{file} is not the video that was measured: run igrpo eval again")
        people = np.stack([one.face.embedding for one in find_people(case.references, analyzer)])
        found.append(agreement(faces, people, judged, case.places or ()))
    return bootstrap(found, agreement_share)


def measure(
    results: str = "docs/results/faces.json",
    pack: str = str(PACK),
    scenes: int = 200,
    people: int = 150,
    views: int = 6,
    seconds: float = 10.0,
    evaluation: str | None = None,
) -> None:
    """Measure a face pack and write the numbers.

    Args:
        results: JSON file for the numbers.
        pack: folder of the pack.
        scenes: scenes for the detector, half of them of two people, half of three.
        people: people for the recogniser. views: pictures of each.
        seconds: how long each speed is measured.
        evaluation: folder of an `igrpo eval` run of a model with the judge, for the agreement.
    """
    if scenes < 2 or people < 2 or views < 2 or seconds <= 0:
        raise InputError("scenes, people and views must be at least 2 and seconds positive")
    files = Pack(Path(pack))
    counts = detector_counts(files, scenes)
    estimates = {
        "detector_recall": bootstrap(counts, lambda some: sum(some, Counts()).recall),
        "false_faces_per_frame": bootstrap(counts, lambda some: sum(some, Counts()).false_per_picture),
    }
    for name, redrawn in (("recogniser_auc_redrawn", 1.0), ("recogniser_auc_kept", 0.0)):
        seen = [rows for rows in person_embeddings(files, people, views, redrawn) if rows is not None]
        estimates[name] = Estimate(recogniser_auc(seen), count=len(seen), reason="hardly a face was found")
    estimates["agreement"] = Estimate(None, reason="no evaluation was given")
    if evaluation is not None:
        estimates["agreement"] = judge_agreement(files, Path(evaluation))
    speeds = frames_per_second(files, seconds)
    sizes = {"scenes": scenes, "people": people, "views": views}
    _publish(files, estimates, speeds, sizes, Path(results))


def _publish(
    pack: Pack,
    estimates: dict[str, Estimate],
    speeds: tuple[float, float],
    sizes: dict[str, int],
    path: Path,
) -> None:
    rounded = {k: None if e.value is None else round(e.value, 4) for k, e in estimates.items()}
    metrics: dict[str, Any] = dict(rounded)
    metrics["frames_per_second"], metrics["frames_per_second_one_by_one"] = (round(s, 1) for s in speeds)
    files = [pack.folder / name for name in (DETECTOR_FILE, RECOGNISER_FILE, PACK_FILE)]
    metrics["pack_mib"] = round(sum(file.stat().st_size for file in files) / 2**20, 3)
    metrics["details"] = {name: estimate.as_json() for name, estimate in estimates.items()}
    metrics["counts"] = sizes
    notes = [
        f"{sizes['scenes']} scenes of two or three people of the test split, {FRAMES_A_SCENE} frames of each "
        f"at {CLIP.height}x{CLIP.width}. A face is to be found when at least half of the head is seen; found "
        "means an overlap of at least 0.5. Intervals: bootstrap 95 %, scenes resampled.",
        f"{sizes['people']} people of the test split, {sizes['views']} pictures of each, turned up to 35 "
        "degrees, detected, aligned and embedded by insightface. People are left out when one of their "
        "pictures shows it no face: details.NAME.count says how many are in.",
        "frames_per_second: detecting, embedding and matching two people, all frames of a clip at once; "
        "one_by_one: insightface called frame by frame with the same files, in the same run. The fastest "
        f"of the repetitions of {BATCH} frames that fit into some seconds.",
        "agreement: of faces in generated videos that both see at the place of a person, the share of which "
        "pack and judge say the same: most like this person, or not. Videos resampled.",
    ]
    words = " ".join(f"--{name} {value}" for name, value in sizes.items())
    given = " --evaluation DIR" if estimates["agreement"].count else ""
    command = f"python examples/benchmarks/faces_quality.py {words}{given}"
    write_results(path, command, hardware(), metrics, notes)
    for name, value in metrics.items():
        if not isinstance(value, dict):
            print(f"{name:30} {value}")
    print(path)


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
