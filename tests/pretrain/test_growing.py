"""Weights that go on in a larger VAE and in a transformer of smaller tokens."""

from __future__ import annotations

import pytest
import torch

from igrpo_sdk.training.pretrain.flow import FlowModel
from igrpo_sdk.training.pretrain.growing import grown_vae, refitted_transformer
from igrpo_sdk.training.pretrain.vae import VaeModel

SMALL = {"base_dim": 8, "dim_mult": (1, 2, 2)}


def random_vae(channels: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return VaeModel(z_dim=channels, **SMALL).build()  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("channels", [4, 7])
def test_a_grown_vae_does_what_it_did(channels: int) -> None:
    old, new = random_vae(4), random_vae(channels)
    random = torch.Generator().manual_seed(1)
    new.load_state_dict(grown_vae(old.state_dict(), channels, random))
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    before, after = old.encode(video).latent_dist, new.encode(video).latent_dist
    torch.testing.assert_close(after.mean[:, :4], before.mean)
    torch.testing.assert_close(after.logvar[:, :4], before.logvar)
    torch.testing.assert_close(new.decode(after.mean).sample, old.decode(before.mean).sample)
    if channels > 4:
        assert after.mean[:, 4:].std() > 0, "the new channels say something, which nobody reads yet"
        assert torch.equal(after.logvar[:, 4:], torch.full_like(after.logvar[:, 4:], -6.0))


def random_transformer(patch: int, channels: int) -> torch.nn.Module:
    torch.manual_seed(2)
    model = FlowModel(2, 12, 32, 2, (0,), (1, patch, patch), 16)
    made = model.build(VaeModel(z_dim=channels, **SMALL).build(), 16)  # type: ignore[arg-type]
    torch.nn.init.normal_(made.proj_out.weight)
    return made


@torch.no_grad()
def test_a_transformer_of_smaller_tokens_goes_on() -> None:
    old, new = random_transformer(3, 4), random_transformer(2, 6)
    new.load_state_dict(refitted_transformer(old.state_dict(), 2, 6, 16))
    for name, value in old.blocks.state_dict().items():
        assert torch.equal(new.blocks.state_dict()[name], value)
    # The mean of the windows, scaled so that a kernel of equal weights gives an even picture the same token.
    weight = old.patch_embedding.weight
    corners = [weight[..., y : y + 2, x : x + 2] for y in (0, 1) for x in (0, 1)]
    expected = torch.stack(corners).mean(0) * 9 / 4
    torch.testing.assert_close(new.patch_embedding.weight[:, :4], expected)
    assert not new.patch_embedding.weight[:, 4:].any(), "new channels are not read"
    held, generated, mask = new.vace_patch_embedding.weight.split([6, 6, 16], 1)
    assert not held[:, 4:].any()
    assert not generated[:, 4:].any()
    assert mask.abs().sum() > 0
    token = torch.randn(1, 24)
    cells, new_cells = old.proj_out(token).view(3, 3, 4), new.proj_out(token).view(2, 2, 6)
    torch.testing.assert_close(new_cells[0, 0, :4], cells[:2, :2].mean((0, 1)))
    torch.testing.assert_close(new_cells[1, 1, :4], cells[1:, 1:].mean((0, 1)))
    assert not new_cells[..., 4:].any()


def test_nothing_to_refit_changes_nothing() -> None:
    state = random_transformer(2, 4).state_dict()
    again = refitted_transformer(state, 2, 4, 16)
    assert again.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(again[name], value)
