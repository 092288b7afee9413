"""Published weights of Phantom, at a tiny size and in Wan's own names, become a directory that loads."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import people
from tiny_phantom import TINY_PHANTOM, tiny_stock_phantom
from torch import Tensor

from igrpo_sdk import InputError, WeightsError
from igrpo_sdk.backbones.converting import convert_phantom, read_original
from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.config import Preset
from igrpo_sdk.pipeline import IdentityPipeline

PROMPT = "Two people talk in front of a blue wall."

# diffusers' names, and those of Wan's own code
_NAMES = (
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^scale_shift_table", "head.modulation"),
    (r"^proj_out", "head.head"),
    (r"\.scale_shift_table", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.ffn\.net\.0\.proj", ".ffn.0"),
    (r"\.ffn\.net\.2", ".ffn.2"),
    (r"\.norm2\.", ".norm3."),
)


def original(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a WanTransformer3DModel in the names of Wan's own code."""
    renamed = {}
    for key, tensor in weights.items():
        name = key
        for pattern, word in _NAMES:
            name = re.sub(pattern, word, name)
        renamed[name] = tensor.clone()
    return renamed


@pytest.fixture(scope="module")
def stock() -> Any:
    return tiny_stock_phantom()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that Phantom's was trained from: other weights of the same size."""
    directory = tmp_path_factory.mktemp("base") / "t2v"
    other, same = tiny_stock_phantom(seed=1), tiny_stock_phantom()
    for name in ("vae", "text_encoder", "tokenizer"):
        setattr(other, name, getattr(same, name))
    other.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def published(stock: Any) -> dict[str, Tensor]:
    return original(stock.transformer.state_dict())


def write_shards(folder: Path, weights: dict[str, Tensor]) -> Path:
    folder.mkdir()
    names = list(weights)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name].contiguous() for name in part}, folder / f"shard-{number}.safetensors")
    return folder


@pytest.mark.parametrize("form", ["pth", "wrapped", "shards"])
def test_what_was_published_makes_the_same_video(
    stock: Any, base: Path, published: dict[str, Tensor], tmp_path: Path, form: str
) -> None:
    source = tmp_path / "Phantom.pth"
    if form == "shards":
        source = write_shards(tmp_path / "shards", published)
    else:
        torch.save({"model": published} if form == "wrapped" else published, source)
    target = convert_phantom(source, tmp_path / "phantom", base, TINY_PHANTOM, torch.float32)
    pipe = IdentityPipeline.from_pretrained(target, device="cpu")
    expected = IdentityPipeline.from_components(**stock.components, preset=TINY_PHANTOM)
    assert pipe.preset.architecture == "phantom" and pipe.preset.base is None
    for (name, mine), theirs in zip(
        pipe.backbone.transformer.state_dict().items(), stock.transformer.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    ours, wanted = (one(people(2), PROMPT, seed=3, steps=2) for one in (pipe, expected))
    assert np.abs(ours.frames.astype(int) - wanted.frames).max() <= 1


def test_half_precision_keeps_what_diffusers_keeps_and_parts_are_shared(
    base: Path, published: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(published, tmp_path / "p.pth")
    target = convert_phantom(tmp_path / "p.pth", tmp_path / "phantom", base, TINY_PHANTOM)
    loaded = IdentityPipeline.from_pretrained(target, device="cpu", dtype=torch.bfloat16)
    kinds = {name: tensor.dtype for name, tensor in loaded.backbone.transformer.state_dict().items()}
    assert kinds["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert kinds["blocks.0.scale_shift_table"] == kinds["blocks.0.norm2.weight"] == torch.float32
    assert (target / "vae").is_symlink() and (target / "vae").resolve() == (base / "vae").resolve()


class Harmful:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harm"),))


def test_files_that_are_none_are_refused_and_leave_nothing(
    base: Path, published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_text("no weights")
    torch.save(Harmful(), tmp_path / "harmful.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 3}, tmp_path / "numbers.pth")
    torch.save({k: v for k, v in published.items() if "blocks.1" not in k}, tmp_path / "lacking.pth")
    torch.save(published | {"vace_blocks.0.x": torch.zeros(1)}, tmp_path / "vace.pth")
    torch.save({k: torch.cat([v, v]) for k, v in published.items()}, tmp_path / "larger.pth")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "text.pth": "cannot be read",
        "harmful.pth": "cannot be read",
        "list.pth": "holds no tensors by name",
        "numbers.pth": "'a' is no tensor",
        "lacking.pth": "lacks .* tensors, such as blocks.1",
        "vace.pth": "also holds 1 tensors, such as vace_blocks",
        "larger.pth": "the base's is .*base of the same size",
        "empty": "no file ending in",
        "nowhere.pth": "no file ending in",
    }.items():
        with pytest.raises(WeightsError, match=message):
            convert_phantom(tmp_path / name, tmp_path / "out", base, TINY_PHANTOM)
    assert not (tmp_path / "harm").exists() and not (tmp_path / "out").exists()
    torch.save(published, tmp_path / "p.pth")
    with pytest.raises(InputError, match="has no model_index.json"):
        convert_phantom(tmp_path / "p.pth", tmp_path / "out", tmp_path / "empty", TINY_PHANTOM)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert_phantom(tmp_path / "p.pth", tmp_path / "out", base, TINY_PHANTOM)


def test_two_shards_with_one_tensor_are_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", published)
    save_file({next(iter(published)): torch.zeros(1)}, folder / "shard-9.safetensors")
    with pytest.raises(WeightsError, match="is in two files"):
        read_original(folder)


def test_the_command_converts_and_presets_say_that_they_need_it(
    base: Path, published: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "p.pth", tmp_path / "phantom"
    torch.save(published, source)
    assert main(["convert", str(source), str(target), "--base", str(base)]) == 0
    assert f"--model {target}" in capsys.readouterr().out
    content = json.loads((target / "igrpo_preset.json").read_text("utf-8"))
    assert (content["guidance_scale"], content["image_guidance_scale"], content["flow_shift"]) == (
        7.5,
        5.0,
        5.0,
    )
    for name in ("phantom-1.3b", "phantom-14b"):
        assert Preset.load(name).architecture == "phantom"
        with pytest.raises(InputError, match=f"igrpo convert FILE DIRECTORY --preset {name}"):
            IdentityPipeline.from_pretrained(name)
    assert main(["convert", str(source), str(target / "x"), "--preset", "tiny-vace"]) == 1
    assert "needs no conversion" in capsys.readouterr().err
    assert replace(TINY_PHANTOM, base="x").base == "x"
