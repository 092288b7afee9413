"""Whether the analyzer and the judge say the same of the same faces: own or other?

A face belongs to the person at whose place it stands. It is told right when it is most similar to that
person's reference, and wrong when it is nearer to another's. Analyzer and judge each decide that for every
face that both of them see; the agreement is the share of faces for which they decide alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from igrpo_sdk.identity.analyzer import Face
from igrpo_sdk.identity.matching import NOBODY
from igrpo_sdk.identity.places import follow_places
from igrpo_sdk.training.evaluation.measures import Judged

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Of one video: how many faces both saw at somebody's place, and of how many they say the same."""

    alike: int
    faces: int


def agreement(
    faces: Sequence[Sequence[Face]], references: Floats, judged: Judged, places: Sequence[str]
) -> Agreement:
    """Compare the decisions on one video of two or more people, who have places.

    Args:
        faces: those that the analyzer found in the N frames that the judge looked at.
        references: the analyzer's embeddings (K, D) of the references.
        judged: what the judge saw in these frames.
        places: see `follow_places`.
    """
    centres = [[float(face.box[0] + face.box[2]) / 2 for face in some] for some in faces]
    owners = follow_places(centres, places, judged.width)
    alike: list[bool] = []
    for t, some in enumerate(faces):
        same = same_faces(some, judged.boxes[t])
        for person, m in enumerate(owners[t]):
            if m != NOBODY and same[m] != NOBODY:
                ours = _own(references @ some[m].embedding, person)
                alike.append(ours == _own(judged.similarity[t][same[m]], person))
    return Agreement(sum(alike), len(alike))


def same_faces(faces: Sequence[Face], boxes: Floats) -> NDArray[np.int64]:
    """For each of M faces the index of the box (M', 4) that shows the same face, or `NOBODY`.

    One to one, with the least sum of distances of the centres; a box whose centre is outside of the face's
    own box is another face's.
    """
    found = np.full(len(faces), NOBODY, np.int64)
    if not faces or not len(boxes):
        return found
    own = np.stack([face.box for face in faces])
    middles, others = (own[:, :2] + own[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2
    rows, columns = linear_sum_assignment(np.linalg.norm(middles[:, None] - others[None], axis=-1))
    inside = (own[rows, :2] <= others[columns]) & (others[columns] <= own[rows, 2:])
    found[rows[inside.all(1)]] = columns[inside.all(1)]
    return found


def agreement_share(videos: Sequence[Agreement]) -> float | None:
    """Share of the faces of all videos for which both say the same; None of no faces."""
    total = sum(video.faces for video in videos)
    return sum(video.alike for video in videos) / total if total else None


def _own(similarity: Floats, person: int) -> bool:
    """Whether similarities (K,) to the references are largest for the person; a tie is not."""
    return bool(similarity[person] > np.delete(similarity, person).max())
