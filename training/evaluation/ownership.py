"""Which detected face belongs to whom, decided by the place the prompt gave and never by the embedding.

Choosing the best matching face first would flatter every model: of two strangers one is always nearer. So a
face is owned by the person whom the prompt put where the face is. Faces start at the places (left, middle,
right) and are then followed from frame to frame, one face a person, in clips where nobody crosses. From
that comes the own-versus-other AUC (whether a face is more similar to its own reference than faces are to the
other people's). With blank references it must be about 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import follow_places

from ..common.statistics import auc

__all__ = ["OwnedVideo", "own_other_auc", "own_video"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class OwnedVideo:
    """Similarities of one judged video with P people and N judged frames.

    similarity: float32 (N, P, P); entry [t, i, j] is the cosine of the face standing in for person i in
    frame t and the reference of person j; rows of people who were not found are zero.
    found: bool (N, P), whether a face stands in for person i in frame t.
    expected: bool (N, P), whether person i should be there.
    """

    similarity: Floats
    found: NDArray[np.bool_]
    expected: NDArray[np.bool_]

    @property
    def own(self) -> list[float]:
        """Similarity of every found face to its own reference."""
        return [float(self.similarity[t, i, i]) for t, i in np.argwhere(self.found)]

    @property
    def other(self) -> list[float]:
        """Similarity of every found face to each other person's reference."""
        people = range(self.similarity.shape[1])
        return [float(self.similarity[t, i, j]) for t, i in np.argwhere(self.found) for j in people if j != i]


def own_video(
    centres: Sequence[Sequence[float]],
    embeddings: Sequence[Floats],
    references: Floats,
    places: Sequence[str],
    width: float,
    expected: NDArray[np.bool_] | None = None,
) -> OwnedVideo:
    """Owners by place, and the similarities of every face to every reference.

    Args:
        centres: see `follow_places`.
        embeddings: for each of N frames float32 (its faces, D), length 1.
        references: float32 (P, D), length 1, person i's in row i.
        places: see `follow_places`.
        width: of the frames, pixels.
        expected: bool (N, P), who should be seen in which frame; None means everybody, always.
    """
    owners = follow_places(centres, places, width)
    if len(references) != len(places):
        raise InputError(f"{len(references)} references were given for {len(places)} places: give one each")
    similarity = np.zeros((*owners.shape, len(places)), np.float32)
    for t, i in np.argwhere(owners >= 0):
        similarity[t, i] = references @ embeddings[t][owners[t, i]]
    should = np.ones(owners.shape, bool) if expected is None else expected
    return OwnedVideo(similarity, owners >= 0, should)


def own_other_auc(videos: Sequence[OwnedVideo]) -> float | None:
    """AUC of (face, own reference) against (face, another person's reference), pooled over all videos.

    None when no face was found, or nobody has others beside them.
    """
    own = [s for video in videos for s in video.own]
    other = [s for video in videos for s in video.other]
    return auc(own, other) if own and other else None
