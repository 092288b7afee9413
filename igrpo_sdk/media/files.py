"""Files and directories that appear whole or not at all, and the check of where they are to go.

What is written goes to a temporary name beside its target, is flushed to the disk, and is renamed. Whatever
happens in between, an interrupt included, what was there before stays. Only a process that is killed at once
leaves the temporary name behind: `.NAME.XXXXXXXX.partial` and, of a file, its suffix. A directory that was
just being replaced is then called `.NAME.XXXXXXXX.old.partial`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from igrpo_sdk import reading
from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.media.decoding import SUFFIXES
from igrpo_sdk.reading import shortened

__all__ = [
    "PARTIAL",
    "check_output_path",
    "directory_whole",
    "file_hash",
    "flush",
    "make_folder",
    "read_json",
    "write_json",
    "write_text",
    "written_whole",
]

MAX_READ = 2**28
"""Largest file that `read_json` reads: measures of a long video take megabytes."""
PARTIAL = ".partial"
"""What marks a temporary name."""


def check_output_path(
    path: str | os.PathLike[str], overwrite: bool = False, suffixes: Sequence[str] = SUFFIXES
) -> Path:
    """Whether a file can be written to `path`, asked before any model runs. Returns it with links resolved.

    Raises `InputError` for another suffix than those given (by default of videos), a directory, a folder that
    does not exist, a file that exists (without `overwrite`), or a name the system cannot hold;
    `ResourceError` if the folder takes no file.
    """
    name = f"output {shortened(os.fspath(path))}"
    try:
        target = Path(path).resolve()
        os.fsencode(target)
        is_directory, exists, has_folder = target.is_dir(), target.exists(), target.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # NUL, too long, a loop of links
        raise InputError(f"{name}: not a usable file name ({error})") from error
    if is_directory:
        raise InputError(f"{name}: is a directory. Add a file name, such as out{suffixes[0]}")
    if target.suffix.lower() not in suffixes:
        raise InputError(
            f"{name}: unknown suffix {shortened(target.suffix)}; use one of {', '.join(suffixes)}"
        )
    if not has_folder:
        raise InputError(
            f"{name}: the folder {shortened(str(target.parent))} does not exist. Create it first"
        )
    if exists and not overwrite:
        raise InputError(
            f"{name}: exists already. Choose another name or allow overwriting (--overwrite, overwrite=True)"
        )
    # Only making a file shows that one can be made: permission bits mean little to root or on a network disk.
    # This one has no name, so that an interrupt leaves nothing.
    with _no_new_file(target), tempfile.TemporaryFile(dir=target.parent):
        return target


@contextmanager
def written_whole(target: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes `target`, on any exception it is removed.

    The file has the permissions that the user's files get. Raises `InputError` for a target that appeared
    meanwhile (without `overwrite`), `ResourceError` when the disk does not take the file.
    """
    partial = _beside(target, PARTIAL + target.suffix)
    try:  # from before it exists
        with _no_new_file(target):
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield partial
        flush(partial)
        if overwrite:
            os.replace(partial, target)
        else:
            _rename_new(partial, target)
    except OSError as error:  # FFmpeg's errors from the system are OSError as well
        why = error.strerror or error
        message = f"output {shortened(str(target))}: could not be written ({why}). Free space there"
        raise ResourceError(message) from error
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def directory_whole(target: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary directory to fill; on success it becomes `target`, on any exception it is removed.

    Folders above it are made; a link is followed, not replaced. With `overwrite`, a directory that is there
    is replaced as a whole. Raises `InputError` for a target that exists (with `overwrite`: that is no
    directory), also for one that appears meanwhile, `ResourceError` when the disk does not take it.
    """
    target = target.resolve()
    if target.exists() and not (overwrite and target.is_dir()):
        raise InputError(f"directory {shortened(str(target))}: exists already; choose another")
    partial, old = _beside(target, PARTIAL), _beside(target, f".old{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in (*partial.rglob("*"), partial):
            flush(path)
        if overwrite and target.exists():
            target.rename(old)
        partial.rename(target)
        flush(target.parent)
    except OSError as error:
        if not overwrite and target.exists():
            raise InputError(
                f"directory {shortened(str(target))}: appeared meanwhile; choose another"
            ) from error
        raise ResourceError(f"directory {shortened(str(target))}: could not be written ({error})") from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for path in (partial, old):
            shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str, overwrite: bool = True) -> None:
    """Write a UTF-8 text file whole or not at all; raises as `written_whole` does."""
    with written_whole(path, overwrite) as partial:
        partial.write_text(text, "utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all, replacing what is there; its folder is made.

    Raises ValueError for numbers that are not finite, before anything is written; `ResourceError` when the
    disk does not take the file.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    make_folder(path)
    write_text(path, text)


def read_json(path: Path) -> Any:
    """What `write_json` wrote; `InputError` when the file is missing or damaged."""
    return reading.read_json(path, "file", MAX_READ)


def make_folder(target: Path) -> None:
    """Make the folder that a file is to go to; `ResourceError` when it cannot be made."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{target} cannot be written: {error}") from error


def flush(path: Path) -> None:
    """Return when a file, or the entries of a directory, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(target: Path, ending: str) -> Path:
    """A new hidden name beside `target`; of a long name the beginning, as a name has at most 255 bytes."""
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}{ending}")


@contextmanager
def _no_new_file(target: Path) -> Iterator[None]:
    """Say of an error of the system that the folder of `target` is at fault."""
    try:
        yield
    except OSError as error:
        why = error.strerror
        message = f"output {shortened(str(target))}: its folder takes no new file ({why}). Choose another"
        raise ResourceError(message) from error


def _rename_new(partial: Path, target: Path) -> None:
    """Rename without replacing a file that appeared since the check. A hard link is the portable way to do
    that.
    """
    try:
        os.link(partial, target)
    except FileExistsError as error:
        raise InputError(f"output {shortened(str(target))}: appeared meanwhile; not overwritten") from error
    except OSError:  # a disk without hard links
        os.replace(partial, target)
