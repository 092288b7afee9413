"""Reading an adapter. Nothing here knows a model; all that can be wrong with a file alone is found here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.adapters.info import INFO_FILE, AdapterInfo
from igrpo_sdk.adapters.names import Key, find_naming, parse_key, plain
from igrpo_sdk.adapters.settings import METADATA_KEY, PEFT_CONFIG, find_alphas, read_config, read_header
from igrpo_sdk.errors import HubError, InputError, WeightsError
from igrpo_sdk.hub.locate import Repository, fetch, file_names, locate, split_file
from igrpo_sdk.media.files import file_hash
from igrpo_sdk.reading import parse_json, probe, shortened

__all__ = ["METADATA_KEY", "WEIGHTS_FILE", "AdapterFile", "read_adapter"]

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
"""The weights of an adapter, as diffusers names them."""
_PEFT_WEIGHTS = "adapter_model.safetensors"
_SUFFIX = ".safetensors"

MAX_HEADER = 32 * 2**20
"""Longest head of a file, in bytes; some trainers put a picture there."""
MAX_TENSORS = 2**14
MAX_BYTES = 64 * 2**30

_TYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
"""Types of weights that are read, as safetensors calls them. float8 becomes bfloat16, which holds all."""
_ALPHA_TYPES = {*_TYPES, "I64", "I32", "I16", "I8", "U8"}
# How files begin that are called .safetensors and are none.
_OTHERS = {
    b"PK\x03\x04": "a pickle of PyTorch, which could run code; convert it",
    b"\x80": "a pickle, which could run code; convert it",
    b"version https://git-lfs": "only a pointer of Git LFS; fetch the file itself",
    b"<": "a page of the web; download the file itself",
}


@dataclass(frozen=True, eq=False)
class AdapterFile:
    """A LoRA that has been read.

    name: of its directory, file or repository. hash: sha256 (hex) of the file of weights. weights: module to
    (A [r, in], B [out, r]); the module gains B A alpha / r. alphas: module to alpha. config: PEFT's settings,
    None where the file has none. info: None for an adapter that was not made here. warnings: what its user
    should know.
    """

    name: str
    hash: str
    weights: Mapping[str, tuple[Tensor, Tensor]]
    alphas: Mapping[str, float]
    config: Mapping[str, Any] | None
    info: AdapterInfo | None
    warnings: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """Which adapter it is: its name, and what tells it from others of that name."""
        return f"{self.name} ({self.hash[:8]})"


def read_adapter(source: str | os.PathLike[str], revision: str | None = None) -> AdapterFile:
    """Read an adapter: a directory, a .safetensors file, or a Hub repository at a `revision`.

    A path is looked for on this machine before the Hub is asked; "owner/name/FILE.safetensors" is one file of
    a repository. Raises `InputError` for a source that is nothing, `WeightsError` for files that are missing,
    damaged or no plain LoRA, `HubError` when a repository cannot be had.
    """
    path, name = _find(source, revision)
    name = plain(name)
    tensors, header = _read_tensors(path, name)
    prefix, naming = find_naming(name, tensors)
    parts = dict[Key, Tensor]()
    for key, tensor in tensors.items():
        part = parse_key(name, key, prefix, naming)
        if part in parts:
            raise WeightsError(
                f"adapter {name}: {shortened(key)} gives {part.module} a second {part.part}; use another"
            )
        parts[part] = tensor
    weights = _pairs(name, parts)
    said, config = read_header(name, header), read_config(name, path, header, prefix)
    given = {key.module: tensor for key, tensor in parts.items() if key.part == "alpha"}
    if naming == "peft" and config is None and said.alpha is None and given.keys() < weights.keys():
        raise WeightsError(f"adapter {name}: {PEFT_CONFIG} is missing, which holds alpha; copy it too")
    ranks = {module: len(a) for module, (a, _) in weights.items()}
    alphas, warnings = find_alphas(name, ranks, config, given, said)
    info = path.with_name(INFO_FILE)
    return AdapterFile(
        name,
        file_hash(path),
        weights,
        alphas,
        config,
        AdapterInfo.read(info) if info.is_file() else None,
        warnings,
    )


# ---- where it is


def _find(source: str | os.PathLike[str], revision: str | None) -> tuple[Path, str]:
    """(file of weights, name) of what a user calls an adapter; a file of a repository is downloaded."""
    found = locate(source, revision)
    if isinstance(found, Path):
        return _find_here(found)
    text = str(source)
    chosen: tuple[Repository, str | None] | None
    chosen = split_file(text, revision) if isinstance(source, str) else None
    if isinstance(found, Repository) and not found.id.endswith(_SUFFIX):
        chosen = found, None
    here = f"there is no such file or folder (seen from {os.getcwd()})"
    if chosen is None:
        raise InputError(f"adapter: {shortened(text)}: {here}, and it is no name of a Hub repository")
    repository, file = chosen
    if file is not None and os.path.isdir(text.split("/")[0]):
        raise InputError(f"adapter: {shortened(text)}: {here}. Check the path")
    try:
        return _find_there(repository, file)
    except HubError as error:
        raise HubError(f"{error}. As a path: {here}") from error


def _find_here(path: Path) -> tuple[Path, str]:
    """(file of weights, name) of a path that is there."""
    if probe(path, "adapter") == "folder":
        name = path.resolve().name
        inside = path / "adapter"
        remedy = "copy it again"
        if probe(inside / WEIGHTS_FILE, "adapter") == "file":
            remedy = f"give {shortened(str(inside))}"
        file = _chosen((one.name for one in path.glob(f"*{_SUFFIX}")), plain(name), remedy)
        return path / file, name
    if path.suffix != _SUFFIX:
        raise WeightsError(f"adapter {plain(path.name)}: only {_SUFFIX} files are read; convert it")
    return path, path.stem


def _find_there(repository: Repository, file: str | None) -> tuple[Path, str]:
    """(file of weights, name) of a repository; only it and what is said of it beside it is downloaded."""
    names = [name for name in file_names(repository, "adapter") if name.endswith(_SUFFIX)]
    if file is None:
        top = [name for name in names if "/" not in name]
        file = _chosen(top or names, repository.id, f"give {repository.id}/FILE", f"{repository.id}/")
        name = repository.id
    elif file in names:
        name = f"{repository.id}/{file.removesuffix(_SUFFIX)}"
    else:
        there = f"; there is {_listed(names)}" if names else f", nor another {_SUFFIX} file"
        raise WeightsError(f"adapter {repository.id}: holds no {shortened(file)}{there}")
    beside = PurePosixPath(file).parent
    wanted = [escape(str(beside / one)) for one in (PurePosixPath(file).name, INFO_FILE, PEFT_CONFIG)]
    return fetch(repository, wanted, "adapter") / file, name


def _chosen(names: Iterable[str], name: str, remedy: str, before: str = "") -> str:
    """The one file of weights among some; `before`: what a user writes before the file's name."""
    found = sorted(names)
    usual = [one for one in found if one in (WEIGHTS_FILE, _PEFT_WEIGHTS)]
    found = usual or found
    if len(found) == 1:
        return found[0]
    if found:
        raise WeightsError(
            f"adapter {name}: holds {_listed(found)}; give the path of one"
            + (f", such as {shortened(before + found[0])}" if before else "")
        )
    raise WeightsError(f"adapter {name}: holds no {WEIGHTS_FILE} and no {_PEFT_WEIGHTS}; {remedy}")


def _listed(names: list[str]) -> str:
    """The first of some names, and how many there are."""
    shown = ", ".join(plain(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


# ---- what it holds


def _read_tensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the head of a safetensors file."""
    from safetensors import safe_open

    try:
        types, header = _read_head(path)
    except (InputError, OSError) as error:
        raise _damaged(path, name, error) from error
    for key, kind in types.items():
        if kind not in (_ALPHA_TYPES if key.endswith("alpha") else _TYPES):
            raise WeightsError(
                f"adapter {name}: {shortened(key)} is of type {shortened(kind)}; weights are "
                "floating-point numbers"
            )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has errors of its own
        raise _damaged(path, name, error) from error
    return {
        key: tensor.to(torch.bfloat16) if types[key].startswith("F8") and tensor.numel() > 1 else tensor
        for key, tensor in tensors.items()
    }, header


def _read_head(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The type of each tensor, and what else the head says. Raises `InputError`, OSError."""
    if probe(path, "adapter") != "file":
        raise InputError("it is no ordinary file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"over {MAX_BYTES:,} bytes, which is the limit")
    with path.open("rb") as file:
        begin = file.read(32)
        length = int.from_bytes(begin[:8], "little")
        if not 0 < length <= min(size - 8, MAX_HEADER) or begin[8:9] != b"{":
            what = next((what for sign, what in _OTHERS.items() if begin.startswith(sign)), None)
            raise InputError(f"it is {what}" if what else "its head is longer than it, or than the limit")
        file.seek(8)
        head = parse_json(file.read(length), "its head", MAX_HEADER)
    if not isinstance(head, dict):
        raise InputError("its head is no object")
    words = head.pop("__metadata__", None) or {}
    if not (isinstance(words, dict) and all(isinstance(one, str) for one in words.values())):
        raise InputError("its head says something that is no text")
    if len(head) > MAX_TENSORS:
        raise InputError(f"over {MAX_TENSORS:,} tensors, which is the limit")
    types = {}
    for key, entry in head.items():
        kind = entry.get("dtype") if isinstance(entry, dict) else None
        if not isinstance(kind, str):
            raise InputError(f"its head says of {shortened(key)} no type")
        types[key] = kind
    return types, words


def _damaged(path: Path, name: str, error: Exception) -> WeightsError:
    return WeightsError(f"adapter {name}: {plain(path.name)} is damaged ({plain(str(error))}); copy it again")


def _pairs(name: str, parts: Mapping[Key, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """module to (A, B). Raises `WeightsError` for halves, wrong shapes and numbers that are none."""
    pairs = {}
    for module in sorted({key.module for key in parts}):
        a, b = parts.get(Key(module, "A")), parts.get(Key(module, "B"))
        if a is None or b is None:
            missing = "lora_A" if a is None else "lora_B"
            raise WeightsError(f"adapter {name}: {module} lacks {missing}; copy it again")
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise WeightsError(
                f"adapter {name}: {module} has A and B of {shapes}; they must be [r,in], [out,r]"
            )
        if 0 in (*a.shape, *b.shape):
            raise WeightsError(
                f"adapter {name}: {module} has A and B of {list(a.shape)} and {list(b.shape)}, which hold no"
                " numbers; use another copy"
            )
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise WeightsError(f"adapter {name}: {module} is not finite; use another copy or checkpoint")
        pairs[module] = (a, b)
    return pairs
