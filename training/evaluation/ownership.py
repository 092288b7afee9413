"""Which detected face belongs to whom, decided by the place the prompt gave and never by the embedding.

Choosing the best matching face first would flatter every model: of two strangers one is always nearer. So a
face is owned by the person whom the prompt put where the face is. Faces start at the places (left, middle,
right) and are then followed from frame to frame, one face a person, in clips where nobody crosses. From
that come coverage (how many of the people who should be there are found) and the own-versus-other AUC
(whether a face is more similar to its own reference than faces are to the other people's). With blank
references the AUC must be about 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.faces.places import PLACES, follow_places

from . import statistics
from .statistics import Estimate

__all__ = [
    "PLACES",
    "OwnedVideo",
    "coverage",
    "follow_places",
    "identity_estimates",
    "own_other_auc",
    "own_video",
    "own_wins",
]

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


def coverage(videos: Sequence[OwnedVideo]) -> float | None:
    """Share of the (frame, person) that should be seen and are found, in [0, 1]; None when nobody should be
    seen.
    """
    total = sum(int(video.expected.sum()) for video in videos)
    return sum(int((video.found & video.expected).sum()) for video in videos) / total if total else None


def own_other_auc(videos: Sequence[OwnedVideo]) -> float | None:
    """AUC of (face, own reference) against (face, another person's reference), pooled over all videos.

    None when no face was found, or nobody has others beside them.
    """
    own = [s for video in videos for s in video.own]
    other = [s for video in videos for s in video.other]
    return statistics.auc(own, other) if own and other else None


def own_wins(videos: Sequence[OwnedVideo]) -> float | None:
    """Share of (face, other person) in which the face is nearer to its own reference; ties count half."""
    margins = [
        float(video.similarity[t, i, i] - video.similarity[t, i, j])
        for video in videos
        for t, i in np.argwhere(video.found)
        for j in range(video.similarity.shape[1])
        if j != i
    ]
    return statistics.mean([0.5 * (float(np.sign(margin)) + 1) for margin in margins])


def similarity_of_everybody(videos: Sequence[OwnedVideo]) -> float | None:
    """Mean similarity to the own reference over all (frame, person) that should be seen; who is not found
    counts as 0. None when nobody should be seen.
    """
    own = [
        float(video.similarity[t, i, i]) if video.found[t, i] else 0.0
        for video in videos
        for t, i in np.argwhere(video.expected)
    ]
    return statistics.mean(own)


def identity_estimates(videos: Sequence[OwnedVideo], seed: int = 0) -> dict[str, Estimate]:
    """Coverage, own-versus-other AUC and the share of wins with intervals over videos, plus the mean
    similarities: of everybody who should be seen, and of the faces that are found.
    """
    return {
        "coverage": statistics.bootstrap(videos, coverage, seed=seed),
        "auc": statistics.bootstrap(videos, own_other_auc, resamples=400, seed=seed),
        "own_wins": statistics.bootstrap(videos, own_wins, resamples=200, seed=seed),
        "similarity": statistics.bootstrap(videos, similarity_of_everybody, resamples=200, seed=seed),
        "own_similarity": statistics.bootstrap(
            videos, lambda some: statistics.mean([s for v in some for s in v.own]), resamples=200, seed=seed
        ),
        "other_similarity": statistics.bootstrap(
            videos, lambda some: statistics.mean([s for v in some for s in v.other]), resamples=200, seed=seed
        ),
    }
