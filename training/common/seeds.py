"""Seeds of a training run: a function of what is drawn, not of what was drawn before."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator", "mix"]


def mix(*parts: int | str) -> int:
    """A 63-bit seed from its parts, the same on every machine: `mix(seed, step, "noise")`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: torch.device, *parts: int | str) -> torch.Generator:
    """A generator on `device` seeded from `parts`."""
    return torch.Generator(device).manual_seed(mix(*parts))
