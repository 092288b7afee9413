"""From a preset's name, a diffusers directory or a Hub repository to a model in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from igrpo_sdk.backbones.phantom import PhantomBackbone
from igrpo_sdk.backbones.vace import VaceBackbone
from igrpo_sdk.config import ASSETS, Architecture, Geometry, Preset, preset_names
from igrpo_sdk.errors import DependencyError, HubError, IgrpoError, InputError, WeightsError

__all__ = [
    "BACKBONES",
    "PRESET_FILE",
    "REPO_ID",
    "default_preset",
    "load_stock",
    "loading_error",
    "resolve",
    "silence_loaders",
    "stock_scheduler",
]

PRESET_FILE = "igrpo_preset.json"
"""A file of this name in a model's directory says how the model is best run."""

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""What the name of a Hub repository looks like."""

BACKBONES: dict[Architecture, type[VaceBackbone] | type[PhantomBackbone]] = {
    "vace": VaceBackbone,
    "phantom": PhantomBackbone,
}
"""The policy of each architecture."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def resolve(model: str | Path) -> tuple[str | Path, str | None, Preset | None]:
    """(directory or repository, revision, preset) of what a user calls a model.

    The preset is None where there is none yet: that of a directory or a repository without `PRESET_FILE`.
    Raises `InputError` for a name that is nothing, `WeightsError` for a directory that is no pipeline.
    """
    name = str(model)
    if isinstance(model, str) and model in preset_names():
        preset = Preset.load(name)
        if preset.repo_id is not None:
            return preset.repo_id, preset.revision, preset
        assert preset.path is not None
        return _check_directory(ASSETS / preset.path), None, preset
    if name and Path(name).is_dir():
        directory = _check_directory(Path(model))
        own = directory / PRESET_FILE
        return directory, None, Preset.read(own) if own.exists() else None
    if isinstance(model, str) and REPO_ID.fullmatch(name) and not Path(name).exists():
        return name, None, None
    known = ", ".join(preset_names())
    raise InputError(f"model: {name!r} is no preset, directory or Hub repository; the presets are {known}")


def load_stock(
    source: str | Path,
    revision: str | None,
    device: torch.device,
    dtype: torch.dtype | None,
    architecture: Architecture | None = None,
) -> Any:
    """The stock pipeline, on `device`.

    `architecture`: what the model must be, as its preset says; None for one that comes without a preset,
    which must then be VACE: Phantom's directory looks like that of any text-to-video model.
    `dtype`: of transformer and text encoder; by default bfloat16 on an accelerator, float32 on the CPU. The
    VAE is float32, and modules that a model keeps in float32 stay so. Only safetensors are read.
    Raises `InputError` for another dtype, `HubError` when a repository cannot be had, `WeightsError` when
    files are missing or damaged or those of another kind of model, `DependencyError` when a library is.
    """
    from diffusers import DiffusionPipeline

    if dtype not in (None, *_DTYPES):
        raise InputError(f"dtype: {dtype!r}; use one of {', '.join(map(str, _DTYPES))}")
    main = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            source,
            revision=revision,
            dtype={"default": main, "vae": torch.float32},
            use_safetensors=True,
            local_files_only=isinstance(source, Path),
        )
    except IgrpoError:
        raise
    except Exception as error:  # the loaders of four libraries raise what they like on a bad file
        raise loading_error(source, error) from error
    _check_kind(source, pipeline, architecture)
    for name in ("transformer", "vae", "text_encoder"):
        if any(parameter.is_meta for parameter in getattr(pipeline, name).parameters()):
            raise WeightsError(f"model {source}: weights of {name} are missing. Copy the files again")
    # transformers makes an empty tokenizer of a folder without one, and says nothing.
    if len(pipeline.tokenizer) < pipeline.text_encoder.config.vocab_size // 2:
        raise WeightsError(f"model {source}: the tokenizer's vocabulary is missing. Copy the files again")
    return pipeline.to(device)


def _check_kind(source: str | Path, pipeline: Any, architecture: Architecture | None) -> None:
    """Raise `WeightsError` for a pipeline of another kind of model than the architecture's."""
    kind, wanted = type(pipeline).__name__, BACKBONES[architecture or "vace"].stock_class
    if kind == wanted:
        return
    if architecture is not None:
        raise WeightsError(
            f"model {source}: a {kind}, but its preset says {architecture!r}, which is a {wanted}; mend the"
            " preset, or give the directory of such a model"
        )
    known = {each.stock_class: name for name, each in BACKBONES.items()}
    remedy = f"give a {wanted}"
    if kind in known:
        remedy += f", or for the weights of {known[kind]} a preset with architecture={known[kind]!r}"
    raise WeightsError(f"model {source}: a {kind}; {remedy}")


def loading_error(source: str | Path, error: Exception, name: str = "model") -> IgrpoError:
    """What an exception of a loader means: a library that is broken, a directory that is, or the Hub.

    `name`: what the message calls the thing that was to be loaded.
    """
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError):
        return DependencyError(f"a library does not load: {reason}. Install it again, or remove it")
    if isinstance(source, Path):
        return WeightsError(f"{name} {source.name}: bad files: {reason}. Copy them again")
    return HubError(f"{name} {source}: {reason}. Check the name, the network, or log in")


def default_preset(source: str | Path, pipeline: Any) -> Preset:
    """Wan's own settings, for a model that comes without a preset; the shift is its scheduler's.

    Its name is that of the repository, or of the directory without the folders it lies in.
    """
    config = pipeline.scheduler.config
    return Preset(
        name=source.resolve().name if isinstance(source, Path) else source,
        geometry=Geometry(480, 832, 81, 16.0),
        steps=50,
        guidance_scale=5.0,
        flow_shift=float(config.get("flow_shift", config.get("shift", 3.0))),
        max_references=4,
        max_text_tokens=512,
    )


def stock_scheduler(preset: Preset) -> Any:
    """The scheduler that the stock pipeline needs to sample as the preset does."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=preset.flow_shift
    )


def _check_directory(directory: Path) -> Path:
    """`directory` if it holds a diffusers pipeline."""
    if not (directory / "model_index.json").is_file():
        raise WeightsError(f"model: no model_index.json in {directory}; give a diffusers directory")
    return directory


def silence_loaders() -> None:
    """Two libraries draw a bar for each file they load; one bar is enough."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
