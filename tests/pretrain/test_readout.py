"""Deep supervision: what tokens are asked for, on the world's ground truth; the attention of training."""

from __future__ import annotations

import torch
from diffusers import WanVACETransformer3DModel
from torch import nn

from igrpo_sdk.training.pretrain.attention import FusibleAttnProcessor
from igrpo_sdk.training.pretrain.readout import SIZE, Facts, Readout, Truth, targets
from igrpo_sdk.training.world.identities import NAMES
from igrpo_sdk.training.world.renderer import render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

CPU = torch.device("cpu")
TWO = Scene((Actor(7, "right", "stand"), Actor(9, "left", "stand")), "blue wall", "even", 3)


def truth_of(*scenes: Scene) -> Truth:
    return Facts(8.0, 5, CPU).of(scenes, render_scenes(scenes, 144, 192, 5, 8.0))


def test_tokens_are_asked_for_the_person_they_show() -> None:
    truth = truth_of(TWO)
    target, weight = targets(truth, (12, 16), 12)
    assert target.shape == weight.shape == (1, (2 + 2) * 12 * 16, SIZE)
    told, counts = (x.view(4, 12, 16, SIZE) for x in (target, weight))
    first, second = truth.identities[0]
    assert not torch.allclose(first, second)
    # slots come in reversed order, and say nothing of poses
    assert torch.equal(told[0, 5, 5, : len(NAMES)], second)
    assert torch.equal(told[1, 5, 5, : len(NAMES)], first)
    assert counts[:2, ..., : len(NAMES)].min() == 1
    assert counts[:2, ..., len(NAMES) :].max() == 0
    # reference 0 stands on the right, reference 1 on the left
    for person, side in ((0, slice(8, 16)), (1, slice(0, 8))):
        here = counts[2:, :, side, 0] > 0
        assert here.any()
        expected = truth.identities[0, person].expand(int(here.sum()), -1)
        assert torch.equal(told[2:, :, side, : len(NAMES)][here], expected)
    assert counts[2:, 11].max() == 0  # clothes, not a head
    seen = counts[2:, ..., -1] > 0
    assert told[2:, ..., -2:][seen].abs().max() <= 1  # places within the head


def test_a_head_in_front_owns_the_token() -> None:
    boxes = torch.tensor([[0.0, 0, 48, 48], [0, 0, 48, 48]]).view(1, 2, 1, 4)
    seen = torch.tensor([0.3, 1.0]).view(1, 2, 1)
    truth = Truth(
        torch.tensor([1.0, 2.0]).view(1, 2, 1).expand(1, 2, len(NAMES)), torch.zeros(1, 2, 1, 9), boxes, seen
    )
    told = targets(truth, (4, 4), 12)[0].view(3, 16, SIZE)[2]
    assert (told[:, 0] == 2).all()
    hidden = Truth(truth.identities, truth.poses, truth.boxes, torch.zeros(1, 2, 1))
    assert targets(hidden, (4, 4), 12)[1].view(3, 16, SIZE)[2].max() == 0


def test_first_frame_is_the_first_latent_frame() -> None:
    truth = truth_of(TWO)
    whole, alone = targets(truth, (12, 16), 12)[0], targets(truth.first_frame(), (12, 16), 12)[0]
    assert torch.equal(whole[:, : 3 * 192], alone)
    assert torch.equal(Truth.join([truth, truth])[1:2].poses, truth.poses)


def test_the_loss_of_a_readout_trains_the_block_it_hears() -> None:
    block = nn.Linear(8, 8)
    readout = Readout(block, 8)
    block(torch.ones(2, 5, 8))
    loss = readout.loss(torch.ones(2, 5, SIZE), torch.ones(2, 5, SIZE))
    loss.backward()
    assert block.weight.grad is not None
    assert block.weight.grad.abs().max() > 0
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
