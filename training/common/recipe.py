"""Recipes: YAML files that become frozen dataclasses, with overrides from the command line.

A recipe names its `kind`, the `hardware` and time it was measured on, and the fields of the dataclass of that
kind. Unknown keys, wrong types and bad values are errors, never ignored.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from igrpo_sdk.errors import InputError
from igrpo_sdk.reading import parse_yaml, probe, read_yaml, shortened

RECIPES = Path(__file__).parent.parent / "recipes"
QUOTES = "'\""
T = TypeVar("T")


def read_recipe(recipe: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`read_mapping` of a recipe, which says its `kind`; InputError for one that does not."""
    data = read_mapping(recipe, overrides)
    if not isinstance(data.get("kind"), str):
        raise InputError(f"recipe {shortened(recipe)} must have a 'kind', a word")
    return data


def read_mapping(recipe: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Mapping of a recipe by name (a file of `training/recipes`) or path, with `a.b=c` overrides (c is YAML).

    Raises InputError for a recipe that does not exist, cannot be read or is no mapping, and for an override
    that is not `key=value`.
    """
    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else RECIPES / f"{recipe}.yaml"
    if probe(path, "recipe") != "file":
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise InputError(f"recipe {shortened(recipe)} does not exist: give a YAML file or one of {known}")
    data = read_yaml(path, "recipe")
    if not isinstance(data, dict):
        raise InputError(f"recipe {shortened(str(path))} must be a mapping")
    for override in overrides:
        _apply(data, override)
    return data


def build(cls: type[T], data: Mapping[str, Any], where: str = "recipe") -> T:
    """Instance of the dataclass `cls`, nested ones too; InputError for unknown keys and wrong types."""
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            raise InputError(
                f"{where}.{shortened(key).strip(QUOTES)} is unknown: {where} has {', '.join(sorted(names))}"
            )
    values = {key: _convert(value, hints[key], f"{where}.{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise InputError(f"{where} is incomplete: {error}") from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise InputError(f"override {shortened(override)} must look like key.subkey=value")
    *parents, last = key.split(".")
    for parent in parents:
        child = data.setdefault(parent, {})
        if not isinstance(child, dict):
            raise InputError(f"override {shortened(override)}: {shortened(parent)} is a value, not a group")
        data = child
    data[last] = parse_yaml(value, f"override {shortened(override)}")


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where}={shortened(value)} must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}={shortened(value)} must be a list")
        return tuple(_convert(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}={shortened(value)} must be a group of keys")
        return build(typing.cast(type, hint), value, where)
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-3 as a string
        except OverflowError:
            number = math.inf
        except ValueError:
            raise InputError(f"{where}={shortened(value)} must be of type float") from None
        if not math.isfinite(number):
            raise InputError(f"{where}={shortened(value)} must be a finite number")
        return number
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise InputError(f"{where}={shortened(value)} must be of type {hint.__name__}")
