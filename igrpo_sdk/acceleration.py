"""Where a model runs, and what is said when its memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.reading import shortened

__all__ = ["check_memory", "memory_errors", "pick_device"]


def pick_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is the best there is. Raises `InputError` for one that is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"device: {shortened(device)} is not there; use 'auto', or ask igrpo doctor"
        ) from error
    return found


def check_memory(device: torch.device, needed: int, size: Geometry) -> None:
    """Raise `ResourceError` for a video that needs more bytes than a GPU, or the machine, has in all.

    `needed`: a lower bound. A video that passes may still run out of memory.
    """
    if device.type == "cuda":
        total, owner = torch.cuda.mem_get_info(device)[1], "this GPU"
    else:
        total, owner = psutil.virtual_memory().total, "this machine"
    if needed > total:
        raise ResourceError(
            f"memory: {size.num_frames} frames of {size.height}x{size.width} need {needed / 2**30:.0f} GiB at"
            f" least, and {owner} has {total / 2**30:.0f}; use a smaller size or fewer frames"
        )


@contextmanager
def memory_errors(size: Geometry, batch_size: int) -> Iterator[None]:
    """Make a `ResourceError` of memory that runs out inside; `batch_size` videos of a size are being made."""
    try:
        yield
        return
    except torch.OutOfMemoryError as error:
        reason = str(error).split("\n")[0]
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        reason = str(error).split("\n")[0]
    # Raised outside of `except`: the error would keep the frames, and with them the tensors, of what failed.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    asked = f"{batch_size} x {size.height}x{size.width}x{size.num_frames}"
    smaller = f"batch_size={batch_size // 2}" if batch_size > 1 else "a smaller size or fewer frames"
    raise ResourceError(f"out of memory for {asked} ({reason}); use {smaller}")
