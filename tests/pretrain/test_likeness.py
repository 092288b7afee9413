"""The recogniser that losses look through: what it compares, and which faces it is shown."""

from __future__ import annotations

from pathlib import Path

import torch

from igrpo_sdk.training.commands import train_world
from igrpo_sdk.training.pretrain.clips import Windows
from igrpo_sdk.training.pretrain.faces.alignment import template
from igrpo_sdk.training.pretrain.faces.likeness import load_likeness, unlikeness
from igrpo_sdk.training.pretrain.faces.recogniser import Recogniser, RecogniserModel
from igrpo_sdk.training.pretrain.vae import VaeLoss, choose_faces

CPU = torch.device("cpu")


def network() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(RecogniserModel((8, 8, 8), (0, 1, 0), 16)).eval().requires_grad_(False)


def test_the_same_picture_is_not_unlike_and_gradients_reach_what_was_made() -> None:
    real, points = torch.rand(2, 3, 112, 112) * 2 - 1, template(CPU).expand(2, -1, -1)
    same = unlikeness(network(), real, real, points)
    assert same.features.abs().max() < 1e-6
    assert same.identity.abs().max() < 1e-6
    made = (real.roll(1, 0) * 0.9).requires_grad_()
    found = unlikeness(network(), made, real, points)
    assert (found.features > 1e-4).all()
    (found.features.sum() + found.identity.sum()).backward()
    assert made.grad is not None and made.grad.abs().sum() > 0


def test_only_whole_faces_are_compared() -> None:
    whole = torch.zeros(2, 3, 4, dtype=torch.bool)
    whole[0, 1, 2] = whole[0, 0, 3] = True
    points = torch.full((2, 3, 4, 5, 2), torch.nan)
    points[whole] = torch.arange(20.0).view(2, 5, 2)
    windows = Windows(torch.zeros(2, 3, 4, 8, 8), torch.zeros(2, 1, 4, 8, 8), points, whole)
    chosen = choose_faces(windows, VaeLoss(faces=3), torch.Generator().manual_seed(0))
    assert chosen["face_weights"].tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert sorted(chosen["face_frames"][0, :2].tolist()) == [2, 3]
    assert chosen["face_points"].isfinite().all(), "a weight of 0 undoes no number that is none"
    for frame, found in zip(chosen["face_frames"][0, :2], chosen["face_points"][0, :2], strict=True):
        assert torch.equal(found, points[0, 1, 2] if frame == 2 else points[0, 0, 3])


def test_it_is_written_and_loaded(tmp_path: Path) -> None:
    train_world("tiny_likeness_smoke", output=str(tmp_path), device="cpu")
    loaded = load_likeness(tmp_path, CPU)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded(torch.zeros(1, 3, 112, 112)).shape == (1, 16)
