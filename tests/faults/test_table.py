"""docs/faults.md holds every row of the fault matrix, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

IDS = [f"I{k}" for k in range(1, 25)] + [f"S{k}" for k in range(1, 22)] + [f"T{k}" for k in range(1, 22)]
IDS += [f"M{k}" for k in range(1, 10)] + ["H2", "H4", "H5", "H7"]  # the others come with publishing


def rows(root: Path) -> dict[str, str]:
    """What the document says of each fault, by its id."""
    text = (root / "docs" / "faults.md").read_text("utf-8")
    return dict(re.findall(r"^\* \*\*(\w+)\*\* (.*?)(?=^\*|^#|\Z)", text, re.MULTILINE | re.DOTALL))


def test_no_row_is_missing(root: Path) -> None:
    assert list(rows(root)) == IDS


def test_every_row_that_is_built_names_tests_that_exist(root: Path) -> None:
    for fault, text in rows(root).items():
        named = re.findall(r"^  - `(tests/[\w/]+\.py)::(\w+)`$", text, re.MULTILINE)
        assert bool(named) != (": not built: " in text), fault
        assert len(named) == text.count("\n  - "), fault
        for path, name in named:
            tree = ast.parse((root / path).read_text("utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                fault,
                name,
            )
