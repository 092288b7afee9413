"""Rollouts as bytes, for a scorer on another machine; nothing that is read can run code.

    8 bytes     length of the header, little-endian
    header      JSON: version, term, the shapes of the references, and of each rollout its frames' shape, the
                indices of its references, prompt, refined prompt, group, places and facts
    references  uint8 pixels, each picture once
    frames      uint8 pixels, rollout after rollout

Nothing is compressed, so that what is read takes no more memory than what was sent, once as it came and once
as tensors; all lengths are compared with the body's before anything is made of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.reading import parse_json, shortened
from igrpo_sdk.references import Reference

from ..common.facts import Facts
from ..common.recipe import build
from .base import Rollout

__all__ = ["decode_rollouts", "encode_rollouts"]

VERSION = 3
_MAX_HEADER = 16 * 2**20
_MAX_ROLLOUTS = 4096
_LENGTH = 8  # bytes of the header's length
_KEYS = {"frames", "references", "prompt", "refined_prompt", "group", "places", "facts"}


def encode_rollouts(term: str, rollouts: Sequence[Rollout]) -> list[bytes | memoryview]:
    """The request that asks for one term of some rollouts, in parts to be joined; pixels are not copied."""
    pictures = {reference.hash: reference.image for rollout in rollouts for reference in rollout.references}
    index = {key: i for i, key in enumerate(pictures)}
    rows = [
        {
            "frames": list(rollout.frames.shape),
            "references": [index[reference.hash] for reference in rollout.references],
            "prompt": rollout.prompt,
            "refined_prompt": rollout.refined_prompt,
            "group": rollout.group,
            "places": rollout.places,
            "facts": None if rollout.facts is None else asdict(rollout.facts),
        }
        for rollout in rollouts
    ]
    shapes = [picture.shape for picture in pictures.values()]
    header = json.dumps({"version": VERSION, "term": term, "references": shapes, "rollouts": rows}).encode()
    pixels = [*pictures.values(), *(rollout.frames.contiguous().numpy() for rollout in rollouts)]
    return [len(header).to_bytes(_LENGTH, "little"), header, *(array.data.cast("B") for array in pixels)]


def decode_rollouts(body: bytes | bytearray) -> tuple[str, list[Rollout]]:
    """The term and the rollouts of a request; InputError, saying what is wrong, for anything else."""
    try:
        return _decode(body)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {shortened(str(error))[1:-1]}"
        raise InputError(f"not a request for scores ({reason})") from None


def _decode(body: bytes | bytearray) -> tuple[str, list[Rollout]]:
    start = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    if not _LENGTH < start <= len(body):
        raise InputError(f"a request of {len(body)} bytes cannot have a header of {start - _LENGTH}")
    header = parse_json(bytes(body[_LENGTH:start]), "the request's header", _MAX_HEADER, finite=False)
    if header["version"] != VERSION:
        raise InputError(
            f"a request of version {shortened(header['version'])}, not {VERSION}: use one release on both"
        )
    if len(header["rollouts"]) > _MAX_ROLLOUTS:
        raise InputError(f"a request of {len(header['rollouts']):,} rollouts; at most {_MAX_ROLLOUTS:,}")
    shapes = [_shape(shape, 3) for shape in header["references"]]
    shapes += [_shape(row["frames"], 4) for row in header["rollouts"]]
    size = start + sum(map(math.prod, shapes))
    if size != len(body):
        raise InputError(f"a request of {len(body)} bytes, whose header describes {size}")
    arrays = _cut(body, start, shapes)
    references = [Reference.load(next(arrays)) for _ in header["references"]]
    rollouts = [_rollout(row, next(arrays), references) for row in header["rollouts"]]
    if not isinstance(header["term"], str):
        raise InputError(f"term {shortened(header['term'])} must be text")
    return header["term"], rollouts


def _rollout(row: Mapping[str, Any], frames: NDArray[np.uint8], references: Sequence[Reference]) -> Rollout:
    if set(row) != _KEYS:
        raise InputError(f"a rollout has {', '.join(sorted(_KEYS))}, not {shortened(sorted(row))}")
    chosen, group, places = [_number(i) for i in row["references"]], row["group"], row["places"]
    if not chosen or not isinstance(row["prompt"], str) or type(group) is not int:
        raise InputError("a rollout needs references, a prompt that is text and a group that is a number")
    refined = row["refined_prompt"]
    if refined is not None and not isinstance(refined, str):
        raise InputError(f"refined_prompt {shortened(refined)} must be text, or null")
    if places is not None:
        places = tuple(places)
        if len(set(places)) < len(places) or not set(places) <= set(PLACES) or len(places) != len(chosen):
            raise InputError(
                f"places {shortened(places)} must be distinct members of {PLACES}, one a reference"
            )
    facts = None if row["facts"] is None else build(Facts, row["facts"], "facts")
    if facts is not None and len(facts.people) != len(chosen):
        raise InputError(f"facts of {len(facts.people)} people for {len(chosen)} references: give one each")
    for text in (row["prompt"], refined or ""):
        if any("\ud800" <= one <= "\udfff" for one in text):
            raise InputError("a prompt holds half of a character, which no file of text can")
    people = tuple(references[i] for i in chosen)
    return Rollout(torch.from_numpy(frames.copy()), people, row["prompt"], group, places, facts, refined)


def _cut(
    body: bytes | bytearray, start: int, shapes: Sequence[tuple[int, ...]]
) -> Iterator[NDArray[np.uint8]]:
    """Arrays of the shapes, one after the other, from `start` on."""
    for shape in shapes:
        size = math.prod(shape)
        yield np.frombuffer(body, np.uint8, size, start).reshape(shape)
        start += size


def _shape(value: Any, axes: int) -> tuple[int, ...]:
    """The shape of a picture (H, W, 3) or a clip (F, H, W, 3)."""
    shape = tuple(_number(size) for size in value)
    if len(shape) != axes or shape[-1] != 3 or 0 in shape:
        raise InputError(f"pixels of shape {shortened(shape)}: must have {axes} axes, the last of size 3")
    return shape


def _number(value: Any) -> int:
    """A whole number from 0 on; `True` is none."""
    if type(value) is not int or value < 0:
        raise InputError(f"{shortened(value)} is no whole number from 0 on")
    return value
