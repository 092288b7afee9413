"""Credit by face: each person's advantage weighs the latents of their own face, and no others.

How much a face looks like somebody is decided at that face. A reward of the whole video credits everything
else in it too, and one person's face with the other's likeness: noise, which a gradient of as many values as
a video has cannot afford. The idea is that of rewards to go: nothing is credited with what it does not cause.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from igrpo_sdk.identity.report import IdentityReport, PersonReport

from .advantages import normalise
from .rollout import Video

__all__ = ["face_cells", "face_credit"]

Box = tuple[float, float, float, float]
# Of a box's sides. Noise put into these latents of tiny-vace's videos moves likeness four times as much as
# noise in all others within 1.5 sides, which are 2.4 times as many and would add as much noise to a gradient.
_INNER = 0.8


def face_cells(
    boxes: Sequence[Box | None],
    weights: Sequence[float],
    frame_numbers: Sequence[int],
    cell: tuple[int, int],
    shape: Sequence[int],
) -> Tensor:
    """Weights of faces on the latents that their inner parts lie in, float32 [T, h, w], 0 elsewhere.

    Args:
        boxes: x0, y0, x1, y1 of the face in each measured frame, pixels; None where there is none.
        weights: of the face in each measured frame; a latent frame has the mean of its frames.
        frame_numbers: of the measured frames in the video.
        cell: frames and pixels of a latent. The first latent frame is the first frame alone.
        shape: (T, h, w).
    """
    cells = np.zeros(shape, np.float32)  # a step adds thousands of boxes, each in a tenth of torch's time
    frames, pixels = cell
    latent_frames = [(number + frames - 1) // frames for number in frame_numbers]
    for latent, box, weight in zip(latent_frames, boxes, weights, strict=True):
        if box is not None:
            x0, y0, x1, y1 = box
            rows, columns = _span(y0, y1, pixels), _span(x0, x1, pixels)
            cells[latent, rows, columns] += weight / latent_frames.count(latent)
    return torch.from_numpy(cells)


def face_credit(
    reports: Mapping[Video, IdentityReport | None],
    cell: tuple[int, int],
    shape: Sequence[int],
    floor: float,
    clip: float,
) -> dict[Video, Tensor]:
    """What the latents of each video, by (group, member), weigh: float32 [T, h, w].

    The sum over people of their advantage in each frame, where their face is: how much more it is like them
    than like anybody else of the references (with one reference: how much it is like them), normalised over
    the members of the group (`advantages.normalise`) to [-clip, clip]. With places a person's face is the one
    that stands at their place. Without, nobody who is not seen in a frame is compared there: people may
    enter, and those who do so early would else be the better ones. Of every latent the mean over the group is
    taken off: where a face is that others lack, it would else be rewarded for being there, and what all
    members have in common, which no advantage may teach, would be learned. 0 everywhere for a video without a
    report.

    Args:
        reports: of every video; None for one that was not measured.
        cell, shape: see `face_cells`.
        floor, clip: of advantages.
    """
    groups = defaultdict[int, list[Video]](list)
    for video in reports:
        groups[video[0]].append(video)
    credit = {video: torch.zeros(*shape) for video in reports}
    for videos in groups.values():
        known = [(video, report) for video in videos if (report := reports[video]) is not None]
        if not known:
            continue
        scores = [[_compared(person) for person in report.people] for _, report in known]
        advantages = _over_members(torch.tensor(scores, dtype=torch.float64), floor, clip)
        for (video, report), of_people in zip(known, advantages.tolist(), strict=True):
            for person, of_frames in zip(report.people, of_people, strict=True):
                credit[video] += face_cells(_boxes(person), of_frames, report.frame_numbers, cell, shape)
        mean = torch.stack([credit[video] for video, _ in known]).mean(0)
        for video, _ in known:
            credit[video] -= mean
    return credit


def _compared(person: PersonReport) -> Sequence[float]:
    """How much more like themselves than like others a person is in each frame; NaN where not compared."""
    if person.owned is not None:
        return person.owned if person.owned_margin is None else person.owned_margin
    likeness = person.similarity if person.margin is None else person.margin
    return [math.nan if box is None else one for one, box in zip(likeness, person.boxes, strict=True)]


def _over_members(table: Tensor, floor: float, clip: float) -> Tensor:
    """[members, K, frames], each person's each frame normalised over the members; 0 for NaN."""
    advantages = normalise(table.flatten(1).T, floor).clamp(-clip, clip).nan_to_num(nan=0.0)
    return advantages.T.view(table.shape)


def _span(start: float, end: float, pixels: int) -> slice:
    """The latents along one side of a box: those with their centre in its inner part, at least one."""
    middle, half = (start + end) / 2, _INNER * (end - start) / 2
    first, last = math.ceil((middle - half) / pixels - 0.5), math.floor((middle + half) / pixels - 0.5)
    if last < first:
        first = last = math.floor(middle / pixels)
    return slice(max(0, first), max(0, last + 1))


def _boxes(person: PersonReport) -> Sequence[Box | None]:
    return person.boxes if person.owned_boxes is None else person.owned_boxes
