"""`Model`: a video model in memory, its settings, and the adapter in it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, Self

import torch

from igrpo_sdk.acceleration import pick_device
from igrpo_sdk.adapters.lora import Adapter
from igrpo_sdk.adapters.read import AdapterFile, read_adapter
from igrpo_sdk.adapters.use import check_belongs, choose_adapter, resolve_model
from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.backbones.loading import BACKBONES, default_preset, load_stock, stock_scheduler
from igrpo_sdk.config import Preset
from igrpo_sdk.errors import InputError

__all__ = ["Model"]


class Model:
    """A video model that has been loaded.

    `preset`: its defaults and limits. `backbone`: what computes. `adapter`: the `Adapter` that is loaded, or
    None: its `scale` can be set, `with model.adapter.disabled()` is the base.
    """

    def __init__(self, backbone: Backbone, preset: Preset, scheduler: Any) -> None:
        """See `from_pretrained` and `from_components`."""
        self.backbone = backbone
        self.preset = preset
        self.adapter: Adapter | None = None
        self._scheduler = scheduler
        self._lock = RLock()  # a callback may call the pipeline

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        adapter: str | Path = "default",
        adapter_scale: float = 1.0,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        preset: Preset | None = None,
        revision: str | None = None,
    ) -> Self:
        """Load a model: the name of a preset, a diffusers directory, or a Hub repository.

        The directory or repository of an adapter is a model too: its base, with the adapter as default.

        Args:
            model: What to load.
            adapter: "default" for the model's own aligned adapter, or the base if it has none; "none" for the
                base; or a directory, a .safetensors file or a Hub repository (`load_adapter`).
            adapter_scale: 0 to 4, what the adapter's part is multiplied by.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: Of transformer and text encoder; by default bfloat16 on an accelerator, float32 on the CPU.
                The VAE is always float32.
            preset: Instead of the model's own settings, or of Wan's for one without.
            revision: A commit, tag or branch of the repository. "owner/name@revision" says the same, here
                and wherever a repository is named.

        Raises:
            InputError: A name that is nothing.
            WeightsError: Missing or damaged files, or an adapter of another model.
            HubError: A repository cannot be had.
        """
        place = pick_device(device)
        source, revision, found, own = resolve_model(model, revision)
        own = own or (preset.adapter if preset else None)
        chosen = choose_adapter(adapter, own, adapter_scale)
        file = None if chosen is None else read_adapter(chosen)  # what is wrong with it is told soon
        preset = preset or found
        stock = load_stock(source, revision, place, dtype, preset.architecture if preset else None)
        preset = preset or default_preset(source, stock)
        preset = replace(preset, adapter=own, revision=preset.revision or revision)
        pipe = cls.from_components(**stock.components, preset=preset)
        if file:
            pipe._put(file, adapter_scale)
        return pipe

    @classmethod
    def from_components(
        cls,
        *,
        transformer: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        preset: Preset,
        scheduler: Any = None,
        **_: Any,
    ) -> Self:
        """A pipeline of loaded parts, those of diffusers' `WanVACEPipeline` or, for Phantom, `WanPipeline`.

        All lie on one device. `preset.architecture` says what they are.

        They are used as they are, in evaluation mode. `scheduler` is only kept for `components`: the solver
        is the preset's. Raises `WeightsError` if they do not fit each other.
        """
        for module in (transformer, vae, text_encoder):
            module.eval().requires_grad_(False)
        policy = BACKBONES[preset.architecture]
        backbone = policy(transformer, vae, text_encoder, tokenizer, preset.max_text_tokens)
        return cls(backbone, preset, scheduler)

    @property
    def components(self) -> dict[str, Any]:
        """The parts, by the names that diffusers' pipeline gives them."""
        return {**self.backbone.components, "scheduler": self._scheduler or stock_scheduler(self.preset)}

    def to_diffusers(self) -> Any:
        """The diffusers pipeline of the same parts, shared and not copied.

        It is a `WanVACEPipeline`, or for Phantom a `WanPipeline`, which makes videos of the prompt alone.
        """
        return self.backbone.stock_pipeline(self.components["scheduler"])

    def load_adapter(self, source: str | Path = "default", scale: float = 1.0) -> None:
        """Load an adapter, in place of the one that is loaded; `adapter` is then this one.

        `source`: a directory or a file in the format of diffusers, PEFT or ComfyUI, a Hub repository, or
        "default" for the model's own. `scale`: 0 to 4. After an error the pipeline is as it was. Raises
        `InputError`, `WeightsError` for what is damaged or of another model, `HubError`; as `Adapter.remove`.
        """
        chosen = choose_adapter(source, self.preset.adapter, scale)
        if chosen is None:
            raise InputError(f"adapter: {self.preset.name} has no adapter of its own; give one")
        self._put(read_adapter(chosen), scale)

    def unload_adapter(self) -> None:
        """Take the adapter out, if there is one: the base again, bit for bit. Raises as `Adapter.remove`."""
        with self._lock:
            if self.adapter:
                self.adapter.remove()
            self.adapter = None

    def _put(self, file: AdapterFile, scale: float) -> None:
        """Check an adapter that has been read, and put it in place of the one that is loaded, which stays on
        any error.
        """
        with self._lock:
            with self.adapter.unfused() if self.adapter else nullcontext():  # the base's weights are checked
                check_belongs(file, self.preset, self.backbone)
            with self.adapter.replaced() if self.adapter else nullcontext():
                new = Adapter(self.backbone, file, scale, self._lock)
            self.adapter = new
