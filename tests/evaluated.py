"""What the tests of the evaluation share: rendered videos of cases, suites as files, measures made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from igrpo_sdk import IdentityReport, IdentityVideo
from igrpo_sdk.identity.report import PersonReport
from igrpo_sdk.training.data.rows import Case
from igrpo_sdk.training.evaluation.measures import Judged, Measures
from igrpo_sdk.training.reader.network import Followed
from igrpo_sdk.training.world.renderer import render_scenes


def render_videos(cases: Sequence[Case], folder: Path, num_frames: int = 5, strangers: bool = False) -> None:
    """The videos that cases ask for, drawn; with `strangers` each person 1 is somebody else."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        scene = case.scene
        assert scene is not None
        if strangers:
            first, *others = scene.actors
            scene = replace(scene, actors=(replace(first, identity=first.identity - 77), *others))
        frames = render_scenes([scene], num_frames=num_frames).frames[0].numpy()
        IdentityVideo(frames, 8).save(folder / f"{case.id}.mp4", overwrite=True)


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    """A suite file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def made_up(
    name: str,
    part: str,
    similarity: Sequence[float],
    *,
    places: tuple[str, ...] | None = ("left", "right"),
    judged: Sequence[Sequence[Sequence[float]]] | None = None,
    followed: Followed | None = None,
) -> Measures:
    """Measures of a video of two frames: of each person k the similarity, and, in each of some judged frames,
    the similarities of the faces, from left to right, to everybody.
    """
    people = []
    for k, value in enumerate(similarity):
        curve = (value, value)
        own = {} if places is None else {"place": places[k], "owned": curve, "owned_margin": curve}
        box = (0.0, 0.0, 1.0, 1.0)
        person = PersonReport(f"person {k + 1}", (box, box), curve, (True, True), curve, curve, curve, curve)
        people.append(replace(person, **own))
    report = IdentityReport("made up", 0.5, (0, 1), tuple(people), (2, 2), (), (0.01,))
    seen = None
    if judged is not None:
        boxes = [np.array([[90.0 * m, 0, 90.0 * m + 10, 10] for m in range(len(t))]) for t in judged]
        tables = [np.array(table, np.float32).reshape(-1, len(similarity)) for table in judged]
        seen = Judged(100, tuple(b.astype(np.float32).reshape(-1, 4) for b in boxes), tuple(tables))
    references = tuple(Path(f"{name}-{k}.png") for k in range(len(similarity)))
    case = Case(name, part, references, "A <b>prompt</b> & more.", "A prompt.", 1, places)
    return Measures(case, report, seen, followed, report.warnings)
