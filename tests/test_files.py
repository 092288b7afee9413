"""Files and directories that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.media import files
from igrpo_sdk.media.files import (
    PARTIAL,
    directory_whole,
    file_hash,
    read_json,
    write_json,
    write_text,
    written_whole,
)

LONG = "n\N{LATIN SMALL LETTER E WITH ACUTE}" * 80  # 240 bytes, where a name may have 255


def make(target: Path, text: str, overwrite: bool = False) -> None:
    """Write a directory of two files, one in a folder."""
    with directory_whole(target, overwrite) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text(text)
        (partial / "other").write_text(text)


def text_of(target: Path) -> str:
    """What `make` wrote; both files must say the same."""
    texts = {(target / name).read_text() for name in ("other", "deep/file")}
    assert len(texts) == 1
    return texts.pop()


def interrupted(writer: AbstractContextManager[Path], name: str, error: type[BaseException]) -> None:
    """Begin to write, and fail."""
    with writer as partial:
        (partial / name).write_text("half")
        raise error


# ---- files


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupted(written_whole(path, overwrite=True), "", error)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_a_full_disk_is_told_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "file.txt", tmp_path / "folder"
    path.write_text("old")
    make(folder, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"file\.txt': could not be written \(No space left"):
        write_text(path, "new")
    with pytest.raises(ResourceError, match=r"folder': could not be written .*No space left"):
        make(folder, "new", overwrite=True)
    assert path.read_text() == "old" and text_of(folder) == "old"
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "folder"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"

    def late() -> None:
        with written_whole(path, overwrite=False) as partial:
            partial.write_text("mine")
            path.write_text("another's")

    with pytest.raises(InputError, match="appeared meanwhile"):
        late()
    assert path.read_text() == "another's" and os.listdir(tmp_path) == ["file.txt"]


def test_the_temporary_name_keeps_the_suffix_and_fits(tmp_path: Path) -> None:
    for name in ("file.png", f"{LONG}.png"):
        with written_whole(tmp_path / name, overwrite=False) as partial:
            assert partial.suffix == ".png" and partial.parent == tmp_path and PARTIAL in partial.name
            partial.write_text("x")
    assert sorted(os.listdir(tmp_path)) == ["file.png", f"{LONG}.png"]


def test_json_makes_its_folder_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    for content in ({"a": [1, None, "\N{SNOWMAN}"]}, {"b": 0.1}):
        write_json(path, content)
        assert read_json(path) == content
    assert os.listdir(path.parent) == ["file.json"]
    assert file_hash(path) != file_hash(Path(__file__)) and len(file_hash(path)) == 64


# ---- directories


def test_a_directory_is_made_and_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "above" / LONG
    make(target, "old")
    (target / "left").write_text("over")
    with pytest.raises(InputError, match="exists already; choose another"):
        make(target, "new")
    assert text_of(target) == "old"
    make(target, "new", overwrite=True)
    assert text_of(target) == "new" and not (target / "left").exists()
    assert os.listdir(target.parent) == [LONG]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [False, True])
def test_an_exception_leaves_the_directory(tmp_path: Path, error: type[BaseException], there: bool) -> None:
    target = tmp_path / "out"
    if there:
        make(target, "old")
    with pytest.raises(error):
        interrupted(directory_whole(target, overwrite=True), "other", error)
    assert os.listdir(tmp_path) == ["out"] * there
    assert not there or text_of(target) == "old"


def test_a_directory_that_cannot_take_its_name_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one has been moved aside, and the new one is refused: the old one comes back."""
    target = tmp_path / "out"
    make(target, "old")
    rename = Path.rename

    def refuse(self: Path, name: Path) -> Path:
        if (self / "other").read_text() == "new":
            raise OSError(5, "Input/output error")
        return rename(self, name)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ResourceError, match="Input/output error"):
        make(target, "new", overwrite=True)
    assert text_of(target) == "old" and os.listdir(tmp_path) == ["out"]


def test_a_directory_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def late() -> None:
        with directory_whole(target, overwrite=False) as partial:
            (partial / "other").write_text("mine")
            make(target, "another's")

    with pytest.raises(InputError, match="appeared meanwhile"):
        late()
    assert text_of(target) == "another's" and os.listdir(tmp_path) == ["out"]


def test_a_file_is_not_replaced_by_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="exists already"):
        make(tmp_path / "file", "new", overwrite=True)
    with pytest.raises(ResourceError, match="could not be written"):
        make(tmp_path / "file" / "below", "new")
    assert (tmp_path / "file").read_text() == "x" and os.listdir(tmp_path) == ["file"]


def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    make(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make(tmp_path / "link", "new", overwrite=True)
    assert (tmp_path / "link").is_symlink() and text_of(tmp_path / "real") == "new"


KILLED = """
import sys, time
from pathlib import Path
from igrpo_sdk.media.files import directory_whole, written_whole
folder = Path(sys.argv[1])
with directory_whole(folder / "out", True) as made, written_whole(folder / "file.txt", True) as partial:
    (made / "other").write_text("half")
    partial.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def begun(folder: Path) -> subprocess.Popen[str]:
    """A process that is writing a file and a directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_process_left_is_swept_by_who_writes_next(tmp_path: Path) -> None:
    """And nothing else: not what another still writes, and no file that only looks like it."""
    others = [".a.partial", ".a.0123456.partial", "a.01234567.partial", ".a.0123456g.partial", ".old"]
    for name in others:
        (tmp_path / name).write_text("another's")
    killed, alive = begun(tmp_path), begun(tmp_path)
    with killed, alive:
        killed.kill()
        killed.wait()
        assert len(os.listdir(tmp_path)) == len(others) + 4
        write_text(tmp_path / "next.txt", "new")
        left = [name for name in os.listdir(tmp_path) if name not in (*others, "next.txt")]
        assert len(left) == 2
        assert alive.poll() is None
        alive.kill()
    make(tmp_path / "out", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "next.txt", "out"])


def test_a_directory_that_was_just_being_replaced_gets_its_name_back(tmp_path: Path) -> None:
    """Killed between two renames: the old one is the only one."""
    make(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / f".out.01234567.old{PARTIAL}")
    make(tmp_path / "other", "new")
    assert text_of(tmp_path / "out") == "old"
    make(tmp_path / f".out.01234567.old{PARTIAL}", "older")
    make(tmp_path / "other", "newer", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]
    assert text_of(tmp_path / "out") == "old"


def test_on_a_disk_without_locks_a_day_must_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    young, old = (tmp_path / f".file.txt.0000000{i}{PARTIAL}.txt" for i in range(2))
    for path in (young, old):
        path.write_text("half")
    day = 25 * 3600
    os.utime(old, (old.stat().st_atime - day, old.stat().st_mtime - day))
    write_text(tmp_path / "file.txt", "new")
    make(tmp_path / "out", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([young.name, "file.txt", "out"])


WRITERS = """
import sys
from pathlib import Path
from igrpo_sdk.media.files import directory_whole, write_json
for i in range(int(sys.argv[3])):
    write_json(Path(sys.argv[1]) / "file.json", {"by": sys.argv[2], "i": i, "long": "x" * 20000})
    with directory_whole(Path(sys.argv[1]) / "out", overwrite=True) as made:
        for name in ("one", "two"):
            (made / name).write_text(f"{sys.argv[2]} {i}")
"""


def test_writers_of_one_target_all_succeed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, name, "60"], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]
    for writer in writers:
        assert writer.communicate(timeout=120)[1] == ""
        assert writer.returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["file.json", "out"]
    assert read_json(tmp_path / "file.json")["i"] == 59
    assert (tmp_path / "out" / "one").read_text() == (tmp_path / "out" / "two").read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_leaves_what_was_there(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "file.txt").write_text("old")
    make(tmp_path / "out", "old")
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        process.send_signal(how)
    assert (tmp_path / "file.txt").read_text() == "old" and text_of(tmp_path / "out") == "old"
    left = [name for name in os.listdir(tmp_path) if name not in ("file.txt", "out")]
    assert len(left) == (2 if how == signal.SIGKILL else 0)
    assert all(name.startswith((".file.txt.", ".out.")) and PARTIAL in name for name in left)
