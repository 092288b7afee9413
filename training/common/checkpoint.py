"""Checkpoints that survive being killed: written aside, flushed, renamed, verified by hash when read.

A checkpoint is a directory `step-00001234` of files `NAME.pt` (torch, tensors and plain values only) and a
`manifest.json` with the sha256 of each. A run that dies while writing leaves only a `.partial` directory,
which the next save removes. Processes that save into one folder at once all succeed.
"""

from __future__ import annotations

import errno
import json
import random
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igrpo_sdk.config import check_whole
from igrpo_sdk.errors import InputError, ResourceError, WeightsError
from igrpo_sdk.media.files import PARTIAL, directory_whole, file_hash
from igrpo_sdk.reading import probe, read_json, shortened

_MANIFEST = "manifest.json"
_MAX_MANIFEST = 2**20
_FILE = re.compile(r"[\w.-]{1,200}\.pt")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified."""

    path: Path
    step: int
    """Optimiser steps done when it was written."""
    parts: dict[str, Any]
    """What was given to `save`, tensors on the CPU."""


def save(root: Path, step: int, parts: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `parts` (name to tensors, numbers, strings, lists and dicts of them) as the checkpoint of `step`.

    Of this one and the older ones the newest `keep` stay, once this one is safely on disk; later ones, such
    as a damaged one that was passed over, are not counted. Raises ResourceError if the disk refuses; the
    older checkpoints are then untouched.
    """
    if keep < 1:
        raise InputError(f"keep={keep} must be at least 1")
    final = root / f"step-{step:08d}"
    try:
        for stale in root.glob(f"step-*{PARTIAL}"):  # of older versions; others are swept by who writes next
            shutil.rmtree(stale, ignore_errors=True)
        with directory_whole(final, overwrite=True) as partial:  # after a resume a step may be written again
            hashes = {f"{name}.pt": _write_part(partial / f"{name}.pt", part) for name, part in parts.items()}
            manifest = json.dumps({"step": step, "sha256": hashes}, indent=1)
            (partial / _MANIFEST).write_text(manifest, "utf-8")
        for old in [path for path in list_checkpoints(root) if path.name <= final.name][:-keep]:
            _remove(old)
    except OSError as error:
        raise ResourceError(f"checkpoint {final} could not be written: {error}") from error
    return final


def load(path: Path) -> Checkpoint:
    """Read one checkpoint and verify every file; WeightsError names the file that is missing or damaged."""
    try:
        manifest = read_json(path / _MANIFEST, "manifest", _MAX_MANIFEST)
        step, hashes = _contents(manifest)
    except InputError as error:
        raise WeightsError(f"{path} is not a checkpoint (no readable {_MANIFEST}): {error}") from None
    parts: dict[str, Any] = {}
    for name, expected in hashes.items():
        file = path / name
        if probe(file, "checkpoint file") != "file" or file_hash(file) != expected:
            raise WeightsError(
                f"checkpoint file {file} is missing or damaged: resume from an older checkpoint"
            )
        try:
            parts[file.stem] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has many: of an empty file, of a pickle that it does not trust
            raise WeightsError(f"checkpoint file {file} cannot be read: {shortened(str(error))}") from None
    return Checkpoint(path, step, parts)


def _remove(path: Path) -> None:
    """Remove a checkpoint, which another process may be removing or writing again."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise


def _contents(manifest: Any) -> tuple[int, dict[str, str]]:
    """(step, file to hash) of a manifest; `InputError` for what is none."""
    if not isinstance(manifest, dict):
        raise InputError(f"{shortened(manifest)} is no object")
    step, hashes = check_whole("step", manifest.get("step"), 0, None), manifest.get("sha256")
    if not isinstance(hashes, dict) or not all(
        isinstance(word, str) and _FILE.fullmatch(name) for name, word in hashes.items()
    ):
        raise InputError("sha256: must be names of files and their hashes")
    return step, hashes


def find(root: Path, resume: str | None) -> Checkpoint | None:
    """The checkpoint to go on from.

    resume=None starts anew, in a folder without checkpoints: InputError otherwise, because those of two runs
    in one folder would be taken for one another. "auto" takes the newest sound checkpoint under `root`, if
    any, and warns loudly for each damaged one it passes over. A path must be a sound checkpoint: WeightsError
    otherwise.
    """
    if resume is None:
        if list_checkpoints(root):
            raise InputError(
                f"{root} holds an earlier run: go on with it (--resume auto) or give another output folder"
            )
        return None
    if resume != "auto":
        return load(Path(resume))
    for path in reversed(list_checkpoints(root)):
        try:
            return load(path)
        except WeightsError as error:
            warnings.warn(f"DAMAGED CHECKPOINT PASSED OVER: {error}", stacklevel=2)
    return None


def list_checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints under `root`, oldest first."""
    return sorted(path for path in root.glob("step-*") if path.is_dir() and path.suffix != PARTIAL)


def random_states() -> dict[str, Any]:
    """States of the global generators of torch (CPU, every GPU), Python and numpy, as plain values."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set the global generators; GPU states only if this process sees as many GPUs as the one that saved."""
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


def _write_part(path: Path, part: Any) -> str:
    """Write one file; return its hash."""
    try:
        with path.open("wb") as file:  # given a path, torch would write the name into the file
            torch.save(part, file)
    except RuntimeError as error:  # what torch's own writer makes of a disk that is full
        raise OSError(f"torch could not write it: {error}") from error
    return file_hash(path)
