"""What judged videos come to: who is found, and whether faces are their own person's more than others'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from igrpo_sdk.training.common.statistics import Estimate, bootstrap, mean
from igrpo_sdk.training.evaluation.ownership import OwnedVideo, own_other_auc


def identity_estimates(videos: Sequence[OwnedVideo], seed: int = 0) -> dict[str, Estimate]:
    """Coverage, own-versus-other AUC and the share of wins with intervals over videos, plus the mean
    similarities: of everybody who should be seen, and of the faces that are found.
    """
    return {
        "coverage": bootstrap(videos, coverage, seed=seed),
        "auc": bootstrap(videos, own_other_auc, resamples=400, seed=seed),
        "own_wins": bootstrap(videos, own_wins, resamples=200, seed=seed),
        "similarity": bootstrap(videos, similarity_of_everybody, resamples=200, seed=seed),
        "own_similarity": bootstrap(
            videos, lambda some: mean([s for v in some for s in v.own]), resamples=200, seed=seed
        ),
        "other_similarity": bootstrap(
            videos, lambda some: mean([s for v in some for s in v.other]), resamples=200, seed=seed
        ),
    }


def coverage(videos: Sequence[OwnedVideo]) -> float | None:
    """Share of the (frame, person) that should be seen and are found, in [0, 1]; None when nobody should be
    seen.
    """
    total = sum(int(video.expected.sum()) for video in videos)
    return sum(int((video.found & video.expected).sum()) for video in videos) / total if total else None


def own_wins(videos: Sequence[OwnedVideo]) -> float | None:
    """Share of (face, other person) in which the face is nearer to its own reference; ties count half."""
    margins = [
        float(video.similarity[t, i, i] - video.similarity[t, i, j])
        for video in videos
        for t, i in np.argwhere(video.found)
        for j in range(video.similarity.shape[1])
        if j != i
    ]
    return mean([0.5 * (float(np.sign(margin)) + 1) for margin in margins])


def similarity_of_everybody(videos: Sequence[OwnedVideo]) -> float | None:
    """Mean similarity to the own reference over all (frame, person) that should be seen; who is not found
    counts as 0. None when nobody should be seen.
    """
    own = [
        float(video.similarity[t, i, i]) if video.found[t, i] else 0.0
        for video in videos
        for t, i in np.argwhere(video.expected)
    ]
    return mean(own)
