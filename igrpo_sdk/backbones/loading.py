"""From a preset's name, a diffusers directory or a Hub repository to a model in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from igrpo_sdk.backbones.phantom import PhantomBackbone
from igrpo_sdk.backbones.vace import VaceBackbone
from igrpo_sdk.config import ASSETS, Architecture, Geometry, Preset, preset_names
from igrpo_sdk.errors import DependencyError, IgrpoError, InputError, WeightsError
from igrpo_sdk.hub.locate import Repository, fetch_pipeline, hub_error, locate_model

__all__ = [
    "BACKBONES",
    "PRESET_FILE",
    "architecture_of",
    "default_preset",
    "load_stock",
    "loading_error",
    "quiet_loaders",
    "resolve",
    "stock_scheduler",
]

PRESET_FILE = "igrpo_preset.json"
"""A file of this name in a model's directory says how the model is best run."""

BACKBONES: dict[Architecture, type[VaceBackbone] | type[PhantomBackbone]] = {
    "vace": VaceBackbone,
    "phantom": PhantomBackbone,
}
"""The policy of each architecture."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def resolve(model: str | Path, revision: str | None = None) -> tuple[str | Path, str | None, Preset | None]:
    """(directory or repository, revision, preset) of what a user calls a model; `revision` of a repository.

    The preset is None where there is none yet: that of a directory or a repository without `PRESET_FILE`.
    Raises `InputError` for a name that is nothing, `WeightsError` for a directory that is no pipeline.
    """
    found = locate_model(model, revision)
    if isinstance(found, Repository):
        return found.id, found.revision, None
    if isinstance(found, Preset):
        if found.repo_id is not None:
            return found.repo_id, found.revision, found
        if found.base is not None:
            raise InputError(
                f"model: the weights of {found.name} are published in another format; convert them once"
                f" (igrpo convert FILE DIRECTORY --preset {found.name}), then give the directory"
            )
        assert found.path is not None
        return _check_directory(ASSETS / found.path), None, found
    if found is not None and found.is_dir():
        own = _check_directory(found) / PRESET_FILE
        return found, None, Preset.read(own) if own.exists() else None
    known = ", ".join(preset_names())
    raise InputError(
        f"model: {str(model)!r} is no preset, directory or Hub repository; the presets are {known}"
    )


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
        folder = source if isinstance(source, Path) else fetch_pipeline(Repository(source, revision))
        with quiet_loaders():
            pipeline = DiffusionPipeline.from_pretrained(
                folder,
                dtype={"default": main, "vae": torch.float32},
                use_safetensors=True,
                local_files_only=True,
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


def architecture_of(transformer: Any) -> Architecture:
    """The architecture whose transformer this is. Raises `WeightsError` for one of another class."""
    kind = type(transformer).__name__
    for name, policy in BACKBONES.items():
        if policy.transformer_class == kind:
            return name
    known = ", ".join(policy.transformer_class for policy in BACKBONES.values())
    raise WeightsError(f"transformer: a {kind}; give one of {known}")


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
    return hub_error(source, error, name)


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


@contextmanager
def quiet_loaders() -> Iterator[None]:
    """Without the bars that diffusers and transformers draw for each file they load.

    Those of a download are the Hub's, and stay.
    """
    import diffusers
    import transformers

    bars, drawn = diffusers.utils.logging, diffusers.utils.logging.is_progress_bar_enabled()
    before = transformers.utils.logging.set_tqdm_hook(
        lambda make, words, options: make(*words, **{**options, "disable": True})
    )
    bars.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_tqdm_hook(before)
        if drawn:
            bars.enable_progress_bar()
