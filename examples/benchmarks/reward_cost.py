"""How many frames a second the face reward measures, and how much that slows Python beside it.

    python examples/benchmarks/reward_cost.py --workers 8 --videos 256

Rendered clips of two people, 144x192, 17 frames, each measured anew. `frames_per_second`: with the tiny face
pack on the CPU. `python_beside`: the share of its speed that a loop of Python keeps in the main thread while
a `Scorer` works, as the loop that launches a GPU's kernels would.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import torch
from jsonargparse import auto_cli

from igrpo_sdk.references import Reference
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.faces import FaceReward
from igrpo_sdk.training.rewards.measuring import Measurer, MeasuringConfig
from igrpo_sdk.training.rewards.scoring import Scorer
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import sample_scene

SCENES = 4


def rendered(count: int) -> list[Rollout]:
    """`count` rollouts of a few rendered clips."""
    scenes = [sample_scene(seed, "train", 2, ("talk", "nod")) for seed in range(SCENES)]
    made = []
    for group, (scene, frames) in enumerate(zip(scenes, render_scenes(scenes).frames, strict=True)):
        people = torch.tensor([actor.identity for actor in scene.actors])
        references = tuple(map(Reference.load, render_references(people, torch.ones_like(people)).numpy()))
        places = tuple(actor.place for actor in scene.actors)
        made.append(Rollout(frames, references, "two people", group, places, scene))
    return [replace(made[i % SCENES]) for i in range(count)]


def turns(seconds: float) -> float:
    """Turns of an empty loop in a second, measured for `seconds`."""
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        count += 1
    return count / seconds


def measure(workers: int = 0, videos: int = 64) -> None:
    """Print both numbers as one line of JSON.

    Args:
        workers: processes that measure; 0 measures in the scorer's thread.
        videos: clips of a batch.
    """
    rollouts = rendered(videos)
    measurer = Measurer.load(MeasuringConfig(workers=workers))
    with Scorer([FaceReward(measurer)]) as scorer:
        scorer.submit(rollouts[: max(SCENES, 2 * workers)]).result()  # starts everything
        start = time.perf_counter()
        scorer.submit([replace(rollout) for rollout in rollouts]).result()
        seconds = time.perf_counter() - start
        alone = turns(seconds / 2)
        pending = scorer.submit([replace(rollout) for rollout in rollouts])
        beside = turns(seconds / 2)
        pending.result()
    measurer.close()
    speed = videos * len(rollouts[0].frames) / seconds
    print(json.dumps({"frames_per_second": round(speed, 1), "python_beside": round(beside / alone, 3)}))


if __name__ == "__main__":
    auto_cli(measure)
