"""Every seed that is derived from another: a function of what is drawn, not of what was drawn before.

    video_seed, step_seed   the noise of a video, and of a step of it: 32 bits, all that torch keeps on a CPU
    mix, generator          whatever a training run draws by torch: 63 bits
    dice                    small choices in plain Python, such as who is in a scene

They stay apart, and each hashes as it always has: shared seeds, published numbers and resumed runs depend on
every bit. All give the same on every machine. The textures of the procedural world are no seeds: they are
numbers by position (`training/world/hashing.py`).
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["dice", "generator", "mix", "step_seed", "video_seed"]


def video_seed(seed: int, index: int) -> int:
    """The seed of video `index` of a call with `seed`, 0 to `MAX_SEED`.

    Video 0 has the seed itself, the others the first 32 bits of sha256("seed:index"): a call with that seed
    makes the same video alone, whatever the batch it first came from.
    """
    return seed if index == 0 else _first_32_bits(f"{seed}:{index}")


def step_seed(seed: int, step: int) -> int:
    """The seed of the noise of step `step` of a video with `seed`, 0 to `MAX_SEED`."""
    return _first_32_bits(f"{seed}/{step}")


def mix(*parts: int | str) -> int:
    """A 63-bit seed from its parts: `mix(seed, step, "noise")`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: torch.device, *parts: int | str) -> torch.Generator:
    """A generator on `device` seeded by `mix` of the parts."""
    import torch

    return torch.Generator(device).manual_seed(mix(*parts))


def dice(*parts: int | str) -> random.Random:
    """Python's generator, seeded by its parts with hyphens between: `dice(seed, "prompt", number)`."""
    return random.Random("-".join(map(str, parts)))


def _first_32_bits(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
