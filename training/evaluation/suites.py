"""Suites: the cases on which systems are compared. A case is references, a prompt and a seed.

The built-in suite "world" shows people of the test split, whom nothing was trained or chosen on. Case k of a
part is a pure function of (part, k), so that a smaller suite is the beginning of a larger one:

    easy     two people apart, who stay where they are and mostly face the camera
    contact  two people who turn to each other and lean in
    hard     in turn: two people who change places, two who look alike, three people

Any other suite is a JSON Lines file in the format of training data, see `dataset.read_cases`.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from igrpo_sdk.errors import InputError
from igrpo_sdk.media import files
from igrpo_sdk.seeds import dice

from ..data.rows import FIELDS, Case, read_cases
from ..reader.network import appearance_vectors
from ..world.captions import caption, refined_caption
from ..world.identities import FACE_RANGES, SPLITS, identity_vectors
from ..world.renderer import reference_pictures
from ..world.scenes import BACKGROUNDS, LIGHTS, PLACES_BY_COUNT, STAYING, Actor, Scene

WORLD_PARTS = ("easy", "contact", "hard")
DEFAULT_CASES = 200
"""Cases of the built-in suite, shared evenly by its parts."""

_APART = ("stand", "talk", "laugh", "smile", "nod", "shake", "look_around")
_CLOSE = ("turn", "lean_in")


def load_suite(suite: str, count: int | None, folder: Path) -> list[Case]:
    """The cases of a suite, the parts in turn: "world", or the path of a JSON Lines file.

    Args:
        suite: see above.
        count: how many cases, shared evenly by the parts; None takes 200 of "world", all of a file.
        folder: where the references of "world" are drawn, with the suite as a file for other generators.

    Raises InputError for a suite that does not exist or holds something wrong, or holds fewer cases.
    """
    if count is not None and count < 1:
        raise InputError(f"cases: {count}; give 1 or more")
    if suite == "world":
        cases = [world_case(part, k) for part, k in _turns(count or DEFAULT_CASES)]
        return export(cases, folder)
    cases = _cases_of_file(suite)
    if count is not None and count > len(cases):
        raise InputError(f"cases: {count}, but {suite} holds {len(cases)}; give fewer")
    return balanced(cases, count or len(cases))


def _cases_of_file(suite: str) -> list[Case]:
    try:
        return read_cases(Path(suite))
    except InputError as error:
        raise InputError(f"suite {error}, or 'world'") from None


def balanced(cases: Sequence[Case], count: int) -> list[Case]:
    """The first `count` cases when the parts take turns, each in its own order."""
    seen: dict[str, int] = {}
    turns: list[int] = []
    for case in cases:
        turns.append(seen.get(case.part, 0))
        seen[case.part] = turns[-1] + 1
    order = sorted(range(len(cases)), key=lambda i: (turns[i], list(seen).index(cases[i].part)))
    return [cases[i] for i in order[:count]]


def with_refined_prompts(cases: Sequence[Case]) -> list[Case]:
    """The cases with their refined prompt as the prompt; InputError for one that has none."""
    refined = []
    for case in cases:
        if case.refined_prompt is None:
            raise InputError(
                f"case {case.id} has no refined_prompt; let `igrpo train refine-prompts` write it, or "
                "evaluate without"
            )
        refined.append(replace(case, prompt=case.refined_prompt))
    return refined


def world_case(part: str, index: int) -> Case:
    """Case `index` of a part of the built-in suite. Its references are file names, see `export`."""
    if part not in WORLD_PARTS or index < 0:
        raise InputError(f"part {part!r}, case {index}: use {', '.join(WORLD_PARTS)} and 0 or more")
    rng = dice("identity", part, index)
    people, actions = _cast(part, index, rng)
    places = list(PLACES_BY_COUNT[len(people)])
    rng.shuffle(places)
    actors = tuple(Actor(*each) for each in zip(people, places, actions, strict=True))
    scene = Scene(actors, rng.choice(BACKGROUNDS), rng.choice(LIGHTS), rng.randrange(2**62))
    prompt = caption(scene, index, "mixed")
    name = f"{part}-{index:03d}"
    return Case(
        id=name,
        part=part,
        references=tuple(Path("references", f"{name}-{i + 1}.png") for i in range(len(people))),
        prompt=prompt,
        refined_prompt=refined_caption(scene, prompt),
        plain_prompt=caption(scene, index, "order"),
        seed=rng.randrange(2**32),
        places=None if "swap" in actions else tuple(places),
        scene=scene,
    )


def _cast(part: str, index: int, rng: random.Random) -> tuple[list[int], list[str]]:
    """Who takes part, and what each does."""
    test = SPLITS["test"]
    if part == "easy":
        return rng.sample(test, 2), rng.choices(_APART, k=2)
    if part == "contact":
        actions = [rng.choice(_CLOSE), rng.choice(("turn", "lean_in", "talk", "laugh"))]
        return rng.sample(test, 2), rng.sample(actions, 2)
    if index % 3 == 0:
        return rng.sample(test, 2), ["swap", "swap"]
    if index % 3 == 1:
        person = rng.choice(test)
        return rng.sample([person, look_alike(person)], 2), rng.choices(STAYING, k=2)
    return rng.sample(test, 3), rng.choices(STAYING, k=3)


def look_alike(person: int) -> int:
    """The person of the test split most like another, in what the world draws: face, hair, beard, glasses,
    colours of skin, hair and clothes.
    """
    rows = _test_people()
    distance = np.square(rows - rows[person - SPLITS["test"].start]).sum(1)
    distance[person - SPLITS["test"].start] = np.inf
    return int(SPLITS["test"][int(distance.argmin())])


@functools.cache
def _test_people() -> NDArray[np.float32]:
    """What the people of the test split look like, (50000, D): faces in units of their ranges, and what of a
    person can be read from afar.
    """
    vectors = identity_vectors(torch.tensor(SPLITS["test"]))
    low, high = torch.tensor(list(FACE_RANGES.values())).T
    faces = (vectors[:, : len(FACE_RANGES)] - low) / (high - low)
    return np.asarray(torch.cat([faces, appearance_vectors(vectors)], 1).numpy(), np.float32)


def _turns(count: int) -> list[tuple[str, int]]:
    """(part, index) of the first `count` cases of the built-in suite."""
    return [(WORLD_PARTS[k % len(WORLD_PARTS)], k // len(WORLD_PARTS)) for k in range(count)]


def export(cases: Sequence[Case], folder: Path) -> list[Case]:
    """Draw the references of world cases into a folder, and write `suite.jsonl`, which `read_cases` reads.

    A picture that is there is kept. Returns the cases with the paths of their pictures; raises ResourceError
    when the disk refuses.
    """
    (folder / "references").mkdir(parents=True, exist_ok=True)
    placed = [replace(case, references=tuple(folder / path for path in case.references)) for case in cases]
    for case in placed:
        assert case.scene is not None
        if all(path.is_file() for path in case.references):
            continue
        for path, picture in zip(case.references, reference_pictures(case.scene), strict=True):
            with files.written_whole(path, overwrite=True) as partial:
                Image.fromarray(picture).save(partial)
    files.write_text(folder / "suite.jsonl", "".join(_line(case) + "\n" for case in cases))
    return placed


def _line(case: Case) -> str:
    content = {name: getattr(case, name) for name in FIELDS if getattr(case, name) is not None}
    return json.dumps(content | {"references": [path.as_posix() for path in case.references]})


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 16 hexadecimal digits. Raises InputError when it cannot be read."""
    try:
        return files.file_hash(path)[:16]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from None
