"""Models on disk: what loads, in which precision, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers import WanVACEPipeline
from safetensors.torch import load_file, save_file
from tiny import TINY, people, tiny_pipeline

from igrpo_sdk.backbones.loading import PRESET_FILE, default_preset, load_stock, loading_error, resolve
from igrpo_sdk.config import preset_names
from igrpo_sdk.errors import DependencyError, HubError, InputError, WeightsError
from igrpo_sdk.pipeline import IdentityPipeline

PROMPT = "Two people talk."
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline directory in half precision, with its preset."""
    directory = tmp_path_factory.mktemp("models") / "random"
    stock = tiny_pipeline().to_diffusers()
    for name in ("transformer", "vae", "text_encoder"):
        getattr(stock, name).half()
    stock.save_pretrained(directory)
    (directory / PRESET_FILE).write_text(json.dumps(asdict(TINY)), "utf-8")
    return directory


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_half_weights_run_in_full_precision_on_the_cpu(saved: Path) -> None:
    pipe = IdentityPipeline.from_pretrained(saved, device="cpu")
    assert pipe.preset == TINY
    parts = (pipe.backbone.transformer, pipe.backbone.vae, pipe.backbone.text_encoder)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())
    video = pipe(people(2), PROMPT, seed=7, steps=1)
    assert video.settings["dtype"] == "float32"
    again = IdentityPipeline.from_pretrained(str(saved), device=torch.device("cpu"))
    assert np.array_equal(again(people(2), PROMPT, seed=7, steps=1).frames, video.frames)


def test_loading_prints_nothing_and_leaves_the_bars_of_others_alone(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bars of diffusers and transformers are on afterwards if they were before; the library has none."""
    calls: list[str] = []
    hook = transformers.utils.logging.set_tqdm_hook(lambda *_: calls.append("asked"))
    diffusers.utils.logging.enable_progress_bar()
    try:
        IdentityPipeline.from_pretrained(saved, device="cpu")
        assert diffusers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.tqdm([])
    finally:
        transformers.utils.logging.set_tqdm_hook(hook)
    assert calls == ["asked"]
    assert capfd.readouterr() == ("", "")


def test_another_precision_keeps_what_must_stay(saved: Path) -> None:
    pipe = IdentityPipeline.from_pretrained(saved, device="cpu", dtype=torch.bfloat16)
    transformer = pipe.backbone.transformer
    assert transformer.patch_embedding.weight.dtype == torch.bfloat16
    assert transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert pipe.backbone.vae.dtype == torch.float32
    assert pipe(people(2), PROMPT, seed=7, steps=2).settings["dtype"] == "bfloat16"


def test_diffusers_gets_its_pipeline_back(saved: Path, tmp_path: Path) -> None:
    pipe = IdentityPipeline.from_pretrained(saved, device="cpu")
    stock = pipe.to_diffusers()
    assert isinstance(stock, WanVACEPipeline)
    assert stock.transformer is pipe.backbone.transformer
    stock.save_pretrained(tmp_path / "out")
    assert isinstance(WanVACEPipeline.from_pretrained(tmp_path / "out"), WanVACEPipeline)


def test_a_directory_without_a_preset_gets_wans_own(copy: Path) -> None:
    (copy / PRESET_FILE).unlink()
    preset = IdentityPipeline.from_pretrained(copy, device="cpu").preset
    assert (preset.name, preset.steps, preset.geometry.num_frames, preset.flow_shift) == ("copy", 50, 81, 3.0)
    given = IdentityPipeline.from_pretrained(copy, device="cpu", preset=TINY)
    assert given.preset == TINY


def test_weights_that_are_cut_short(copy: Path) -> None:
    data = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="copy"):
        IdentityPipeline.from_pretrained(copy, device="cpu")


def test_weights_that_are_missing(copy: Path) -> None:
    state = load_file(copy / WEIGHTS)
    del state["blocks.1.attn1.to_q.weight"]
    save_file(state, copy / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="transformer"):
        IdentityPipeline.from_pretrained(copy, device="cpu")


@pytest.mark.parametrize("name", [WEIGHTS, "vae/config.json", "tokenizer/tokenizer.json"])
def test_files_that_are_missing(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(WeightsError):
        IdentityPipeline.from_pretrained(copy, device="cpu")


def test_pickles_are_never_read(copy: Path) -> None:
    state = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    torch.save(state, copy / "transformer" / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsError):
        IdentityPipeline.from_pretrained(copy, device="cpu")


def test_a_directory_that_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model_index\.json"):
        IdentityPipeline.from_pretrained(tmp_path)


def test_another_kind_of_pipeline(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text("utf-8"))
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanPipeline"}), "utf-8")
    with pytest.raises(WeightsError):
        IdentityPipeline.from_pretrained(copy, device="cpu")


@pytest.mark.parametrize("model", ["tiny-vase", "no/such/directory", "", "../.."])
def test_a_name_that_is_nothing(model: str) -> None:
    with pytest.raises((InputError, WeightsError), match="model"):
        IdentityPipeline.from_pretrained(model, device="cpu")


def test_no_name_is_not_the_folder_one_is_in(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    assert resolve(".")[0] == Path(".")
    for model in ("", None):
        with pytest.raises(InputError, match="model"):
            resolve(model)  # type: ignore[arg-type]


def test_a_path_is_never_a_preset() -> None:
    name = preset_names()[0]
    with pytest.raises(InputError, match="model"):
        resolve(Path(name))


def test_a_preset_of_no_file_is_named_after_the_source(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / PRESET_FILE).unlink()
    monkeypatch.chdir(copy)
    stock = load_stock(copy, None, torch.device("cpu"), None)
    assert default_preset(Path("."), stock).name == "copy"
    assert default_preset("someone/something", stock).name == "someone/something"


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, "bf16"])
def test_a_dtype_that_is_none(dtype: Any, saved: Path) -> None:
    with pytest.raises(InputError, match="dtype"):
        IdentityPipeline.from_pretrained(saved, device="cpu", dtype=dtype)


def test_a_broken_library_is_not_blamed_on_the_files(saved: Path) -> None:
    error = RuntimeError("Failed to import diffusers.pipelines.onnx_utils")
    error.__cause__ = ImportError("initialization failed")
    assert isinstance(loading_error(saved, error), DependencyError)
    assert isinstance(loading_error(saved, OSError("x")), WeightsError)
    assert isinstance(loading_error("a/b", OSError("x")), HubError)


def test_a_repository_that_cannot_be_had() -> None:
    with pytest.raises(HubError, match="someone/something"):
        IdentityPipeline.from_pretrained("someone/something", device="cpu")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta:x"])
def test_a_device_that_is_not_there(device: str, saved: Path) -> None:
    with pytest.raises(InputError, match="device"):
        IdentityPipeline.from_pretrained(saved, device=device)
