"""Refining a file of prompts: data whose rows also hold the prompt with what is visible of each person.

What has been refined is kept in a journal beside the output, one line a prompt, so that a run that was killed
goes on; the journal goes when the file is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igrpo_sdk.config import check_prompt
from igrpo_sdk.errors import IgrpoError, InputError
from igrpo_sdk.media.files import check_output_path, write_text
from igrpo_sdk.references import Reference
from igrpo_sdk.refinement import Refiner, refine_prompt
from igrpo_sdk.sampling import Progress

from .rows import Case, read_cases, read_lines

__all__ = ["refine_file"]


def refine_file(
    data: Path,
    output: Path,
    load: Callable[[], Refiner],
    name: str,
    overwrite: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[int, int]:
    """Write `output`: the rows of `data`, each with a refined prompt. Returns how many were made and kept.

    Args:
        data: JSON Lines, see `dataset.read_cases`.
        output: may be `data` itself, with `overwrite`.
        load: gives the refiner; called once, and only if there is something to refine.
        name: of the refiner; a run only goes on with what one of the same name has made.
        overwrite: whether `output` may exist.
        progress: told before each row.

    Raises:
        InputError: a row, a picture or what the refiner returned cannot be used (the line is named), or the
            output exists.
    """
    target = check_output_path(output, overwrite, (".jsonl",))
    cases = read_cases(data)
    lines = read_lines(data)
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    journal = _Journal(target.with_name(f"{target.name}.part"))
    keys = []
    for number, case in zip(numbers, cases, strict=True):  # what is wrong with a picture is told soon
        with _naming(data, number):
            keys.append(None if case.refined_prompt else _key(name, _people(case), case.prompt))
    missing = {key for key in keys if key is not None} - journal.known.keys()
    refiner = load() if missing else None
    for done, (number, case, key) in enumerate(zip(numbers, cases, keys, strict=True)):
        progress(Progress("refine", done, len(cases)))
        if refiner and key is not None and key not in journal.known:
            with _naming(data, number):
                text = refine_prompt(refiner, _people(case), case.prompt)
                check_prompt("refine", text)
            journal.add(key, text)
        refined = case.refined_prompt if key is None else journal.known[key]
        lines[number - 1] = _line(json.loads(lines[number - 1]), case, target.parent, refined)
    write_text(target, "".join(f"{line}\n" for line in lines), overwrite)
    journal.remove()
    return len(missing), len(cases) - len(missing)


@contextmanager
def _naming(data: Path, number: int) -> Iterator[None]:
    """Say in an error which line it is about."""
    try:
        yield
    except IgrpoError as error:
        raise type(error)(f"{str(data)!r}, line {number}: {error}") from None


def _people(case: Case) -> tuple[Reference, ...]:
    """The pictures of a row; not kept, as a file may have many thousands."""
    return tuple(map(Reference.load, case.references))


def _line(content: dict[str, Any], case: Case, folder: Path, refined: str | None) -> str:
    """A row for a file in `folder`: relative paths lead to the same pictures from there."""
    pairs = zip(content["references"], case.references, strict=True)
    references = [given if Path(given).is_absolute() else _from(folder, file) for given, file in pairs]
    return json.dumps(content | {"references": references, "refined_prompt": refined})


def _from(folder: Path, file: Path) -> str:
    """The path of a picture as seen from a folder."""
    return Path(os.path.relpath(file.resolve(), folder)).as_posix()


def _key(name: str, people: Sequence[Reference], prompt: str) -> str:
    """What a refined prompt depends on, as a hash."""
    content = json.dumps([name, [person.hash for person in people], prompt])
    return hashlib.sha256(content.encode()).hexdigest()


class _Journal:
    """Refined prompts by key, on disk as soon as they are made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, str] = {}
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""  # a killed run cuts a line
        for line in whole.splitlines():
            try:
                key, text = json.loads(line)
            except ValueError:
                raise InputError(f"{str(path)!r} is damaged; remove it to begin anew") from None
            self.known[key] = text
        if path.exists():
            os.truncate(path, len(whole) + 1 if whole else 0)

    def add(self, key: str, text: str) -> None:
        """Keep a refined prompt."""
        self.known[key] = text
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, text]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Leave nothing behind."""
        self._path.unlink(missing_ok=True)
