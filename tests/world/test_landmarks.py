"""Boxes and points of faces, checked against what the renderer paints."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from igrpo_sdk.training.world.identities import COLUMN, identity_vectors
from igrpo_sdk.training.world.landmarks import FACE_TOP, face_geometry, locate, scene_faces
from igrpo_sdk.training.world.motion import CHANNELS, portrait_poses
from igrpo_sdk.training.world.renderer import render_closeups, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene, sample_scene
from igrpo_sdk.training.world.surface import head_surface

SIZE = 192
CPU = torch.device("cpu")


def people(count: int) -> Tensor:
    """Identity vectors of clean-shaven people without glasses, whose features nothing hides."""
    vectors = identity_vectors(torch.arange(count))
    for name in ("glasses", "beard", "moustache", "mole"):
        vectors[:, COLUMN[name]] = 0
    vectors[:, COLUMN["hair_style"]] = 0  # bald
    return vectors


def poses(count: int, max_yaw: float = 0.6, **fixed: float) -> Tensor:
    """Open eyes that look ahead, everything else drawn."""
    made = portrait_poses(torch.arange(count) + 11, max_yaw)
    for name, value in {"gaze_x": 0.0, "gaze_y": 0.0, "blink": 0.0, **fixed}.items():
        made[:, CHANNELS.index(name)] = value
    return made


def painted(vectors: Tensor, where: Tensor, changes: dict[str, float]) -> Tensor:
    """Pixels (N, H, W) that change when parameters of the people do."""
    other = vectors.clone()
    for name, value in changes.items():
        other[:, COLUMN[name]] = value
    seeds = torch.arange(len(vectors))
    pictures = [render_closeups(v, where, seeds, SIZE).float() for v in (vectors, other)]
    return (pictures[0] - pictures[1]).abs().sum(-1)


def centroid(weight: Tensor) -> Tensor:
    """Centre (2,) in pixels, 0 at the edge, of a weight (H, W)."""
    line = torch.arange(SIZE) + 0.5
    return torch.stack([(weight.sum(0) * line).sum(), (weight.sum(1) * line).sum()]) / weight.sum()


def test_eyes_are_where_irises_are_painted() -> None:
    vectors, where = people(12), poses(12)
    vectors[:, COLUMN["iris_colour"]] = 0.0
    changed = painted(vectors, where, {"iris_colour": 1.0})
    points = face_geometry(vectors, where, SIZE, SIZE).points
    for k in range(12):
        middle = int(points[k, :2, 0].mean())  # cuts the picture between the eyes
        left, right = changed[k].clone(), changed[k].clone()
        left[:, middle:], right[:, :middle] = 0, 0
        for eye, weight in enumerate((left, right)):
            # An iris is about 6 pixels wide; lids hide some of it.
            assert (centroid(weight) - points[k, eye]).norm() < 2.5, (k, eye)


def test_mouth_corners_are_where_lips_end() -> None:
    vectors, where = people(12), poses(12, open=0.0)
    vectors[:, COLUMN["lip_red"]] = 0.0
    changed = painted(vectors, where, {"lip_red": 1.0}) > 4
    points = face_geometry(vectors, where, SIZE, SIZE).points
    for k in range(12):
        columns = changed[k].any(0).nonzero().flatten()
        assert abs(float(columns.min()) - float(points[k, 3, 0])) < 4, k
        assert abs(float(columns.max()) + 1 - float(points[k, 4, 0])) < 4, k


@pytest.mark.parametrize(("max_yaw", "pixels"), [(0.0, 1.0), (0.25, 1.0), (0.45, 2.0)])
def test_a_mole_is_painted_where_a_feature_is_located(max_yaw: float, pixels: float) -> None:
    """Any feature of the face, not only the five: the mole is moved there. Turned away, a part of it is
    hidden.
    """
    u, v = torch.tensor([-0.22, -0.15, 0.0, 0.15, 0.22] * 2), torch.tensor([0.25] * 5 + [-0.3] * 5)
    u[7] = 0.1  # not under the nose
    count = len(u)
    vectors, where = people(count), poses(count, max_yaw)
    vectors[:, COLUMN["mole_x"]], vectors[:, COLUMN["mole_y"]] = u, v
    changed = painted(vectors, where, {"mole": 1.0})
    p = {name: vectors[:, column].view(-1, 1, 1) for name, column in COLUMN.items()}
    q = {name: where[:, column].view(-1, 1, 1) for column, name in enumerate(CHANNELS)}
    x, y = (t.flatten() for t in locate(u.view(-1, 1, 1), v.view(-1, 1, 1), p, q))
    cos, sin = (f(q["roll"]).flatten() for f in (torch.cos, torch.sin))
    scale = q["scale"].flatten()
    right = ((x * cos - y * sin) * scale + q["x"].flatten() + 1) * SIZE / 2
    down = (1 - (x * sin + y * cos) * scale - q["y"].flatten()) * SIZE / 2
    for k in range(count):
        assert (centroid(changed[k]) - torch.stack([right[k], down[k]])).norm() < pixels, k


def test_locating_inverts_the_surface() -> None:
    """Exact on the smooth skin; the tip of a turned nose hides some of the skin, so features beside it have
    none to be seen at.
    """
    count = 100
    vectors, where = identity_vectors(torch.arange(count)), portrait_poses(torch.arange(count), 0.61)
    p = {name: vectors[:, column].view(-1, 1, 1) for name, column in COLUMN.items()}
    q = {name: where[:, column].view(-1, 1, 1) for column, name in enumerate(CHANNELS)}
    u, v = torch.tensor([-0.28, 0.28, -0.1, 0.1]).view(1, 1, 4), torch.tensor([0.08, 0.08, -0.45, -0.45])
    x, y = locate(u, v.view(1, 1, 4), p, q)
    met = head_surface(x, y, torch.full_like(q["yaw"], 1e-3), p, q)
    error = torch.hypot(met.u - u, met.v - v)
    assert error.quantile(0.97) < 1e-3 and error.max() < 0.05


def test_box_of_a_face_that_looks_ahead() -> None:
    """From chin to hair line and as wide as the head: closed form when nothing is turned."""
    vectors = people(6)
    still = dict.fromkeys(("yaw", "pitch", "roll", "x", "y"), 0.0)
    where = poses(6, scale=0.7, **still)
    box = face_geometry(vectors, where, SIZE, SIZE).boxes
    half_w, half_h = (0.7 * SIZE / 2 * vectors[:, COLUMN[n]] for n in ("head_width", "head_height"))
    assert torch.allclose(box[:, 3], SIZE / 2 + half_h, atol=0.1)
    assert torch.allclose(box[:, 1], SIZE / 2 - FACE_TOP * half_h, atol=0.1)
    assert torch.allclose(box[:, 2] - box[:, 0], 2 * half_w, rtol=0.03)


@pytest.mark.parametrize("yaw", [-0.6, 0.6])
def test_box_of_a_turned_face_ends_where_the_head_does(yaw: float) -> None:
    """The side that is turned to the camera ends at the ear, the other at the head's edge."""
    vectors, where = people(6), poses(6, pitch=0.0, roll=0.0, yaw=yaw)
    geometry = face_geometry(vectors, where, SIZE, SIZE)
    skin = painted(vectors, where, {"skin_tone": 0.0, "skin_red": 1.0}) > 0
    for k in range(6):
        row = int(geometry.points[k, :2, 1].mean())
        columns = skin[k, row].nonzero().flatten()
        edges = (float(columns.min()), float(columns.max()) + 1)
        far, near = (edges[1], edges[0]) if yaw > 0 else (edges[0], edges[1])
        box = geometry.boxes[k]
        assert abs(float(box[2] if yaw > 0 else box[0]) - far) < 0.06 * SIZE
        ear = math.copysign(1, yaw) * (float(box[0] if yaw > 0 else box[2]) - near)
        assert ear > 0


def test_points_are_left_to_right_and_inside_the_box() -> None:
    vectors, where = identity_vectors(torch.arange(200)), portrait_poses(torch.arange(200), 0.61)
    faces = face_geometry(vectors, where, 112, 150)
    eye_left, eye_right, nose, mouth_left, mouth_right = faces.points.unbind(1)
    assert (eye_left[:, 0] < eye_right[:, 0]).all() and (mouth_left[:, 0] < mouth_right[:, 0]).all()
    assert (nose[:, 1] > eye_left[:, 1]).all() and (mouth_left[:, 1] > nose[:, 1]).all()
    slack = 2.0
    assert (faces.points.amin(1) > faces.boxes[:, :2] - slack).all()
    assert (faces.points.amax(1) < faces.boxes[:, 2:] + slack).all()


def test_scenes_and_their_faces_agree() -> None:
    """Faces lie inside the boxes of the heads that the renderer reports, sideways a little beyond."""
    scenes = [sample_scene(seed, "train") for seed in range(6)]
    made, faces = render_scenes(scenes, 48, 64, 3, 1.5), scene_faces(scenes, 48, 64, 3, 1.5, CPU)
    assert faces.boxes.shape == made.boxes.shape and faces.points.shape == (*made.boxes.shape[:3], 5, 2)
    assert faces.boxes.isfinite().all() and faces.points.isfinite().all()
    there = made.present[:, :, None].expand(-1, -1, 3)
    centre = (faces.boxes[..., :2] + faces.boxes[..., 2:]) / 2
    assert (centre > made.boxes[..., :2])[there].all() and (centre < made.boxes[..., 2:])[there].all()
    assert (faces.boxes[..., 1] > made.boxes[..., 1])[there].all()


def test_looks_do_not_move_a_face() -> None:
    scenes = [Scene((Actor(3, "middle", "stand", look),), "garden", "even", 1) for look in (None, 5)]
    faces = scene_faces(scenes, 48, 64, 2, 1.0, CPU)
    assert torch.equal(faces.points[0, 0], faces.points[1, 0])
    assert torch.equal(faces.boxes[0, 0], faces.boxes[1, 0])
