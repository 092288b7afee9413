"""Clips to files and back; a file appears whole or not at all (faults S15, S16, I20)."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from igrpo_sdk import IdentityVideo, InputError, ResourceError
from igrpo_sdk.media import decoding
from igrpo_sdk.media import video as video_module
from igrpo_sdk.media.decoding import SUFFIXES
from igrpo_sdk.media.files import check_output_path

Frames = NDArray[np.uint8]
SETTINGS = {
    "prompt": "A nods \N{GRINNING FACE} \0 \ud800 \u202e",
    "seed": 2**63,
    "guidance_scale": 2.5,
    "list": [1, None],
}


def files(folder: Path) -> list[str]:
    """What lies in a folder, hidden files included."""
    return sorted(os.listdir(folder))


# ---- round trips


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fps", [8.0, 7.3, 23.976])
def test_round_trip(frames: Frames, tmp_path: Path, suffix: str, fps: float) -> None:
    video = IdentityVideo(frames, fps, SETTINGS, ("person 2 is blurred",))
    path = video.save(tmp_path / f"out{suffix}")
    assert path == tmp_path / f"out{suffix}"
    again = IdentityVideo.load(path)
    assert again.settings == SETTINGS
    assert again.warnings == video.warnings
    assert again.fps == fps
    assert again.frames.shape == frames.shape
    error = again.frames.astype(int) - frames
    assert np.abs(error).mean() < (8 if suffix == ".gif" else 2)
    if suffix != ".gif":
        assert np.abs(error.mean((0, 1, 2))).max() < 0.5  # no shift of colour or brightness
    assert files(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_clip_gives_the_same_bytes(frames: Frames, tmp_path: Path, suffix: str) -> None:
    video = IdentityVideo(frames, 8, SETTINGS)
    first = video.save(tmp_path / f"a{suffix}").read_bytes()
    assert first == video.save(tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_frame_and_equal_frames(frames: Frames, tmp_path: Path, suffix: str) -> None:
    for name, clip in (("one", frames[:1]), ("still", np.repeat(frames[:1], 4, axis=0))):
        path = IdentityVideo(clip, 8).save(tmp_path / f"{name}{suffix}")
        again = IdentityVideo.load(path)
        assert len(again) == len(clip)
        assert again.fps == 8


def test_mp4_is_what_players_take(frames: Frames, tmp_path: Path) -> None:
    path = IdentityVideo(frames, 8).save(tmp_path / "out.mp4")
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # index first: plays before it is all there
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", Fraction(8))
        assert (int(context.colorspace), int(context.color_primaries)) == (1, 1)


def test_gif_keeps_time_on_average(tmp_path: Path, frames: Frames) -> None:
    clip = np.concatenate([frames] * 4)
    path = IdentityVideo(clip, 8).save(tmp_path / "out.gif")
    with Image.open(path) as image:
        times = []
        for index in range(len(clip)):
            image.seek(index)  # GIF files keep equal frames apart
            times.append(image.info["duration"])
    assert set(times[:-1]) == {120, 130}  # 125 ms is no multiple of 10 ms
    assert abs(sum(times[:-1]) - 1000 * 19 / 8) <= 10


def test_long_settings(frames: Frames, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = IdentityVideo(frames, 8, {"prompt": "x" * 20_000}).save(tmp_path / f"out{suffix}")
        assert len(IdentityVideo.load(path).settings["prompt"]) == 20_000


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(prompt=st.text(st.characters(exclude_categories=()), max_size=40), suffix=st.sampled_from(SUFFIXES))
def test_i20_any_prompt_survives(tmp_path: Path, prompt: str, suffix: str) -> None:
    clip = IdentityVideo(np.zeros((1, 32, 32, 3), np.uint8), 8, {"prompt": prompt})
    assert (
        IdentityVideo.load(clip.save(tmp_path / f"out{suffix}", overwrite=True)).settings["prompt"] == prompt
    )


def test_contact_sheet(frames: Frames) -> None:
    video = IdentityVideo(frames, 8)
    sheet = np.asarray(video.contact_sheet(columns=3))
    assert sheet.shape == (2 * 48, 3 * 64, 3)
    assert np.array_equal(sheet[48:, 64:128], frames[4])
    assert (sheet[48:, 128:] == 255).all()
    assert video.contact_sheet(99).size == (5 * 64, 48)
    with pytest.raises(InputError, match="columns"):
        video.contact_sheet(0)


# ---- what no file could hold


@pytest.mark.parametrize(
    ("clip", "fps"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), 8),
        (np.zeros((2, 4, 4, 4), np.uint8), 8),
        (np.zeros((4, 4, 3), np.uint8), 8),
        (np.zeros((0, 4, 4, 3), np.uint8), 8),
        ([[[[1, 2, 3]]]], 8),
        (np.zeros((2, 4, 4, 3), np.uint8), 0),
        (np.zeros((2, 4, 4, 3), np.uint8), float("nan")),
        (np.zeros((2, 4, 4, 3), np.uint8), float("inf")),
        (np.zeros((2, 4, 4, 3), np.uint8), None),
    ],
)
def test_clips_that_are_none(clip: Any, fps: Any) -> None:
    with pytest.raises(InputError, match=r"frames:|fps:"):
        IdentityVideo(clip, fps)


def test_odd_sides(tmp_path: Path) -> None:
    video = IdentityVideo(np.zeros((2, 33, 32, 3), np.uint8), 8)
    for suffix in (".mp4", ".webm"):
        with pytest.raises(InputError, match="even"):
            video.save(tmp_path / f"out{suffix}")
    assert files(tmp_path) == []
    assert IdentityVideo.load(video.save(tmp_path / "out.gif")).frames.shape == (2, 33, 32, 3)


def test_sides_that_no_codec_holds(tmp_path: Path) -> None:
    for suffix, side in ((".mp4", 16386), (".webm", 65536), (".gif", 65536)):
        video = IdentityVideo(np.zeros((1, 2, side, 3), np.uint8), 8)
        with pytest.raises(InputError, match=f"2x{side}; {suffix}"):
            video.save(tmp_path / f"out{suffix}")
    assert files(tmp_path) == []


def test_a_rate_of_numpy(frames: Frames, tmp_path: Path) -> None:
    assert IdentityVideo.load(IdentityVideo(frames, np.float32(8)).save(tmp_path / "out.mp4")).fps == 8  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, b"x"])
def test_settings_that_are_not_json(frames: Frames, tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match="settings"):
        IdentityVideo(frames, 8, {"x": value}).save(tmp_path / "out.mp4")
    assert files(tmp_path) == []


# ---- S15, S16: where to write


def test_s16_an_existing_file_is_kept(frames: Frames, tmp_path: Path) -> None:
    video = IdentityVideo(frames, 8)
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    for attempt in (check_output_path, video.save):
        with pytest.raises(InputError, match="overwrit"):
            attempt(path)
    assert path.read_bytes() == b"precious"
    check_output_path(path, overwrite=True)
    assert path.read_bytes() == b"precious"
    video.save(path, overwrite=True)
    assert len(IdentityVideo.load(path)) == 5
    assert files(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is a directory"),
        ("folder.mp4", "is a directory"),
        ("missing/out.mp4", "does not exist"),
        ("file.mp4/out.mp4", "does not exist"),
        ("out.avi", "suffix"),
        ("out", "suffix"),
        (".mp4", "suffix"),
        ("a\0b.mp4", "file name"),
        ("\ud800.mp4", "file name"),
        ("x" * 300 + ".mp4", "file name"),
        ("loop.mp4", "file name"),
    ],
)
def test_s16_paths_that_no_video_can_have(frames: Frames, tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file.mp4").write_bytes(b"")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    before = files(tmp_path)
    for attempt in (check_output_path, IdentityVideo(frames, 8).save):
        with pytest.raises(InputError, match=says):
            attempt(tmp_path / name if name else tmp_path)
    assert files(tmp_path) == before


def test_s15_a_folder_that_takes_no_file(frames: Frames) -> None:
    for attempt in (check_output_path, IdentityVideo(frames, 8).save):
        with pytest.raises(ResourceError, match="takes no new file"):
            attempt("/proc/out.mp4")  # not even root can make a file there


def test_a_link_is_followed_not_replaced(frames: Frames, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.mp4"
    link.symlink_to(tmp_path / "real" / "out.mp4")
    IdentityVideo(frames, 8).save(link)
    assert link.is_symlink()
    assert files(tmp_path / "real") == ["out.mp4"]


def test_files_get_the_permissions_that_the_user_wants(frames: Frames, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = IdentityVideo(frames, 8).save(tmp_path / "out.mp4")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


DISK_FULL = """
import resource, sys
import numpy as np
from igrpo_sdk import IdentityVideo, ResourceError
clip = IdentityVideo(np.random.default_rng(0).integers(0, 255, (5, 96, 96, 3), np.uint8), 8)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    clip.save(sys.argv[1], overwrite=True)
except ResourceError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_s15_a_disk_that_fills_up(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"precious")
    result = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("refused:"), result
    assert path.read_bytes() == b"precious"
    assert files(tmp_path) == [path.name]


def test_two_that_write_one_name(frames: Frames, tmp_path: Path) -> None:
    outcomes: list[str] = []

    def save() -> None:
        try:
            IdentityVideo(frames, 8).save(tmp_path / "out.mp4")
            outcomes.append("written")
        except InputError:
            outcomes.append("refused")

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 3 + ["written"]
    assert files(tmp_path) == ["out.mp4"]
    assert len(IdentityVideo.load(tmp_path / "out.mp4")) == 5


KILLED = """
import sys
import numpy as np
from igrpo_sdk import IdentityVideo
clip = IdentityVideo(np.random.default_rng(0).integers(0, 255, (200, 256, 256, 3), np.uint8), 8)
print("writing", flush=True)
clip.save(sys.argv[1])
"""


def test_s17_an_interrupt_while_writing_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not files(tmp_path):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait()
    assert files(tmp_path) == []


# ---- what is no video


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_no_video(tmp_path: Path, suffix: str) -> None:
    contents = {
        "empty": b"",
        "rubbish": os.urandom(3000),
        "playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match="video"):
            IdentityVideo.load(path)


def test_paths_that_cannot_be_loaded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (
        "nowhere.mp4",
        tmp_path,
        tmp_path / "pipe.mp4",
        "a\0.mp4",
        "a.avi",
        "http://127.0.0.1/a.mp4",
    ):
        with pytest.raises(InputError, match="video"):
            IdentityVideo.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_truncated_videos(frames: Frames, tmp_path: Path, suffix: str, share: float) -> None:
    whole = IdentityVideo(np.concatenate([frames] * 4), 8).save(tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"part{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    try:
        assert len(IdentityVideo.load(path)) < 20  # a stream that plays up to the cut may be read up to there
    except InputError:
        pass


def test_limits_on_what_is_loaded(frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = IdentityVideo(frames, 8).save(tmp_path / "out.mp4")
    for name, limit in (
        ("MAX_DECODED_BYTES", 3 * frames[0].nbytes),
        ("MAX_DECODED_BYTES", 10),
        ("MAX_FILE_BYTES", 100),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(decoding, name, limit)
            with pytest.raises(InputError, match="video"):
                IdentityVideo.load(path)


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "hello",
        "[1]",
        "{}",
        '{"software": "other", "settings": {"a": 1}}',
        "[" * 5000,
        '{"software": "igrpo-sdk"}',
    ],
)
def test_videos_from_elsewhere_have_no_settings(tmp_path: Path, frames: Frames, comment: str) -> None:
    path = tmp_path / "out.mp4"
    video_module._write_video(path, frames, 8, comment, ".mp4")
    loaded = IdentityVideo.load(path)
    assert (loaded.settings, loaded.fps, loaded.warnings) == ({}, 8.0, ())


def test_settings_of_wrong_types_are_not_taken(tmp_path: Path, frames: Frames) -> None:
    path = tmp_path / "out.mp4"
    content = {"software": "igrpo-sdk", "fps": "8", "settings": [1], "warnings": {"a": 1}}
    video_module._write_video(path, frames, 8, json.dumps(content), ".mp4")
    assert IdentityVideo.load(path).settings == {}


@pytest.mark.parametrize("recorded", [8, -8, 0, float("nan"), 1e308, 10**400])
def test_the_rate_of_a_clip_whose_speed_another_tool_changed(
    tmp_path: Path, frames: Frames, recorded: float
) -> None:
    path = tmp_path / "out.mp4"
    content = {"software": "igrpo-sdk", "fps": recorded, "settings": {"seed": 1}}
    video_module._write_video(path, frames, 4, json.dumps(content), ".mp4")
    loaded = IdentityVideo.load(path)
    assert (loaded.fps, loaded.settings) == (4, {"seed": 1})


def test_memory_of_saving_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clip = np.zeros((60, 144, 192, 3), np.uint8)
    IdentityVideo(clip, 8).save(tmp_path / "out.mp4")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
