"""What is wrong with what is to be measured, given to `igrpo score` and to `igrpo eval` alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluated import write_lines
from PIL import Image

from igrpo_sdk import IdentityVideo
from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.identity.packs import TINY
from igrpo_sdk.media import decoding
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

pytest.importorskip("insightface", reason="insightface is not installed: pip install 'igrpo-sdk[faces]'")
ANN, BOB = 950_007, 950_009
COMMANDS = ("score", "eval")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of people and of none, and videos of two people, of Ann alone, and of nobody."""
    folder = tmp_path_factory.mktemp("pictures")
    both = Scene((Actor(ANN, "left", "stand"), Actor(BOB, "right", "stand")), "blue wall", "even", 3)
    alone = Scene((Actor(ANN, "middle", "stand"),), "blue wall", "even", 3)
    clips = {
        name: render_scenes([s], num_frames=5).frames[0].numpy()
        for name, s in (("both", both), ("alone", alone))
    }
    clips["dark"] = clips["both"] // 99
    for name, clip in clips.items():
        IdentityVideo(clip, 8).save(folder / f"{name}.mp4")
    drawn = render_references(torch.tensor([ANN, BOB, ANN]), torch.tensor([11, 11, 12])).numpy()
    named = dict(zip(("ann", "bob", "ann2"), drawn, strict=True))
    named |= {"two": clips["both"][0], "grey": np.full((144, 144, 3), 128, np.uint8)}
    for name, picture in named.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


@dataclass(frozen=True)
class Measured:
    """What a command left: exit code, what it said, the numbers of the one video, and the warnings."""

    code: int
    said: str
    numbers: dict[str, Any]
    warnings: str


@dataclass(frozen=True)
class Bench:
    """Runs one of the commands on one video."""

    command: str
    pictures: Path
    folder: Path
    capture: pytest.CaptureFixture[str]

    def measure(self, video: Path, *words: str, refs: tuple[str, ...] = ("ann", "bob")) -> Measured:
        """The command's result."""
        files = [str(self.pictures / f"{name}.png") for name in refs]
        if self.command == "score":
            given = [word for file in files for word in ("--ref", file)]
            code = main(["score", str(video), *given, "--json", *words])
        else:
            suite = write_lines(
                self.folder / "suite.jsonl", {"references": files, "prompt": "People.", "id": "case"}
            )
            (self.folder / "videos").mkdir(exist_ok=True)
            shutil.copy(video, self.folder / "videos" / "case.mp4")
            given = [f"--videos=x={self.folder / 'videos'}", f"--suite={suite}", "--no-judge"]
            code = main(["eval", *given, "-o", str(self.folder / "out"), *words])
        shown = self.capture.readouterr()
        if code:
            assert "Traceback" not in shown.err and shown.err.count("\n") == 1
            return Measured(code, shown.err, {}, "")
        return Measured(0, shown.err, *self._read(shown.out))

    def _read(self, shown: str) -> tuple[dict[str, Any], str]:
        """Numbers, finite, and warnings."""

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is no number")

        if self.command == "score":
            report = json.loads(shown, parse_constant=refuse)
            return report["summary"], "; ".join(report["warnings"])
        text = (self.folder / "out" / "results.json").read_text("utf-8")
        metrics = json.loads(text, parse_constant=refuse)["metrics"]
        page = (self.folder / "out" / "report.html").read_text("utf-8")
        named = {"mean": "similarity", "coverage": "coverage", "head_count_error": "head_count_error"}
        return {name: metrics[f"x_{key}"] for name, key in named.items()}, page


@pytest.fixture(params=COMMANDS)
def bench(
    request: pytest.FixtureRequest, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Bench:
    """Each of the commands."""
    return Bench(request.param, pictures, tmp_path, capsys)


def test_m1_a_video_without_faces(bench: Bench) -> None:
    found = bench.measure(bench.pictures / "dark.mp4")
    assert (found.numbers["mean"], found.numbers["coverage"], found.numbers["head_count_error"]) == (0, 0, 1)
    assert "no face is seen in any of the 5 frames" in found.warnings


def test_m2_somebody_is_in_no_frame(bench: Bench) -> None:
    found = bench.measure(bench.pictures / "alone.mp4")
    assert found.numbers["coverage"] == 0.5 and found.numbers["mean"] > 0.3
    assert "bob.png is seen in no frame" in found.warnings


def test_m3_a_reference_without_one_face(bench: Bench) -> None:
    for refs, says in (
        (("ann", "grey"), "references[1]: pack tiny sees no face"),
        (("two", "bob"), "references[0]: 2 faces"),
    ):
        found = bench.measure(bench.pictures / "both.mp4", refs=refs)
        assert found.code == 1 and says in found.said
        assert ("case case: " in found.said) == (bench.command == "eval")


def test_m4_a_video_of_no_length_or_no_video(bench: Bench, tmp_path: Path) -> None:
    whole = (bench.pictures / "both.mp4").read_bytes()
    for content in (b"", b"not a video", whole[: len(whole) // 20]):
        (tmp_path / "bad.mp4").write_bytes(content)
        found = bench.measure(tmp_path / "bad.mp4")
        assert found.code == 1 and "error: video '" in found.said
        if bench.command == "eval":
            assert "--partial" in found.said and not (tmp_path / "out" / "results.json").exists()


def test_m5_an_enormous_video(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(1000)
    monkeypatch.setattr(decoding, "MAX_FILE_BYTES", 999)
    found = bench.measure(tmp_path / "large.mp4")
    assert found.code == 1 and "1,000 bytes; at most 999 are read" in found.said
    monkeypatch.undo()
    frame = 144 * 192 * 3
    monkeypatch.setattr(decoding, "MAX_SAMPLED_BYTES", 3 * frame)
    found = bench.measure(bench.pictures / "both.mp4")
    assert found.numbers["mean"] > 0.5 and "3 of 5 frames are measured" in found.warnings
    monkeypatch.setattr(decoding, "MAX_SAMPLED_BYTES", frame)
    found = bench.measure(bench.pictures / "alone.mp4")
    assert found.code == 1 and "192x144 pixels a frame; too large" in found.said


def test_m6_two_references_of_one_person(bench: Bench) -> None:
    found = bench.measure(bench.pictures / "both.mp4", refs=("ann", "ann2"))
    assert "ann.png and ann2.png look like one person" in found.warnings
    assert 0 < found.numbers["mean"] < 1


def test_m7_a_pack_of_wrong_shapes(bench: Bench, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(TINY, pack)
    settings = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps({**settings, "mean": [0.0] * 3}))
    found = bench.measure(bench.pictures / "both.mp4", f"--pack={pack}")
    assert found.code == 1 and "mean in pack.json has 3 numbers for embeddings of" in found.said
    shutil.copy(pack / "detector.onnx", pack / "recogniser.onnx")
    found = bench.measure(bench.pictures / "both.mp4", f"--pack={pack}")
    assert found.code == 1 and "no file is a recogniser" in found.said
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("place", ["/proc/nothing", "file"])
def test_m8_a_folder_that_takes_no_report(bench: Bench, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    target = place if place.startswith("/") else str(tmp_path / place)
    words = [f"--plot={target}/plot.png"] if bench.command == "score" else ["-o", target]
    found = bench.measure(bench.pictures / "both.mp4", *words)
    assert found.code == 1 and "output '" in found.said and target in found.said
