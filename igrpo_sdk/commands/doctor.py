"""`igrpo doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

import psutil
from packaging.requirements import Requirement

from igrpo_sdk.config import ASSETS, Preset, preset_names
from igrpo_sdk.errors import DependencyError, IgrpoError

__all__ = ["doctor"]

_GIB = 2**30


def doctor() -> int:
    """Show what this machine has, what is missing, and how to get it.

    Returns 0 if everything that `igrpo generate` needs is there, 1 if something is missing.

    Example:
        igrpo doctor
    """
    print(f"igrpo-sdk {metadata.version('igrpo-sdk')}")
    sections = {
        "machine": _machine(),
        "devices": _devices(),
        "libraries": _libraries(),
        "presets": _presets(),
        "faces": _faces(),
    }
    healthy = True
    for title, lines in sections.items():
        print(f"{title}:")
        for fine, text in lines:
            print(f"  {' ' if fine else '!'} {text}")
            healthy = healthy and fine
    print("extras:")
    for extra in metadata.metadata("igrpo-sdk").get_all("Provides-Extra") or []:
        print(f"    {_extra(extra)}")
    print("all is well" if healthy else "something needed is missing: see the lines marked with !")
    return 0 if healthy else 1


def _machine() -> Iterator[tuple[bool, str]]:
    """Python, system, cores, memory."""
    yield True, f"Python {platform.python_version()} at {sys.executable}"
    yield True, f"{platform.system()} {platform.machine()}, {_cores()} cores"
    memory = psutil.virtual_memory()
    yield True, f"memory {memory.total / _GIB:.1f} GiB, free {memory.available / _GIB:.1f} GiB"


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> Iterator[tuple[bool, str]]:
    """What torch can compute on."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of the driver is missing
        yield False, f"torch does not load: {error}"
        return
    yield True, "cpu"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield True, f"cuda:{index} {name}, {total / _GIB:.1f} GiB, free {free / _GIB:.1f} GiB"
    if torch.version.cuda and not torch.cuda.is_available():
        yield True, f"no CUDA device: torch is built for CUDA {torch.version.cuda}, but no driver answers"
    if torch.backends.mps.is_available():
        yield True, "mps"


def _required(extra: str = "") -> Iterator[tuple[Requirement, str | None]]:
    """What an extra (or, for "", the package itself) requires, each with the version that is here, if any."""
    for text in metadata.requires("igrpo-sdk") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if not marker.evaluate({"extra": extra}) if marker else extra:
            continue
        try:
            yield requirement, metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield requirement, None


def _fits(requirement: Requirement, version: str | None) -> bool:
    """Whether the version that is here (None: none) is one that will do."""
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _libraries() -> Iterator[tuple[bool, str]]:
    """What the package itself requires."""
    for requirement, version in _required():
        fine = _fits(requirement, version)
        wanted = "" if fine else f"; {requirement.specifier} is needed: pip install igrpo-sdk"
        yield fine, f"{requirement.name} {version or 'is not installed'}{wanted}"


def _extra(extra: str) -> str:
    """Whether an extra is installed; what it lacks, and how to get it, if not."""
    missing = [
        requirement.name for requirement, version in _required(extra) if not _fits(requirement, version)
    ]
    if not missing:
        return f"[{extra}] is installed"
    return f"[{extra}] lacks {', '.join(missing)}: pip install 'igrpo-sdk[{extra}]'"


def _presets() -> Iterator[tuple[bool, str]]:
    """The presets that are shipped, and whether their weights are here."""
    for name in preset_names():
        try:
            preset = Preset.load(name)
        except IgrpoError as error:
            yield False, f"{name}: {error}"
            continue
        aligned = f", aligned by {preset.adapter}" if preset.adapter else ""
        if preset.base is not None:
            yield True, f"{name}: to be converted from the published weights{aligned}; igrpo convert --help"
        elif preset.path is None:
            yield True, f"{name}: from the Hub, {preset.repo_id}{aligned}"
        else:
            here = (ASSETS / preset.path / "model_index.json").is_file()
            told = aligned if here else ": its weights are missing; install the package again"
            yield here, f"{name}{told}"
    if not preset_names():
        yield False, "none: install the package again"


def _faces() -> Iterator[tuple[bool, str]]:
    """Whether identity can be measured; nothing that is needed is missing if it cannot."""
    import numpy as np

    from igrpo_sdk.identity.analyzer import FaceAnalyzer

    try:
        analyzer = FaceAnalyzer.load()
        analyzer.analyze(np.zeros((1, 144, 192, 3), np.uint8))
    except DependencyError as error:
        yield True, f"identity cannot be measured: {error}"
        return
    except IgrpoError as error:
        yield False, str(error)
        return
    import onnxruntime

    providers = ", ".join(onnxruntime.get_available_providers())
    yield True, f"pack {analyzer.name} works; onnxruntime has {providers}"
