"""Published numbers: `docs/results/NAME.json`, from which every table of the documentation is generated."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from igrpo_sdk.errors import InputError, ResourceError

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


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; numbers that are not finite are refused with ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    aside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error}") from error


def read_json(path: Path) -> Any:
    """What `write_json` wrote; InputError when the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
