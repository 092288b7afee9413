"""`igrpo.json`, beside an adapter's weights: which model it belongs to, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.backbones.switching import AdapterUse
from igrpo_sdk.config import Geometry, Preset, check_number, check_whole
from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.provenance import weights_mark
from igrpo_sdk.reading import read_json, shortened

__all__ = ["INFO_FILE", "SCHEMA", "AdapterInfo"]

INFO_FILE = "igrpo.json"
"""A file of this name beside an adapter's weights is its `AdapterInfo`."""

SCHEMA = 1
"""Version of the file; it grows when a field changes its meaning or goes."""
_MAX_BYTES = 2**20
_MAX_WORD = 1000


@dataclass(frozen=True)
class AdapterInfo:
    """Where an adapter belongs. What is not known is None.

    base_model: what `IdentityPipeline.from_pretrained` loads the base by; base_revision: of a Hub repository.
    base_weights: `weights_mark` of the base's transformer. reference_order: how references stood in the
    tensors it was trained on (`Backbone.reference_order`). geometry, solver, steps, guidance_scale,
    image_guidance_scale, flow_shift: what it was trained for. noise_levels, guidance: how it is used
    (`AdapterUse`); diffusers does not know of them. reward: the recipe or the reward it was trained with.
    metrics: name to number. made_from: the adapters that it was begun with or merged from
    (`AdapterFile.mark`). code_version: of igrpo-sdk, which wrote the file.
    """

    base_model: str
    reference_order: str
    base_revision: str | None = None
    base_weights: str | None = None
    geometry: Geometry | None = None
    solver: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    flow_shift: float | None = None
    noise_levels: tuple[float, float] = AdapterUse.noise_levels
    guidance: float | None = None
    reward: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    made_from: tuple[str, ...] = ()
    code_version: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would not say where the adapter belongs, and values of other types."""
        for name in ("base_model", "reference_order"):
            value = getattr(self, name)
            if not isinstance(value, str) or not 0 < len(value) <= _MAX_WORD:
                raise InputError(f"{name}: {shortened(value)}; give a word")
        for name in ("base_revision", "base_weights", "solver", "reward", "code_version"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and len(value) <= _MAX_WORD):
                raise InputError(f"{name}: {shortened(value)}; give a word, or nothing")
        for name in ("guidance_scale", "image_guidance_scale", "flow_shift"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0.0)
        if self.steps is not None:
            check_whole("steps", self.steps, 1, None)
        if not isinstance(self.metrics, Mapping):
            raise InputError(f"metrics: {shortened(self.metrics)}; give names and numbers")
        if not (isinstance(self.made_from, tuple) and all(isinstance(one, str) for one in self.made_from)):
            raise InputError(f"made_from: {shortened(self.made_from)}; give names")
        _ = self.use  # checks both

    @property
    def use(self) -> AdapterUse:
        """How the adapter is used."""
        return AdapterUse(self.noise_levels, self.guidance)

    @classmethod
    def of(
        cls,
        preset: Preset,
        backbone: Backbone,
        reward: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        made_from: tuple[str, ...] = (),
    ) -> AdapterInfo:
        """What is to be said of an adapter that is trained on a pipeline's `preset` and its model.

        Ask before the model is sharded or fused: the mark is that of its weights as they are. Its
        `adapter_use` is that of the adapter.
        `reward`, `metrics`, `made_from`: how and how well it was made.
        """
        return cls(
            base_model=preset.name,
            base_revision=preset.revision,
            base_weights=weights_mark(backbone.transformer),
            reference_order=backbone.reference_order,
            geometry=preset.geometry,
            solver=preset.solver,
            steps=preset.steps,
            guidance_scale=preset.guidance_scale,
            image_guidance_scale=preset.image_guidance_scale,
            flow_shift=preset.flow_shift,
            noise_levels=backbone.adapter_use.noise_levels,
            guidance=backbone.adapter_use.guidance,
            reward=reward,
            metrics=dict(metrics or {}),
            made_from=made_from,
            code_version=metadata.version("igrpo-sdk"),
        )

    def to_json(self) -> str:
        """The text of the file. Raises `InputError` for metrics that are not JSON or not finite."""
        try:
            return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise InputError(f"metrics: cannot be written as JSON ({error}); give finite numbers") from error

    @classmethod
    def read(cls, path: Path) -> AdapterInfo:
        """What `to_json` wrote. Fields that are not known are left out.

        Raises `WeightsError` for a file that is none, or one of a newer version.
        """
        try:
            content = read_json(path, "information", _MAX_BYTES)
            if not isinstance(content, dict):
                raise InputError(f"{shortened(content)} is no object")
            if check_whole("schema", content.get("schema", SCHEMA), 1, None) > SCHEMA:
                raise InputError(
                    f"schema {shortened(content['schema'])} is newer than {SCHEMA}: update igrpo-sdk"
                )
            known = {item.name: content[item.name] for item in fields(cls) if item.name in content}
            if known.get("geometry") is not None:
                known["geometry"] = Geometry(**known["geometry"])
            for name in ("noise_levels", "made_from"):
                if isinstance(known.get(name), list):
                    known[name] = tuple(known[name])
            return cls(**known)
        except (InputError, TypeError) as error:  # a TypeError names the field that is unknown or missing
            reason = str(error) if isinstance(error, InputError) else shortened(str(error)).strip("'\"")
            raise WeightsError(
                f"adapter: {shortened(path.name)[1:-1]} is not usable: {reason}. Copy it again"
            ) from error

    def check(self, name: str, preset: Preset, backbone: Backbone) -> None:
        """Raise `WeightsError` unless the adapter called `name` belongs to a pipeline.

        The mark of the weights decides: a copy of a model under another name is the same model. Names and
        revisions decide where there is no mark, or where float16 has changed the weights that it is of.
        """
        order = backbone.reference_order
        if self.reference_order != order:
            raise WeightsError(
                f"adapter {name}: trained with references in {shortened(self.reference_order)} order; "
                f"{preset.name} has {order!r} order: use another adapter"
            )
        made: tuple[str | None, ...]
        used: tuple[str | None, ...]
        made, used = (self.base_model, self.base_revision), (preset.name, preset.revision)
        differ = made[0] != used[0] or (None not in (made[1], used[1]) and made[1] != used[1])
        if self.base_weights is not None and backbone.transformer.dtype != torch.float16:
            mark = weights_mark(backbone.transformer)
            differ = mark != self.base_weights
            made, used = (*made, f"weights {self.base_weights}"), (*used, f"weights {mark}")
        if differ:
            raise WeightsError(
                f"adapter {name}: trained on {_words(made)}; this is {_words(used)}. Load that model, or"
                " another adapter"
            )


def _words(parts: tuple[str | None, ...]) -> str:
    """A model in words: its name, and what else is known of it in brackets."""
    shown = [part and shortened(part)[1:-1] for part in parts]
    known = [part for part in shown[1:] if part]
    return f"{shown[0]} ({', '.join(known)})" if known else str(shown[0])
