"""Rendered clips and their ground truth: the same bits in any batch; boxes and shares tell the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.world.backgrounds import draw_backgrounds, reference_backgrounds
from igrpo_sdk.training.world.identities import COLUMN, identity_vectors
from igrpo_sdk.training.world.motion import CHANNELS, scene_poses
from igrpo_sdk.training.world.person import draw_person
from igrpo_sdk.training.world.renderer import Rendered, render_references, render_scenes
from igrpo_sdk.training.world.scenes import (
    BACKGROUNDS,
    LIGHTS,
    MAX_PEOPLE,
    PLACES_BY_COUNT,
    Actor,
    Scene,
    actor_vectors,
    sample_scene,
)

HEIGHT, WIDTH, FRAMES = 48, 64, 5
MIDDLE = FRAMES // 2
CPU = torch.device("cpu")
FIELDS = ("frames", "boxes", "visible", "present")
SIDES = [("left", "right"), ("right", "left")]
MOSAIC = [
    [[138, 63, 49], [179, 90, 67], [172, 68, 55], [215, 84, 70]],
    [[105, 53, 40], [145, 85, 60], [108, 53, 41], [177, 86, 66]],
    [[93, 56, 28], [131, 94, 38], [119, 73, 35], [172, 99, 52]],
]


def render(scenes: Sequence[Scene], frames: int = FRAMES) -> Rendered:
    return render_scenes(scenes, HEIGHT, WIDTH, frames)


def group(count: int, action: str = "stand", seed: int = 0, background: str = "blue wall") -> Scene:
    """People 0, 1, 2 from left to right who all do the same."""
    actors = [Actor(i, place, action) for i, place in enumerate(PLACES_BY_COUNT[count])]
    return Scene(tuple(actors), background, "even", seed)


def swap(places: tuple[str, str], people: tuple[int, int] = (1, 2), seed: int = 0) -> Scene:
    """Two people who swap places; the first is reference 0."""
    actors = [Actor(who, place, "swap") for who, place in zip(people, places, strict=True)]
    return Scene(tuple(actors), "garden", "even", seed)


def changed(a: Tensor, b: Tensor) -> Tensor:
    """Pixels that differ by more than rounding, without the colour axis."""
    return (a.int() - b.int()).abs().amax(-1) > 1


@cache
def scenes() -> tuple[Scene, ...]:
    return group(1, "laugh", -5), *(sample_scene(seed, "train") for seed in (0, 1, 2, 3, 2**62 + 1))


@cache
def rendered() -> Rendered:
    return render(scenes())


# ---- what comes out


def test_shapes_and_types() -> None:
    made, count = rendered(), len(scenes())
    assert made.frames.shape == (count, FRAMES, HEIGHT, WIDTH, 3)
    assert made.frames.dtype == torch.uint8
    assert made.boxes.shape == (count, MAX_PEOPLE, FRAMES, 4)
    assert made.visible.shape == (count, MAX_PEOPLE, FRAMES)
    assert made.boxes.dtype == made.visible.dtype == torch.float32
    assert made.present.tolist() == [[k < len(s.actors) for k in range(MAX_PEOPLE)] for s in scenes()]
    assert {len(s.actors) for s in scenes()} == {1, 2, 3}


def test_slots_without_an_actor_are_empty() -> None:
    made = rendered()
    absent = ~made.present
    assert made.visible.isfinite().all()
    assert ((made.visible >= 0) & (made.visible <= 1)).all()
    assert (made.visible[absent] == 0).all()
    empty = made.boxes[absent]
    assert torch.equal(empty[..., :2], empty[..., 2:])


def test_the_same_bits_in_any_batch_and_order() -> None:
    doubled = render([*scenes(), *scenes()[::-1]])
    alone = {k: render([scenes()[k]]) for k in (0, len(scenes()) - 1)}
    for field in FIELDS:
        whole = getattr(rendered(), field)
        assert torch.equal(getattr(doubled, field), torch.cat([whole, whole.flip(0)])), field
        assert all(torch.equal(getattr(made, field)[0], whole[k]) for k, made in alone.items()), field


def test_clips_stay_what_they_are() -> None:
    """A 3 x 4 mosaic of a frame; models are trained on these pictures."""
    frame = render([sample_scene(7, "train")]).frames[0, MIDDLE].float()
    mosaic = frame.view(3, HEIGHT // 3, 4, WIDTH // 4, 3).mean((1, 3)).round().int()
    assert (mosaic - torch.tensor(MOSAIC)).abs().max() <= 1


def test_other_people_seeds_and_looks_make_other_clips() -> None:
    scene = group(1)
    actor = scene.actors[0]
    others = [
        replace(scene, actors=(replace(actor, identity=77),)),
        replace(scene, actors=(replace(actor, look=1),)),
        replace(scene, seed=1),
        replace(scene, light="left"),
        replace(scene, background="garden"),
    ]
    own, *made = render([scene, *others]).frames
    assert all(changed(own, frames).sum() > 300 for frames in made)
    assert torch.equal(render([replace(scene, actors=(replace(actor, look=-1),))]).frames[0], own)


def test_other_faces_in_the_same_scene() -> None:
    """Vectors in place of the actors' own, for the whole clip or from a frame on."""
    scene = group(2)
    own, others = actor_vectors([scene], CPU), actor_vectors([group(2, seed=1)], CPU)
    others[:, 1] = identity_vectors(torch.tensor([77]))
    plain = render([scene])
    assert torch.equal(render_scenes([scene], HEIGHT, WIDTH, FRAMES, vectors=own).frames, plain.frames)
    other = render_scenes([scene], HEIGHT, WIDTH, FRAMES, vectors=others)
    expected = replace(scene, actors=(scene.actors[0], replace(scene.actors[1], identity=77)))
    assert torch.equal(other.frames, render([expected]).frames)
    assert torch.equal(other.boxes, render([expected]).boxes)
    by_frame = own[:, :, None].repeat(1, 1, FRAMES, 1)
    by_frame[:, :, MIDDLE:] = others[:, :, None]
    mixed = render_scenes([scene], HEIGHT, WIDTH, FRAMES, vectors=by_frame).frames
    assert torch.equal(mixed[:, :MIDDLE], plain.frames[:, :MIDDLE])
    assert torch.equal(mixed[:, MIDDLE:], other.frames[:, MIDDLE:])
    for wrong in (own[0], own[:, :2], by_frame[:, :, :2], own[..., :5]):
        with pytest.raises(InputError, match="vectors has shape"):
            render_scenes([scene], HEIGHT, WIDTH, FRAMES, vectors=wrong)


def test_a_look_keeps_the_head() -> None:
    scene = group(2)
    other = replace(scene, actors=tuple(replace(a, look=5) for a in scene.actors))
    own, redrawn = render([scene]), render([other])
    assert torch.equal(own.boxes, redrawn.boxes)
    assert changed(own.frames, redrawn.frames).any()


def test_boxes_grow_with_the_picture_and_wider_frames_show_more_at_the_sides() -> None:
    small, large, wide = (render_scenes([group(3)], h, w, 2) for h, w in ((24, 32), (48, 64), (24, 56)))
    assert wide.frames.shape == (1, 2, 24, 56, 3)
    torch.testing.assert_close(large.boxes, small.boxes * 2)
    torch.testing.assert_close(wide.boxes, small.boxes + torch.tensor([12.0, 0.0, 12.0, 0.0]))
    plain = wide.frames[:, :, :, 24:32], small.frames[:, :, :, 12:20]
    assert not changed(*plain)[:, :, 8:].any(), "away from the wall's own shading it is the same picture"


# ---- boxes


def actor_heads(scene: Scene, slot: int, **features: float) -> tuple[Tensor, Tensor]:
    """One actor alone on grey in every frame, features changed: pictures [T, H, W, 3], head cover."""
    pose = scene_poses([scene], FRAMES, 16.0, CPU)
    poses = torch.stack([pose[name][0, slot] for name in CHANNELS], -1)
    vector = identity_vectors(torch.tensor([scene.actors[slot].identity]))
    for name, value in features.items():
        vector[:, COLUMN[name]] = value
    picture, _, head = draw_person(
        torch.full((FRAMES, HEIGHT, WIDTH, 3), 0.5), vector.repeat(FRAMES, 1), poses
    )
    return picture, head


def outline(mask: Tensor) -> list[float]:
    """x0, y0, x1, y1 around the set pixels."""
    y, x = torch.nonzero(mask, as_tuple=True)
    return [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]


def test_the_head_box_holds_the_skin_of_the_head() -> None:
    """Give the actors other skin: what changes on the head lies in the box, of all frames of all scenes."""
    made, seen = rendered(), 0
    for b, scene in enumerate(scenes()):
        for slot in range(len(scene.actors)):
            (pale, head), (dark, _) = (actor_heads(scene, slot, skin_tone=tone) for tone in (0.0, 1.0))
            skin = ((pale - dark).abs().amax(-1) > 0.05) & (head > 0.5)
            for t in torch.nonzero(skin.any(-1).any(-1)).flatten().tolist():
                x0, y0, x1, y1 = outline(skin[t])
                box = made.boxes[b, slot, t].tolist()
                assert x0 > box[0] - 2, (scene, t)
                assert y0 > box[1] - 2
                assert x1 < box[2] + 2
                assert y1 < box[3] + 2
                seen += 1
    assert seen > 50


def test_the_head_box_is_as_large_as_the_head() -> None:
    limit = torch.tensor([WIDTH, HEIGHT] * 2).float()
    for b, scene in enumerate(scenes()):
        for slot in range(len(scene.actors)):
            _, head = actor_heads(scene, slot)
            for t in range(FRAMES):
                if rendered().visible[b, slot, t] < 0.9:  # outside, where a picture shows but a slice
                    continue
                box = rendered().boxes[b, slot, t].clamp(min=0).minimum(limit)
                assert (box - torch.tensor(outline(head[t] > 0.5))).abs().max() < 3, (scene, slot, t)


def test_people_are_in_the_picture_where_the_scene_says() -> None:
    """Exchange one person: the pixels that change are on that person's side, from the first frame on."""
    for count in (2, 3):
        scene = group(count, "talk")
        own = render([scene])
        centres = own.boxes[0, :count, 0, ::2].mean(-1)
        assert (centres.diff() > WIDTH / 6).all()
        for slot in range(count):
            actors = list(scene.actors)
            actors[slot] = replace(actors[slot], identity=500 + slot)
            change = changed(render([replace(scene, actors=tuple(actors))]).frames[0, 0], own.frames[0, 0])
            assert change.sum() > 50
            columns = torch.nonzero(change.any(0)).flatten().float()
            nearest = (columns.mean() - centres).abs().argmin()
            assert int(nearest) == slot


# ---- who is seen


def test_somebody_who_stands_alone_is_seen_whole() -> None:
    made = render([group(count, seed=seed) for count in (1, 2, 3) for seed in range(3)])
    assert (made.visible[made.present] > 0.99).all()


@pytest.mark.parametrize("count", [2, 3])
def test_somebody_who_walks_in_is_hardly_seen_at_first(count: int) -> None:
    """No more than the rim of the head, and nothing in the middle of the picture."""
    made = render([group(count, "walk_in", seed) for seed in range(3)])
    visible = made.visible[:, :count]
    assert (visible[:, :, 0] < 0.3).all()
    assert (visible[:, :, -1] > 0.99).all()
    assert (visible.diff(dim=-1) >= -1e-6).all()
    wall = (
        draw_backgrounds([group(count, seed=seed) for seed in range(3)], HEIGHT, WIDTH, CPU) * 255
    ).round()
    middle = (slice(None), slice(None), slice(WIDTH // 4, -WIDTH // 4))
    assert not changed(made.frames[:, 0], wall)[middle].any(), "only the wall is there"


def test_of_somebody_half_outside_half_is_seen() -> None:
    made = render([group(2, "walk_in", seed) for seed in range(2)], 17)
    boxes, visible = made.boxes[:, :2], made.visible[:, :2]
    inside = (boxes[..., 2].clamp(max=WIDTH) - boxes[..., 0].clamp(min=0)) / (boxes[..., 2] - boxes[..., 0])
    partly = (inside > 0.2) & (inside < 0.8)
    assert partly.any()
    assert (visible - inside)[partly].abs().max() < 0.02


@pytest.mark.parametrize("places", SIDES)
def test_midway_through_a_swap_the_lower_number_hides_the_other(places: tuple[str, str]) -> None:
    made = render([swap(places, seed=seed) for seed in range(4)])
    assert (made.visible[:, 0] > 0.99).all(), "who passes in front is always seen"
    assert (made.visible[:, 1, MIDDLE] < 0.1).all()
    assert (made.visible[:, 1, [0, -1]] > 0.99).all()


def test_people_who_cross_are_seen_one_in_front_of_the_other() -> None:
    """In several frames, not in one, a part of who passes behind is seen."""
    made = render([swap(("left", "right"), seed=seed) for seed in range(2)], 17)
    partly = (made.visible[:, 1] > 0.1) & (made.visible[:, 1] < 0.9)
    assert (partly.sum(-1) >= 4).all()


@pytest.mark.parametrize("places", SIDES)
def test_the_picture_shows_the_lower_number_in_front(places: tuple[str, str]) -> None:
    own, other_back, other_front = render(
        [swap(places, (1, 2)), swap(places, (1, 9)), swap(places, (8, 2))]
    ).frames
    x0, y0, x1, y1 = render([swap(places)]).boxes[0, 0, MIDDLE].round().int().tolist()
    across, down = (x1 - x0) // 4, (y1 - y0) // 4  # a head is round, its box is not
    face = (MIDDLE, slice(y0 + down, y1 - down), slice(x0 + across, x1 - across))
    assert not changed(own[face], other_back[face]).any(), "who is behind does not show"
    assert changed(own[face], other_front[face]).float().mean() > 0.5


def test_a_swap_ends_on_the_others_place() -> None:
    made = render([swap(("left", "right"))])
    centre = made.boxes[0, :2, :, ::2].mean(-1)
    assert centre[0, 0] < WIDTH / 3 < 2 * WIDTH / 3 < centre[0, -1]
    assert centre[1, -1] < WIDTH / 3 < 2 * WIDTH / 3 < centre[1, 0]


# ---- backgrounds and light


def background(name: str, light: str = "even", seed: int = 0) -> Tensor:
    return draw_backgrounds([replace(group(1, background=name), light=light, seed=seed)], 48, 64, CPU)[0]


def test_backgrounds_are_all_different() -> None:
    for seed in range(3):
        made = [background(name, seed=seed) for name in BACKGROUNDS]
        for a in range(len(made)):
            for b in range(a):
                assert (made[a] - made[b]).abs().mean() > 0.05, (BACKGROUNDS[a], BACKGROUNDS[b])


def test_backgrounds_vary_with_the_seed_but_stay_themselves() -> None:
    for name in BACKGROUNDS:
        one, two = background(name), background(name, seed=1)
        assert (one - two).abs().max() > 0.002
        assert torch.equal(one, background(name))
        if name.endswith(" wall") and name != "brick wall":
            assert (one - two).abs().mean() < 0.06


def test_walls_have_their_colour() -> None:
    for name, channels in (
        ("red wall", [0]),
        ("green wall", [1]),
        ("blue wall", [2]),
        ("yellow wall", [0, 1]),
    ):
        mean = background(name).mean((0, 1))
        rest = [c for c in range(3) if c not in channels]
        assert mean[channels].min() > mean[rest].max() + 0.1


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_light_falls_on_the_background(name: str) -> None:
    made = {light: background(name, light) for light in LIGHTS}
    assert made["dim"].mean() < 0.7 * made["even"].mean()
    for light, lit, shaded in (("left", slice(0, 32), slice(32, 64)), ("right", slice(32, 64), slice(0, 32))):
        gain = made[light] / made["even"].clamp(min=0.02)
        assert gain[:, lit].mean() > gain[:, shaded].mean() + 0.1
    warmth = {light: (made[light][..., 0] - made[light][..., 2]).mean() for light in ("warm", "even", "cool")}
    assert warmth["warm"] > warmth["even"] > warmth["cool"]


def test_light_falls_on_the_people_and_the_wall_alike() -> None:
    base = group(2, background="white wall")
    made = dict(
        zip(LIGHTS, render([replace(base, light=light) for light in LIGHTS]).frames.float(), strict=True)
    )
    heads = render([base]).boxes[0, :2, 0].int()
    assert made["dim"].mean() < 0.75 * made["even"].mean()
    for x0, y0, x1, y1 in heads.tolist():
        middle = (x0 + x1) // 2
        face = {light: frames[0, y0:y1] for light, frames in made.items()}
        assert face["dim"][:, x0:x1].mean() < 0.8 * face["even"][:, x0:x1].mean()
        for light, sign in (("left", 1), ("right", -1)):
            gain = (face[light] - face["even"]).mean(-1)
            assert sign * (gain[:, x0:middle].mean() - gain[:, middle:x1].mean()) > 5, "on every face"


# ---- close-ups


def test_references_are_a_function_of_person_seed_and_look() -> None:
    people, seeds = torch.tensor([3, 900_000, 3, 3]), torch.tensor([1, 1, 2, 1])
    looks = torch.tensor([-1, -1, -1, 4])
    made = render_references(people, seeds, 48, looks)
    assert made.shape == (4, 48, 48, 3)
    assert made.dtype == torch.uint8
    assert torch.equal(render_references(people.flip(0), seeds.flip(0), 48, looks.flip(0)), made.flip(0))
    assert torch.equal(render_references(people[:1], seeds[:1], 48)[0], made[0])
    for k in (1, 2, 3):
        assert changed(made[k], made[0]).sum() > 200


def test_close_ups_show_a_large_head_in_the_middle() -> None:
    people = torch.arange(6)
    vectors = identity_vectors(people)
    assert vectors.isfinite().all()
    own = render_references(people, people, 48)
    # Another person with the same pose: the pose comes of seed * 7919 + person.
    other = render_references(people + 7919, people - 1, 48)
    change = changed(own, other)
    assert (change[:, 12:36, 12:36].float().mean((1, 2)) > 0.5).all()


def test_backgrounds_of_close_ups_are_plain_and_many() -> None:
    made = reference_backgrounds(torch.arange(50), 24)
    assert made.shape == (50, 24, 24, 3)
    assert ((made >= 0) & (made <= 1)).all()
    assert (made.flatten(1, 2).std(1) < 0.05).all(), "plain"
    assert made.mean((1, 2)).std(0).min() > 0.1, "many"
