"""From scenes to poses: what every head does in every frame.

Channels of a pose, each a tensor of shape (B, P, T). Coordinates: x to the right and y up, in half picture
heights, the picture's centre at 0. Angles in radians: positive yaw turns the face to the picture's right,
positive pitch lowers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from igrpo_sdk.identity.places import PLACES

from .hashing import uniforms
from .scenes import ACTIONS, LIGHTS, MAX_PEOPLE, Scene

Pose = dict[str, Tensor]
CHANNELS = (
    "x", "y", "scale", "yaw", "pitch", "roll", "open", "smile", "blink", "gaze_x", "gaze_y", "brow",
    "light_x", "light_y", "ambient", "warm", "gain",
)  # fmt: skip

_SCENE_STREAM, _REFERENCE_STREAM, _PORTRAIT_STREAM = 3, 4, 6
_PLACE_X = {1: (0.0, 0.0, 0.0), 2: (-0.62, 0.0, 0.62), 3: (-0.87, 0.0, 0.87)}  # left, middle, right
_HEAD_SCALE = {1: 0.62, 2: 0.58, 3: 0.45}
_SWAPPERS_NEARER = 0.12  # how much nearer to the middle two people stand who swap: less way to go in one clip
_OUTSIDE = 1.62  # where someone who walks in starts: the centre of the head is well outside a 4:3 frame
# light: (horizontal direction, ambient share, warmth, gain)
_LIGHT = {
    "even": (0.0, 0.52, 0.0, 1.0), "warm": (0.1, 0.46, 1.0, 1.0), "cool": (-0.1, 0.46, -1.0, 1.0),
    "dim": (0.0, 0.46, 0.1, 0.72), "left": (-0.6, 0.28, 0.0, 1.04), "right": (0.6, 0.28, 0.0, 1.04),
}  # fmt: skip


def scene_poses(scenes: Sequence[Scene], num_frames: int, fps: float, device: torch.device) -> Pose:
    """The pose of every actor in every frame: each channel float32 (B, P, T), P = `MAX_PEOPLE`.

    Slots without an actor have scale 0 and mean nothing. Frame t is at t / fps seconds; walking, swapping and
    the like take the whole clip, however long it is. The speeds are meant for the 17 frames at 16 frames a
    second of the tiny models, whose VAE keeps four frames in one latent frame.
    """
    facts = _facts(scenes, device)
    keys = torch.tensor([s.seed for s in scenes], device=device)[:, None] * MAX_PEOPLE
    keys = (keys + torch.arange(MAX_PEOPLE, device=device)).reshape(-1)
    draws = uniforms(keys, 24, _SCENE_STREAM).view(len(scenes), MAX_PEOPLE, 24, 1)
    seconds = torch.arange(num_frames, device=device).view(1, 1, -1) / fps
    progress = torch.arange(num_frames, device=device).view(1, 1, -1) / max(num_frames - 1, 1)
    pose = _rest(facts, draws, seconds)
    _act(pose, facts, draws, seconds, progress)
    _walk(pose, facts, progress)
    _illuminate(pose, scenes, draws)
    return {name: pose[name].expand(len(scenes), MAX_PEOPLE, num_frames) for name in CHANNELS}


def reference_poses(seeds: Tensor) -> Pose:
    """Close-ups in poses, expressions and lights drawn from int64 seeds (N,): each channel (N, 1, 1)."""
    u = uniforms(seeds, 16, _REFERENCE_STREAM)[:, :, None, None]

    def span(k: int, low: float, high: float) -> Tensor:
        return low + (high - low) * u[:, k]

    return {
        "x": span(0, -0.05, 0.05), "y": span(1, -0.02, 0.06), "scale": span(2, 0.62, 0.74),
        "yaw": span(3, -0.40, 0.40), "pitch": span(4, -0.16, 0.16), "roll": span(5, -0.12, 0.12),
        "open": span(6, -1.2, 0.8).clamp(min=0), "smile": span(7, -0.2, 0.9), "blink": span(8, 0.0, 0.15),
        "gaze_x": span(9, -0.4, 0.4), "gaze_y": span(10, -0.3, 0.3), "brow": span(11, -0.2, 0.6),
        "light_x": span(12, -0.5, 0.5), "light_y": span(13, 0.0, 0.5), "ambient": span(14, 0.36, 0.55),
        "warm": span(15, -0.6, 0.6), "gain": torch.ones_like(u[:, 0]),
    }  # fmt: skip


def portrait_poses(seeds: Tensor, max_yaw: float = 0.61) -> Tensor:
    """Poses (N, C) of single people of many sizes, as turned, lit and expressive as people in scenes are.

    Args:
        seeds: int64 (N,).
        max_yaw: largest turn to either side in radians; 0.61 is 35 degrees.
    """
    pose = reference_poses(seeds)
    u = uniforms(seeds, 5, _PORTRAIT_STREAM)[:, :, None, None]
    pose["yaw"] = max_yaw * (2 * u[:, 0] - 1)
    pose["scale"] = 0.5 * 1.9 ** u[:, 1]
    pose["pitch"], pose["warm"] = 1.8 * pose["pitch"], 1.9 * pose["warm"]
    pose["blink"] = 0.95 * u[:, 4] ** 4
    pose["smile"], pose["light_x"] = 1.3 * pose["smile"], 1.35 * pose["light_x"]
    pose["open"] = 1.5 * pose["open"]
    pose["ambient"] = 0.27 + 0.28 * u[:, 2]
    pose["gain"] = 0.68 + 0.42 * u[:, 3]
    return torch.stack([pose[name].view(-1) for name in CHANNELS], -1)


def _facts(scenes: Sequence[Scene], device: torch.device) -> dict[str, Tensor]:
    """Per-actor facts, each (B, P, 1): start and end x, scale, front (1; -1 behind), a 0/1 mask an action."""
    count = len(scenes)
    start, end, scale, front = (torch.zeros(count, MAX_PEOPLE) for _ in range(4))
    action = torch.zeros(count, MAX_PEOPLE, dtype=torch.int64)
    for b, scene in enumerate(scenes):
        xs = [_PLACE_X[len(scene.actors)][PLACES.index(a.place)] for a in scene.actors]
        swappers = [p for p, a in enumerate(scene.actors) if a.action == "swap"]
        for p, actor in enumerate(scene.actors):
            start[b, p] = end[b, p] = xs[p]
            action[b, p] = ACTIONS.index(actor.action)
            scale[b, p] = _HEAD_SCALE[len(scene.actors)]
        if swappers:
            first, second = swappers
            for p in swappers:
                start[b, p] = xs[p] - math.copysign(_SWAPPERS_NEARER, xs[p]) if xs[p] else 0.0
            end[b, first], end[b, second] = float(start[b, second]), float(start[b, first])
            front[b, first], front[b, second] = 1.0, -1.0
    facts = {"start": start, "end": end, "scale": scale, "front": front}
    facts |= {name: (action == k).float() for k, name in enumerate(ACTIONS)}
    return {name: value.unsqueeze(-1).to(device) for name, value in facts.items()}


def _wave(draws: Tensor, k: int, seconds: Tensor, low_hz: float, high_hz: float) -> Tensor:
    """A sine of drawn frequency and phase, using draws k and k+1."""
    hz = low_hz + (high_hz - low_hz) * draws[:, :, k]
    return torch.sin(2 * math.pi * (hz * seconds + draws[:, :, k + 1]))


def _ramp(progress: Tensor, begin: float, finish: float) -> Tensor:
    t = ((progress - begin) / (finish - begin)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _glide(progress: Tensor, begin: float, finish: float, ease: float = 0.15) -> Tensor:
    """From 0 to 1 at a constant speed, with a soft start and a soft end that each take the share `ease`.

    The highest speed is 1 / (1 - ease) times the mean, where `_ramp` reaches 1.5 times the mean.
    """
    t = ((progress - begin) / (finish - begin)).clamp(0, 1)
    soft = torch.where(t < 0.5, t.clamp(max=ease), (1 - t).clamp(max=ease))
    rising = soft * soft / (2 * ease) + (t.clamp(max=0.5) - soft).clamp(min=0)
    falling = 1 - ease - soft * soft / (2 * ease) - ((1 - t) - soft).clamp(min=0)
    return torch.where(t < 0.5, rising, falling) / (1 - ease)


def _rest(facts: dict[str, Tensor], draws: Tensor, seconds: Tensor) -> Pose:
    """Standing: small sway, a blink in about half of the clips of a second, a look at the camera."""

    def span(k: int, low: float, high: float) -> Tensor:
        return low + (high - low) * draws[:, :, k]

    sway = _wave(draws, 0, seconds, 0.2, 0.5)
    blink_at = span(2, -0.6, 1.6)
    return {
        "x": facts["start"] + span(3, -0.05, 0.05) + 0.008 * sway,
        "y": span(4, -0.02, 0.08) + 0 * sway,
        "scale": facts["scale"] * span(5, 0.94, 1.06) + 0 * sway,
        "yaw": span(6, -0.20, 0.20) + 0.03 * sway, "pitch": span(7, -0.06, 0.08) + 0.02 * sway,
        "roll": span(8, -0.06, 0.06) + 0.02 * sway,
        "open": 0 * sway, "smile": span(9, -0.15, 0.15) + 0 * sway,
        "blink": 0.95 * torch.exp(-(((seconds - blink_at) / 0.10) ** 2)),
        "gaze_x": span(10, -0.15, 0.15) + 0 * sway, "gaze_y": span(11, -0.1, 0.1) + 0 * sway,
        "brow": span(12, -0.1, 0.3) + 0 * sway,
    }  # fmt: skip


def _act(pose: Pose, f: dict[str, Tensor], draws: Tensor, seconds: Tensor, progress: Tensor) -> None:
    """Add what each action does to the head, in place."""
    speech = _wave(draws, 13, seconds, 1.6, 2.4)
    fast = _wave(draws, 15, seconds, 0.85, 1.15)
    slow = _wave(draws, 17, seconds, 0.42, 0.55)
    rise = _ramp(progress, 0.0, 0.5)
    turned = _ramp(progress, 0.05, 0.8)
    inward = -torch.sign(f["start"] + 1e-3)  # towards the others; the middle person turns to the left
    pose["open"] += f["talk"] * (0.42 + 0.40 * speech) + f["laugh"] * (1.0 + 0.18 * speech) * rise
    pose["smile"] += f["smile"] * rise + f["laugh"] * (0.5 + 0.5 * rise)
    pose["blink"] += f["laugh"] * 0.35 * rise
    pose["brow"] += f["talk"] * 0.3 * slow + f["laugh"] * 0.4 * rise
    pose["y"] += f["laugh"] * 0.018 * speech * rise
    pose["pitch"] += f["nod"] * 0.30 * fast - f["laugh"] * 0.12 * rise
    pose["yaw"] += (
        f["shake"] * 0.40 * fast + f["look_around"] * 0.50 * slow + f["turn"] * 0.52 * inward * turned
    )
    # The eyes lead: they are where the head goes before the head is.
    pose["gaze_x"] += f["look_around"] * 1.2 * slow + f["turn"] * 1.2 * inward * rise
    pose["scale"] *= 1 + f["lean_in"] * 0.30 * _glide(progress, 0.0, 1.0)
    pose["y"] -= f["lean_in"] * 0.05 * _glide(progress, 0.0, 1.0)
    pose["blink"] = pose["blink"].clamp(max=0.95)


def _walk(pose: Pose, f: dict[str, Tensor], progress: Tensor) -> None:
    """Walking in from the nearer side, and swapping places, in place."""
    outside = torch.sign(f["start"] + 1e-3) * _OUTSIDE
    enter = _glide(progress, 0.0, 0.95)
    pose["x"] += f["walk_in"] * (outside - f["start"]) * (1 - enter)
    pose["yaw"] -= f["walk_in"] * 0.45 * torch.sign(outside) * (1 - _ramp(progress, 0.4, 1.0))
    pose["y"] += f["walk_in"] * 0.012 * torch.sin(progress * 12) * (1 - enter)
    cross = _glide(progress, 0.0, 1.0)
    pose["x"] += (f["end"] - f["start"]) * cross
    midway = 4 * cross * (1 - cross)
    pose["yaw"] += f["swap"] * 0.45 * torch.sign(f["end"] - f["start"]) * midway
    pose["scale"] *= 1 + 0.10 * f["front"] * midway


def _illuminate(pose: Pose, scenes: Sequence[Scene], draws: Tensor) -> None:
    """One light for the whole scene, the same for its people, in place."""
    rows = torch.tensor([_LIGHT[s.light] for s in scenes], device=draws.device)[:, :, None, None]
    shared = draws[:, :1, 20:24]  # the first slot's draws, so that everybody stands in the same light
    pose["light_x"] = (rows[:, 0] + 0.12 * (shared[:, :, 0] - 0.5)).expand(-1, MAX_PEOPLE, -1)
    pose["light_y"] = (0.15 + 0.25 * shared[:, :, 1]).expand(-1, MAX_PEOPLE, -1)
    pose["ambient"] = rows[:, 1].expand(-1, MAX_PEOPLE, -1)
    pose["warm"] = (rows[:, 2] + 0.2 * (shared[:, :, 2] - 0.5)).expand(-1, MAX_PEOPLE, -1)
    pose["gain"] = (rows[:, 3] * (0.96 + 0.08 * shared[:, :, 3])).expand(-1, MAX_PEOPLE, -1)


assert set(_LIGHT) == set(LIGHTS)
