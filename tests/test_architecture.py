"""The shape of the house, read from the source: imports point down, functions and files are short, all is
documented.

The rules are DESIGN's; a rule that fails names the file and the line.
"""

from __future__ import annotations

import ast
import math
import runpy
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"igrpo_sdk": "igrpo_sdk", "training": "igrpo_sdk.training", "demo": "igrpo_sdk.demo"}
MAX_FUNCTION, MAX_FUNCTION_P90, MAX_FILE = 80, 25, 400

# A module may import those of the layers above its own line, never of its own line or below. A name stands
# for a module or for a room, a folder; the modules of one room may import one another. The longest name
# decides, so that a module may lie lower than the rest of its room. Names that are not there yet are planned.
SDK_LAYERS = (
    ("errors",),
    ("reading",),
    ("flow", "config", "provenance", "naming", "seeds", "media.srgb"),
    ("references", "media", "acceleration"),
    ("hub.locate",),
    ("backbones", "identity"),
    ("media.video",),  # a video may hold the report of its identities
    ("adapters", "qwen"),
    ("sampling", "refinement", "comparison", "hub"),
    ("inputs", "replaying"),
    ("model",),
    ("pipeline",),
    ("__init__",),  # what it names it loads lazily, by name; nothing here imports it
    ("commands",),
)
TRAINING_LAYERS = (
    ("common",),
    ("world",),
    ("data", "pretrain"),
    ("reader",),  # its training is a run of pretrain's loop
    ("rewards", "preferences", "reward_model"),
    ("policy", "evaluation"),
    ("commands", "refining", "__init__"),
    ("__main__",),
)
LAYERS = {"igrpo_sdk": SDK_LAYERS, "igrpo_sdk.training": TRAINING_LAYERS}
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
NAMES = {source.name for source in SOURCES}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of all a file imports, inside functions and for type checkers too."""
    package = package_name(source)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def module_of(name: str) -> str | None:
    """The file among ours that an imported name comes from; None if it is somebody else's."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or None


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one node, each sorted (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in number:
            visit(node)
    return found


def functions(source: Source) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Each function with its length in lines, from `def` (without decorators and docstring) to its end."""
    for node in ast.walk(source.tree):
        if isinstance(node, FUNCTION):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
            assert node.end_lineno is not None
            yield node, node.end_lineno - node.lineno + 1 - docstring


def package_name(source: Source) -> str:
    """The package that a file is in."""
    return source.name if source.path.endswith("__init__.py") else source.name.rpartition(".")[0]


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


def package_of(name: str) -> str:
    """The installed package of a module: the longest that holds it."""
    return max((p for p in PACKAGES.values() if f"{name}.".startswith(f"{p}.")), key=len)


def place(name: str) -> tuple[str, int | None]:
    """(room, layer) of a module of a package with layers; the layer is None if no line names it."""
    package = package_of(name)
    inner = name[len(package) + 1 :] or "__init__"
    lines = {entry: index for index, entries in enumerate(LAYERS[package]) for entry in entries}
    parts = inner.split(".")
    given = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return parts[0], next((lines[entry] for entry in given if entry in lines), None)


def climbs(importer: str, imported: str) -> bool:
    """Whether an import points up, or aside into another room of the same layer."""
    (room, own), (other_room, other) = place(importer), place(imported)
    assert own is not None and other is not None, (importer, imported)
    return other > own or (other == own and room != other_room)


def test_there_is_something_to_look_at() -> None:
    assert {source.name for source in SOURCES} >= {"igrpo_sdk", "igrpo_sdk.errors", "igrpo_sdk.training"}
    assert len(list(functions(next(s for s in SOURCES if s.name == "igrpo_sdk.media.video")))) > 10


def test_every_module_has_a_layer() -> None:
    lost = [s.path for s in SOURCES if package_of(s.name) in LAYERS and place(s.name)[1] is None]
    assert lost == []


def test_imports_point_down() -> None:
    """Between the packages (the SDK, training, the demo) and inside each of the first two."""
    order = list(PACKAGES.values())
    wrong = []
    for source in SOURCES:
        package = package_of(source.name)
        for line, name in imports(source):
            module = module_of(name)
            if module is None:
                continue
            other = package_of(module)
            upper = order.index(other) > order.index(package)
            if upper or (other == package and package in LAYERS and climbs(source.name, module)):
                wrong.append(f"{source.path}:{line} imports {name}")
    assert wrong == []


def test_no_files_import_each_other() -> None:
    """No circle, however long, through imports inside functions and for type checkers too."""
    graph = {s.name: {m for _, name in imports(s) if (m := module_of(name)) and m != s.name} for s in SOURCES}
    assert circles(graph) == []


def test_a_circle_would_be_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set(), "f": {"g", "a"}, "g": {"f"}}
    assert sorted(circles(graph)) == [["a", "b", "c"], ["f", "g"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("importer", "imported", "wrong"),
    [
        ("igrpo_sdk.pipeline", "igrpo_sdk.flow", False),
        ("igrpo_sdk.flow", "igrpo_sdk.pipeline", True),
        ("igrpo_sdk.flow", "igrpo_sdk.config", True),
        ("igrpo_sdk.identity.report", "igrpo_sdk.identity.places", False),
        ("igrpo_sdk.backbones.loading", "igrpo_sdk.hub.locate", False),
        ("igrpo_sdk.backbones.loading", "igrpo_sdk.hub.publish", True),
        ("igrpo_sdk.training.policy.trainer", "igrpo_sdk.training.rewards.base", False),
        ("igrpo_sdk.training.rewards.base", "igrpo_sdk.training.policy.trainer", True),
    ],
)
def test_what_points_up(importer: str, imported: str, wrong: bool) -> None:
    assert climbs(importer, imported) is wrong


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


def test_everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What setup.py finds is every folder that holds a module, under the name that its folder maps to."""
    given: dict[str, list[str]] = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", lambda **keywords: given.update(keywords))
    runpy.run_path("setup.py")
    assert sorted(given["packages"]) == sorted(set(given["packages"]))
    assert set(given["packages"]) == {package_name(source) for source in SOURCES}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    there = {name: folder for folder, name in PACKAGES.items() if (ROOT / folder).is_dir()}
    assert {name: settings["package-dir"].get(name) for name in there} == there


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
