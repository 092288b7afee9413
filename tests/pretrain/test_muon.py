"""The batched Muon takes the steps of torch's."""

from __future__ import annotations

import torch
from torch import nn

from igrpo_sdk.training.pretrain.muon import BatchedMuon, orthogonalise


def test_equals_torch_muon() -> None:
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 24), (24, 8), (8, 8)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    batched = BatchedMuon(ours, lr=0.01, weight_decay=0.1)
    single = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        batched.step()
        single.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.allclose(
            p, q, atol=5e-4
        )  # torch iterates in bfloat16; five steps move weights by about 0.03


def test_orthogonalises() -> None:
    values = torch.linalg.svdvals(
        orthogonalise(torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))).float()
    )
    assert values.min() > 0.5
    assert values.max() < 1.4
