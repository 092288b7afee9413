"""A run of the policy's trainer on a random model, a second long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from igrpo_sdk.training.common.recipe import build
from igrpo_sdk.training.policy.config import PolicyRecipe


def write_prompts(folder: Path, rows: int = 6) -> Path:
    """A JSON Lines file with one, two and three references in turn."""
    generator = np.random.default_rng(0)
    lines = []
    for row in range(rows):
        names = []
        for person in range(row % 3 + 1):
            names.append(f"{row}-{person}.png")
            pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / names[-1])
        lines.append(json.dumps({"references": names, "prompt": f"{row + 1} people talk"}))
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(model: Path, prompts: Path, **changes: Any) -> dict[str, Any]:
    """A recipe as YAML gives it, with groups of it replaced by `changes`."""
    return {
        "model": str(model),
        "steps": 3,
        "prompts": {"source": str(prompts)},
        "rollout": {"members": 2, "batch": 2, "steps": 4},
        "window": {"size": 1, "first": 1, "last": 2},
        "update": {"groups": 3, "learning_rate": 1e-3, "average": 0.5},
        "lora": {"rank": 2, "alpha": 2.0},
        "rewards": {"motion": {"floor": 0.99}},
        "evaluation": {"every": 2, "count": 2, "batch": 2, "shown": 1, "prompts": {"source": str(prompts)}},
        "checkpoint_every": 1,
        **changes,
    }


def recipe(model: Path, prompts: Path, **changes: Any) -> PolicyRecipe:
    """The recipe of `settings`."""
    return build(PolicyRecipe, settings(model, prompts, **changes))


def write_recipe(folder: Path, content: dict[str, Any]) -> Path:
    """What `settings` gave, as a recipe's file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"kind": "policy", **content}))
    return path
