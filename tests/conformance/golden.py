"""Latents that the shipped weights are known to give. `python tests/conformance/golden.py` writes them anew,
which only new weights or a new formula are a reason for.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from igrpo_sdk import IdentityPipeline

FILE = Path(__file__).with_name("golden.safetensors")
FACES = Path(__file__).resolve().parent.parent.parent / "examples" / "faces"
ADAPTERS = ("none", "default")


def latents(adapter: str) -> Tensor:
    """float32 [C, R + T, h, w] of four steps of tiny-vace with an adapter, two people, 72x72, 5 frames."""
    pipe = IdentityPipeline.from_pretrained("tiny-vace", adapter=adapter, device="cpu")
    pictures = [FACES / "ann.png", FACES / "bob.png"]
    request = pipe.check_inputs(pictures, "Two people talk.", 7, steps=4, height=72, width=72, num_frames=5)
    return pipe.sample(request, pipe.encode(request), [7]).latents[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_file({adapter: latents(adapter).contiguous() for adapter in ADAPTERS}, FILE)
