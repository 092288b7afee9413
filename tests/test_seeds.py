"""Seeds are what they always were: shared seeds, published numbers and resumed runs depend on every bit."""

from __future__ import annotations

import torch

from igrpo_sdk.config import MAX_SEED
from igrpo_sdk.seeds import dice, generator, mix, step_seed, video_seed


def test_no_bit_has_changed() -> None:
    assert [video_seed(7, index) for index in (0, 1)] == [7, 3617640167]
    assert video_seed(MAX_SEED, 3) == 2946804210
    assert [step_seed(7, step) for step in (0, 12)] == [431379789, 755737168]
    assert mix(0, "step", 1) == 4238720567276977853
    drawn = torch.randint(2**31, (2,), generator=generator(torch.device("cpu"), 5, "x"))
    assert drawn.tolist() == [764872861, 2015446497]
    assert dice(3, "prompt", 4).randrange(2**62) == 3632324541100562899
