"""The people and scenes the tiny models are trained on, as pictures and a video.

python examples/render_people.py [--folder FOLDER]

Writes close-ups of the two people of examples/faces (which were made by this), a sheet of forty others, and
a scene in which the two appear, which is what the models learn from.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import auto_cli
from PIL import Image

from igrpo_sdk import IdentityVideo
from igrpo_sdk.training.world.captions import caption
from igrpo_sdk.training.world.identities import SPLITS
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

PEOPLE = SPLITS["validation"]  # nothing is trained on them
FACES = {"ann": (PEOPLE[30], 3), "bob": (PEOPLE[33], 6)}
"""Number of the person, and seed of the pose, the expression, the light and the background of the picture."""


def close_up(name: str, size: int = 512) -> Image.Image:
    """The picture of ann or bob, a square of `size` pixels."""
    person, seed = FACES[name]
    return Image.fromarray(render_references(torch.tensor([person]), torch.tensor([seed]), size)[0].numpy())


def sheet(rows: int = 5, columns: int = 8, size: int = 128) -> Image.Image:
    """Close-ups of the first validation people, side by side."""
    numbers = torch.arange(rows * columns)
    pictures = render_references(PEOPLE[0] + numbers, numbers, size).view(rows, columns, size, size, 3)
    return Image.fromarray(pictures.transpose(1, 2).reshape(rows * size, columns * size, 3).numpy())


def scene_video() -> IdentityVideo:
    """Ann laughs on the left while Bob nods, with the prompt that says so among the settings."""
    actors = (Actor(FACES["ann"][0], "left", "laugh"), Actor(FACES["bob"][0], "right", "nod"))
    scene = Scene(actors, background="blue wall", light="warm", seed=7)
    frames = render_scenes([scene]).frames[0].numpy()
    return IdentityVideo(frames, fps=16.0, settings={"prompt": caption(scene, seed=7)})


def main(folder: str = ".") -> None:
    """Write all of them.

    Args:
        folder: where they go; made if it is not there.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in FACES:
        close_up(name).save(target / f"{name}.png", optimize=True)
    sheet().save(target / "people.png")
    video = scene_video()
    print(video.save(target / "scene.mp4", overwrite=True), video.settings["prompt"])


if __name__ == "__main__":
    auto_cli(main)
