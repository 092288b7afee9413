"""Files and directories that appear whole or not at all, and the check of where they are to go.

What is written goes to a temporary name beside its target, is flushed to the disk, and is renamed. Whatever
happens in between, an interrupt included, what was there before stays. Only a process that is killed at once
leaves the temporary name behind: `.NAME.XXXXXXXX.partial` and, of a file, its suffix. A directory that was
just being replaced is then called `.NAME.XXXXXXXX.old.partial`.

Who writes next to the same folder sweeps what was left. Whether somebody still writes a temporary file or
directory is told by a lock (flock) that its writer holds, and that the system gives up with the process; a
disk without locks tells nothing, and there a day must have passed. An old directory is given its name back
if nothing has taken its place. Several writers of one target all succeed, and the last one's stays.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from igrpo_sdk import reading
from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.media.decoding import SUFFIXES
from igrpo_sdk.reading import shortened

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = [
    "PARTIAL",
    "check_output_path",
    "directory_whole",
    "file_hash",
    "flush",
    "make_folder",
    "read_json",
    "sweep",
    "write_json",
    "write_text",
    "written_whole",
]

MAX_READ = 2**28
"""Largest file that `read_json` reads: measures of a long video take megabytes."""
PARTIAL = ".partial"
"""What marks a temporary name."""
_KEPT = 40
"""Characters of a target's name that its temporary name keeps."""
_OURS = re.compile(r"\.(?P<name>.{1,40})\.[0-9a-f]{8}(?P<old>\.old)?\.partial(\.\w{1,16})?")
_STALE = 24 * 3600.0
"""Seconds after which a temporary name is stale on a disk without locks."""
_TRIES = 20


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
    with _no_new_file(target):
        sweep(target.parent)
    names: list[Path] = []
    held = None
    try:  # from before it exists
        with _no_new_file(target):
            held = _make(target, PARTIAL + target.suffix, names, _make_file)
        partial = names[-1]
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
        for name in names:
            with suppress(OSError):
                name.unlink()
        if held is not None:
            os.close(held)


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
    names: list[Path] = []
    held, placed = None, False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        held = _make(target, PARTIAL, names, _make_folder)
        partial = names[-1]
        yield partial
        for path in (*partial.rglob("*"), partial):
            flush(path)
        _take_place(partial, target, overwrite, names)
        placed = True
        flush(target.parent)
    except OSError as error:
        if not overwrite and target.exists():
            raise InputError(
                f"directory {shortened(str(target))}: appeared meanwhile; choose another"
            ) from error
        raise ResourceError(f"directory {shortened(str(target))}: could not be written ({error})") from error
    finally:
        for name in reversed(names):
            if not placed and name.name.endswith(f".old{PARTIAL}") and not target.exists():
                with suppress(OSError):
                    name.rename(target)
            shutil.rmtree(name, ignore_errors=True)
        if held is not None:
            os.close(held)


def _take_place(partial: Path, target: Path, overwrite: bool, names: list[Path]) -> None:
    """Rename a directory, after what is in its place; others may be doing the same."""
    for trial in range(_TRIES):
        if overwrite and target.exists():
            names.append(_beside(target, f".old{PARTIAL}"))
            with suppress(FileNotFoundError):  # another was faster
                target.rename(names[-1])
        try:
            partial.rename(target)
            return
        except OSError as error:
            taken = error.errno in (errno.EEXIST, errno.ENOTEMPTY)
            if not (overwrite and taken) or trial == _TRIES - 1:
                raise
            time.sleep(0.001 * trial)


def sweep(folder: Path) -> None:
    """Remove the temporary files and directories of ours that a process left in a folder when it was killed,
    as far as the system lets one. What another process still writes stays.
    """
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if name.startswith(".") and PARTIAL in name]
        for name in names:
            if found := _OURS.fullmatch(name):
                with suppress(OSError):
                    _sweep(folder / name, found["name"] if found["old"] else None)


def _sweep(path: Path, replaced: str | None) -> None:
    """Remove one; `replaced`: the name of the directory that it was, or the beginning of a long one."""
    if replaced is not None:
        target = path.with_name(replaced)
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        elif len(replaced) < _KEPT:
            path.rename(target)
        return
    status = path.lstat()
    is_folder = stat.S_ISDIR(status.st_mode)
    if not (is_folder or stat.S_ISREG(status.st_mode)):
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        free = _lock(descriptor)
        if free is None:
            free = time.time() - status.st_mtime > _STALE
        if free and is_folder:
            shutil.rmtree(path, ignore_errors=True)
        elif free:
            path.unlink()
    finally:
        os.close(descriptor)


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


def _make(target: Path, ending: str, names: list[Path], make: Callable[[Path], int]) -> int:
    """Make a temporary file or directory, its name the last of `names`; the descriptor that holds its lock.

    Raises OSError.
    """
    for _ in range(_TRIES):
        names.append(_beside(target, ending))
        try:
            descriptor = make(names[-1])
        except FileNotFoundError:
            if not target.parent.is_dir():
                raise
            continue  # swept before it was opened
        if _lock(descriptor) is not False and _is_at(descriptor, names[-1]):
            return descriptor
        os.close(descriptor)  # swept before it was locked
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _make_file(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)


def _make_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock could be had; None where the disk has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a descriptor is of what lies at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _beside(target: Path, ending: str) -> Path:
    """A new hidden name beside `target`; of a long name the beginning, as a name has at most 255 bytes."""
    return target.with_name(f".{target.name[:_KEPT]}.{secrets.token_hex(4)}{ending}")


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
