"""`igrpo score` and the plot: any video file measured from end to end, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image
from truth import Truth, scene

from igrpo_sdk import IdentityReport, IdentityVideo, InputError, ResourceError
from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.identity.measuring import measure
from igrpo_sdk.identity.packs import TINY
from igrpo_sdk.identity.people import find_people
from igrpo_sdk.identity.plot import draw_report, save_plot
from igrpo_sdk.media import decoding
from igrpo_sdk.media.decoding import decode_all, sample_frames

pytest.importorskip("insightface", reason="insightface is not installed: pip install 'igrpo-sdk[faces]'")

Frames = NDArray[np.uint8]
ANN, BOB, CAT = 950_007, 950_009, 950_012


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth()


@pytest.fixture(scope="module")
def clip(truth: Truth) -> Frames:
    """Ann and Bob, who take each other's place in frame 6."""
    return np.concatenate([truth.clip(scene(ANN, BOB)), truth.clip(scene(BOB, ANN))])


@pytest.fixture(scope="module")
def folder(truth: Truth, clip: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as files of every kind, and pictures."""
    folder = tmp_path_factory.mktemp("score")
    for suffix in decoding.SUFFIXES:
        IdentityVideo(clip, 8).save(folder / f"clip{suffix}")
    IdentityVideo(clip[:1].repeat(3, 0) // 99, 8).save(folder / "dark.mp4")
    pictures = {"ann": truth.references(ANN)[0], "bob": truth.references(BOB)[0], "both": clip[0]}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def score(folder: Path, video: str, *words: str, refs: tuple[str, ...] = ("ann.png", "bob.png")) -> int:
    """Run the command in this process."""
    given = [word for ref in refs for word in ("--ref", str(folder / ref))]
    return main(["score", str(folder / video), *given, *words])


# ---- the command


@pytest.mark.parametrize("suffix", decoding.SUFFIXES)
def test_a_file_of_any_kind_is_measured(
    folder: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folder, f"clip{suffix}", "--json", "--places", "left,right") == 0
    report = IdentityReport.from_json(capsys.readouterr().out)
    assert [person.name for person in report.people] == ["ann.png", "bob.png"]
    assert [person.recognition for person in report.people] == [1, 1]
    assert report.heads == (2,) * 12
    assert sorted((switch.frame, switch.before) for switch in report.switches) == [(6, 0), (6, 1)]
    assert report.people[0].owned_margin is not None
    assert min(report.people[0].owned_margin[:6]) > 0 > max(report.people[0].owned_margin[6:])


def test_a_table_for_people(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "report.png"
    assert score(folder, "clip.mp4", "--plot", str(plot)) == 0
    shown = capsys.readouterr()
    head, ann, bob, facts, about = shown.out.splitlines()
    assert head.split() == ["person", "similarity", "seen", "recognised", "margin", "confusion", "copy-paste"]
    assert ann.split()[0] == "ann.png" and ann.split()[2:4] == ["1.00", "1.00"]
    assert bob.split()[0] == "bob.png"
    assert "identity switches 2, head-count error 0.00" in facts
    assert about.startswith("12 frames, motion 0.0")
    assert about.endswith("faces found by pack tiny, which knows rendered people only")
    assert shown.err == ""
    assert Image.open(plot).width == 1500
    assert score(folder, "clip.mp4", "--plot", str(plot)) == 1
    assert "exists already" in capsys.readouterr().err
    assert score(folder, "clip.mp4", "--plot", str(plot), "--overwrite", refs=("ann.png",)) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[4] == "-"  # one person has no margin


def test_a_video_without_faces_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(folder, "dark.mp4") == 0
    shown = capsys.readouterr()
    assert shown.err == "igrpo: warning: no face is seen in any of the 3 frames\n"
    assert "0.00" in shown.out and "nan" not in shown.out.lower()
    assert "the number of heads is not that of the people" in shown.out


def test_one_of_two_faces_is_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(folder, "clip.mp4", refs=("both.png", "ann.png")) == 1
    assert "2 faces, 0: (" in capsys.readouterr().err
    assert score(folder, "clip.mp4", "--face-index", "1,0", refs=("both.png", "ann.png")) == 0
    assert score(folder, "clip.mp4", "--face-index", "left") == 1
    assert "face_index: 'left'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pack", "nothing"], "pack 'nothing' is no folder"),
        (["--places", "left,top"], "places"),
        (["--plot", "report.txt"], "unknown suffix '.txt'; use one of .png"),
        (["--plot", "/nowhere/report.png"], "folder '/nowhere' does not exist"),
        (["--ref", "nowhere.png"], "no such file"),
    ],
)
def test_bad_arguments_end_with_one_line(
    folder: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folder, "clip.mp4", *words) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and says in shown.err and shown.err.count("\n") == 1


def test_files_that_are_no_videos(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.webm").write_text("not a video")
    whole = (folder / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 20])
    for name in ("empty.mp4", "text.webm", "cut.mp4", "nothing.mp4"):
        assert score(folder, str(tmp_path / name)) == 1
        told = capsys.readouterr().err  # of a long path the middle is left out
        assert "error: video '/" in told and f"{name}'" in told
    assert main(["score", "--ref", "ann.png"]) == 2
    assert main(["score", str(folder / "clip.mp4")]) == 2


@pytest.mark.filterwarnings("error")
def test_the_licence_of_a_pack_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from igrpo_sdk.identity import packs

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(packs, "_licences_told", set())
    shutil.copytree(TINY, tmp_path / ".insightface" / "models" / "buffalo_l")
    assert score(folder, "dark.mp4", "--pack", "buffalo_l") == 0
    assert (
        "igrpo: warning: the weights of insightface's pack buffalo_l are for non-commercial research only"
        in (capsys.readouterr().err)
    )


# ---- frames, evenly


def test_of_a_long_video_frames_are_taken_evenly(
    folder: Path, clip: Frames, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every = decode_all(folder / "clip.mp4").frames
    for most, step in ((12, 1), (11, 2), (6, 2), (5, 4), (2, 8)):
        sampled = sample_frames(folder / "clip.mp4", most)
        assert (sampled.step, sampled.total, list(sampled.numbers)) == (step, 12, list(range(0, 12, step)))
        assert np.array_equal(sampled.frames, every[::step])
    with pytest.raises(InputError, match="most: 1"):
        sample_frames(folder / "clip.mp4", 1)
    monkeypatch.setattr(decoding, "MAX_SAMPLED_BYTES", 4 * clip[0].nbytes)
    assert score(folder, "clip.mp4", "--json") == 0
    shown = capsys.readouterr()
    assert shown.err == "igrpo: warning: 3 of 12 frames are measured, one in 4\n"
    assert IdentityReport.from_json(shown.out).frame_numbers == (0, 4, 8)
    monkeypatch.setattr(decoding, "MAX_SAMPLED_BYTES", clip[0].nbytes)
    with pytest.raises(InputError, match="192x144 pixels a frame; too large"):
        sample_frames(folder / "clip.mp4")


# ---- the plot


def test_a_plot_of_up_to_four_people_and_one_frame(truth: Truth, tmp_path: Path) -> None:
    frames = truth.clip(scene(ANN, CAT, BOB), num_frames=1)
    people = find_people(truth.references(ANN, BOB, CAT, 950_020), truth)
    report = measure(frames, people, truth)
    for suffix in (".png", ".svg", ".pdf"):
        assert save_plot(report, frames, tmp_path / f"plot{suffix}", people).stat().st_size > 1000
    texts = {text.get_text() for text in draw_report(report, frames, people).findobj(Text)}
    assert {"person 1", "person 4", "reference", "not seen", "frame"} <= texts


def test_nothing_in_a_plot_overlaps(truth: Truth, clip: Frames) -> None:
    """Every text is inside of the figure and on no other, nor on a face."""
    people = find_people(truth.references(ANN, BOB), truth)
    figure = draw_report(measure(clip, people, truth), clip, people)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    beyond = {  # ticks that are not drawn
        tick.label1
        for axes in figure.axes
        for tick in axes.xaxis.get_major_ticks()
        if not axes.get_xlim()[0] <= tick.get_loc() <= axes.get_xlim()[1]
    }
    texts = [
        text
        for text in figure.findobj(Text)
        if text not in beyond and text.get_window_extent(renderer).width > 1  # not of axes without labels
    ]
    boxes = [text.get_window_extent(renderer).padded(-0.5) for text in texts]  # they may touch
    assert len(texts) > 20
    faces = [image.get_window_extent(renderer) for axes in figure.axes for image in axes.get_images()]
    assert len(faces) == 2 + 2 * 6
    for k, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, texts[k].get_text()
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, texts[k].get_text()
        for other in [*boxes[k + 1 :], *faces]:
            assert not box.overlaps(other), texts[k].get_text()
    for k, face in enumerate(faces):
        assert not any(face.overlaps(other) for other in faces[k + 1 :])


def test_a_plot_of_something_else_is_refused(truth: Truth, clip: Frames, tmp_path: Path) -> None:
    people = find_people(truth.references(ANN, BOB), truth)
    report = measure(clip, people, truth)
    with pytest.raises(InputError, match="frames: 11 given for a report of 12"):
        draw_report(report, clip[:11])
    with pytest.raises(InputError, match="people: 1 given"):
        draw_report(report, clip, people[:1])
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "plot.png").write_bytes(b"precious")
    with pytest.raises(InputError, match="exists already"):
        save_plot(report, clip, locked / "plot.png")
    assert (locked / "plot.png").read_bytes() == b"precious"
    with pytest.raises(ResourceError, match="takes no new file"):
        save_plot(report, clip, Path("/proc/plot.png"))
