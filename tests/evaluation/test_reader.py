"""The reader: its truth, its comparison with prompts, its files, and a training run at toy size."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.training.commands import train_world
from igrpo_sdk.training.common.checkpoint import list_checkpoints, load
from igrpo_sdk.training.pretrain.loop import Budget
from igrpo_sdk.training.pretrain.trainer import Optimisation, make_optimizers
from igrpo_sdk.training.reader.network import (
    APPEARANCE_SIZE,
    WEIGHTS,
    ReaderModel,
    Reading,
    SceneReader,
    actor_appearances,
    background_share,
    facts_of,
    follow,
    load_reader,
    prompt_following,
    readings_of,
    save_reader,
    to_input,
    who_does_what_share,
)
from igrpo_sdk.training.reader.training import (
    ReaderData,
    ReaderRecipe,
    ReaderTask,
    reader_loss,
    truth_of,
)
from igrpo_sdk.training.world.renderer import render_scenes
from igrpo_sdk.training.world.scenes import ACTIONS, Actor, Scene, sample_scene

TOY = ReaderModel(height=32, width=48, num_frames=5, channels=(8, 8, 16))

SCENE = Scene((Actor(11, "right", "nod"), Actor(5, "left", "talk")), "garden", "dim", 3)
FACTS = facts_of(SCENE)


def perfect(scene: Scene) -> Reading:
    """The reading that says exactly what the scene is."""
    appearance = np.zeros((3, APPEARANCE_SIZE), np.float32)
    actions, occupied = ["stand"] * 3, [False] * 3
    for actor, looks in zip(scene.actors, actor_appearances(scene), strict=True):
        place = PLACES.index(actor.place)
        actions[place], occupied[place], appearance[place] = actor.action, True, looks
    return Reading(
        len(scene.actors), scene.background, scene.light, tuple(occupied), tuple(actions), appearance
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_perfect_reading_follows_its_prompt(seed: int) -> None:
    scene = sample_scene(seed, "validation")
    followed = follow(perfect(scene), facts_of(scene))
    assert followed.strict and followed.count and followed.light and all(followed.action)


def test_people_on_each_others_place_are_wrong_even_if_the_actions_are_right() -> None:
    reading = perfect(SCENE)
    exchanged = replace(reading, appearance=reading.appearance[::-1].copy())
    followed = follow(exchanged, FACTS)
    assert followed.place == (False, False) and followed.action == (True, True)
    assert followed.does == (False, False) and followed.background


def test_a_wrong_action_is_wrong_for_its_person_only() -> None:
    reading = perfect(SCENE)
    followed = follow(replace(reading, actions=("laugh", *reading.actions[1:])), FACTS)
    assert followed.does == (True, False) and followed.place == (True, True)


def test_a_person_nobody_sees_is_wrong() -> None:
    reading = perfect(SCENE)
    followed = follow(replace(reading, occupied=(True, False, False)), FACTS)
    assert followed.does == (False, True)
    nobody = follow(replace(reading, occupied=(False,) * 3), FACTS)
    assert nobody.does == nobody.place == (False, False)


def test_the_number_is_the_mean_of_its_two_parts() -> None:
    right = follow(perfect(SCENE), FACTS)
    wrong = follow(replace(perfect(SCENE), background="window", occupied=(True, False, False)), FACTS)
    clips = [right, wrong]
    assert background_share(clips) == 0.5 and who_does_what_share(clips) == 0.75
    assert prompt_following(clips) == 0.625
    assert prompt_following([]) is None


def test_readings_survive_json() -> None:
    reading = perfect(SCENE)
    again = Reading.from_json(reading.as_json())
    assert follow(again, FACTS) == follow(reading, FACTS)
    assert np.allclose(again.appearance, reading.appearance, atol=1e-4)


def test_truth_is_what_the_scene_says() -> None:
    scenes = [sample_scene(seed, "train") for seed in range(8)]
    truth = truth_of(scenes)
    for b, scene in enumerate(scenes):
        assert truth.count[b] == len(scene.actors) - 1
        assert truth.occupied[b].sum() == len(scene.actors)
        for actor, looks in zip(scene.actors, actor_appearances(scene), strict=True):
            place = PLACES.index(actor.place)
            assert ACTIONS[truth.action[b, place]] == actor.action
            assert np.array_equal(truth.appearance[b, place].numpy(), looks)
    assert bool(((truth.action < 0) == (truth.occupied == 0)).all())


def test_loss_is_least_for_the_truth_and_deaf_to_empty_places() -> None:
    truth = truth_of([SCENE])
    reader = SceneReader(TOY)
    logits = reader(torch.zeros(1, 5, 3, 32, 48))
    loss, _ = reader_loss(logits, truth)
    changed = logits.action.clone()
    changed[:, 1] += 100  # nobody stands in the middle
    assert torch.equal(reader_loss(replace(logits, action=changed), truth)[0], loss)
    better = replace(logits, appearance=truth.appearance)
    assert reader_loss(better, truth)[0] < loss


def test_network_gives_every_field_and_reads_time() -> None:
    torch.manual_seed(0)
    reader = SceneReader(TOY).eval()
    clip = torch.rand(2, 5, 3, 32, 48) * 2 - 1
    logits = reader(clip)
    assert (
        logits.count.shape == (2, 3) and logits.background.shape == (2, 12) and logits.light.shape == (2, 6)
    )
    assert logits.occupied.shape == (2, 3) and logits.action.shape == (2, 3, 11)
    assert logits.appearance.shape == (2, 3, APPEARANCE_SIZE)
    assert not torch.allclose(reader(clip.flip(1)).action, logits.action)
    one, two = readings_of(logits)
    assert not np.array_equal(one.appearance, two.appearance)


def test_the_full_size_stays_small() -> None:
    assert sum(p.numel() for p in SceneReader(ReaderModel()).parameters()) <= 350_000


@pytest.mark.parametrize(
    "bad", [{"height": 100}, {"num_frames": 0}, {"channels": (8, 8)}, {"channels": (8, 8, 9)}]
)
def test_bad_sizes_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ReaderModel(**bad)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        ReaderData(groups=1, initial_groups=2)


def test_videos_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="uint8"):
        SceneReader(TOY).read(np.zeros((1, 5, 32, 32, 3), np.uint8))


def test_weights_come_back_in_half_precision(tmp_path: Path) -> None:
    reader = SceneReader(TOY).eval()
    weights = tmp_path / "reader.safetensors"
    save_reader(reader, weights)
    again = load_reader(weights)
    for name, value in reader.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())
    weights.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="tiny_reader"):
        load_reader(weights)
    with pytest.raises(WeightsError, match="tiny_reader"):
        load_reader(tmp_path / "absent.safetensors")


def test_a_batch_is_as_large_as_the_recipe_says() -> None:
    recipe = ReaderRecipe(Budget(1), batch=3, model=TOY, data=ReaderData(group=2, groups=2, initial_groups=2))
    video, truth = ReaderTask(recipe, torch.device("cpu")).draw(0, 0.0)
    assert len(video) == len(truth.action) == len(truth.count) == 3
    with pytest.raises(InputError, match="batch=0"):
        replace(recipe, batch=0)
    with pytest.raises(InputError, match="'adamw'"):
        make_optimizers(Optimisation(method="muon"), [], [torch.nn.Parameter(torch.zeros(1))])


def test_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_world("tiny_reader_smoke", output=str(whole), device="cpu")
    killed = list_checkpoints(whole / "checkpoints")[0]  # as if the run had died after this one
    assert 0 < load(killed).step < 4
    shutil.copytree(killed, parts / "checkpoints" / killed.name)
    train_world("tiny_reader_smoke", resume="auto", output=str(parts), device="cpu")
    a, b = load_reader(whole / "reader.safetensors"), load_reader(parts / "reader.safetensors")
    assert all(torch.equal(a.state_dict()[name], b.state_dict()[name]) for name in a.state_dict())


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the reader has not been trained yet")
def test_the_shipped_reader_reads_people_it_never_saw() -> None:
    reader = load_reader()
    assert WEIGHTS.stat().st_size < 2**20
    scenes = [sample_scene(500 + seed, "validation", 2) for seed in range(8)]
    made = torch.cat([render_scenes([scene]).frames for scene in scenes])
    followed = [
        follow(r, facts_of(s)) for r, s in zip(readings_of(reader(to_input(made))), scenes, strict=True)
    ]
    assert (background_share(followed) or 0) >= 0.8 and (who_does_what_share(followed) or 0) >= 0.75
