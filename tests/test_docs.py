"""The documentation and its numbers agree: every table is what `make docs` writes from docs/results."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser, Namespace
from loose import load_loose
from nursery import Nursery, run
from tiny import TINY, tiny_stock

from igrpo_sdk.backbones.loading import PRESET_FILE
from igrpo_sdk.commands import dispatch
from igrpo_sdk.commands.dispatch import COMMAND_GROUP, build_parser
from igrpo_sdk.training.common.recipe import read_recipe

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
WEIGHTS = ROOT / "igrpo_sdk" / "assets" / "tiny-vace" / "model_index.json"


tables = load_loose("docs/tables.py")
DOCUMENTS = tables.documents(ROOT)
FILES = sorted(RESULTS.glob("*.json"))
RECORDS = sorted((ROOT / "docs" / "adr").glob("*.md"))


def results(**metrics: Any) -> dict[str, Any]:
    """A results file as DESIGN's section 5 wants it."""
    fixed = {"command": "python this.py", "hardware": "two cores", "versions": {}, "date": "2026-01-02"}
    return {**fixed, "commit": None, "metrics": metrics, "notes": []}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_what_make_docs_writes(path: Path) -> None:
    text = path.read_text("utf-8")
    assert tables.fill(text, RESULTS) == text, "run: make docs"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_number_of_a_table_is_written_by_hand(path: Path) -> None:
    """A table of words may be; one with a decimal, a percentage or a unit has been measured."""
    outside = re.sub(r"<!-- table: .*?<!-- end -->", "", path.read_text("utf-8"), flags=re.DOTALL)
    rows = [line for line in outside.splitlines() if line.lstrip().startswith("|")]
    measured = re.compile(r"\d\.\d|\d ?%|\d ?(dB|s|ms|MiB|GiB)\b")
    assert not [row for row in rows if measured.search(row)]


def test_every_table_has_its_numbers() -> None:
    """Except while the weights that they are about are still to be trained."""
    wanted = {name for path in DOCUMENTS for name in tables.names(path.read_text("utf-8"))}
    missing = wanted - {path.stem for path in FILES}
    allowed = {"tiny_vace", "generate"} if not WEIGHTS.exists() else set()
    assert missing <= allowed
    assert wanted == set(tables.TABLES), "a table that no document shows"


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMMANDS: dict[str, str] = PROJECT["entry-points"][COMMAND_GROUP]
LONGEST_FIRST = sorted((name.split(".") for name in COMMANDS), key=len, reverse=True)


def programs(path: Path) -> Iterator[list[str]]:
    """The words of every program that the shell blocks of a document run, without what is set before it."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            for separates, words in itertools.groupby(
                lexer, lambda word: word in {";", "&", "&&", "|", "||"}
            ):
                started = itertools.dropwhile(lambda word: word == "do" or "=" in word, words)
                if not separates and (program := list(started)) and program[0] not in {"for", "done"}:
                    yield program


def command_of(program: list[str]) -> list[str] | None:
    """The words after `igrpo`, however it is launched; None for other programs."""
    if program[0] == "igrpo":
        return program[1:]
    module = ["-m", "igrpo_sdk.training"]
    at = next((i for i in range(len(program)) if program[i : i + 2] == module), None)
    return None if at is None else ["train", *program[at + 2 :]]


@cache
def parser_of(name: str) -> ArgumentParser:
    """The parser of the command that an entry point names."""
    module, _, function = COMMANDS[name].partition(":")
    return build_parser(getattr(importlib.import_module(module), function), name.replace(".", " "))


def parsed(words: list[str]) -> tuple[str, Namespace]:
    """The command that words name, and what its parser makes of the rest."""
    name = next(parts for parts in LONGEST_FIRST if words[: len(parts)] == parts)
    spelt = [dispatch._dashed(word) if word.startswith("--") else word for word in words[len(name) :]]
    return ".".join(name), parser_of(".".join(name)).parse_args(spelt)


def test_commands_in_the_text_can_be_given() -> None:
    """Every `igrpo ...` of every document parses by its command's parser; a recipe that is named is there."""
    shown: Counter[str] = Counter()
    for path in DOCUMENTS:
        for program in programs(path):
            words = command_of(program)
            if words is None:
                continue
            name, options = parsed(words)
            shown[name] += 1
            recipe = getattr(options, "recipe", None)
            if recipe is not None and "." not in recipe:  # one of ours, not a reader's file
                assert read_recipe(recipe)["kind"], program
            if name == "eval":
                assert options.output, program
    assert shown["train.world"] > 5 and shown["eval"] > 3
    assert {"generate", "score", "compare", "doctor", "train.policy"} <= set(shown)


def test_a_wrong_line_would_be_noticed() -> None:
    assert command_of(["python", "examples/batch.py"]) is None
    with pytest.raises(SystemExit):
        parsed(["generate", "ann.png", "--prompt", "They talk.", "--wrong"])
    with pytest.raises(StopIteration):
        parsed(command_of(["accelerate", "launch", "-m", "igrpo_sdk.training", "nothing"]) or [])


def test_targets_and_scripts_in_the_text_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in DOCUMENTS:
        for name, *words in programs(path):
            if name == "make":
                assert words and set(words) <= targets
            assert "/" not in name or (ROOT / name).is_file(), name
            if name == "python" and words[0] != "-c":
                assert (ROOT / words[0]).is_file(), words[0]


def test_python_blocks_are_python() -> None:
    for path in DOCUMENTS:
        for block in re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            compile(block, path.name, "exec")


def test_links_and_files_in_the_text_are_there() -> None:
    for path in [*DOCUMENTS, *RECORDS, *(ROOT / "docs" / "lab").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_decisions_are_few() -> None:
    assert 0 < len(RECORDS) <= 20
    numbers = [path.stem[:4] for path in RECORDS if re.fullmatch(r"\d{4}(-[a-z0-9]+)+", path.stem)]
    assert len(set(numbers)) == len(RECORDS)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_decision_is_short_and_has_evidence(path: Path) -> None:
    """Context, decision, evidence and status, in 25 lines; the evidence is a test or a results file."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 25
    assert text.startswith(f"# {int(path.stem[:4])}. ")
    assert re.findall(r"^\*\*(\w+)\.\*\* ", text, re.MULTILINE) == [
        "Context",
        "Decision",
        "Evidence",
        "Status",
    ]
    evidence = text.partition("**Evidence.**")[2].partition("**Status.**")[0]
    named = re.findall(r"`((?:tests|docs)/[\w/.-]*)`", evidence)
    assert any(name.startswith(("tests/", "docs/results/")) for name in named)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_is_next_is_not_in_the_repository() -> None:
    for path in [*DOCUMENTS, *(ROOT / "docs").rglob("*.md")]:
        assert not re.search(r"^#+ *(next steps|todo)", path.read_text("utf-8"), re.MULTILINE | re.IGNORECASE)


def test_the_benchmark_measures_what_the_table_shows() -> None:
    source = (ROOT / "examples" / "benchmarks" / "tiny_quality.py").read_text("utf-8")
    bars = re.search(r"^BARS = \((.*?)^\)", source, re.MULTILINE | re.DOTALL)
    assert bars is not None
    assert re.findall(r'"(\w+)"', bars[1]) == [row.metric for row in tables.TABLES["tiny_vace"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_results_are_complete_and_finite(path: Path) -> None:
    content = json.loads(path.read_text("utf-8"))
    assert list(tables.problems(content)) == []
    assert path.stem in tables.TABLES, "numbers that no document shows"


def test_the_readme_says_what_an_alignment_costs() -> None:
    """Steps times videos a step of each recipe times the seconds that one was measured to take."""
    measured = json.loads((RESULTS / "grpo_cost.json").read_text("utf-8"))["metrics"]
    text = (ROOT / "README.md").read_text("utf-8")
    for name in ("fast", "paper"):
        recipe = read_recipe(f"vace_1_3b_{name}")
        videos = recipe["steps"] * recipe["update"]["groups"] * recipe["rollout"]["members"]
        hours = videos * measured[f"{name}_s_per_video"] / 3600
        assert recipe["steps"] == 500 and f"about {hours:.0f} hours of one" in text


def test_the_picture_of_the_readme_is_small() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert 0 < (ROOT / picture).stat().st_size <= 300_000


def test_nothing_is_shown_that_is_not_measured_yet() -> None:
    for path in DOCUMENTS:
        assert "not measured yet" not in path.read_text("utf-8").lower(), path.name


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "generate.json"
    numbers = {"seconds": 12.34, "load_seconds": 1.0, "peak_memory_gib": 3.5}
    file.write_text(json.dumps(results(**numbers)))
    blank = "text\n<!-- table: generate -->\n<!-- end -->\nmore"
    filled = tables.fill(blank, tmp_path)
    assert "| making the video | 12.3 s | at most 20.0 s | met |" in filled
    assert "| 3.50 GiB | at most 3.00 GiB | **missed** |" in filled
    assert filled.startswith("text\n") and filled.endswith("<!-- end -->\nmore")
    assert tables.fill(filled, tmp_path) == filled
    file.write_text(json.dumps(results(**{**numbers, "seconds": 21.0})))
    assert tables.fill(filled, tmp_path) != filled


def test_intervals_and_reasons_are_shown(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {row.metric: 0.9 for row in tables.TABLES["tiny_vace"]}
    numbers |= {"vae_psnr_db": 30.04, "generated_auc": None, "generated_auc_blank_refs": 0.51}
    numbers["details"] = {
        "vae_psnr_db": {"value": 30.04, "low": 29.5, "high": 30.6, "count": 9},
        "generated_auc": {"value": None, "low": None, "high": None, "count": 0, "reason": "no face"},
    }
    assert list(tables.problems(results(**numbers))) == []
    text = tables.table("tiny_vace", results(**numbers))
    assert "| 30.0 dB | 29.5 dB to 30.6 dB | at least 28.0 dB | met |" in text
    assert "| none: no face |  | at least 0.85 | **missed** |" in text
    assert "| 0.51 |  | 0.45 to 0.55 | met |" in text


def test_groups_in_a_grid_and_what_is_missing_in_a_file() -> None:
    detail = {"value": 0.5, "low": 0.44, "high": 0.56, "count": 9}
    numbers = {"base_similarity": 0.5, "base_easy_judge_auc": None, "details": {"base_similarity": detail}}
    text = tables.table("identity_tiny_vace", results(**numbers))
    assert "| all | 0.50 (0.44 to 0.56) |  |" in text
    assert "| easy: two people apart |  |" in text and "| none |" in text
    assert len(text.splitlines()) == 2 + 2 + 3  # of the eight rows two have a number
    numbers = {"paper_gain": 0.5, "details": {"paper_gain": detail}}
    text = tables.table("alignment_ablations", results(**numbers))
    assert "| paper: 16 groups, different noise | 0.5000 (0.4400 to 0.5600) |  |" in text
    # A number that an older file lacks is neither met nor missed: it has no row.
    faces = {row.metric: 1.0 for row in tables.TABLES["faces"] if row.metric != "agreement"}
    assert not [line for line in tables.table("faces", results(**faces)).splitlines() if "agree" in line]


def test_a_missing_file_is_not_measured_yet(tmp_path: Path) -> None:
    filled = tables.fill("<!-- table: generate -->\nold\n<!-- end -->", tmp_path)
    assert filled == f"<!-- table: generate -->\n{tables.NOT_MEASURED}<!-- end -->"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: nothing -->\n<!-- end -->", "no table 'nothing'"),
        ("<!-- table: generate -->\n", "needs its own"),
        ("<!-- table: generate -->\n<!-- table: tiny_vace -->\n<!-- end -->", "needs its own"),
        ("<!-- end -->", "needs its own"),
    ],
)
def test_bad_marks_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables.fill(text, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "keys"),
        ({"metrics": {}}, "keys"),
        (results(), "metrics"),
        (results(a=float("nan")), "metrics.a is nan"),
        (results(a=True), "metrics.a is True"),
        (results(a="0.9"), "metrics.a is '0.9'"),
        (results(a=[0.9, float("nan")]), r"metrics.a.1 is nan"),
        (results(a=None), "metrics.a is null without a reason"),
        (results(a=None, details={"a": {"value": None}}), "metrics.a is null without a reason"),
        (results(counts={"n": float("inf")}), "metrics.counts.n is inf"),
        (results(details={"a": {"value": None, "reason": ""}}), "details.a.value is null"),
        ({**results(a=1), "date": "yesterday"}, "date"),
        ({**results(a=1), "command": ""}, "command"),
    ],
)
def test_bad_results_are_noticed(content: Any, message: str) -> None:
    assert any(re.search(message, problem) for problem in tables.problems(content))


def test_the_cost_of_generate_is_measured(nursery: Nursery, tmp_path: Path) -> None:
    """The benchmark runs with random weights and writes what the table needs."""
    tiny_stock().save_pretrained(tmp_path / "model")
    size = {"height": 48, "width": 48, "num_frames": 5, "fps": 8.0}
    preset = {"name": "x", "geometry": size, "steps": 1, "guidance_scale": 2.0, "flow_shift": 3.0}
    preset |= {"max_references": TINY.max_references, "max_text_tokens": 512}
    (tmp_path / "model" / PRESET_FILE).write_text(json.dumps(preset), "utf-8")
    script = ROOT / "examples" / "benchmarks" / "generate_cost.py"
    words = ["--results", str(tmp_path / "generate.json"), "--model", str(tmp_path / "model")]
    done = run(nursery, [str(script), *words], tmp_path / "said", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "generate.json").read_text("utf-8"))
    assert list(tables.problems(content)) == []
    assert "making the video" in tables.table("generate", content)
