"""Rendered clips whose faces are known: an analyzer that looks up what the renderer drew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from igrpo_sdk.identity.analyzer import Face
from igrpo_sdk.training.world.identities import FACE_RANGES, NAMES, identity_vectors
from igrpo_sdk.training.world.landmarks import face_geometry, scene_faces
from igrpo_sdk.training.world.motion import CHANNELS, reference_poses
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

SEEN = 0.5
"""Share of a head that must be visible for its face to count as seen."""


class Truth:
    """Renders people and knows where they are and who they are: an `Analyzer` of its own pictures.

    A person's embedding is made of the numbers that their face is drawn from, each brought from its range
    to [-1, 1]. A frame is known by its pixels, so clips may be cut, joined and repeated.
    """

    name = "truth"
    same_person = 0.9

    def __init__(self) -> None:
        self._known: dict[bytes, list[Face]] = {}
        self._clips: dict[tuple[Scene, int], Frames] = {}

    def clip(self, scene: Scene, num_frames: int = 6) -> Frames:
        """A rendered scene, uint8 (T, 144, 192, 3), read-only."""
        if (scene, num_frames) not in self._clips:
            self._clips[scene, num_frames] = self._render(scene, num_frames)
        return self._clips[scene, num_frames]

    def _render(self, scene: Scene, num_frames: int) -> Frames:
        made = render_scenes([scene], num_frames=num_frames)
        faces = scene_faces([scene], 144, 192, num_frames, 8.0, torch.device("cpu"))
        frames: Frames = made.frames[0].numpy()
        frames.flags.writeable = False
        embeddings = embed([actor.identity for actor in scene.actors])
        for t, frame in enumerate(frames):
            self._known[frame.tobytes()] = [
                Face(faces.boxes[0, p, t].numpy(), faces.points[0, p, t].numpy(), 1.0, embeddings[p])
                for p in range(len(scene.actors))
                if made.visible[0, p, t] >= SEEN
            ]
        return frames

    def references(self, *people: int, seed: int = 11) -> list[Frames]:
        """Close-ups of people, uint8 (144, 144, 3)."""
        numbers = torch.tensor(people)
        seeds = torch.full_like(numbers, seed)
        pose = reference_poses(seeds * 7919 + numbers)
        poses = torch.stack([pose[name].view(-1) for name in CHANNELS], -1)
        faces = face_geometry(identity_vectors(numbers), poses, 144, 144)
        pictures = list(render_references(numbers, seeds).numpy())
        for k, (picture, embedding) in enumerate(zip(pictures, embed(people), strict=True)):
            face = Face(faces.boxes[k].numpy(), faces.points[k].numpy(), 1.0, embedding)
            self._known[picture.tobytes()] = [face]
        return pictures

    def pasted(self, picture: Frames, num_frames: int) -> Frames:
        """A clip (T, 144, 192, 3) that shows a reference of this truth and nothing else."""
        frames = np.full((num_frames, 144, 192, 3), 120, np.uint8)
        frames[:, :, 24:168] = picture
        (face,) = self._known[picture.tobytes()]
        shift = np.array([24, 0], np.float32)
        moved = Face(face.box + np.tile(shift, 2), face.points + shift, face.score, face.embedding)
        self._known[frames[0].tobytes()] = [moved]
        return frames

    def analyze(self, frames: Frames) -> list[list[Face]]:
        """The faces of frames, from left to right; none where nobody was drawn."""
        known = [self._known.get(frame.tobytes(), []) for frame in frames]
        return [sorted(faces, key=lambda face: float(face.box[0] + face.box[2])) for faces in known]


def embed(people: Sequence[int]) -> Floats:
    """Embeddings (N, 46) of people: a unit vector each."""
    vectors = identity_vectors(torch.tensor(people))[:, [NAMES.index(name) for name in FACE_RANGES]].numpy()
    low, high = np.array(list(FACE_RANGES.values()), np.float32).T
    rows = 2 * (vectors - low) / (high - low) - 1
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def scene(*people: int, places: Sequence[str] = (), action: str = "stand", seed: int = 3) -> Scene:
    """People side by side, from left to right unless other places are given, all doing the same."""
    standard = {1: ("middle",), 2: ("left", "right"), 3: ("left", "middle", "right")}[len(people)]
    actors = zip(people, places or standard, strict=True)
    return Scene(tuple(Actor(who, where, action) for who, where in actors), "blue wall", "even", seed)
