"""Importing the package is quick and loads nothing heavy; every public name can be had."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import igrpo_sdk

PROBE = """
import json, sys, time
started = time.perf_counter()
import igrpo_sdk
print(json.dumps({"seconds": time.perf_counter() - started, "modules": sorted(sys.modules)}))
"""
HEAVY = ("torch", "numpy", "diffusers", "transformers", "PIL", "av", "jsonargparse", "scipy", "tqdm")


def test_import_is_quick_and_light(tmp_path: Path) -> None:
    seconds = []
    for _ in range(5):
        result = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        probe = json.loads(result.stdout)
        seconds.append(probe["seconds"])
        assert not set(HEAVY) & set(probe["modules"])
    assert statistics.median(seconds) < 0.3


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
