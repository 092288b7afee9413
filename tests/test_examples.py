"""Every example runs, and writes what it says; every documented command line is understood."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from nursery import Nursery, run
from PIL import Image

from igrpo_sdk import IdentityReport, IdentityVideo
from igrpo_sdk.backbones.loading import PRESET_FILE

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.rglob("*.py") if "__main__" in path.read_text("utf-8"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Run(Protocol):
    """What `example` gives."""

    def __call__(self, name: str, *words: str, cwd: Path, before: str = "") -> str:
        """Run an example in a process of its own, with a line of Python `before` it; its output."""


@pytest.fixture(scope="module")
def example(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("said")

    def run_example(name: str, *words: str, cwd: Path, before: str = "") -> str:
        program = str(EXAMPLES / name)
        start = ["-c", f"{before}\nimport runpy; runpy.run_path({program!r}, run_name='__main__')"]
        done = run(nursery, [*(start if before else [program]), *words], folder, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_example


def documented(text: str) -> Iterator[str]:
    """The command lines in a text that run a program of examples/, with what may be left out."""
    for line in re.findall(r"^ *(python examples/.*)$", text, re.MULTILINE):
        yield re.sub(r"[\[\]]", "", line)


def own_lines(program: Path) -> list[str]:
    """Those in a program's docstring."""
    return list(documented(ast.get_docstring(ast.parse(program.read_text("utf-8"))) or ""))


LINES = {line for path in DOCUMENTS for line in documented(path.read_text("utf-8"))}
LINES |= {line for program in PROGRAMS for line in own_lines(program)}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_every_program_says_how_it_is_run(program: Path) -> None:
    names = {shlex.split(line)[1] for line in own_lines(program)}
    assert names == {str(program.relative_to(ROOT))}


@pytest.mark.parametrize("line", sorted(LINES))
def test_documented_command_lines_are_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option at the end: that one, and no other word of the line, is complained about.

    In this process: a new one for each line would load torch again, for seconds.
    """
    _, program, *words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [program, *words, "--wrong"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str((ROOT / program).parent))  # as Python does
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    complaint = capsys.readouterr().err.splitlines()[-1].removeprefix(f"{Path(program).name}: ")
    assert (stopped.value.code, complaint) == (2, "error: unrecognized arguments: --wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_refuses_nothing_to_measure(nursery: Nursery, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    program = str(EXAMPLES / "benchmarks" / "tiny_quality.py")
    command = [program, "generate", "--output", "clips", "--pairs", "0"]
    done = run(nursery, command, tmp_path / "said", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.endswith("InputError: pairs=0 and batch=4 must be at least 1\n")
    assert list(folder.iterdir()) == []


# Two of the shipped model's sixteen steps: its adapter acts at the second of them.
FEWER_STEPS = (
    "import dataclasses; from igrpo_sdk.config import Preset; load = Preset.load; "
    "Preset.load = staticmethod(lambda name: dataclasses.replace(load(name), steps=2))"
)


@pytest.fixture
def instead(tiny_directory: Path, tmp_path: Path) -> str:
    """A line of Python that loads a random model for every name: to an example all models are alike."""
    model = tmp_path / "model"
    shutil.copytree(tiny_directory, model)
    preset = model / PRESET_FILE
    preset.write_text(json.dumps(json.loads(preset.read_text("utf-8")) | {"steps": 6}), "utf-8")
    return (
        "from igrpo_sdk import IdentityPipeline as Pipe; load = Pipe.from_pretrained; "
        f"Pipe.from_pretrained = staticmethod(lambda name, **options: load({str(model)!r}, **options))"
    )


@pytest.mark.usefixtures("shipped_weights")
def test_generate(example: Run, tmp_path: Path) -> None:
    assert "out.mp4" in example("generate.py", cwd=tmp_path, before=FEWER_STEPS)
    settings = IdentityVideo.load(tmp_path / "out.mp4").settings
    assert (settings["seed"], settings["model"], settings["steps"]) == (7, "tiny-vace", 2)


def test_batch(example: Run, tmp_path: Path, instead: str) -> None:
    example("batch.py", "--folder", "new", cwd=tmp_path, before=instead)
    names = [f"{pair}_{take}" for pair in range(2) for take in range(2)]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("mp4", "png")
    )


def test_watch_and_stop(example: Run, tmp_path: Path, instead: str) -> None:
    lines = example("watch_and_stop.py", cwd=tmp_path, before=instead).splitlines()
    assert lines[-1].startswith("stopped: ")
    assert any(line.startswith("sample: 3 of ") for line in lines)


@pytest.fixture(scope="module")
def rendered(example: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that render_people.py filled."""
    folder = tmp_path_factory.mktemp("rendered")
    assert "scene.mp4" in example("render_people.py", "--folder", "new", cwd=folder)
    return folder / "new"


@pytest.mark.parametrize("name", ["ann.png", "bob.png"])
def test_the_shipped_faces_are_rendered_people(rendered: Path, name: str) -> None:
    """Equal up to rounding: another processor may add in another order."""
    shipped, made = (np.asarray(Image.open(f / name)).astype(int) for f in (EXAMPLES / "faces", rendered))
    assert shipped.shape == made.shape == (512, 512, 3)
    difference = np.abs(shipped - made)
    assert difference.max() <= 2 and (difference > 0).mean() < 1e-3
    assert (EXAMPLES / "faces" / name).stat().st_size < 400_000


def test_render_people(rendered: Path) -> None:
    assert {path.name for path in rendered.iterdir()} == {"ann.png", "bob.png", "people.png", "scene.mp4"}
    assert Image.open(rendered / "people.png").size == (8 * 128, 5 * 128)
    video = IdentityVideo.load(rendered / "scene.mp4")
    assert video.frames.shape == (17, 144, 192, 3) and "laugh" in video.settings["prompt"]


def test_contact_sheet(example: Run, rendered: Path, tmp_path: Path) -> None:
    words = ("--video", str(rendered / "scene.mp4"), "--output", "new/sheet.png")
    assert "sheet.png" in example("contact_sheet.py", *words, cwd=tmp_path)
    sheet = Image.open(tmp_path / "new" / "sheet.png")
    assert sheet.size == (144 + 2 * 6 + 4 * (192 + 6), 2 * 144 + 6)


def test_measure(example: Run, tmp_path: Path) -> None:
    lines = example("measure.py", "--folder", "new", cwd=tmp_path).splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["ann.png", "bob.png"]
    assert lines[2].startswith("2 identity switches, mean similarity 0.")
    report = IdentityReport.from_json((tmp_path / "new" / "report.json").read_text("utf-8"))
    assert [(person.recognition, person.coverage) for person in report.people] == [(1, 1), (1, 1)]
    assert Image.open(tmp_path / "new" / "report.png").width == 1500


def test_none_is_left_out() -> None:
    tested = {"generate.py", "batch.py", "watch_and_stop.py", "render_people.py", "measure.py"}
    tested |= {"contact_sheet.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
