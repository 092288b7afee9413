"""Make the judge's mean, training/evaluation/assets/judge_mean.json:

    python examples/benchmarks/judge_mean.py [--people 1000] [--output FILE]

The mean of the judge's raw embeddings over people of the training split, half of them close-ups as
references are, half faces in clips. It takes about a second a person on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from igrpo_sdk.media.files import write_json
from igrpo_sdk.training.evaluation.judge import DEFAULT_SHORT_SIDE, EMBEDDING_SIZE, MEAN_FILE, Judge
from igrpo_sdk.training.world.identities import SPLITS
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import sample_scene


def training_pictures(people: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Close-ups (people, 144, 144, 3) and frames (people, 144, 192, 3), uint8, of training people."""
    seeds = torch.arange(people)
    identities = torch.tensor(SPLITS["train"])[:: len(SPLITS["train"]) // people][:people]
    scenes = [
        sample_scene(seed, "train", num_people=2, actions=("stand", "talk", "smile"))
        for seed in range(people)
    ]
    middle = [render_scenes([scene], num_frames=1).frames[0, 0].numpy() for scene in scenes]
    return render_references(identities, seeds).numpy(), np.stack(middle)


def mean_embedding(people: int) -> tuple[NDArray[np.float32], int]:
    """Mean raw embedding (128,) with close-ups and clips weighing the same, and the number of faces it is
    over.
    """
    judge = Judge(mean=np.zeros(EMBEDDING_SIZE, np.float32))
    groups = [np.concatenate([judge.raw(f) for f in frames]) for frames in training_pictures(people)]
    means = [group.mean(axis=0) for group in groups]
    return np.mean(means, axis=0), sum(len(group) for group in groups)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute and write the mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=150, help="people of each kind of picture")
    parser.add_argument("--output", type=Path, default=MEAN_FILE)
    options = parser.parse_args(arguments)
    if not 1 <= options.people <= len(SPLITS["train"]):
        parser.error(f"--people {options.people} must be from 1 to {len(SPLITS['train'])}")
    mean, faces = mean_embedding(options.people)
    command = f"python examples/benchmarks/judge_mean.py --people {options.people}"
    rounded = [round(float(value), 6) for value in mean]
    content = {"command": command, "faces": faces, "short_side": DEFAULT_SHORT_SIDE, "mean": rounded}
    write_json(options.output, content)


if __name__ == "__main__":
    main()
