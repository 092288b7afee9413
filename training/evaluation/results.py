"""Published numbers: `docs/results/NAME.json`, from which every table of the documentation is generated."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from igrpo_sdk.media.files import write_json

_PACKAGES = (
    "igrpo-sdk",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "dlib-bin",
    "face-recognition-models",
    "insightface",
    "onnxruntime",
)


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> str:
    """The GPUs, if there are any, and the CPU cores this process may use, in words."""
    words = f"{available_cores()} CPU cores ({platform.machine()})"
    import torch

    if not torch.cuda.is_available():
        return words
    count, name = torch.cuda.device_count(), torch.cuda.get_device_name()
    return f"{f'{count} x ' if count > 1 else ''}{name}, {words}"


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Installed versions of packages, and of Python; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the source tree, with "+changes" when files differ from it; None outside a repository."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def write_results(
    path: Path, command: str, where: str, metrics: Mapping[str, Any], notes: Sequence[str]
) -> None:
    """Write one results file, whole or not at all.

    Args:
        path: of the JSON file; its folder is made.
        command: the command line that makes these numbers again.
        where: the hardware they were measured on.
        metrics: name to number, or to a group of numbers; None where nothing could be measured.
        notes: what a reader must know to judge the numbers.

    Raises:
        ResourceError: the file cannot be written.
    """
    content = {
        "command": command,
        "hardware": where,
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "metrics": dict(metrics),
        "notes": list(notes),
    }
    write_json(path, content)
