"""`igrpo train merge`: adapters put together, weighed and made smaller."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import settings, write_prompts, write_recipe
from torch import Tensor

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.adapters.read import AdapterFile, read_adapter
from igrpo_sdk.adapters.write import write_adapter
from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.errors import InputError
from igrpo_sdk.training.commands import merge_adapters
from igrpo_sdk.training.common.recipe import build
from igrpo_sdk.training.policy import merging
from igrpo_sdk.training.policy.config import PolicyRecipe, read_policy_recipe
from igrpo_sdk.training.policy.trainer import train_policy
from igrpo_sdk.training.policy.validation import Alarm


@pytest.fixture(scope="module")
def trained(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter and its recipe."""
    folder = tmp_path_factory.mktemp("trained")
    written = settings(tiny_directory, write_prompts(folder), steps=1)
    write_recipe(folder, written)
    train_policy(build(PolicyRecipe, written), folder, device="cpu")
    return folder


def test_one_is_written_at_a_scale(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured of another is not said of it."""
    adapter = shutil.copytree(trained / "adapter", tmp_path / "adapter")
    info = json.loads((adapter / "igrpo.json").read_text())
    (adapter / "igrpo.json").write_text(json.dumps({**info, "metrics": {"motion": -0.1}}))
    output = tmp_path / "made"
    assert main(["train", "merge", str(adapter), "--scale", "0.5", "-o", str(output)]) == 0
    assert "at scale 0.5, not evaluated" in capsys.readouterr().out
    first, made = read_adapter(adapter), read_adapter(output)
    assert first.info is not None and first.info.metrics
    assert made.config == first.config
    assert made.info == replace(first.info, metrics={}, made_from=(f"adapter ({first.hash[:8]})",))
    assert made.alphas == first.alphas
    for module, (down, up) in first.weights.items():
        assert same(made.weights[module], (down.half(), (up / 2).half()))


def test_the_best_scale_costs_its_guards_little() -> None:
    alarm = Alarm("faces", ("prompt", "motion"))
    found = {
        0.0: {"faces": 0.4, "prompt": 0.9, "motion": -0.1},
        0.5: {"faces": 0.45, "prompt": 0.895, "motion": -0.1},
        0.75: {"faces": 0.47, "prompt": 0.9, "motion": -0.2},
        1.0: {"faces": 0.5, "prompt": 0.85, "motion": 0.0},
    }
    assert merging.best_scale(found, alarm, 0.01) == 0.5
    assert merging.best_scale(found, alarm, 0.06) == 1.0
    with pytest.raises(
        InputError, match="none has more faces than the base, with prompt, motion within 0.001"
    ):
        merging.best_scale(found, alarm, 0.001)


def test_the_best_is_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the scales that were measured the one that is chosen, here the last."""
    chosen: list[dict[float, dict[str, float]]] = []

    def last(found: dict[float, dict[str, float]], *_: object) -> float:
        chosen.append(found)
        return list(found)[-1]

    monkeypatch.setattr(merging, "best_scale", last)
    content = yaml.safe_load((trained / "recipe.yaml").read_text())
    recipe = write_recipe(tmp_path, content | {"alarm": {"reward": "motion", "guards": ["motion"]}})
    output = tmp_path / "made"
    merge_adapters(
        str(trained / "adapter"), recipe=str(recipe), scale=[1.0, 4.0], output=output, device="cpu"
    )
    [found] = chosen
    assert list(found) == [0.0, 1.0, 4.0] and len({one["motion"] for one in found.values()}) == 3
    *lines, end = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 3)[:3] for line in lines] == [["scale", f"{each:g}:", "motion"] for each in found]
    assert end == f"{output}: at scale 4"
    first, made = read_adapter(trained / "adapter"), read_adapter(output)
    for module, (down, up) in first.weights.items():
        assert same(made.weights[module], (down.half(), (4 * up.half().float()).half()))
    assert made.info is not None and made.info.metrics == {
        **found[4.0], **{f"base_{name}": value for name, value in found[0.0].items()},
    }  # fmt: skip
    assert made.info.made_from == (first.mark,)
    model = read_policy_recipe(str(recipe)).model
    pipe = IdentityPipeline.from_pretrained(model, adapter=output, device="cpu")
    assert pipe.adapter is not None and pipe.adapter.scale == 1.0


def same(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> bool:
    """Whether A and B are equal, of float16, and not 0."""
    return all(
        a.dtype == b.dtype == torch.float16 and torch.equal(a, b) and bool(a.any())
        for a, b in zip(found, wanted, strict=True)
    )


def test_a_smaller_rank_is_the_nearest(trained: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    down, up = torch.randn(6, 20), torch.randn(30, 6)
    for rank in (1, 3, 6):
        a, b = merging.nearest_of_rank(down, up, rank)
        assert a.shape == (rank, 20) and b.shape == (30, rank)
        lost = torch.linalg.svdvals((up @ down).double())[rank:].square().sum().sqrt()
        torch.testing.assert_close(
            torch.dist(b.double() @ a.double(), (up @ down).double()), lost, atol=1e-4, rtol=0
        )
    first = read_adapter(trained / "adapter")
    full = len(next(iter(first.weights.values()))[0])
    small = read_adapter(
        merging.write_merged(merging.merged([trained / "adapter"], 1), 1.0, tmp_path / "small")
    )
    assert {len(pair[0]) for pair in small.weights.values()} == {1}
    for module, alpha in small.alphas.items():
        assert alpha == first.alphas[module] / full
    for rank in (0, full + 1):
        with pytest.raises(InputError, match=f"rank: {rank}; adapter adapter has {full}"):
            merging.merged([trained / "adapter"], rank)
    assert first.config is not None
    pair = torch.randn(40, 32), torch.randn(50, 40)
    wide = replace(first, config={**first.config, "r": 40}, weights=dict.fromkeys(first.weights, pair))
    assert {len(down) for down, _ in merging.of_rank(wide, 32).weights.values()} == {32}
    with pytest.raises(InputError, match="rank: 33; adapter adapter has 32 in each layer, give 1 to 32"):
        merging.of_rank(wide, 33)
    uneven = replace(first, config={**first.config, "alpha_pattern": {"to_q": 2.0}})
    with pytest.raises(InputError, match="rank: 1, but the layers of adapter adapter differ"):
        merging.of_rank(uneven, 1)


def test_a_larger_weight_of_a_smaller_change(trained: Path, tmp_path: Path) -> None:
    first = read_adapter(trained / "adapter")
    assert first.info is not None and first.info.guidance is None
    with pytest.raises(InputError, match="guidance: 4.0; adapter adapter has none, being in both passes"):
        merging.with_guidance(first, 4.0)
    added = replace(first, info=replace(first.info, guidance=3.0))
    for wrong in (0.0, 31.0):
        with pytest.raises(InputError, match=r"guidance: .*give a number in \(0, 30\]"):
            merging.with_guidance(added, wrong)
    found = merging.with_guidance(added, 4.0)
    assert found.info == replace(added.info, guidance=4.0)
    before, after = change_of(added), change_of(found)
    for module, change in before.items():
        torch.testing.assert_close(4.0 * after[module], 3.0 * change)


def test_the_mean_of_several(trained: Path, tmp_path: Path) -> None:
    """Of another rank and alpha too: the change of each layer is the mean, to the rounding of float16."""
    first = read_adapter(trained / "adapter")
    assert first.config is not None and first.info is not None
    small = merging.of_rank(first, 1)
    tensors: dict[str, Tensor] = {}
    for module, (down, up) in small.weights.items():
        tensors |= {f"{module}.lora_A.weight": -down, f"{module}.lora_B.weight": up}
    config = {**small.config, "lora_alpha": 3 * small.config["lora_alpha"]}
    second = write_adapter(tmp_path / "second", tensors, config, first.info)
    together = merging.merged([trained / "adapter", second])
    mean = read_adapter(merging.write_merged(together, 1.5, tmp_path / "mean"))
    full = first.config["r"]
    assert mean.config is not None and mean.config["r"] == full + 1
    marks = tuple(read_adapter(one).mark for one in (trained / "adapter", second))
    assert mean.info == replace(first.info, metrics={}, made_from=marks) and len(set(marks)) == 2
    changes = [change_of(one) for one in (first, read_adapter(second), mean)]
    for module, change in changes[2].items():
        wanted = 1.5 * (changes[0][module] + changes[1][module]) / 2
        torch.testing.assert_close(change, wanted, atol=2e-3 * float(wanted.abs().max()), rtol=0)


def change_of(file: AdapterFile) -> dict[str, Tensor]:
    """Module to what its weight gains."""
    return {
        module: up.float() @ down.float() * (file.alphas[module] / len(down))
        for module, (down, up) in file.weights.items()
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"weights": {}}, "layers"),
        ({"base_weights": "another"}, "base"),
        ({"guidance": 2.0}, "noise levels or guidance"),
        ({"noise_levels": (0.1, 0.2)}, "noise levels or guidance"),
    ],
)
def test_what_has_no_mean(trained: Path, change: dict[str, Any], what: str) -> None:
    first = read_adapter(trained / "adapter")
    assert first.info is not None
    if "weights" in change:
        other = replace(first, name="other", **change)
    else:
        other = replace(first, name="other", info=replace(first.info, **change))
    with pytest.raises(InputError, match=f"adapters: number 1 and number 0 are of other {what}"):
        merging.mean_of([first, other])
    with pytest.raises(InputError, match="adapter: was not made by igrpo"):
        merging.mean_of([first, replace(first, info=None)])
    assert first.config is not None
    uneven = replace(first, name="uneven", config={**first.config, "rank_pattern": {"to_q": 2}})
    with pytest.raises(InputError, match="adapters: 2 of them, but the layers of adapter uneven differ"):
        merging.mean_of([first, uneven])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--scale", "1", "2"], "scale: 2 of them; give a --recipe to choose by"),
        (["--scale=5"], "scale: 5.0; use 0 to 4"),
        (["--recipe=tiny_vae"], "aligns no model"),
        (["--recipe=RECIPE"], "has no alarm, so that nothing says what is best"),
        (["--rank=999"], "rank: 999; adapter adapter has"),
        (["--guidance=4"], "guidance: 4.0; adapter adapter has none"),
        (["-o", "HERE"], "exists already; choose another"),
    ],
)
def test_what_cannot_be_made(
    trained: Path, tmp_path: Path, options: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"HERE": tmp_path, "RECIPE": trained / "recipe.yaml"}
    for word, path in places.items():
        options = [option.replace(word, str(path)) for option in options]
    output = tmp_path / "made"
    assert main(["train", "merge", str(trained / "adapter"), "-o", str(output), *options]) == 1
    assert what in capsys.readouterr().err and not output.exists()
