"""LoRA in a transformer: a new one to train, a saved one to use; scaled, switched off, fused, removed.

A LoRA adds B A alpha / r to the weight of a linear layer, A [r, in], B [out, r] (arXiv 2106.09685). Layers
are those of PEFT, put in place by diffusers, so that a diffusers user finds them where they expect them.
There is one adapter at a time, and it lies in the transformer alone: text embeddings and reference latents do
not depend on it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igrpo_sdk.adapters.info import AdapterInfo
from igrpo_sdk.adapters.names import plain
from igrpo_sdk.adapters.read import AdapterFile, read_adapter
from igrpo_sdk.adapters.use import MAX_SCALE, check_fit, check_free, linear_layers
from igrpo_sdk.adapters.write import write_adapter
from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.backbones.switching import (
    ADAPTER,
    AdapterUse,
    adapter_disabled,
    adapter_layers,
    adapter_parameters,
)
from igrpo_sdk.config import check_number, check_seed, check_whole
from igrpo_sdk.errors import IgrpoError, InputError, WeightsError

__all__ = [
    "OFFICIAL_TARGETS",
    "Adapter",
    "LoraSettings",
    "adapter_config",
    "add_adapter",
    "remove_adapter",
    "save_adapter",
]

OFFICIAL_TARGETS = (
    "add_k_proj",
    "add_q_proj",
    "add_v_proj",
    "to_add_out",
    "to_k",
    "to_out.0",
    "to_q",
    "to_v",
)
"""Modules that the official Identity-GRPO adapter has a LoRA in: all attention, also that of VACE's blocks.
The first four exist in models with picture embeddings only, and are skipped elsewhere."""

MAX_RANK, MAX_ALPHA = 1024, 4096.0


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA to train: rank r, alpha, and the linear layers that get one, by the ends of their names.

    noise_levels, guidance: how it is used (`AdapterUse`), in training and after. Wan 2.2 has weights by noise
    level too. initial: an adapter to begin with, as `read_adapter` takes it, of the same layers and
    use and of this rank at most; None begins with the base.
    """

    rank: int = 32
    alpha: float = 32.0
    targets: tuple[str, ...] = OFFICIAL_TARGETS
    noise_levels: tuple[float, float] = AdapterUse.noise_levels
    guidance: float | None = None
    initial: str | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        check_whole("rank", self.rank, 1, MAX_RANK)
        check_number("alpha", self.alpha, 1e-6, MAX_ALPHA)
        if not isinstance(self.targets, tuple) or not self.targets:
            raise InputError(f"targets: {self.targets!r}; give a tuple of names, such as to_q")
        _ = self.use  # checks both

    @property
    def use(self) -> AdapterUse:
        """How the adapter is used."""
        return AdapterUse(self.noise_levels, self.guidance)


def add_adapter(transformer: Any, settings: LoraSettings, seed: int) -> list[nn.Parameter]:
    """Put a new LoRA into a frozen transformer; return its parameters, float32, the only ones that train.

    A is drawn from N(0, 1 / r**2), PEFT's "gaussian", by `seed` alone on any device; B is 0, so that the
    model is still the base, bit for bit. With `settings.initial` the first ranks are that adapter's, and the
    model is, up to rounding, the one with it.

    Raises `InputError` for targets that are not there, where there is an adapter already, and for an initial
    one of a higher rank, of other layers or of other use; what `read_adapter` and `check_fit` do.
    """
    from peft import LoraConfig

    check_free(transformer)
    layers = linear_layers(transformer)
    chosen = {end: {name for name in layers if f".{name}".endswith(f".{end}")} for end in settings.targets}
    ends = {end for end, names in chosen.items() if names}
    missing = set(settings.targets) - set(OFFICIAL_TARGETS) - ends
    if missing or not ends:
        raise InputError(
            f"targets: no linear layer is called {', '.join(sorted(missing or settings.targets))}"
        )
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=list(ends), init_lora_weights=False
    )
    initial = None
    if settings.initial is not None:
        initial = read_adapter(settings.initial)
        check_fit(transformer, initial)
        _check_initial(initial, set().union(*chosen.values()), settings)
    generator = torch.Generator().manual_seed(check_seed(seed))
    with torch.random.fork_rng(devices=[]):  # PEFT draws too, and nobody's generator shall notice
        transformer.add_adapter(config, ADAPTER)
    parameters = adapter_parameters(transformer)
    for name, parameter in parameters.items():
        shape = parameter.shape
        drawn = torch.randn(shape, generator=generator) if ".lora_A." in name else torch.zeros(shape)
        parameter.data = (drawn / settings.rank).to(parameter.device)
        parameter.requires_grad_(True)
    if initial is not None:
        _begin_with(transformer, initial, settings)
    return list(parameters.values())


def _check_initial(file: AdapterFile, wanted: set[str], settings: LoraSettings) -> None:
    """Raise `InputError` unless an adapter is of the wanted layers and use, and of no higher rank."""
    if wanted != file.weights.keys():
        raise InputError(
            f"initial: adapter {file.name} is of other layers than targets={settings.targets}, such as "
            f"{min(wanted ^ file.weights.keys())}; give the targets it was made with"
        )
    rank = max(len(down) for down, _ in file.weights.values())
    if rank > settings.rank:
        raise InputError(f"initial: adapter {file.name} has rank {rank}; give rank={rank} or more")
    if file.info and file.info.use != settings.use:
        raise InputError(f"initial: adapter {file.name} has {file.info.use}; give the same")


@torch.no_grad()
def _begin_with(transformer: Any, file: AdapterFile, settings: LoraSettings) -> None:
    """Write an adapter that fits into the first ranks of a new one.

    Each row of A gets the length that a drawn one has, and B the rest: an optimiser whose steps do not depend
    on the gradient's size, such as Adam, then learns as fast in these ranks as in the others.
    """
    layers = adapter_layers(transformer)
    for module, (down, up) in file.weights.items():
        rank, width = down.shape
        lengths = down.float().norm(dim=1, keepdim=True).clamp_min(1e-12)
        drawn = math.sqrt(width) / settings.rank
        scale = file.alphas[module] / rank * settings.rank / settings.alpha
        a, b = (getattr(layers[module], f"lora_{part}")[ADAPTER].weight for part in "AB")
        a[:rank] = down * drawn / lengths
        b[:, :rank] = up * lengths.T / drawn * scale


def save_adapter(
    directory: str | os.PathLike[str], transformer: Any, info: AdapterInfo, overwrite: bool = False
) -> Path:
    """Write the adapter in a transformer as `write_adapter` does, in diffusers' format; return the path.

    Stock diffusers loads it with `pipe.load_lora_weights(directory, weight_name=WEIGHTS_FILE)`. For a sharded
    transformer gather the tensors and call `write_adapter` with `adapter_config`.
    """
    from peft import get_peft_model_state_dict

    config = adapter_config(transformer)
    weights = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    return write_adapter(directory, weights, config, info, overwrite)


def adapter_config(transformer: Any) -> dict[str, Any]:
    """PEFT's settings of the adapter in a transformer, as JSON has them. Raises `InputError` without one."""
    if not adapter_layers(transformer):
        raise InputError("transformer: holds no adapter; add one first")
    config = transformer.peft_config[ADAPTER]
    targets = config.target_modules
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
    }


def remove_adapter(transformer: Any) -> None:
    """Take the adapter out of a transformer, whose layers are then the plain ones again; also what is left of
    one that could not be put in.
    """
    if adapter_layers(transformer):
        transformer.unload_lora()
    if getattr(transformer, "peft_config", None) is not None:
        del transformer.peft_config
    if hasattr(transformer, "_hf_peft_config_loaded"):
        transformer._hf_peft_config_loaded = False


class Adapter:
    """A saved adapter in a transformer. Made by `IdentityPipeline.load_adapter`.

    `name`, `hash`, `info`, `warnings`: of `AdapterFile`. `lock`: held while anything changes, so that no
    video is made half with and half without.
    """

    def __init__(
        self,
        backbone: Backbone,
        file: AdapterFile,
        scale: float,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Put the adapter into the backbone's transformer, frozen, in the precision of each layer's weights.

        Raises `InputError` for a scale out of range or a transformer that holds an adapter, `WeightsError`
        for an adapter of another architecture, or one that PEFT refuses. The transformer is then as it was.
        """
        check_number("adapter_scale", scale, 0.0, MAX_SCALE)
        transformer = backbone.transformer
        check_free(transformer)
        check_fit(transformer, file)
        self.name, self.hash, self.info, self.warnings = file.name, file.hash, file.info, file.warnings
        self._backbone, self._transformer, self._lock = backbone, transformer, lock or nullcontext()
        self._scale, self._off = 1.0, False
        self._originals: dict[str, Tensor] = {}
        use = backbone.adapter_use
        try:
            _inject(transformer, file)
            backbone.adapter_use = file.info.use if file.info else AdapterUse()
            self.scale = scale
        except BaseException as error:
            remove_adapter(transformer)
            backbone.adapter_use = use
            ours = isinstance(error, IgrpoError | torch.OutOfMemoryError | MemoryError)
            if isinstance(error, Exception) and not ours:
                raise WeightsError(
                    f"adapter {file.name}: cannot be put into the model ({type(error).__name__}: "
                    f"{plain(str(error))}); use another"
                ) from error
            raise

    @property
    def scale(self) -> float:
        """What the adapter's part is multiplied by, 0 to 4: 0 is the base, 1 the adapter as trained."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        """Raises `InputError` for one out of range, or while the adapter is fused."""
        check_number("adapter_scale", scale, 0.0, MAX_SCALE)
        if self.fused:
            raise InputError("adapter_scale: the adapter is fused; unfuse it first")
        with self._lock:
            for layer in adapter_layers(self._transformer).values():
                layer.set_scale(ADAPTER, scale)
            self._scale = float(scale)

    @property
    def fused(self) -> bool:
        """Whether the adapter is added into the weights."""
        return bool(self._originals)

    @property
    def settings(self) -> dict[str, Any] | None:
        """What a video made now is made with: name, hash, scale, noise levels and guidance; None while it is
        off.
        """
        if self._off:
            return None
        use = self._backbone.adapter_use
        said = {"name": self.name, "hash": self.hash, "scale": self._scale}
        return said | {"noise_levels": list(use.noise_levels), "guidance": use.guidance}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base, bit for bit, inside. Calls from other threads wait until the end."""
        with self._lock, self.unfused():
            were_off, use = self._off, self._backbone.adapter_use
            # Guidance of its own would add nothing, by a third pass.
            self._off, self._backbone.adapter_use = True, AdapterUse()
            try:
                with adapter_disabled(self._transformer):
                    yield
            finally:
                self._off, self._backbone.adapter_use = were_off, use

    @contextmanager
    def unfused(self) -> Iterator[None]:
        """The base's weights as they are, inside."""
        with self._lock:
            fused = self.fused
            self.unfuse()
            try:
                yield
            finally:
                if fused:
                    self.fuse()

    def fuse(self) -> None:
        """Add the adapter into the weights, for speed: the same up to rounding. Raises `InputError` while it
        is off, and for one that is used at some noise levels alone, or with guidance of its own.

        The weights are kept on the CPU, so that `unfuse` gives them back bit for bit.
        """
        with self._lock:
            if self._off:
                raise InputError("fuse: the adapter is switched off; fuse it outside of disabled()")
            if (use := self._backbone.adapter_use) != AdapterUse():
                raise InputError(
                    f"fuse: adapter {self.name} needs the base beside it, with noise_levels="
                    f"{use.noise_levels} and guidance={use.guidance}; leave it unfused"
                )
            if self.fused:
                return
            for name, layer in adapter_layers(self._transformer).items():
                self._originals[name] = layer.get_base_layer().weight.detach().to("cpu", copy=True)
                layer.merge(adapter_names=[ADAPTER])

    def unfuse(self) -> None:
        """Undo `fuse`."""
        with self._lock:
            layers = adapter_layers(self._transformer)
            for name, original in self._originals.items():
                layers[name].unmerge()  # PEFT subtracts, which rounds
                layers[name].get_base_layer().weight.data.copy_(original)
            self._originals.clear()

    def remove(self) -> None:
        """Take the adapter out; the transformer is the base again, bit for bit. Raises `InputError` inside of
        `disabled()`, at whose end it would be switched on again.
        """
        with self._lock:
            if self._off:
                raise InputError("adapter: is switched off; load and unload outside of disabled()")
            self.unfuse()
            remove_adapter(self._transformer)
            self._backbone.adapter_use = AdapterUse()

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """The adapter is out, so that another can be put in inside; where that fails, whatever the error is,
        this one is back as it was, fused if it was. Raises as `remove`.
        """
        with self._lock:
            transformer, use, fused = self._transformer, self._backbone.adapter_use, self.fused
            layers, config = dict(adapter_layers(transformer)), getattr(transformer, "peft_config", None)
            try:
                self.remove()
                yield
            except BaseException:
                if not self._off:
                    remove_adapter(transformer)
                    for name, layer in layers.items():
                        transformer.set_submodule(name, layer)
                    transformer.peft_config, transformer._hf_peft_config_loaded = config, True
                    self._backbone.adapter_use = use
                    if fused:
                        self.fuse()
                raise


def _inject(transformer: Any, file: AdapterFile) -> None:
    """Put tensors that fit in. Every rank and alpha is said by name: diffusers would guess."""
    ranks = {f"^{module}": len(a) for module, (a, _) in file.weights.items()}
    alphas = {f"^{module}": alpha for module, alpha in file.alphas.items()}
    config = {
        "r": next(iter(ranks.values())),
        "lora_alpha": next(iter(alphas.values())),
        "target_modules": list(file.weights),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
    layers, tensors = linear_layers(transformer), {}
    for module, pair in file.weights.items():
        weight = layers[module].weight
        for part, tensor in zip("AB", pair, strict=True):
            tensors[f"{module}.lora_{part}.weight"] = tensor.to(weight.device, weight.dtype)
    # low_cpu_mem_usage: nothing is drawn that is overwritten, and nobody's generator notices.
    transformer.load_lora_adapter(
        tensors, prefix=None, adapter_name=ADAPTER, metadata=config, low_cpu_mem_usage=True
    )
    parameters = adapter_parameters(transformer)
    assert len(parameters) == len(tensors), "diffusers has not used every tensor"
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    transformer.eval()
