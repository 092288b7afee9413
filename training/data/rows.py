"""Rows of references, prompts and seeds: the format of training data and of suites.

A JSON Lines file, one object a line:

    {"references": ["a.jpg", "b.jpg"], "prompt": "Two people talk.", "places": ["left", "right"]}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igrpo_sdk.config import check_prompt, check_seed
from igrpo_sdk.errors import IgrpoError, InputError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.reading import parse_json, probe, read_text, shortened

from ..world.scenes import Scene

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What ids, parts and systems may be called: they become file names and keys."""
MAX_BYTES = 2**28
"""Largest file of rows."""
MAX_LINE = 2**20
"""Longest row, in characters."""
FIELDS = ("references", "prompt", "refined_prompt", "plain_prompt", "seed", "part", "places", "id")
DEFAULT_PART = "all"


@dataclass(frozen=True)
class Case:
    """One case.

    id: its name, unique in the suite. part: the group it is reported with. references: picture files, one of
    each person. prompt: who does what, where. plain_prompt: the same without a word about how anybody looks,
    for videos from blank references. seed: of the video. places: where each person stands from beginning to
    end, or None where that is not known or changes. scene: what the prompt describes, in the built-in suite.
    refined_prompt: the prompt completed with what is visible of each person; or None.
    """

    id: str
    part: str
    references: tuple[Path, ...]
    prompt: str
    plain_prompt: str
    seed: int
    places: tuple[str, ...] | None = None
    scene: Scene | None = None
    refined_prompt: str | None = None


def read_lines(path: Path) -> list[str]:
    """The lines of a JSON Lines file. A newline alone ends one: text in JSON may hold other ends of lines.

    A byte order mark, as Windows writes it, is skipped. Raises InputError for a file that cannot be read, or
    over `MAX_BYTES`.
    """
    return read_text(path, "rows", MAX_BYTES).removesuffix("\n").split("\n")


def read_cases(path: Path, refined: bool = False) -> list[Case]:
    """The cases of a JSON Lines file; empty lines are skipped.

    `refined`: every line must have a "refined_prompt" (`igrpo train refine-prompts` writes it).

    Paths are relative to the file. Optional: "id" (by default line-1, line-2, ...), "part" (all), "seed" (the
    number of the line), "places" (only where nobody changes places), "plain_prompt" (the prompt),
    "refined_prompt". Raises InputError that names the line.
    """
    cases: dict[str, Case] = {}
    file = shortened(str(path))
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        content = parse_json(line, f"{file}, line {number}", MAX_LINE)
        try:
            case = _case(content, number, path.parent)
            if refined and case.refined_prompt is None:
                raise InputError(
                    "refined_prompt: missing; let `igrpo train refine-prompts` write it, or train without"
                )
            if case.id.lower() in cases:  # ids name files, also on disks that do not tell case apart
                raise InputError(f"id: {case.id!r} is taken; give another")
        except IgrpoError as error:
            raise InputError(f"{file}, line {number}: {error}") from None
        cases[case.id.lower()] = case
    if not cases:
        raise InputError(f"{file} holds no case; give one a line")
    return list(cases.values())


def _case(content: Any, number: int, folder: Path) -> Case:
    """The case of one line."""
    if not isinstance(content, dict) or not {"references", "prompt"} <= set(content) <= set(FIELDS):
        raise InputError(f"give an object with references and prompt; also allowed: {', '.join(FIELDS[2:])}")
    references = content["references"]
    if not isinstance(references, list) or not all(isinstance(name, str) for name in references):
        raise InputError(f"references: {shortened(references)}; give a list of paths")
    if not references:
        raise InputError("references: none given; give one picture of each person")
    files = tuple(folder / name for name in references)
    for file in files:
        if probe(file, "references") != "file":
            raise InputError(f"references: {shortened(str(file))} is no file")
    plain: Any = content.get("plain_prompt", content["prompt"])
    check_prompt("prompt", content["prompt"])
    check_prompt("plain_prompt", plain)
    if "refined_prompt" in content:
        check_prompt("refined_prompt", content["refined_prompt"])
    return Case(
        id=_name("id", content.get("id", f"line-{number}")),
        part=_name("part", content.get("part", DEFAULT_PART)),
        references=files,
        prompt=content["prompt"],
        plain_prompt=plain,
        seed=check_seed(content.get("seed", number)),
        places=_places(content.get("places"), len(files)),
        refined_prompt=content.get("refined_prompt"),
    )


def _name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InputError(f"{field}: {shortened(value)}; use up to 64 letters, digits, '.', '_' and '-'")
    return value


def _places(value: Any, people: int) -> tuple[str, ...] | None:
    if value is None:
        return None
    known = isinstance(value, list) and all(place in PLACES for place in value)
    if not known or len(value) != people or len(set(value)) != people:
        raise InputError(
            f"places: {shortened(value)}; give a different one of {', '.join(PLACES)} for each person"
        )
    return tuple(value)
