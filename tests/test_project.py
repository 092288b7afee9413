"""The project's own files agree with one another: pins, extras, licence, the commands of the README."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def required(
    name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]
) -> Iterator[Requirement]:
    """Everything that a distribution requires here, and what that requires, each with its own extras."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement
            yield from required(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


def test_everything_that_make_installs_is_pinned(root: Path) -> None:
    lines = [
        line
        for line in (root / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    pins = {canonicalize_name(line.split("==")[0]): Version(line.split("==")[1]) for line in lines}
    assert len(pins) == len(lines)
    wrong = []
    for requirement in required("igrpo-sdk", frozenset({"dev", "faces", "judge", "serve", "train"}), set()):
        pin = pins.get(canonicalize_name(requirement.name))
        # A CUDA build of torch pins its own libraries exactly; they are not in this file.
        itself = all(part.operator == "==" for part in requirement.specifier) and requirement.specifier
        if not itself and (pin is None or not requirement.specifier.contains(pin, prereleases=True)):
            wrong.append(str(requirement))
    assert wrong == []


def test_no_machine_and_no_registry_is_named(root: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt", "Makefile", ".ci/run", "README.md"):
        text = (root / name).read_text("utf-8")
        assert not re.search(
            r"https?://(?!www\.apache\.org)|--(extra-)?index-url|find-links|/(?:work|root|home)/", text
        ), name


def test_the_extras_are_the_promised_ones(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(project["optional-dependencies"]) == {
        "train",
        "faces",
        "judge",
        "serve",
        "dev",
    }
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (root / "LICENSE").read_text("utf-8")[:120]


MODULES = {"dlib-bin": "dlib", "face-recognition-models": "face_recognition_models"}
"""What distributions are imported as, where that is another name."""


def test_no_extra_is_there_that_no_code_uses(root: Path) -> None:
    """`igrpo doctor` says how to get each, so everything that one brings is imported somewhere."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    files = [file for folder in ("igrpo_sdk", "training") for file in (root / folder).rglob("*.py")]
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    importing = [line for line in lines if re.search(r"\bimport|find_spec", line)]
    for extra, wanted in project["optional-dependencies"].items():
        for name in [Requirement(text).name for text in wanted] if extra != "dev" else []:
            module = re.compile(rf"\b{MODULES.get(name, name)}\b")
            assert any(map(module.search, importing)), f"{extra}: {name}"


def test_make_and_readme_use_one_prompt(root: Path) -> None:
    prompt = re.search(r"^PROMPT := (.+)$", (root / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert prompt is not None
    assert f'"{prompt[1]}"' in (root / "README.md").read_text("utf-8")
