"""Who is in a video, how much like themselves, and for how long: as numbers, as JSON, and as a picture.

python examples/measure.py [--video VIDEO] [--folder FOLDER]

Without a video of its own it measures a rendered scene in which ann and bob of examples/faces take each
other's place halfway: everybody is always there, and yet two identities switch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from igrpo_sdk import FaceAnalyzer, IdentityVideo, find_people, measure
from igrpo_sdk.training.world.identities import SPLITS
from igrpo_sdk.training.world.renderer import render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

FACES = Path(__file__).parent / "faces"
ANN, BOB = SPLITS["validation"][30], SPLITS["validation"][33]


def exchanged_faces() -> IdentityVideo:
    """Two halves of the same scene, with the people exchanged."""
    halves = [
        Scene((Actor(left, "left", "talk"), Actor(right, "right", "nod")), "garden", "warm", seed=7)
        for left, right in ((ANN, BOB), (BOB, ANN))
    ]
    frames = render_scenes(halves, num_frames=9).frames.numpy()
    return IdentityVideo(np.concatenate(list(frames)), fps=16.0)


def main(video: str | None = None, folder: str = ".") -> None:
    """Measure a video and write report.json and report.png.

    Args:
        video: a .mp4, .webm or .gif file with ann and bob in it.
        folder: where the report goes; made if it is not there.
    """
    clip = exchanged_faces() if video is None else IdentityVideo.load(video)
    analyzer = FaceAnalyzer.load()  # "tiny": for rendered people; photographs need another pack
    people = find_people([FACES / "ann.png", FACES / "bob.png"], analyzer)
    report = measure(clip.frames, people, analyzer)
    for person in report.people:
        print(person.name, person.summary())
    print(f"{len(report.switches)} identity switches, mean similarity {report.mean:.2f}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "report.json").write_text(report.to_json(), "utf-8")
    print(report.plot(target / "report.png", clip.frames, people, overwrite=True))


if __name__ == "__main__":
    auto_cli(main)
