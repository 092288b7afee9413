"""Files and texts from others are read within bounds, and errors quote little of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from igrpo_sdk import InputError, WeightsError
from igrpo_sdk import config as settings
from igrpo_sdk.reading import (
    MAX_DEPTH,
    MAX_QUOTED,
    parse_json,
    parse_yaml,
    probe,
    read_bytes,
    read_json,
    read_yaml,
    shortened,
)


class Hostile:
    """A value whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError


def bomb(levels: int) -> list[Any]:
    """A value whose repr has 9**levels parts."""
    value: list[Any] = ["x"] * 9
    for _ in range(levels):
        value = [value] * 9
    return value


@pytest.mark.parametrize(
    "value",
    [
        *("x" * 10**6, b"x" * 10**6, 10**5000, -(10**5000), bomb(30), Hostile(), "\0" * 500, "\ud800" * 300),
        *(list(range(10**6)), {str(i): i for i in range(10**5)}, np.zeros((500, 500)), 1.5, None, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_message_repeats_more_than_eighty_characters(value: object) -> None:
    begun = time.monotonic()
    assert 0 < len(shortened(value)) <= MAX_QUOTED
    assert time.monotonic() - begun < 5


def test_what_is_short_is_quoted_whole() -> None:
    for value in ("a.png", "x" * 78, 7, 2**64, 0.5, None, [1, "a"], {"a": 1}):
        assert shortened(value) == repr(value)
    assert shortened(f"folder/{'x' * 200}/ann.png").endswith("/ann.png'")


# ---- paths


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\0b", "\ud800", "missing", "", "file/inside"])
def test_a_name_that_can_be_nothing_is_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert probe(f"{tmp_path}/{name}" if name else "", "file") is None
    with pytest.raises(InputError, match="there is no such file"):
        read_bytes(f"{tmp_path}/{name}" if name else "", "file", 9)


def test_what_lies_at_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    found = [probe(tmp_path / name, "file") for name in ("file", "link", "pipe", "loop", ".")]
    assert found == ["file", "file", "other", None, "folder"]
    for name in ("pipe", "."):
        with pytest.raises(InputError, match="not an ordinary file"):
            read_bytes(tmp_path / name, "file", 9)
    assert read_bytes(tmp_path / "file", "file", 4) == b"1234"
    with pytest.raises(InputError, match="over 3 bytes"):
        read_bytes(tmp_path / "file", "file", 3)


def test_a_folder_that_may_not_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(InputError, match="adapter 'a': no permission"):
        probe("a", "adapter")


# ---- JSON


@pytest.mark.parametrize(
    "text", ['{"a": [1, 2.5, "x", null, true]}', b'\xef\xbb\xbf{"a": 1}', '\ufeff{"a": 1}']
)
def test_json_that_is_read(text: str | bytes) -> None:
    assert "a" in parse_json(text, "text")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", r"no JSON \(Expecting property name enclosed in double quotes: line 1, column 2\)"),
        ("", "no JSON"),
        ("[" * 10**5, "nested deeper"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested deeper"),
        ('{"a":' * 10**4 + "1" + "}" * 10**4, "nested deeper"),
        ("9" * 5000, "a number of 5000 digits"),
        ("-" + "9" * 31, "digits"),
        ("1e999", "too large a number"),
        ("NaN", "no number of JSON"),
        ("[Infinity]", "no number of JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        (b"\xff\xfe{}", "byte 0 is not UTF-8"),
        ('"' + "x" * 5 * 2**20 + '"', "over 4,194,304 bytes"),
    ],
)
def test_json_that_is_refused(text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=f"file 'a': .*{says}") as caught:
        parse_json(text, "file 'a'")
    assert len(str(caught.value)) < 200


def test_the_bounds_of_json_can_be_given() -> None:
    assert parse_json("[NaN, -Infinity]", "text", finite=False)[1] == float("-inf")
    assert parse_json("1" * 900, "text", digits=1000) > 10**898
    with pytest.raises(InputError, match="over 3 bytes"):
        parse_json("[1]  ", "text", 3)
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "text")


# ---- YAML


def test_yaml_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: [1, 2.5, x]\nb: {c: null, d: 2001-01-13}\n")
    assert read_yaml(path, "recipe")["a"] == [1, 2.5, "x"]


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "anchors"),
        ("a: &x 1", "anchors"),
        ("*x", "anchors"),
        ("a: 1\nb: 2\na: 3", "the key 'a' is there twice"),
        ("[" * 3000, "nested deeper"),
        ("[" * 40 + "]" * 40, "nested deeper"),
        ("- " * 500, "nested deeper"),
        ("9" * 5000, "no YAML value"),
        ("9" * 40, "at most 30 digits"),
        ("2001-13-45", "no YAML value"),
        ("a: !!python/object:os.system x", "no YAML value"),
        ("{a: [}", "no YAML value"),
        ("? [a, b]\n: 1", "no YAML value"),
        ("!!int ''", "no YAML value"),
        ("!!float x", "no YAML value"),
        ("!!binary x", "no YAML value"),
        ("!!set x", "no YAML value"),
        ("a: \0", "no YAML value"),
        ("x" * 2**18, "over 131,072 bytes"),
    ],
)
def test_yaml_that_is_refused(text: str, says: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=f"recipe 'a': .*{says}") as caught:
        parse_yaml(text, "recipe 'a'")
    assert len(str(caught.value)) < 250
    assert time.monotonic() - begun < 10


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    for read in (read_json, read_yaml):
        with pytest.raises(InputError, match="suite '.*none'"):
            read(tmp_path / "none", "suite")


# ---- numbers


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), float("-inf"), 10**5000, -(10**5000), True, "1", None],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number_is_refused_shortly(value: Any) -> None:
    for check in (
        lambda: settings.check_number("rate", value, 0, 1),
        lambda: settings.check_number("rate", value, 0),
        lambda: settings.check_positive("rate", value),
        lambda: settings.check_decay("rate", value),
        lambda: settings.check_whole("rate", value, 0, 9),
        lambda: settings.check_seed(value),
    ):
        with pytest.raises(InputError, match="rate: |seed: ") as caught:
            check()
        assert len(str(caught.value)) < 150


def test_the_ends_of_a_span() -> None:
    settings.check_number("rate", 0, 0)
    settings.check_number("rate", 1e308, 0)
    settings.check_positive("rate", 5e-324)
    settings.check_decay("rate", 0)
    settings.check_decay("rate", 0.999999)
    for check, value in (
        (settings.check_positive, 0),
        (settings.check_decay, 1),
        (settings.check_decay, -0.1),
    ):
        with pytest.raises(InputError, match="rate"):
            check("rate", value)


# ---- presets


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"adapter": 5},
            {"path": []},
            {"words": "abc"},
            {"words": [1]},
            {"flow_shift": None},
            {"steps": 10**40},
        ),
        *(
            {"geometry": []},
            {"geometry": {"height": []}},
            {"name": None},
            {"solver": {}},
            {"architecture": []},
        ),
        {"x" * 10**4: 1},
    ],
    ids=lambda change: next(iter(change))[:20],
)
def test_a_preset_with_a_field_of_another_kind(change: dict[str, Any], tmp_path: Path) -> None:
    data = json.loads((settings.ASSETS / "presets" / "tiny-vace.json").read_text("utf-8"))
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**data, **change}), "utf-8")
    with pytest.raises(WeightsError, match=r"broken\.json") as caught:
        settings.Preset.read(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["[1]", "null", "[" * 10**5, '{"geometry": 1}', "9" * 5000])
def test_a_preset_file_of_something_else(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, "utf-8")
    with pytest.raises(WeightsError, match=r"broken\.json"):
        settings.Preset.read(path)
