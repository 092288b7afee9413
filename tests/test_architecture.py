"""The shape of the house, read from the source: imports point down, functions and files are short, all is
documented.

The rules are DESIGN's; a rule that fails names the file and the line.
"""

from __future__ import annotations

import ast
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"igrpo_sdk": "igrpo_sdk", "training": "igrpo_sdk.training", "demo": "igrpo_sdk.demo"}
MAX_FUNCTION, MAX_FUNCTION_P90, MAX_FILE = 80, 25, 400

# Inside igrpo_sdk a module may import those of the layers above its own line, never of its own or below. A
# name stands for a module or for a folder; the modules of one folder may import one another.
LAYERS = (
    ("errors",),
    ("flow", "config", "references", "decoding"),
    ("video", "memory"),
    ("backbones", "faces"),
    ("adapters", "comparison", "refinement"),
    ("sampling",),
    ("requests",),
    ("pipeline",),
    ("__init__",),  # what it names it loads lazily, by name; nothing here imports it
    ("score", "doctor", "cli"),
    ("compare",),  # a command that shows its progress as `igrpo generate` does
)
# Pure math: nothing but these, and of this package its errors.
PURE = {
    "igrpo_sdk/flow.py": {"__future__", "collections", "dataclasses", "itertools", "math", "torch", "typing"},
    "igrpo_sdk/identity/crops.py": {"__future__", "numpy", "typing"},
    "igrpo_sdk/identity/matching.py": {
        "__future__",
        "collections",
        "dataclasses",
        "numpy",
        "scipy",
        "typing",
    },
    "igrpo_sdk/identity/places.py": {"__future__", "collections", "numpy", "scipy"},
}


@dataclass(frozen=True)
class Source:
    """A parsed file. `name` is its dotted name as installed, `path` its path from the root."""

    path: str
    name: str
    tree: ast.Module
    num_lines: int


def read(path: Path) -> Source:
    """Parse one file of a package."""
    relative = path.relative_to(ROOT)
    inner = [part for part in relative.with_suffix("").parts[1:] if part != "__init__"]
    name = ".".join([PACKAGES[relative.parts[0]], *inner])
    text = path.read_text("utf-8")
    return Source(str(relative), name, ast.parse(text), len(text.splitlines()))


SOURCES = [read(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything a file imports, inside functions too; not for type checkers
    only.
    """
    package = source.name if source.path.endswith("__init__.py") else source.name.rpartition(".")[0]
    skipped = {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(source.tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def functions(source: Source) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Each function with its length in lines, from `def` (without decorators and docstring) to its end."""
    for node in ast.walk(source.tree):
        if isinstance(node, FUNCTION):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
            assert node.end_lineno is not None
            yield node, node.end_lineno - node.lineno + 1 - docstring


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(source: Source) -> Iterator[tuple[str, Definition]]:
    """(name, node) of the public functions, classes and methods of a file."""

    def walk(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Definition]]:
        for node in parent.body:
            if isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith("_"):
                yield f"{prefix}{node.name}", node
                if isinstance(node, ast.ClassDef):
                    yield from walk(node, f"{prefix}{node.name}.")

    yield from walk(source.tree, "")


def layer(name: str) -> int | None:
    """The layer of a module of igrpo_sdk; None if it has none."""
    inner = name.split(".")[1] if "." in name else "__init__"
    return next((index for index, names in enumerate(LAYERS) if inner in names), None)


def depth(name: str) -> int:
    """The layer of something that is imported; a name that is no module comes from the package itself."""
    found = layer(name)
    whole = layer("igrpo_sdk")
    assert whole is not None
    return whole if found is None else found


def test_there_is_something_to_look_at() -> None:
    assert {source.name for source in SOURCES} >= {"igrpo_sdk", "igrpo_sdk.errors", "igrpo_sdk.training"}
    assert len(list(functions(next(s for s in SOURCES if s.name == "igrpo_sdk.media.video")))) > 10


def test_every_module_of_the_sdk_has_a_layer() -> None:
    lost = [
        source.path
        for source in SOURCES
        if source.path.startswith("igrpo_sdk/") and layer(source.name) is None
    ]
    assert lost == []


def test_imports_point_down() -> None:
    wrong = []
    for source in SOURCES:
        for line, name in imports(source):
            where = f"{source.path}:{line} imports {name}"
            if not name.startswith("igrpo_sdk"):
                continue
            upper = name.startswith(("igrpo_sdk.training", "igrpo_sdk.demo"))
            if source.path.startswith("igrpo_sdk/"):
                same = name.split(".")[1:2] == source.name.split(".")[1:2]
                if upper or (not same and depth(name) >= depth(source.name)):
                    wrong.append(where)
            elif source.path.startswith("training/") and name.startswith("igrpo_sdk.demo"):
                wrong.append(where)
    assert wrong == []


def test_training_and_demo_import_siblings_relatively() -> None:
    wrong = []
    for source in SOURCES:
        own = next(name for folder, name in PACKAGES.items() if source.path.startswith(f"{folder}/"))
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and not node.level and own != "igrpo_sdk":
                wrong += [f"{source.path}:{node.lineno}"] * f"{node.module}.".startswith(f"{own}.")
    assert wrong == []


@pytest.mark.parametrize("path", PURE)
def test_pure_modules_import_only_math(path: str) -> None:
    source = next((source for source in SOURCES if source.path == path), None)
    assert source is not None
    named = {name for _, name in imports(source) if not name.startswith("igrpo_sdk.errors.")}
    assert {name.split(".")[0] for name in named} <= PURE[path]


@pytest.mark.parametrize("folder", PACKAGES)
def test_functions_are_short(folder: str) -> None:
    found = [
        (length, f"{source.path}:{node.lineno} {node.name}")
        for source in SOURCES
        if source.path.startswith(f"{folder}/")
        for node, length in functions(source)
    ]
    if not found:
        pytest.skip(f"{folder}/ holds no functions yet")
    lengths = sorted(length for length, _ in found)
    assert [item for item in found if item[0] > MAX_FUNCTION] == []
    p90 = lengths[math.ceil(0.9 * len(lengths)) - 1]
    assert p90 <= MAX_FUNCTION_P90, sorted(found)[-len(found) // 10 :]


def test_files_are_short() -> None:
    assert [(source.num_lines, source.path) for source in SOURCES if source.num_lines > MAX_FILE] == []


def test_every_file_and_public_name_is_documented() -> None:
    missing = [
        f"{source.path}:1" for source in SOURCES if source.num_lines and not ast.get_docstring(source.tree)
    ]
    for source in SOURCES:
        for name, node in public(source):
            if not ast.get_docstring(node):
                missing.append(f"{source.path}:{node.lineno} {name}")
    assert missing == []


def test_every_function_is_annotated() -> None:
    missing = []
    for source in SOURCES:
        methods = {
            id(node)
            for parent in ast.walk(source.tree)
            if isinstance(parent, ast.ClassDef)
            for node in parent.body
            if not any(ast.unparse(item) == "staticmethod" for item in getattr(node, "decorator_list", []))
        }
        for node, _ in functions(source):
            given = [*node.args.posonlyargs, *node.args.args][1 if id(node) in methods else 0 :]
            given += [*node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg))]
            if node.returns is None or any(argument.annotation is None for argument in given):
                missing.append(f"{source.path}:{node.lineno} {node.name}")
    assert missing == []


def test_the_project_lists_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    there = {read(path).name for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    assert set(settings["packages"]) == there


def test_examples_use_the_public_names_only() -> None:
    wrong = []
    for path in (ROOT / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            wrong += [
                f"{path.name}:{node.lineno} {name}"
                for name in modules
                if name.startswith("igrpo_sdk.") and not name.startswith("igrpo_sdk.training.")
            ]
    assert wrong == []
