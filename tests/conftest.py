"""Settings and fixtures shared by all tests: one thread, no network, small pictures and clips."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from nursery import Nursery
from PIL import Image

# The same examples at every run, however slow the machine is.
settings.register_profile(
    "repository", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repository")

# A shell's job in the background ignores interrupts, and so would every program that the tests start there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


_NURSERIES: list[Nursery] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fork the nursery before the first test, if one of them needs it."""
    needed = any("nursery" in getattr(item, "fixturenames", ()) for item in session.items)
    if needed and not session.config.option.collectonly:
        _NURSERIES.append(Nursery())


def pytest_sessionfinish() -> None:
    while _NURSERIES:
        _NURSERIES.pop().close()


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """Where new processes come from that need not import torch anew; see `nursery.py`."""
    return _NURSERIES[0]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Several workers share two cores; one thread each is fastest, and the order of sums is fixed."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """uint8 [61, 93, 3]: smooth, coloured, without any symmetry, of sides that nothing divides."""
    y, x = np.mgrid[:61, :93].astype(np.float64)
    red, green = 255 * x / 92, 255 * y / 60
    blue = 127.5 + 127.5 * np.sin(x / 9 + y / 7)
    pixels: NDArray[np.uint8] = np.stack([red, green, blue], axis=-1).round().astype(np.uint8)
    return pixels


@pytest.fixture
def picture_file(picture: NDArray[np.uint8], tmp_path: Path) -> Path:
    """The picture as a PNG file."""
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def frames() -> NDArray[np.uint8]:
    """uint8 [5, 48, 64, 3]: a smooth moving pattern."""
    y, x = np.mgrid[:48, :64].astype(np.float64)
    clips = [np.stack([x * 3 + 10 * t, y * 4, 127 + 60 * np.sin(x / 9 + t)], axis=-1) for t in range(5)]
    pixels: NDArray[np.uint8] = np.clip(np.stack(clips), 0, 255).round().astype(np.uint8)
    return pixels


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the stock classes at the smallest sizes, random weights, with a preset of its own."""
    import torch
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanVACEPipeline,
        WanVACETransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    from igrpo_sdk.backbones.loading import PRESET_FILE
    from igrpo_sdk.training.pretrain.tokenizer import train_tokenizer

    torch.manual_seed(0)
    channels = 4
    tokenizer = train_tokenizer(["two people talk in front of a blue wall", "one person nods and smiles"])
    text = UMT5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    pipeline = WanVACEPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text),
        vae=AutoencoderKLWan(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=channels,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            attn_scales=[],
            temperal_downsample=[True, True],
            latents_mean=[0.0] * channels,
            latents_std=[1.0] * channels,
            scale_factor_spatial=4,
            scale_factor_temporal=4,
        ),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=WanVACETransformer3DModel(
            patch_size=(1, 4, 4),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=channels,
            out_channels=channels,
            text_dim=16,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            vace_layers=[0],
            vace_in_channels=2 * channels + 16,
            rope_max_seq_len=64,
        ),
    )
    directory = tmp_path_factory.mktemp("models") / "tiny"
    pipeline.save_pretrained(directory)
    preset = {
        "name": "tiny-random",
        "geometry": {"height": 32, "width": 48, "num_frames": 5, "fps": 8.0},
        "steps": 2,
        "guidance_scale": 2.0,
        "flow_shift": 3.0,
        "max_references": 3,
        "max_text_tokens": 32,
    }
    (directory / PRESET_FILE).write_text(json.dumps(preset), "utf-8")
    return directory


@pytest.fixture(scope="session")
def qwen_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2.5-VL that tells a red picture from a blue one; see `qwen.py`."""
    from qwen import save_tiny_qwen

    return save_tiny_qwen(tmp_path_factory.mktemp("models") / "qwen")


@pytest.fixture
def shipped_weights() -> Path:
    """The directory of the shipped tiny-vace; skips while its transformer is not trained."""
    directory = ROOT / "igrpo_sdk" / "assets" / "tiny-vace"
    if not (directory / "model_index.json").is_file():
        pytest.skip("tiny-vace has no transformer yet: docs/training.md says how it is trained")
    return directory
