"""Nothing ever trains on test people: neither the source nor the running smoke recipes can reach them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loose import load_loose

from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import mix
from igrpo_sdk.training.common.recipe import build, read_recipe
from igrpo_sdk.training.pretrain.clips import ClipPool, draw_people, letterbox_squares, to_video
from igrpo_sdk.training.pretrain.latents import Encoder, LatentConfig, LatentPool, tokenizer_function
from igrpo_sdk.training.pretrain.text import TextRecipe, TextTask
from igrpo_sdk.training.pretrain.tokenizer import train_tokenizer
from igrpo_sdk.training.pretrain.vae import VaeRecipe, VaeTask
from igrpo_sdk.training.reader.training import ReaderRecipe, ReaderTask
from igrpo_sdk.training.world.captions import captions
from igrpo_sdk.training.world.identities import SPLITS
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Scene, sample_scene

CPU = torch.device("cpu")
TRAINING = Path(__file__).resolve().parents[2] / "training"
# What takes a split, and where among its arguments; `self` is not counted.
TAKES_SPLIT = {
    "sample_scene": 1, "draw_people": 1, "ClipPool": 2, "LatentPool": 4, "write_examples": 1,
    "make_prompts": 2, "WorldPrompts": 2,
}  # fmt: skip
ALLOWED = {"train", "validation"}


# ---- the source


SUITES = TRAINING / "evaluation" / "suites.py"
JUDGE_MEAN = TRAINING.parent / "examples" / "benchmarks" / "judge_mean.py"


def sources() -> list[Path]:
    """Everything that can train, and what makes the judge's mean: all of training/ but the world itself,
    which defines the splits, and the suites of test people, which nothing that trains may import.
    """
    found = [path for path in sorted(TRAINING.rglob("*.py")) if path.parent.name != "world"]
    found.remove(SUITES)
    found.append(JUDGE_MEAN)
    there = {f"{path.parent.name}/{path.name}" for path in found}
    known = {"pretrain/clips.py", "pretrain/latents.py", "reader/training.py", "benchmarks/judge_mean.py"}
    assert known <= there
    return found


def given_splits(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.AST | None]]:
    """(the split, the function around it) of every call that takes one and every look into SPLITS."""

    def walk(node: ast.AST, function: ast.AST | None) -> Iterator[tuple[ast.expr, ast.AST | None]]:
        if isinstance(node, ast.FunctionDef):
            function = node
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in TAKES_SPLIT:
                named = [keyword.value for keyword in node.keywords if keyword.arg == "split"]
                yield (named or node.args[TAKES_SPLIT[name] :])[0], function
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "SPLITS":
            yield node.slice, function
        for child in ast.iter_child_nodes(node):
            yield from walk(child, function)

    yield from walk(tree, None)


def is_fine(split: ast.expr, function: ast.AST | None) -> bool:
    """The name of an allowed split, or what a caller that is checked itself handed on as `split`."""
    if isinstance(split, ast.Constant):
        return split.value in ALLOWED
    handed_on = isinstance(function, ast.FunctionDef) and "split" in {a.arg for a in function.args.args}
    return ast.unparse(split) == "self.split" or (ast.unparse(split) == "split" and handed_on)


def test_training_code_names_train_or_validation() -> None:
    found = [
        (path, *given) for path in sources() for given in given_splits(ast.parse(path.read_text("utf-8")))
    ]
    assert len(found) > 10
    wrong = [
        f"{path.name}:{split.lineno} {ast.unparse(split)}"
        for path, split, f in found
        if not is_fine(split, f)
    ]
    assert wrong == []


def test_training_code_has_no_word_for_test_people() -> None:
    """Nor a number of one: the ranges are written in one place."""
    people = SPLITS["test"]
    wrong = [
        f"{path.name}:{node.lineno} {node.value!r}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and (node.value == "test" or (type(node.value) is int and node.value in people))
    ]
    assert wrong == []
    recipes = [*TRAINING.glob("recipes/*.yaml"), *TRAINING.glob("recipes/*.sh")]
    assert len(recipes) > 5
    assert [path.name for path in recipes if "split" in path.read_text("utf-8")] == []


def test_only_the_evaluation_knows_the_suites_of_test_people() -> None:
    knows = {
        path.relative_to(TRAINING).as_posix()
        for path in TRAINING.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and "suites" in ast.unparse(node)
    }
    assert knows == {f"evaluation/{name}.py" for name in ("command", "measures")}


@pytest.mark.parametrize(
    "line",
    [
        'sample_scene(seed, "test")',
        'sample_scene(seed=0, split="test")',
        'scenes.sample_scene(1, "te" + "st")',
        "LatentPool(config, clip, 2, 4, name, encoder, tokenize)",
        'SPLITS["test"]',
        "SPLITS[name]",
    ],
)
def test_the_check_of_the_source_can_fail(line: str) -> None:
    assert not all(is_fine(*given) for given in given_splits(ast.parse(line)))
    assert not all(is_fine(*given) for given in given_splits(ast.parse(f"def f(name):\n    {line}")))


# ---- the running recipes


@pytest.fixture
def no_test_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world in which nobody is of the test split: whoever asks for them gets an error."""
    monkeypatch.delitem(SPLITS, "test")
    with pytest.raises(InputError):
        sample_scene(0, "test")
    with pytest.raises(KeyError):
        draw_people(1, "test", 0)


def smoke(kind: type[Any], name: str) -> Any:
    data = read_recipe(f"tiny_{name}_smoke")
    del data["kind"]
    return build(kind, data)


@pytest.mark.usefixtures("no_test_people")
@pytest.mark.parametrize(
    ("name", "recipe", "task"),
    [("vae", VaeRecipe, VaeTask), ("text", TextRecipe, TextTask), ("reader", ReaderRecipe, ReaderTask)],
)
def test_a_run_needs_no_test_people(name: str, recipe: type[Any], task: type[Any]) -> None:
    made = task(smoke(recipe, name), CPU)
    for step in (0, 5):
        loss, _ = made.loss(made.draw(step, step / 6))
        assert loss.isfinite()
    assert made.evaluate()


@pytest.mark.usefixtures("no_test_people")
def test_the_judges_mean_needs_no_test_people() -> None:
    close_ups, frames = load_loose("examples/benchmarks/judge_mean.py").training_pictures(2)
    assert len(close_ups) == len(frames) == 2


def everybody(scenes: list[Scene]) -> list[int]:
    return [actor.identity for scene in scenes for actor in scene.actors]


@pytest.mark.parametrize(("held_out", "split"), [(False, "train"), (True, "validation")])
def test_the_clips_and_close_ups_of_the_vae_are_of_its_split(held_out: bool, split: str) -> None:
    """What the pools hold is, pixel for pixel, renders of people of the split."""
    task = VaeTask(smoke(VaeRecipe, "vae"), CPU)
    pool: ClipPool = task.held_out if held_out else task.pool
    pool.advance(0)
    seed, config, clip = task.recipe.seed, pool.config, task.recipe.clip
    scenes = [sample_scene(mix(seed, "scene", 0, i), split) for i in range(config.group_clips)]
    people, seeds = draw_people(config.group_stills, split, seed, "still", 0)
    assert all(person in SPLITS[split] for person in [*everybody(scenes), *people.tolist()])
    made = render_scenes(scenes, clip.height, clip.width, clip.num_frames, clip.fps)
    assert torch.equal(pool.frames[: len(scenes)], made.frames)
    stills = letterbox_squares(render_references(people, seeds, clip.height), clip.height, clip.width)
    assert torch.equal(pool.stills[: len(people)], stills)


@pytest.mark.parametrize("split", sorted(ALLOWED))
def test_the_latents_of_the_flow_are_of_its_split(split: str) -> None:
    clip = smoke(VaeRecipe, "vae").clip
    encoder = Encoder(smoke(VaeRecipe, "vae").model.build(), CPU, half=False)
    tokenize = tokenizer_function(
        train_tokenizer(captions([sample_scene(s, "train") for s in range(20)], range(20)), 200)
    )
    config = LatentConfig(clips=4, captions=1, pictures=1, chunk=4)
    pool = LatentPool(config, clip, 2, 4, split, encoder, tokenize)
    scenes = [sample_scene(mix(config.seed, split, 2, i), split, 2) for i in range(4)]
    assert all(person in SPLITS[split] for person in everybody(scenes))
    made = render_scenes(scenes, clip.height, clip.width, clip.num_frames, clip.fps)
    expected = encoder.encode(to_video(made.frames)).half().float()
    drawn = pool.sample(16, "any").video
    assert all(any(torch.equal(video, one) for one in expected) for video in drawn)
    other = replace(scenes[0], actors=scenes[1].actors)
    assert not torch.equal(encoder.encode(to_video(render_scenes([other], 48, 48, 5).frames))[0], expected[0])
