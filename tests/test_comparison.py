"""Base and aligned beside each other: the videos, the page, and `igrpo compare` from end to end."""

from __future__ import annotations

import html
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import made_up
from lora import make_adapter
from PIL import Image
from tiny import people, tiny_pipeline

from igrpo_sdk import IdentityPipeline, IdentityVideo, InputError
from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.comparison import Comparison

PROMPT = "Two people talk."


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    pipe = tiny_pipeline()
    pipe.load_adapter(make_adapter(pipe, tmp_path_factory.mktemp("adapters") / "random"), 0.5)
    return pipe.compare(people(2), PROMPT, seed=7, steps=2)


@pytest.fixture
def measured(comparison: Comparison) -> Comparison:
    """With made-up reports of two frames."""
    reports = [made_up("easy-000", "p", values).report for values in ([0.4, 0.2], [0.5, 0.1])]
    videos = [
        replace(video, frames=video.frames[:2], report=report)
        for video, report in zip((comparison.base, comparison.aligned), reports, strict=True)
    ]
    return Comparison(*videos, comparison.references)


def test_both_are_the_videos_of_single_calls(comparison: Comparison) -> None:
    base, aligned = comparison.base, comparison.aligned
    alone = tiny_pipeline()(people(2), PROMPT, seed=7, steps=2)
    assert np.array_equal(base.frames, alone.frames) and base.settings == alone.settings
    assert not np.array_equal(aligned.frames, base.frames)
    assert aligned.settings["adapter"]["scale"] == 0.5
    assert {**aligned.settings, "adapter": None} == base.settings


def test_without_a_seed_both_have_one(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    with pytest.raises(InputError, match="none is loaded to compare random with"):
        pipe.compare(people(1), PROMPT)
    pipe.load_adapter(make_adapter(pipe, tmp_path / "random"))
    with pytest.raises(InputError, match="prompt: list"):
        pipe.compare([people(1)], [PROMPT])  # type: ignore[arg-type]
    made = pipe.compare(people(1), PROMPT, steps=1)
    assert made.base.settings["seed"] == made.aligned.settings["seed"]
    # An error in the second half leaves the adapter on.
    told: list[int] = []

    def fail(*_: Any) -> None:
        told.append(1)
        if len(told) == 2:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        pipe.compare(people(1), PROMPT, seed=1, steps=1, callback=fail)
    assert pipe.adapter is not None and pipe.adapter.settings is not None


def test_side_by_side(comparison: Comparison, tmp_path: Path) -> None:
    both = comparison.side_by_side()
    width = comparison.base.frames.shape[2]
    assert np.array_equal(both.frames[:, :, :width], comparison.base.frames)
    assert np.array_equal(both.frames[:, :, -width:], comparison.aligned.frames)
    assert (both.frames[:, :, width:-width] == 255).all()
    for suffix in ("mp4", "gif"):
        loaded = IdentityVideo.load(comparison.save(tmp_path / f"out.{suffix}"))
        assert loaded.frames.shape == both.frames.shape
        assert loaded.settings["left"]["adapter"] is None
        assert loaded.settings["right"] == comparison.aligned.settings
    with pytest.raises(InputError, match="exists already"):
        comparison.save(tmp_path / "out.mp4")
    with pytest.raises(InputError, match="use one of .html"):
        comparison.save(tmp_path / "out.png")
    short = replace(comparison.base, frames=comparison.base.frames[:1])
    with pytest.raises(InputError, match="cannot be compared"):
        Comparison(short, comparison.aligned, comparison.references)


class Words(HTMLParser):
    """The structure of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else(measured: Comparison, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'igrpo-sdk[faces]'")
    text = measured.save(tmp_path / "out.html").read_text("utf-8")
    words = Words(text)
    assert words.open == [] and words.seen.count("video") == 2 and words.seen.count("img") == 2 + 2
    assert all(re.match(r"data:(image/png|video/mp4);base64,", link) for link in words.links)
    assert not re.search(r"https?://|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    assert "<td>0.300</td><td>0.300</td><td>+0.000</td>" in text
    assert "<td>0.200</td><td>0.100</td><td>-0.100</td>" in text
    assert "<td>0.400</td><td>0.500</td><td>+0.100</td>" in text
    # One pair proves nothing: nothing is painted.
    assert not re.search(r'class="[^"]*(better|worse)', text) and "a difference can be chance" in words.text
    assert "similarity of the worst person ↑" in words.text and "identity switches ↓" in words.text
    assert "adapter random, scale 0.5, seed 7" in words.text


def test_the_page_without_reports_and_without_matplotlib(
    comparison: Comparison, measured: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Identity was not measured." in comparison.page()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = measured.page()
    assert html.unescape(text).count("pip install 'igrpo-sdk[faces]'") == 2 and "identity switches" in text


def test_what_users_write_is_no_markup(comparison: Comparison) -> None:
    settings = {**comparison.aligned.settings, "prompt": "<script>a & b"}
    aligned = replace(comparison.aligned, settings=settings, warnings=("<i>",))
    text = Comparison(comparison.base, aligned, comparison.references).page()
    assert "<script>" not in text and "<i>" not in text and "&lt;script&gt;a &amp; b" in text


# ---- commands


@pytest.fixture(scope="module")
def folder(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the smallest model, and two pictures."""
    folder = tmp_path_factory.mktemp("commands")
    make_adapter(IdentityPipeline.from_pretrained(tiny_directory, device="cpu"), folder / "adapter")
    Image.linear_gradient("L").save(folder / "ann.png")
    Image.radial_gradient("L").save(folder / "bob.png")
    return folder


def command(name: str, folder: Path, model: Path, *words: str) -> int:
    """Run a command in this process."""
    pictures = [str(folder / "ann.png"), str(folder / "bob.png")]
    return main([name, *pictures, "--prompt", PROMPT, "--model", str(model), "--device=cpu", *words])


def test_compare(
    folder: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--adapter", str(folder / "adapter"), "--seed", "5", "-o"]
    assert command("compare", folder, tiny_directory, *words, str(tmp_path / "out.html")) == 0
    shown = capsys.readouterr().out
    assert "5 frames each, seed 5" in shown and "not measured: the model has no face pack" in shown
    assert command("compare", folder, tiny_directory, *words, str(tmp_path / "out.mp4")) == 0
    both = IdentityVideo.load(tmp_path / "out.mp4")
    assert both.frames.shape == (5, 32, 48 + 8 + 48, 3)
    words = ["--adapter", str(folder / "adapter"), "--adapter-scale=1", "--seed=5"]
    assert command("generate", folder, tiny_directory, *words, "-o", str(tmp_path / "one.mp4")) == 0
    assert IdentityVideo.load(tmp_path / "one.mp4").settings == both.settings["right"]


def test_compare_measures_with_the_faces_of_the_model(
    folder: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("insightface", reason="insightface is not installed: pip install 'igrpo-sdk[faces]'")
    model = shutil.copytree(tiny_directory, tmp_path / "model")
    preset = model / "igrpo_preset.json"
    preset.write_text(preset.read_text("utf-8").replace('"steps"', '"face_pack": "tiny", "steps"'), "utf-8")
    output = tmp_path / "out.html"
    words = ["--adapter", str(folder / "adapter"), "--seed=5"]
    assert command("compare", folder, model, *words, "-o", str(output)) == 0
    assert "not measured: references[0]" in capsys.readouterr().out
    assert "Identity was not measured." in output.read_text("utf-8")
    faces = Path(__file__).resolve().parent.parent / "examples" / "faces"
    pictures = [str(faces / "ann.png"), str(faces / "bob.png")]
    options = ["--prompt", PROMPT, "--model", str(model), *words, "-o", str(output), "--overwrite"]
    assert main(["compare", *pictures, *options]) == 0
    shown = capsys.readouterr().out
    assert "by pack tiny, which knows rendered people only: base 0.00, aligned 0.00 (the number of" in shown
    assert "similarity of the worst person" in output.read_text("utf-8")


def test_bad_usage_of_compare(
    folder: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(folder / "adapter")
    for words, says in (
        (["-o", str(tmp_path / "out.html")], "none is loaded to compare tiny-random with"),
        (["--adapter=none", "-o", str(tmp_path / "out.html")], "leaves nothing to compare"),
        (
            ["--adapter=nowhere", "-o", str(tmp_path / "out.html")],
            "adapter: 'nowhere': there is no such file",
        ),
        (["--adapter", good, "--adapter-scale=7", "-o", str(tmp_path / "out.html")], "adapter_scale: 7"),
        (["--adapter", good, "-o", str(tmp_path / "out.png")], "use one of .html"),
    ):
        assert command("compare", folder, tiny_directory, *words) == 1
        shown = capsys.readouterr().err
        assert says in shown and shown.count("\n") == 1, shown
    assert list(tmp_path.iterdir()) == []
