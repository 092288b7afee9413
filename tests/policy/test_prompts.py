"""Prompts of a run, refined or not: the world's, a file's, and the command that refines a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from qwen import DESCRIPTIONS, person
from small_runs import settings, write_prompts
from transformers import AutoTokenizer

from igrpo_sdk.commands import dispatch
from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.references import Reference
from igrpo_sdk.refinement import complete_prompt
from igrpo_sdk.sampling import Progress
from igrpo_sdk.training.commands import refine_prompts
from igrpo_sdk.training.common.log import read_log
from igrpo_sdk.training.common.recipe import build
from igrpo_sdk.training.data.refining import refine_file
from igrpo_sdk.training.data.rows import read_cases
from igrpo_sdk.training.policy.config import PolicyRecipe
from igrpo_sdk.training.policy.prompts import DrawnAhead, PromptConfig, make_prompts
from igrpo_sdk.training.policy.trainer import train_policy
from igrpo_sdk.training.world.captions import captions, refined_caption
from igrpo_sdk.training.world.identities import appearances, identity_vectors
from igrpo_sdk.training.world.naming import reference_description
from igrpo_sdk.training.world.scenes import actor_keys, sample_scene

PROMPT = "Two people talk."


def anything(name: str, text: str, people: int) -> None:
    """A model that takes every prompt."""


def refiner(references: Sequence[Reference], prompt: str) -> str:
    """A refiner that needs no model."""
    return complete_prompt(prompt, [f"number {reference.hash[:4]}" for reference in references])


def never() -> Any:
    """A refiner that must not be loaded."""
    raise AssertionError("loaded")


# ---- the world's


@pytest.mark.parametrize("people", [(), (2, 4), (0,)])
def test_numbers_of_people_that_no_scene_has(people: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"prompts.people=\[.*\]: give numbers from 1 to 3"):
        PromptConfig(people=people)


def test_prompts_of_the_world_are_completed() -> None:
    plain = make_prompts(PromptConfig(people=(1, 2, 3)), 5, "train", anything)
    refined = make_prompts(PromptConfig(people=(1, 2, 3), refined=True), 5, "train", anything)
    for number in range(6):
        one, other = plain.prompt(number), refined.prompt(number)
        assert (one.text, one.refined, one.given) == (other.text, None, other.text)
        scene = other.scene
        assert scene is not None and scene == one.scene
        looks = appearances(identity_vectors(*actor_keys(scene.actors)))
        assert other.refined == complete_prompt(other.text, [reference_description(look) for look in looks])
        assert other.given == other.refined
        made = other.rollout(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), 3)
        assert (made.prompt, made.refined_prompt) == (other.text, other.refined)


def test_refined_captions_fit_the_tiny_text_encoder(root: Path) -> None:
    """128 tokens; of one to three people, in every way of naming them."""
    folder = root / "igrpo_sdk" / "assets" / "tiny-vace"
    limit = json.loads((folder.parent / "presets" / "tiny-vace.json").read_text())["max_text_tokens"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    scenes = [sample_scene(seed, "train", seed % 4 or 3) for seed in range(6000)]
    looks = iter(appearances(identity_vectors(*actor_keys([a for scene in scenes for a in scene.actors]))))
    texts = captions(scenes, range(6000))
    refined = [
        complete_prompt(text, [reference_description(next(looks)) for _ in scene.actors])
        for scene, text in zip(scenes, texts, strict=True)
    ]
    assert refined[:20] == [refined_caption(*pair) for pair in zip(scenes[:20], texts[:20], strict=True)]
    encoded = tokenizer(refined).input_ids
    lengths = [len(ids) for ids in encoded]
    assert max(lengths) <= limit
    assert max(lengths) > limit - 20, "shorter than it needs to be"
    assert tokenizer.unk_token_id not in {token for ids in encoded for token in ids}


def test_what_the_model_is_given_is_checked() -> None:
    def short(name: str, text: str, people: int) -> None:
        if len(text) > 250:
            raise InputError(f"{name}: too long")

    config = PromptConfig(people=(3,), refined=True)
    with pytest.raises(InputError, match="prompts, number 0, refined: too long"):
        make_prompts(config, 5, "train", short)


def test_a_process_draws_the_same() -> None:
    """In any order; a text that is too long is told where the prompt is wanted, and so is a dead process."""
    told = []

    def check(name: str, text: str, people: int) -> None:
        told.append(name)

    own = make_prompts(PromptConfig(people=(2,)), 5, "train", anything)
    with DrawnAhead(PromptConfig(people=(2,), workers=1), 5, "train", check) as ahead:
        ahead.begin([0, 1])
        for number in (1, 0, 2):
            one, other = ahead.prompt(number), own.prompt(number)
            assert (one.given, one.places, one.scene) == (other.given, other.places, other.scene)
            assert [picture.hash for picture in one.references] == [r.hash for r in other.references]
        assert told[-3:] == ["prompts, number 1", "prompts, number 0", "prompts, number 2"]
        for process in ahead._pool._processes.values():  # type: ignore[attr-defined]
            process.kill()
        with pytest.raises(ResourceError, match="a process that draws prompts has died"):
            ahead.prompt(3)
        with pytest.raises(ResourceError, match="a process that draws prompts has died"):
            ahead.begin([4])
    with pytest.raises(InputError, match="workers=-1"):
        PromptConfig(workers=-1)


# ---- a file's


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows in a folder of their own, the first with a refined prompt, the second without an id."""
    folder = tmp_path / "data"
    (folder / "faces").mkdir(parents=True)
    for colour in DESCRIPTIONS:
        Image.fromarray(person(colour).image).save(folder / "faces" / f"{colour}.png")
    red, blue = (f"faces/{colour}.png" for colour in DESCRIPTIONS)
    lines = [
        {"id": "one", "references": [red], "prompt": "It is red.", "refined_prompt": "By hand."},
        {"references": [str(folder / red), blue], "prompt": PROMPT, "places": ["left", "right"]},
        {"references": [blue], "prompt": "It is blue.", "seed": 77},
    ]
    path = folder / "data.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_rows_are_refined_beside_their_prompts(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "refined.jsonl"
    told: list[Progress] = []
    assert refine_file(data, output, lambda: refiner, "x", progress=told.append) == (2, 1)
    assert told == [Progress("refine", k, 3) for k in range(3)]
    before, after = read_cases(data), read_cases(output, refined=True)
    for old, new in zip(before, after, strict=True):
        assert [path.resolve() for path in new.references] == [path.resolve() for path in old.references]
        for name in ("id", "part", "prompt", "plain_prompt", "seed", "places"):
            assert getattr(new, name) == getattr(old, name)
    people = [Reference.load(path) for path in before[1].references]
    assert [case.refined_prompt for case in after[:2]] == ["By hand.", refiner(people, PROMPT)]
    given = [json.loads(line)["references"] for line in output.read_text().splitlines() if line]
    assert given[0] == ["../data/faces/red.png"] and Path(given[1][0]).is_absolute()
    assert os.listdir(output.parent) == ["refined.jsonl"]


def test_a_file_can_be_completed_in_place(data: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        refine_file(data, data, never, "x")
    assert refine_file(data, data, lambda: refiner, "x", overwrite=True) == (2, 1)
    assert refine_file(data, data, never, "x", overwrite=True) == (0, 3)
    assert json.loads(data.read_text().splitlines()[0])["references"] == ["faces/red.png"]


def interrupted(after: int) -> Callable[[Sequence[Reference], str], str]:
    """A refiner that is stopped."""
    left = iter(range(after))

    def refine(references: Sequence[Reference], prompt: str) -> str:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return refiner(references, prompt)

    return refine


def test_a_killed_run_goes_on(data: Path, tmp_path: Path) -> None:
    output, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    refine_file(data, whole, lambda: refiner, "x")
    with pytest.raises(KeyboardInterrupt):
        refine_file(data, output, lambda: interrupted(1), "x")
    journal = tmp_path / "out.jsonl.part"
    assert not output.exists() and journal.exists()
    with journal.open("a") as file:
        file.write('["half a li')  # killed while writing
    with pytest.raises(KeyboardInterrupt):
        refine_file(data, output, lambda: interrupted(0), "x")
    assert refine_file(data, output, lambda: interrupted(1), "x") == (1, 2)
    assert output.read_text() == whole.read_text()
    assert not journal.exists()


def test_another_refiner_begins_anew(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        refine_file(data, output, lambda: interrupted(1), "x")
    assert refine_file(data, output, lambda: refiner, "y") == (2, 1)


def test_a_damaged_journal_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").write_text("rubbish\n")
    with pytest.raises(InputError, match=r"out.jsonl.part' is damaged; remove it to begin anew"):
        refine_file(data, tmp_path / "out.jsonl", never, "x")


@pytest.mark.parametrize("returned", [None, "", "a\x00b"])
def test_what_a_refiner_returns_is_checked(data: Path, tmp_path: Path, returned: Any) -> None:
    with pytest.raises(InputError, match=r"data.jsonl', line 3: refine: "):
        refine_file(data, tmp_path / "out.jsonl", lambda: lambda *_: returned, "x")
    assert os.listdir(tmp_path) == ["data"]


def test_wrong_files_are_refused_before_a_model_is_loaded(data: Path, tmp_path: Path) -> None:
    for output, says in ((tmp_path / "out.txt", "unknown suffix"), (tmp_path / "no" / "out.jsonl", "folder")):
        with pytest.raises(InputError, match=says):
            refine_file(data, output, never, "x")
    data.write_text(data.read_text().replace('"By hand."', "5"))
    with pytest.raises(InputError, match="line 1: refined_prompt: int; give a string"):
        refine_file(data, tmp_path / "out.jsonl", never, "x")
    data.write_text(data.read_text().replace("5}", '"By hand."}'))
    (data.parent / "faces" / "blue.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="line 3: reference .*blue.png"):
        refine_file(data, tmp_path / "out.jsonl", never, "x")


def run(*words: str) -> int:
    """The command, as its entry point runs it."""
    return dispatch.run(lambda: refine_prompts, "train refine-prompts", words)


def test_the_command(
    data: Path, tmp_path: Path, qwen_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--help") == 0
    assert "--overwrite" in capsys.readouterr().out
    output = tmp_path / "out.jsonl"
    words = (str(data), "-o", str(output), "--model", str(qwen_directory), "--device", "cpu")
    assert run(*words) == 0
    assert capsys.readouterr().out == f"{output}: 2 prompts refined, 1 kept\n"
    cases = read_cases(output, refined=True)
    red, blue = DESCRIPTIONS.values()
    assert cases[1].refined_prompt == f"{PROMPT} The first person is {red}. The second person is {blue}."
    assert cases[2].refined_prompt == f"It is blue. The person is {blue}."
    assert run(*words) == 1
    assert "exists already" in capsys.readouterr().err
    assert run(*words, "--overwrite") == 0
    assert run(str(data), "-o", str(tmp_path / "other.jsonl"), "--model", "nothing") == 1
    assert "igrpo: error: refine: 'nothing' is no directory or Hub repository" in capsys.readouterr().err


def test_a_line_that_is_not_refined_is_named(data: Path) -> None:
    with pytest.raises(InputError, match=r"data.jsonl', line 3: refined_prompt: missing; let `igrpo train"):
        make_prompts(PromptConfig(str(data), refined=True), 0, "train", anything)


def test_refined_prompts_of_a_file(data: Path) -> None:
    refine_file(data, data, lambda: refiner, "x", overwrite=True)
    plain = make_prompts(PromptConfig(str(data)), 0, "train", anything)
    refined = make_prompts(PromptConfig(str(data), refined=True), 0, "train", anything)
    for number in range(3):
        one, other = plain.prompt(number), refined.prompt(number)
        assert one.given == one.text == other.text != other.given == other.refined


def test_every_line_of_a_file_is_checked_at_once(data: Path) -> None:
    refine_file(data, data, lambda: refiner, "x", overwrite=True)

    def short(name: str, text: str, people: int) -> None:
        if len(text) > 20:
            raise InputError(f"{name}: too long")

    make_prompts(PromptConfig(str(data)), 0, "train", short)
    with pytest.raises(InputError, match="jsonl', line-3, refined: too long"):
        make_prompts(PromptConfig(str(data), refined=True), 0, "train", short)


def test_other_ends_of_lines_are_text(data: Path, tmp_path: Path) -> None:
    """As JSON has them: the end of a line alone is that of a row."""
    text = "It is red.\u2028It is blue."
    rows = [json.dumps({"references": ["faces/red.png"], "prompt": text}, ensure_ascii=False)] * 2
    data.write_text("\r\n".join(rows), "utf-8")
    assert [case.prompt for case in read_cases(data)] == [text, text]
    assert refine_file(data, tmp_path / "out.jsonl", lambda: refiner, "x") == (1, 1)
    assert [case.id for case in read_cases(tmp_path / "out.jsonl", refined=True)] == ["line-1", "line-2"]


# ---- a run


@pytest.mark.parametrize("key", ["prompts", "evaluation"])
@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"references": ["0-0.png"] * 5}, r"references: 5 given; tiny-random takes .* at most 3"),
        ({"prompt": "the third person talks"}, "'the third person', but 1 reference is given"),
    ],
)
def test_a_row_that_the_model_cannot_take_is_named(
    tiny_directory: Path, tmp_path: Path, key: str, row: dict[str, Any], what: str
) -> None:
    path, wrong = write_prompts(tmp_path), tmp_path / "wrong.jsonl"
    first, *others = path.read_text().splitlines()
    wrong.write_text("\n".join([*others, json.dumps(json.loads(first) | row)]))
    source = {"source": str(wrong)}
    made = settings(tiny_directory, path)
    made[key] = source if key == "prompts" else made[key] | {"prompts": source}
    with pytest.raises(InputError, match=rf"wrong.jsonl', line-6: {what}"):
        train_policy(build(PolicyRecipe, made), tmp_path / "run", device="cpu")


def test_a_run_uses_the_refined_prompts(tiny_directory: Path, tmp_path: Path) -> None:
    """What is written as refined trains as what is written as the prompt does, and otherwise than that."""
    path = write_prompts(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    longer = [line | {"prompt": f"{line['prompt']} and nod"} for line in lines]
    swapped = [line | {"refined_prompt": more["prompt"]} for line, more in zip(lines, longer, strict=True)]
    runs = {"plain": (lines, False), "longer": (longer, False), "refined": (swapped, True)}
    numbers = {}
    for name, (content, refined) in runs.items():
        path.write_text("\n".join(map(json.dumps, content)))
        source = {"source": str(path), "refined": refined}
        evaluation = {"every": 1, "count": 2, "batch": 2, "shown": 0, "prompts": source}
        made = settings(tiny_directory, path, steps=1, evaluation=evaluation) | {"prompts": source}
        train_policy(build(PolicyRecipe, made), tmp_path / name, device="cpu")
        numbers[name] = _numbers(tmp_path / name)
    assert numbers["refined"] == numbers["longer"] != numbers["plain"]


def _numbers(output: Path) -> list[dict[str, Any]]:
    """What a run has measured, without times."""
    found = [*read_log(output, "step"), *read_log(output, "evaluation")]
    return [{k: v for k, v in row.items() if "second" not in k and "elapsed" not in k} for row in found]


def test_a_run_refuses_a_refined_prompt_that_is_too_long(tiny_directory: Path, tmp_path: Path) -> None:
    path = write_prompts(tmp_path)
    lines = [
        json.loads(line) | {"refined_prompt": "people talk " * 40} for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    made = settings(tiny_directory, path) | {"prompts": {"source": str(path), "refined": True}}
    with pytest.raises(InputError, match=r"line-1, refined: \d+ tokens; tiny-random takes 32"):
        train_policy(build(PolicyRecipe, made), tmp_path / "run", device="cpu")


def test_a_recipe_says_it() -> None:
    content = {"steps": 1, "rewards": {"motion": {"floor": 1.0}}, "prompts": {"refined": True}}
    made = build(PolicyRecipe, content)
    assert made.prompts.refined and not made.evaluation.prompts.refined
    with pytest.raises(InputError, match="prompts.refined='yes' must be of type bool"):
        build(PolicyRecipe, content | {"prompts": {"refined": "yes"}})
