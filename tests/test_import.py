"""Importing the package is quick and loads nothing heavy; every public name can be had."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clock import slowness

import igrpo_sdk

PROBE = """
import json, sys, time
started = time.perf_counter()
import igrpo_sdk
print(json.dumps({"seconds": time.perf_counter() - started, "modules": sorted(sys.modules)}))
"""
HEAVY = ("torch", "numpy", "diffusers", "transformers", "PIL", "av", "jsonargparse", "scipy", "tqdm")


def probe(folder: Path) -> dict[str, Any]:
    """What an import in a new interpreter takes and loads."""
    command = [sys.executable, "-c", PROBE]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_import_is_light(tmp_path: Path) -> None:
    assert not set(HEAVY) & set(probe(tmp_path)["modules"])


@pytest.mark.timing
def test_import_is_quick(tmp_path: Path) -> None:
    """0.3 s on an idle machine: as many times that as the machine is slower now."""
    slow = slowness()
    assert statistics.median(probe(tmp_path)["seconds"] for _ in range(5)) < 0.3 * slow


@pytest.mark.parametrize("name", igrpo_sdk.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(igrpo_sdk, name).__name__ == name
    assert name in dir(igrpo_sdk)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        igrpo_sdk.Pipeline  # noqa: B018


def test_errors_are_caught_by_their_natural_bases() -> None:
    for error, natural in {
        igrpo_sdk.InputError: ValueError,
        igrpo_sdk.WeightsError: ValueError,
        igrpo_sdk.ResourceError: RuntimeError,
        igrpo_sdk.DependencyError: ImportError,
        igrpo_sdk.HubError: OSError,
    }.items():
        assert issubclass(error, natural)
        assert issubclass(error, igrpo_sdk.IgrpoError)
        assert str(error("why")) == "why"
