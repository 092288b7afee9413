"""Deep supervision: what tokens are asked for, on the world's ground truth; the attention of training."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import WanVACETransformer3DModel
from torch import nn

from igrpo_sdk.backbones.attention import FusibleAttnProcessor
from igrpo_sdk.training.pretrain.readout import PERSON, SIZE, Facts, Readout, Truth, targets
from igrpo_sdk.training.world.identities import NAMES
from igrpo_sdk.training.world.renderer import render_scenes
from igrpo_sdk.training.world.scenes import ACTIONS, Actor, Scene

CPU = torch.device("cpu")
TWO = Scene((Actor(7, "right", "stand"), Actor(9, "left", "stand")), "blue wall", "even", 3)


def truth_of(*scenes: Scene) -> Truth:
    return Facts(8.0, 5, CPU).of(scenes, render_scenes(scenes, 144, 192, 5, 8.0))


def test_tokens_are_asked_for_the_person_they_show() -> None:
    truth = truth_of(TWO)
    target, weight = targets(truth, (12, 16), 12)
    assert target.shape == weight.shape == (1, (2 + 2) * 12 * 16, SIZE)
    told, counts = (x.view(4, 12, 16, SIZE) for x in (target, weight))
    first, second = truth.people[0]
    assert not torch.allclose(first, second)
    # slots come in reversed order, and say nothing of poses
    assert torch.equal(told[0, 5, 5, :PERSON], second)
    assert torch.equal(told[1, 5, 5, :PERSON], first)
    assert counts[:2, ..., :PERSON].min() == 1
    assert counts[:2, ..., PERSON:].max() == 0
    # reference 0 stands on the right, reference 1 on the left
    for person, side in ((0, slice(8, 16)), (1, slice(0, 8))):
        here = counts[2:, :, side, 0] > 0
        assert here.any()
        expected = truth.people[0, person].expand(int(here.sum()), -1)
        assert torch.equal(told[2:, :, side, :PERSON][here], expected)
    assert counts[2:, 11].max() == 0  # clothes, not a head
    seen = counts[2:, ..., -1] > 0
    assert told[2:, ..., -2:][seen].abs().max() <= 1  # places within the head


def test_a_head_in_front_owns_the_token() -> None:
    boxes = torch.tensor([[0.0, 0, 48, 48], [0, 0, 48, 48]]).view(1, 2, 1, 4)
    seen = torch.tensor([0.3, 1.0]).view(1, 2, 1)
    people = torch.tensor([1.0, 2.0]).view(1, 2, 1).expand(1, 2, PERSON)
    truth = Truth(people, torch.zeros(1, 2, 1, 9), boxes, seen, torch.ones(1))
    told = targets(truth, (4, 4), 12)[0].view(3, 16, SIZE)[2]
    assert (told[:, 0] == 2).all()
    hidden = replace(truth, seen=torch.zeros(1, 2, 1))
    assert targets(hidden, (4, 4), 12)[1].view(3, 16, SIZE)[2].max() == 0


def test_people_are_told_by_reference_place_and_action() -> None:
    """What a caption binds together can be read off: which reference, where, doing what."""
    people = truth_of(TWO, replace(TWO, actors=TWO.actors[::-1])).people
    reference, place, action = people[..., len(NAMES) :].split([3, 3, len(ACTIONS)], dim=-1)
    assert reference.argmax(-1).tolist() == [[0, 1], [0, 1]]
    assert place.argmax(-1).tolist() == [[2, 0], [0, 2]]
    assert action.argmax(-1).tolist() == [[ACTIONS.index("stand")] * 2] * 2
    assert torch.equal(people[0, 0, : len(NAMES)], people[1, 1, : len(NAMES)])


def test_nothing_is_asked_where_nothing_is_known() -> None:
    truth = truth_of(TWO, TWO)
    weight = targets(replace(truth, known=torch.tensor([1.0, 0.0])), (12, 16), 12)[1]
    assert torch.equal(weight[0], targets(truth, (12, 16), 12)[1][0])
    assert weight[1].max() == 0


def test_joined_truth_is_sliced_again() -> None:
    truth = truth_of(TWO)
    assert torch.equal(Truth.join([truth, truth])[1:2].poses, truth.poses)


def test_the_loss_of_a_readout_trains_the_block_it_hears() -> None:
    block, later = nn.Linear(8, 8), nn.Linear(8, 8)
    readout = Readout([block, later], 8)
    later(block(torch.ones(2, 5, 8)))
    loss = readout.loss(torch.ones(2, 5, SIZE), torch.ones(2, 5, SIZE))
    loss.backward()
    for heard in (block, later):
        assert heard.weight.grad is not None
        assert heard.weight.grad.abs().max() > 0
    assert not readout.heard  # nothing is kept from one step to the next


def test_attention_of_training_equals_that_of_diffusers() -> None:
    torch.manual_seed(0)
    model = WanVACETransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=16, ffn_dim=32, num_layers=2, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", vace_layers=[0], vace_in_channels=12,
    ).double()  # fmt: skip
    inputs = {
        "hidden_states": torch.randn(2, 4, 3, 8, 12).double(),
        "timestep": torch.tensor([100.0, 900.0]).double(),
        "encoder_hidden_states": torch.randn(2, 7, 8).double(),
        "control_hidden_states": torch.randn(2, 12, 3, 8, 12).double(),
    }
    stock = model(**inputs, return_dict=False)[0]
    model.set_attn_processor(FusibleAttnProcessor())
    ours = model(**inputs, return_dict=False)[0]
    assert torch.allclose(ours, stock, rtol=0, atol=1e-6)
    assert not torch.equal(
        ours, model(**{**inputs, "timestep": inputs["timestep"] + 1}, return_dict=False)[0]
    )
