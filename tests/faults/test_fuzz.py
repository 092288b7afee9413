"""A sample of what `make fuzz` feeds: mutated input ends in a result or an `IgrpoError`, in time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    """The script beside this file."""
    path = Path(__file__).with_name("fuzzing.py")
    spec = importlib.util.spec_from_file_location("fuzzing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzzing"] = module
    spec.loader.exec_module(module)
    return module


fuzzing: Any = load()
SAMPLE = {
    "adapters": 300,
    "requests": 300,
    "pictures": 400,
    "videos": 120,
    "rows": 500,
    "recipes": 60,
    "presets": 400,
}


@pytest.mark.parametrize("kind", SAMPLE)
def test_mutated_inputs_end_in_a_result_or_an_error_of_ours(kind: str) -> None:
    outcome = fuzzing.fuzz(kind, SAMPLE[kind], seed=1)
    assert outcome.failures == {}
    assert outcome.count == SAMPLE[kind]
    assert outcome.refused > 0.1 * outcome.count  # the mutations do something
    assert outcome.fine > 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os.abort()", "ended with -6"),
        ("time.sleep(60)", "took over 0.5 s"),
        ("[][1]", "IndexError"),
        ("raise __import__('igrpo_sdk').InputError('x' * 9999)", "a message of 9999"),
    ],
)
def test_the_watcher_sees_what_fails(
    body: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(fuzzing.__file__).read_text("utf-8")
    broken = tmp_path / "fuzzing.py"
    marker = "# ---- the process that feeds"
    feed = (
        f"def bad(rng):\n    if rng.random() < 0.5:\n        {body}\nKINDS['bad'] = lambda folder: bad\n\n\n"
    )
    broken.write_text(source.replace(marker, feed + marker), "utf-8")
    monkeypatch.setattr(fuzzing, "__file__", str(broken))
    monkeypatch.setattr(fuzzing, "LIMIT", 0.5)
    outcome = fuzzing.fuzz("bad", 4)
    assert outcome.count == 4
    assert outcome.failures
    assert all(says in failure for failure in outcome.failures.values())
