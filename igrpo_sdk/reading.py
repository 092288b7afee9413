"""Files and texts from others, read within bounds: paths, JSON and YAML, and how an error quotes them.

Everything here raises `InputError` and nothing else, whatever it is given. A caller for whom a file is part
of a model, for instance, catches that and raises its own kind.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import stat
from collections.abc import Iterator
from typing import Any, Literal

from igrpo_sdk.errors import InputError

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_JSON_BYTES",
    "MAX_QUOTED",
    "MAX_YAML_BYTES",
    "parse_json",
    "parse_yaml",
    "probe",
    "read_bytes",
    "read_json",
    "read_text",
    "read_yaml",
    "shortened",
]

MAX_QUOTED = 80
"""Most characters of a user's input that a message repeats."""
MAX_JSON_BYTES = 4 * 2**20
"""Largest JSON text that is parsed, unless a caller says otherwise."""
MAX_YAML_BYTES = 2**17
"""Largest YAML text that is parsed. A recipe takes two kilobytes; a megabyte would take a minute to parse."""
MAX_DEPTH = 32
"""Deepest nesting of lists and objects."""
MAX_DIGITS = 30
"""Most digits of a whole number, unless a caller says otherwise."""

Kind = Literal["file", "folder", "other"]


def shortened(value: object, most: int = MAX_QUOTED) -> str:
    """`repr(value)` for a message: at most `most` characters, whatever the value is."""
    quoting = reprlib.Repr()
    quoting.maxstring = quoting.maxother = most
    quoting.maxlevel = 3
    try:
        if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
            digits = round(value.bit_length() * math.log10(2))
            text = f"a whole number of some {digits} digits"
        else:
            text = quoting.repr(value)
    except Exception:  # a value's own __repr__ may do anything
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most // 2 - 2]}...{text[-(most // 2 - 2) :]}"


def probe(path: str | os.PathLike[str], what: str) -> Kind | None:
    """What lies at a path, links followed; None where there is nothing, or can be nothing by that name.

    `what`: how an error calls it. Raises `InputError` where the system does not let one look.
    """
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise InputError(f"{what} {shortened(os.fspath(path))}: no permission to read it") from error
    except (OSError, ValueError):  # absent, too long, a loop, NUL, half of a surrogate pair
        return None
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "other"


def read_bytes(path: str | os.PathLike[str], what: str, largest: int) -> bytes:
    """The content of an ordinary file of at most `largest` bytes. A device or a pipe is never opened."""
    name = f"{what} {shortened(os.fspath(path))}"
    kind = probe(path, what)
    if kind is None:
        raise InputError(f"{name}: there is no such file (seen from {os.getcwd()}). Check the path")
    if kind != "file":
        raise InputError(f"{name}: not an ordinary file. Give the path of one")
    try:
        with open(path, "rb") as file:
            data = file.read(largest + 1)  # what is read, not what the directory says: the file may grow
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from error
    if len(data) > largest:
        raise InputError(f"{name}: over {largest:,} bytes, which is the limit")
    return data


def read_text(path: str | os.PathLike[str], what: str, largest: int) -> str:
    """The text of a UTF-8 file, with or without a byte order mark."""
    return _decoded(read_bytes(path, what, largest), f"{what} {shortened(os.fspath(path))}")


def read_json(path: str | os.PathLike[str], what: str, largest: int = MAX_JSON_BYTES) -> Any:
    """`parse_json` of a file."""
    return parse_json(read_bytes(path, what, largest), f"{what} {shortened(os.fspath(path))}", largest)


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """`parse_yaml` of a file."""
    return parse_yaml(read_text(path, what, MAX_YAML_BYTES), f"{what} {shortened(os.fspath(path))}")


def parse_json(
    text: str | bytes,
    name: str,
    largest: int = MAX_JSON_BYTES,
    digits: int = MAX_DIGITS,
    finite: bool = True,
) -> Any:
    """The value of a JSON text. `name`: what errors call it.

    Raises `InputError` for a text over `largest` bytes, that is not UTF-8 or not JSON, with a key twice in an
    object, nested deeper than `MAX_DEPTH`, or with a whole number of over `digits` digits; if `finite`, also
    for NaN, Infinity and numbers that a float cannot hold.
    """
    if len(text) > largest:
        raise InputError(f"{name}: over {largest:,} bytes, which is the limit")
    text = _decoded(text, name) if isinstance(text, bytes) else text.removeprefix("\ufeff")

    def whole(word: str) -> int:
        if len(word.lstrip("-")) > digits:
            raise _Refused(f"a number of {len(word)} digits; at most {digits}")
        return int(word)

    try:
        value = json.loads(
            text,
            parse_int=whole,
            parse_float=_finite if finite else float,
            parse_constant=_no_constant if finite else float,
            object_pairs_hook=_object,
        )
    except _Refused as error:
        raise InputError(f"{name}: {error}") from None
    except RecursionError:
        raise InputError(f"{name}: no JSON (nested deeper than {MAX_DEPTH} levels, the limit)") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{name}: no JSON ({error.msg}: {where})") from None
    _check_depth(value, name)
    return value


def parse_yaml(text: str, name: str) -> Any:
    """The value of a YAML text of plain values. `name`: what errors call it.

    Raises `InputError` for a text over `MAX_YAML_BYTES`, that is not YAML, with an anchor or an alias (a few
    of them multiply to gigabytes), a key twice, nesting deeper than `MAX_DEPTH`, or a whole number of over
    `MAX_DIGITS` digits.
    """
    if len(text) > MAX_YAML_BYTES:
        raise InputError(f"{name}: over {MAX_YAML_BYTES:,} bytes, which is the limit")
    try:
        value = _yaml(text.removeprefix("\ufeff"))
    except _Refused as error:
        raise InputError(f"{name}: {error}") from None
    except Exception as error:  # PyYAML raises many kinds on values that it resolves but cannot convert
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        why = shortened(getattr(error, "problem", None) or str(error)).strip("'\"")
        raise InputError(f"{name}: no YAML value ({why}{where})") from None
    _check_depth(value, name)
    return value


class _Refused(Exception):
    """Something that a text says is out of bounds; the message says what."""


def _yaml(text: str) -> Any:
    """PyYAML's safe loader without anchors, aliases, double keys and deep nesting."""
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _Refused("anchors (&) and aliases (*) are not read; write the value out")
            self.depth += 1
            if self.depth > MAX_DEPTH + 1:
                raise _Refused(f"nested deeper than {MAX_DEPTH} levels, which is the limit")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            double = next((key for key in keys if keys.count(key) > 1), None) if len(keys) < 999 else None
            if double:
                raise _Refused(f"the key {shortened(double[1])} is there twice; keep one")
            return super().construct_mapping(node, deep)

    value = yaml.load(text, Loader)
    for part in _parts(value):
        if isinstance(part, int) and part.bit_length() > MAX_DIGITS * math.log2(10):
            raise _Refused(f"{shortened(part)}; at most {MAX_DIGITS} digits")
    return value


def _decoded(data: bytes, name: str) -> str:
    """UTF-8, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: cannot be read (byte {error.start} is not UTF-8). Save it as UTF-8"
        ) from None


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise _Refused(f"{shortened(word)} is too large a number")
    return value


def _no_constant(word: str) -> Any:
    raise _Refused(f"no JSON ({word} is no number of JSON)")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {shortened(double)} is there twice; keep one")
    return content


def _parts(value: Any) -> Iterator[Any]:
    """A value and everything in it."""
    pending = [value]
    while pending:
        part = pending.pop()
        yield part
        if isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set):
            pending += part


def _check_depth(value: Any, name: str) -> None:
    """Refuse deeper nesting than `MAX_DEPTH`: later code may be recursive."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise InputError(f"{name}: nested deeper than {MAX_DEPTH} levels, which is the limit")
