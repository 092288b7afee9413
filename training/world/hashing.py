"""Counter-based random numbers: the same integer gives the same numbers on any device and in any batch.

The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), which maps a 64-bit counter to 64 well-mixed bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts arithmetically; the mask makes it logical


def mix(x: Tensor) -> Tensor:
    """Mix 64-bit integers into well-spread ones: int64 of any shape, the same shape back; wraps around."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def uniforms(keys: Tensor, count: int, stream: int) -> Tensor:
    """Uniform numbers in [0, 1) that are a pure function of (key, stream, position).

    Args:
        keys: int64, shape (N,); any value.
        count: how many numbers a key gets.
        stream: separates independent uses of the same key.

    Returns:
        float32, shape (N, count), multiples of 2^-24.
    """
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device) + (stream << 32)
    mixed = mix(mix(keys.to(torch.int64) * _GOLDEN)[:, None] + counter[None, :] * _GOLDEN)
    return (_shift_right(mixed, 40)).to(torch.float32) / float(1 << 24)
