"""What an adapter says of itself beside its tensors: PEFT's settings, the head of its file; and its alphas.

Settings come from others: every value is checked before it is used, and patterns are matched in linear time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.adapters.names import diffusers_name
from igrpo_sdk.adapters.patterns import Pattern, Steps
from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.reading import parse_json, read_json, shortened

__all__ = ["METADATA_KEY", "PEFT_CONFIG", "find_alphas", "read_config", "read_header", "wanted_modules"]

PEFT_CONFIG = "adapter_config.json"
METADATA_KEY = "lora_adapter_metadata"
"""Where in the head of a safetensors file diffusers keeps PEFT's settings."""
MAX_ALPHA = 2.0**20
_MAX_PATTERNS = 4096

# What would change the meaning of the tensors; a file that asks for it is refused.
_NOT_PLAIN = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "target_parameters",
    "layer_replication",
    "use_qalora",
)
# Ways to begin that change the base's weights too, which PEFT would do again.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_PLAIN = re.compile(r"\^?[\w.-]+", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,20})?(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
# What trainers call alpha in the head, alone or in a namespace. kohya's 0 and None mean the rank.
_ALPHAS = ("lora_alpha", "network_alpha", "alpha", "ss_network_alpha")
_RANKS = ("r", "lora_rank", "rank", "network_dim", "ss_network_dim")
_NAMESPACES = ("", "transformer", "diffusion_model", "unet")


# ---- PEFT's settings


def read_config(name: str, path: Path, header: Mapping[str, str], prefix: str) -> dict[str, Any] | None:
    """PEFT's settings: from the head of the file of weights, or else from `adapter_config.json` beside it;
    None without any. The latter belongs to a file with PEFT's names, and to one that is alone in its folder.

    Raises `WeightsError` for settings that are damaged, or of something else than plain LoRA.
    """
    beside = path.with_name(PEFT_CONFIG)
    try:
        if METADATA_KEY in header:
            config = parse_json(header[METADATA_KEY], "the head of the file")
        elif beside.is_file() and (prefix == "base_model.model." or _is_alone(path)):
            config = read_json(beside, "settings")
        else:
            return None
        if not isinstance(config, dict):
            raise InputError(f"{shortened(config)} is no object")
        spaces = [space for space in (prefix, "transformer.") if any(key.startswith(space) for key in config)]
        if METADATA_KEY in header and prefix and spaces:
            config = {
                key.removeprefix(spaces[0]): value
                for key, value in config.items()
                if key.startswith(spaces[0])
            }
        return _checked(config)
    except (InputError, OSError) as error:
        raise WeightsError(f"adapter {name}: its settings are not usable: {error}") from error


def _is_alone(path: Path) -> bool:
    return not any(other != path for other in path.parent.glob("*.safetensors"))


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that matter, names of the original Wan as diffusers has them; `InputError` for others."""
    if config.get("peft_type", "LORA") != "LORA":
        raise InputError(
            f"peft_type {shortened(config['peft_type']).strip(chr(39))}; only LORA can be loaded"
        )
    asked = [key for key in _NOT_PLAIN if config.get(key)]
    if asked:
        raise InputError(f"{asked[0]}: {shortened(config[asked[0]])}; only plain LoRA can be loaded")
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE):
        raise InputError(
            f"init_lora_weights: {shortened(begun)} changes the base too; convert it to plain LoRA"
        )
    if not isinstance(config.get("use_rslora") or False, bool):
        raise InputError(f"use_rslora: {shortened(config['use_rslora'])}; must be true or false")
    for key in ("r", "lora_alpha"):
        if key not in config:
            raise InputError(f"{key} is missing")
        _check_positive(key, config[key])
    kept = {
        "r": config["r"],
        "lora_alpha": config["lora_alpha"],
        "use_rslora": bool(config.get("use_rslora")),
    }
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict) or len(patterns) > _MAX_PATTERNS:
            raise InputError(f"{key}: {shortened(patterns)}; must be an object of {_MAX_PATTERNS} at most")
        for value in patterns.values():
            _check_positive("one of those of patterns", value)
        kept[key] = {_renamed(pattern): value for pattern, value in patterns.items()}
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        names = config.get(key)
        if isinstance(names, list) and all(isinstance(one, str) for one in names) and len(names) <= 2**16:
            names = [_renamed(one) for one in names]
        elif not (names is None or isinstance(names, str)):
            raise InputError(f"{key}: {shortened(names)}; must be names")
        kept[key] = names
    layers = config.get("layers_to_transform")
    whole = layers if isinstance(layers, list) else [] if layers is None else [layers]
    if any(isinstance(one, bool) or not isinstance(one, int) for one in whole):
        raise InputError(f"layers_to_transform: {shortened(layers)}; must be whole numbers")
    kept["layers_to_transform"] = layers
    for pattern in (
        [kept["layers_pattern"] or []]
        if isinstance(kept["layers_pattern"], str)
        else (kept["layers_pattern"] or [])
    ):
        if pattern and not _PLAIN.fullmatch(pattern):
            raise InputError(f"layers_pattern: {shortened(pattern)}; must be a name")
    return config | kept


def _renamed(pattern: str) -> str:
    return diffusers_name(pattern) if _PLAIN.fullmatch(pattern) else pattern


def _check_positive(name: str, value: object) -> None:
    """Raise `InputError` for what is no number that a rank or an alpha can be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_ALPHA:
        raise InputError(
            f"{name}: {shortened(value)}; r and lora_alpha, and those of patterns, must be numbers above 0, "
            f"at most {MAX_ALPHA:,.0f}"
        )


class _Chooser:
    """PEFT's rule for `rank_pattern` and `alpha_pattern`: a key stands for the end of a module's name."""

    def __init__(self, patterns: Mapping[str, Any], default: Any, steps: Steps) -> None:
        self._default = default
        self._choices = [(_ending(pattern, steps), value) for pattern, value in patterns.items()]

    def __call__(self, module: str) -> Any:
        """The value of the first pattern that the module's name fits."""
        return next((value for fits, value in self._choices if fits(module)), self._default)


def _ending(text: str, steps: Steps) -> Callable[[str], bool]:
    """Whether `re.match(rf"(.*\\.)?({text})$", module)`, in linear time."""
    if _PLAIN.fullmatch(text):
        word = text.removeprefix("^")
        if word != text:
            return word.__eq__
        return lambda module: module.endswith(word) and (module == word or module[-len(word) - 1] == ".")
    pattern = Pattern(text, steps)
    if pattern.anchored not in (0, pattern.alternatives):
        raise InputError(f"pattern {shortened(text)}: only a part of it begins with ^, which is not read")
    return (pattern if pattern.anchored else Pattern(rf"(?:.*\.)?(?:{text})", steps)).fullmatch


def wanted_modules(config: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Those of a model's linear layers that an adapter of these settings has a LoRA in, by PEFT's rules.

    Raises `InputError` for patterns that are not read.
    """
    steps = Steps()
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if targets is None:
        return []
    excluded = _listed(config.get("exclude_modules") or [], steps)
    wanted = [name for name in names if not excluded(name)]
    chosen = list(filter(_listed(targets, steps), wanted))
    if isinstance(targets, str) or layers is None or layers == []:
        return chosen
    indices = set(layers if isinstance(layers, list) else [layers])
    patterns = config.get("layers_pattern") or []
    within = [re.escape(one) for one in ([patterns] if isinstance(patterns, str) else patterns)]
    index = re.compile(rf"(?:^|.*?\.)(?:{'|'.join(within)})\.(\d+)\." if within else r".*?\.[^.]*\.(\d+)\.")
    return [name for name in chosen if (found := index.match(name)) and int(found[1]) in indices]


def _listed(names: str | list[str], steps: Steps) -> Callable[[str], bool]:
    """Whether a module is one of `names`, or ends with one; a string is a pattern of the whole."""
    if isinstance(names, str):
        return Pattern(names, steps).fullmatch
    ends = set(names)
    return lambda module: any(
        module[at:] in ends for at in (0, *(at + 1 for at, sign in enumerate(module) if sign == "."))
    )


# ---- the head of the file


@dataclass(frozen=True)
class Header:
    """What trainers write into the head of the file: alpha and rank, None where they are not said, and
    whether the scale is alpha / sqrt(r).
    """

    alpha: float | None = None
    rank: float | None = None
    rslora: bool = False


def read_header(name: str, header: Mapping[str, str]) -> Header:
    """Read the head of a safetensors file; `WeightsError` for an alpha that is none, or two that differ."""
    alphas = _said(name, header, _ALPHAS)
    ranks = _said(name, header, _RANKS)
    if len(set(alphas.values())) > 1:
        said = ", ".join(f"{key}={value:g}" for key, value in sorted(alphas.items()))
        raise WeightsError(f"adapter {name}: its head says several alphas: {said}; use another copy")
    rslora = {value.lower() for key, value in header.items() if _own(key) == "use_rslora"}
    rank = next(iter(ranks.values())) if len(set(ranks.values())) == 1 else None
    return Header(next(iter(alphas.values()), None), rank, "true" in rslora)


def _own(key: str) -> str | None:
    """The name that a key has in its namespace; None in one of another model."""
    space, _, own = key.rpartition(".")
    return own if space in _NAMESPACES else None


def _said(name: str, header: Mapping[str, str], keys: tuple[str, ...]) -> dict[str, float]:
    """The numbers of some keys."""
    found = {}
    for key, value in header.items():
        own, word = _own(key), value.strip().strip('"')
        if own not in keys or word.lower() in ("none", "null", "dynamic", ""):
            continue
        number = float(word) if _NUMBER.fullmatch(word) else math.nan
        if number == 0 and own.startswith("ss_"):
            continue
        if not 0 < number <= MAX_ALPHA:
            raise WeightsError(
                f"adapter {name}: its head says {own}={shortened(word)}, which must be a number above 0; use "
                "another copy"
            )
        found[key] = number
    return found


# ---- alphas


def find_alphas(
    name: str,
    ranks: Mapping[str, int],
    config: Mapping[str, Any] | None,
    given: Mapping[str, Tensor],
    header: Header,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The alpha of each module of a rank, and what the user should know of it.

    It is said by PEFT's settings, by tensors `given` of one number each, or in the head; where two say it
    they must agree as far as the tensor is precise, except that a tensor, which says more, comes before the
    head. Where nothing says it, it is the rank, as in diffusers. Raises `WeightsError`.
    """
    tensors = {module: _number(name, module, tensor) for module, tensor in given.items()}
    if config is None:
        alphas = {module: tensors.get(module, _of_header(header, rank)) for module, rank in ranks.items()}
        return alphas, _told(name, ranks, given, header)
    if header.alpha is not None and header.alpha != float(config["lora_alpha"]):
        raise WeightsError(
            f"adapter {name}: alpha is {header.alpha:g} in its head, {config['lora_alpha']} in its settings; "
            "use another"
        )
    try:
        return _of_config(name, ranks, config, given), ()
    except InputError as error:
        raise WeightsError(f"adapter {name}: its settings are not usable: {error}") from error


def _of_config(
    name: str, ranks: Mapping[str, int], config: Mapping[str, Any], given: Mapping[str, Tensor]
) -> dict[str, float]:
    """alpha by PEFT's settings."""
    steps, alphas = Steps(), {}
    rank_of = _Chooser(config["rank_pattern"], config["r"], steps)
    alpha_of = _Chooser(config["alpha_pattern"], config["lora_alpha"], steps)
    for module, rank in ranks.items():
        if (said := rank_of(module)) != rank:
            raise WeightsError(
                f"adapter {name}: {module} has rank {rank}, its settings say {said}; copy it again"
            )
        alpha = float(alpha_of(module))
        if module in given and not _same(given[module], alpha):
            raise WeightsError(
                f"adapter {name}: alpha of {module} is {float(given[module])}, its settings say {alpha}; use "
                "another"
            )
        # rsLoRA: scaled by alpha / sqrt(r) instead of alpha / r
        alphas[module] = alpha * math.sqrt(rank) if config["use_rslora"] else alpha
    return alphas


def _of_header(header: Header, rank: int) -> float:
    """alpha by the head, or the rank."""
    alpha = float(rank) if header.alpha is None else header.alpha
    return alpha * math.sqrt(rank) if header.rslora else alpha


def _told(
    name: str, ranks: Mapping[str, int], given: Mapping[str, Tensor], header: Header
) -> tuple[str, ...]:
    """What the user of an adapter without settings should know; `WeightsError` for another one's head."""
    if header.alpha is None:
        if given.keys() >= ranks.keys():
            return ()
        return (f"adapter {name}: does not say its alpha; as in diffusers, the rank is taken for it",)
    if given.keys() < ranks.keys() and header.rank is not None and header.rank not in ranks.values():
        rank = next(iter(ranks.values()))
        raise WeightsError(
            f"adapter {name}: has rank {rank}, its head says {header.rank:g}; use another copy"
        )
    other = next((module for module, tensor in given.items() if not _same(tensor, header.alpha)), None)
    if other is None:
        return ()
    return (
        f"adapter {name}: alpha of {other} is {float(given[other]):g} in its tensor, {header.alpha:g} in its "
        "head; the tensor's is used",
    )


def _number(name: str, module: str, tensor: Tensor) -> float:
    """The one number of a tensor."""
    if tensor.numel() != 1:
        raise WeightsError(f"adapter {name}: alpha of {module} is {tensor.numel()} numbers; use another copy")
    value = float(tensor)
    if not 0 < value <= MAX_ALPHA:
        raise WeightsError(
            f"adapter {name}: alpha of {module} is {value:g}, which must be above 0; use another copy"
        )
    return value


def _same(tensor: Tensor, value: float) -> bool:
    """Whether a tensor of one number is `value`, as precisely as its type can say it."""
    said = torch.tensor(value, dtype=torch.float64)
    if tensor.dtype.is_floating_point:
        said = said.to(tensor.dtype)
    return float(said) == float(tensor)
