"""What a user may ask for, and every check of it: geometry, generation settings, presets.

Values are refused with an `InputError` that names the argument, the value and the nearest valid ones; nothing
is rounded. What only a model can know (its strides, its text length) is passed in.
"""

from __future__ import annotations

import math
import secrets
import sys
import unicodedata
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.reading import read_json, shortened

__all__ = [
    "MAX_SEED",
    "Architecture",
    "GenerationChanges",
    "GenerationConfig",
    "Geometry",
    "Guidance",
    "Preset",
    "SolverName",
    "check_decay",
    "check_number",
    "check_numbers",
    "check_positive",
    "check_prompt",
    "check_seed",
    "check_whole",
    "draw_seed",
    "preset_names",
]

SolverName = Literal["unipc", "euler"]

Architecture = Literal["vace", "phantom"]
"""How references reach a Wan transformer: beside the latents through VACE's control blocks, or as latent
frames behind those of the video, as in Phantom.
"""

MAX_SEED = 2**32 - 1
"""The largest seed: a CPU generator of torch keeps 32 bits of one, and larger ones would repeat noise."""
MAX_STEPS = 1000
MAX_GUIDANCE = 30.0
MAX_VIDEOS = 64

_MAX_PRESET_BYTES = 2**20
"""Largest file of a preset."""

ASSETS = Path(__file__).parent / "assets"
"""Weights and presets shipped with the package."""


@dataclass(frozen=True)
class Geometry:
    """Size of a clip: `height` x `width` pixels, `num_frames` frames, at `fps` frames a second."""

    height: int
    width: int
    num_frames: int
    fps: float = 8.0

    def __post_init__(self) -> None:
        """Refuse what no model could make."""
        for name in ("height", "width", "num_frames"):
            check_whole(name, getattr(self, name), 1, None)
        check_number("fps", self.fps, 1.0, 120.0)

    def check(self, multiple: tuple[int, int], temporal_scale: int, largest: tuple[int, int, int]) -> None:
        """Raise `InputError` unless a model can make this size.

        `multiple`: (height, width) must divide by it. `temporal_scale`: frames per latent frame; `num_frames`
        is a multiple of it plus one. `largest`: the (frames, height, width) that the model's positions reach.
        """
        sides = zip(("height", "width"), (self.height, self.width), multiple, largest[1:], strict=True)
        for name, value, step, limit in sides:
            if value % step:
                raise InputError(f"{name}: {value} does not divide by {step}; use {_nearest(value, step, 0)}")
            check_whole(name, value, step, limit)
        if self.num_frames % temporal_scale != 1 % temporal_scale:
            near = _nearest(self.num_frames, temporal_scale, 1)
            rule = f"{temporal_scale}k+1"
            raise InputError(f"num_frames: {self.num_frames} is not of the form {rule}; use {near}")
        check_whole("num_frames", self.num_frames, 1, largest[0])


@dataclass(frozen=True)
class Guidance:
    """How far a velocity is led towards its conditions; `flow.pass_weights` turns it into forward passes.

    `text`: weight of the prompt, 0 to 30; 1 is no guidance, 0 ignores the prompt. `image`: weight of the
    references, likewise; None for a model that has no guidance by references, which is the same as 1.
    """

    text: float = 1.0
    image: float | None = None

    def __post_init__(self) -> None:
        """Check both numbers."""
        check_number("guidance_scale", self.text, 0.0, MAX_GUIDANCE)
        if self.image is not None:
            check_number("image_guidance_scale", self.image, 0.0, MAX_GUIDANCE)

    @property
    def needs_negatives(self) -> bool:
        """Whether any forward pass takes the negative prompt; without one, a step is a single pass."""
        return self.text != 1 or self.image not in (None, 1)


@dataclass(frozen=True)
class GenerationConfig:
    """How to make videos of one geometry.

    `steps`: solver steps, 1 to 1000. `guidance_scale`, `image_guidance_scale`: see `Guidance`. `num_videos`:
    videos per (references, prompt). `negative_prompt`: what guidance leads away from; may be empty.
    """

    geometry: Geometry
    steps: int
    guidance_scale: float
    negative_prompt: str = ""
    num_videos: int = 1
    image_guidance_scale: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        check_whole("steps", self.steps, 1, MAX_STEPS)
        check_whole("num_videos", self.num_videos, 1, MAX_VIDEOS)
        check_prompt("negative_prompt", self.negative_prompt, may_be_empty=True)
        _ = self.guidance  # checks both scales

    @property
    def guidance(self) -> Guidance:
        """The two scales as one value."""
        return Guidance(self.guidance_scale, self.image_guidance_scale)


class GenerationChanges(TypedDict, total=False):
    """What of a preset's geometry and settings a call may change; None is no change."""

    height: int | None
    width: int | None
    num_frames: int | None
    steps: int | None
    guidance_scale: float | None
    image_guidance_scale: float | None
    negative_prompt: str | None


@dataclass(frozen=True)
class Preset:
    """A model and how it is best run: data only, read from JSON; no code depends on which preset it is.

    `architecture`: how references reach the transformer. `guidance_scale`, `image_guidance_scale`: of
    `Guidance`. `path`: directory of the weights, relative to the package's assets, or `repo_id` and
    `revision` of a Hub repository. `flow_shift`: the noise schedule's shift s (flow.sigma_schedule).
    `max_references`: people in one video. `max_text_tokens`: length of the text the model was trained with,
    in tokens with the end mark. `face_pack`: the pack (`FaceAnalyzer.load`) that knows the people this model
    draws, if one is shipped. `adapter`: the model's own aligned adapter, a Hub repository or a directory
    relative to the package's assets; what `adapter="default"` loads. `words`: all that the model was trained
    on, in lower case; none where it was trained on open text. `domain`: what the model knows and does not,
    for its users. `base`: of a model that is published in a format of its own, the model whose VAE and text
    encoder it shares (`igrpo convert`).
    """

    name: str
    geometry: Geometry
    steps: int
    guidance_scale: float
    flow_shift: float
    max_references: int
    max_text_tokens: int
    solver: SolverName = "unipc"
    negative_prompt: str = ""
    face_pack: str | None = None
    adapter: str | None = None
    path: str | None = None
    repo_id: str | None = None
    revision: str | None = None
    description: str = ""
    licence: str = ""
    architecture: Architecture = "vace"
    image_guidance_scale: float | None = None
    words: tuple[str, ...] = ()
    domain: str = ""
    base: str | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("name", "negative_prompt", "description", "licence", "domain"):
            _check_text(name, getattr(self, name))
        for name in ("face_pack", "adapter", "path", "repo_id", "revision"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for word in self.words:
            _check_text("words", word)
        self.generation()
        if self.architecture not in get_args(Architecture):
            known = ", ".join(get_args(Architecture))
            raise InputError(f"architecture: {shortened(self.architecture)}; use one of {known}")
        check_number("flow_shift", self.flow_shift, 0.01, 100.0)
        check_whole("max_references", self.max_references, 1, 16)
        check_whole("max_text_tokens", self.max_text_tokens, 2, 4096)
        if self.solver not in get_args(SolverName):
            known = ", ".join(get_args(SolverName))
            raise InputError(f"solver: {shortened(self.solver)}; use one of {known}")

    def generation(
        self, num_videos: int | None = None, **changes: Unpack[GenerationChanges]
    ) -> GenerationConfig:
        """The preset's settings with `changes`, for videos of one geometry. Raises `InputError`."""
        given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        if num_videos is not None:
            given["num_videos"] = num_videos
        size = asdict(self.geometry)
        size |= {name: given.pop(name) for name in size if name in given}
        names = ("steps", "guidance_scale", "image_guidance_scale", "negative_prompt")
        settings = {name: getattr(self, name) for name in names}
        return GenerationConfig(geometry=Geometry(**size), **(settings | given))

    @classmethod
    def load(cls, name: str) -> Preset:
        """A shipped preset by name. Raises `InputError` with the names there are."""
        if name not in preset_names():
            raise InputError(f"model: no preset {shortened(name)}; there are {', '.join(preset_names())}")
        return cls.read(ASSETS / "presets" / f"{name}.json")

    @classmethod
    def read(cls, path: Path) -> Preset:
        """A preset from a JSON file. Raises `WeightsError` if the file is not one."""
        try:
            data = read_json(path, "preset", _MAX_PRESET_BYTES)
            if not isinstance(data, dict) or not isinstance(data.get("geometry"), dict):
                raise InputError("no object with a geometry")
            words = data.get("words", [])
            if not isinstance(words, list):
                raise InputError(f"words: {shortened(words)}; give a list")
            return cls(**{**data, "geometry": Geometry(**data["geometry"]), "words": tuple(words)})
        except (InputError, TypeError) as error:  # a TypeError names the field that is unknown or missing
            why = str(error) if isinstance(error, InputError) else shortened(str(error)).strip("'\"")
            raise WeightsError(f"preset {shortened(path.name)}: {why}. Copy the file again") from error


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in (ASSETS / "presets").glob("*.json"))


def _check_text(name: str, value: object) -> None:
    """Refuse what is not a string."""
    if not isinstance(value, str):
        raise InputError(f"{name}: {shortened(value)}; give a string")


def check_prompt(name: str, text: object, may_be_empty: bool = False) -> None:
    """Raise `InputError` unless `text` is a string that any tokenizer and any video file can hold.

    Tabs and line ends count as spaces; other control characters, NUL and halves of surrogate pairs are not
    text.
    """
    if not isinstance(text, str):
        raise InputError(f"{name}: {type(text).__name__}; give a string")
    if not may_be_empty and not text.strip():
        raise InputError(f"{name}: empty; say who does what, and where")
    for place, sign in enumerate(text):
        if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\t\n\r":
            raise InputError(f"{name}: character {place} is U+{ord(sign):04X}, which is no text; remove it")


def check_seed(seed: object) -> int:
    """`seed`, an integer of Python or numpy, as an int if it is 0 to `MAX_SEED`. Raises `InputError`."""
    if not isinstance(seed, bool) and isinstance(seed, Integral):
        seed = int(seed)
    return check_whole("seed", seed, 0, MAX_SEED)


def draw_seed() -> int:
    """A random seed, 0 to `MAX_SEED`, that does not touch any generator's state."""
    return secrets.randbelow(MAX_SEED + 1)


def check_whole(name: str, value: object, low: int, high: int | None) -> int:
    """`value` if it is a whole number from `low` to `high`; a bool or a float is not one."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name}: {shortened(value)}; give a whole number")
    if value < low or (high is not None and value > high):
        span = "or more" if high is None else f"to {high}"
        raise InputError(f"{name}: {shortened(value)}; use {low} {span}")
    return value


def check_number(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Refuse what is not a finite number from `low` to `high`, or from `low` on; a bool is none."""
    span = f"a finite number, {low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
    _check_span(name, value, low, high, span)


def check_positive(name: str, value: object) -> None:
    """Refuse what is not a finite number above 0."""
    _check_span(name, value, math.ulp(0.0), math.inf, "a finite number above 0")


def check_decay(name: str, value: object) -> None:
    """Refuse what is not a number from 0 to below 1: the share of the past that an average keeps."""
    _check_span(name, value, 0.0, math.nextafter(1.0, 0.0), "0 or more, below 1")


def check_numbers(owner: Any, where: str) -> None:
    """Refuse a dataclass with a number that no setting means: NaN, infinite, or whole and beyond 32 bits.

    `where`: what a recipe calls the group of its fields. Spans that are narrower are for the class to check.
    """
    for field in fields(owner):
        value = getattr(owner, field.name)
        if isinstance(value, float):
            _check_span(f"{where}.{field.name}", value, -math.inf, math.inf, "a finite number")
        elif isinstance(value, int) and not isinstance(value, bool):
            check_whole(f"{where}.{field.name}", value, -MAX_SEED, MAX_SEED)


def _check_span(name: str, value: object, low: float, high: float, span: str) -> None:
    """Refuse what is not a finite number from `low` to `high`. NaN is in no span; whole ones may be huge."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{name}: {shortened(value)}; give a number")
    if not max(low, -sys.float_info.max) <= value <= min(high, sys.float_info.max):
        raise InputError(f"{name}: {shortened(value)}; use {span}")


def _nearest(value: int, step: int, offset: int) -> str:
    """The valid values around `value`: 'a or b', those of the form step*k + offset, at least 1."""
    below = (value - offset) // step * step + offset
    return " or ".join(str(near) for near in (below, below + step) if near > 0)
