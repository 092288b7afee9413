"""`igrpo eval` from end to end: rendered videos and a tiny random model, stopped, gone on with, refused."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import made_up, render_videos, write_lines
from loose import load_loose
from lora import make_adapter

from igrpo_sdk import IdentityPipeline, IdentityVideo
from igrpo_sdk.adapters.lora import LoraSettings
from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.training.evaluation import measures as measures_module
from igrpo_sdk.training.evaluation.comparing import table
from igrpo_sdk.training.evaluation.report.page import Evaluation, page
from igrpo_sdk.training.evaluation.suites import load_suite

pytest.importorskip("insightface", reason="insightface is not installed: pip install 'igrpo-sdk[faces]'")
needs_judge = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("dlib", "face_recognition_models")),
    reason="the judge is not installed: pip install 'igrpo-sdk[judge]'",
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first case of each part of the built-in suite: its files, and its videos drawn by two makers."""
    folder = tmp_path_factory.mktemp("drawn")
    cases = load_suite("world", 3, folder)
    render_videos(cases, folder / "real")
    render_videos(cases, folder / "strangers", strangers=True)
    return folder


def evaluate(output: Path, *words: str, judge: bool = False) -> int:
    """Run the command in this process."""
    return main(["eval", "-o", str(output), *words, *([] if judge else ["--no-judge"]), "--workers", "1"])


def two(drawn: Path) -> list[str]:
    """The options for both makers' videos."""
    return [f"--videos=real={drawn / 'real'}", f"--videos=strangers={drawn / 'strangers'}", "--cases=3"]


def results(output: Path) -> dict[str, Any]:
    """The numbers of a run, checked as those of the documentation are."""
    content = json.loads((output / "results.json").read_text("utf-8"))
    assert list(load_loose("docs/tables.py").problems(content)) == []
    return dict(content["metrics"])


def times(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# ---- videos made elsewhere


def test_two_makers_are_compared(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tmp_path, *two(drawn)) == 0
    shown = capsys.readouterr().out
    assert "similarity at the place, analyzer" in shown and str(tmp_path / "report.html") in shown
    metrics = results(tmp_path)
    assert metrics["real_similarity"] > 0.6 > metrics["strangers_similarity"]
    assert metrics["strangers_minus_real_similarity"] < -0.2
    assert metrics["strangers_beats_real_easy_worst"] == 0
    assert metrics["details"]["real_owned"]["count"] == 2  # nobody has a place in the case with a crossing
    assert metrics["counts"] == {"cases": 3, "parts": {"easy": 1, "contact": 1, "hard": 1}}
    assert not any("judge" in name for name in metrics) and "real_hard_owned" not in metrics
    # The reader wants clips of 17 frames.
    assert "real_prompt_following" not in metrics


class Words(HTMLParser):
    """The structure of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else(drawn: Path, tmp_path: Path) -> None:
    assert evaluate(tmp_path, *two(drawn)) == 0
    text = (tmp_path / "report.html").read_text("utf-8")
    words = Words(text)
    assert words.open == []
    assert all(link.startswith("data:image/") for link in words.links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert all(picture["alt"] for picture in words.pictures)
    # Plots; of the one case of each part references and six frames at most of each maker.
    assert len(words.pictures) == 3 + 3 * (2 + 2 * 5)
    assert not re.search(r"\b(NaN|nan|inf|None)\b", re.sub(r"base64,[^\"]*", "", text))
    for part in ("easy", "contact", "hard"):
        assert f"Part: {part}" in words.text and f"{part}-000" in words.text
    assert "strangers against real, case by case" in words.text
    # Three cases: however large a difference is, nothing says which is better.
    assert not re.search(r"[+-]\d\.\d{3} (better|worse)", words.text) and 'class="worse"' not in text
    compared = words.text.partition("From 10 cases up")[2].partition("Plots")[0]
    assert "strangers wins" in compared and "%" not in compared
    assert "--no-judge --output=DIR" in words.text
    assert "which knows rendered people only" in words.text
    assert text.count("<table>") == text.count('<div class="wide"') > 3  # wide tables scroll in their frame


def test_what_users_write_is_no_markup(drawn: Path) -> None:
    measures = [made_up("easy-000", "p", [0.4, 0.2])]
    path = drawn / "references" / "easy-000-1.png"
    measures[0].case.__dict__["references"] = (path, path)
    found = Evaluation(
        {"base": measures},
        {"base": drawn / "real"},
        table({"base": measures}),
        {"suite": "<script>"},
        ["a & b"],
        ["<i>"] * 50,
    )
    text = page(found)
    assert "<b>prompt</b>" not in text and "&lt;b&gt;prompt&lt;/b&gt; &amp; more." in text
    assert "<script>" not in text and "<i>" not in text and "a &amp; b" in text
    assert "50 warnings" in text and "and 10 more" in text


@needs_judge
def test_the_judge_looks_too(drawn: Path, tmp_path: Path) -> None:
    words = [f"--videos=real={drawn / 'real'}", "--cases=1"]
    assert evaluate(tmp_path, *words, judge=True) == 0
    metrics = results(tmp_path)
    assert metrics["real_judge_coverage"] > 0 and metrics["real_judge_auc"] is not None
    kept = times(tmp_path / "measures")
    assert evaluate(tmp_path, *words, judge=True) == 0
    assert times(tmp_path / "measures") == kept
    # Agreement with the pack, as the benchmark of the pack measures it.
    shutil.copytree(drawn / "real", tmp_path / "videos" / "base")
    shutil.copytree(tmp_path / "measures" / "real", tmp_path / "measures" / "base")
    benchmark = load_loose("examples/benchmarks/faces_quality.py")
    agreement = benchmark.judge_agreement(benchmark.Pack(benchmark.PACK), tmp_path)
    assert agreement.count == 1 and (agreement.value is None or 0 <= agreement.value <= 1)


def test_what_is_out_of_date_is_measured_again(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "real", tmp_path / "videos")
    words = [f"--videos=real={tmp_path / 'videos'}", "--cases=3"]
    assert evaluate(tmp_path / "out", *words) == 0
    before = times(tmp_path / "out" / "measures")
    shutil.copy(drawn / "strangers" / "easy-000.mp4", tmp_path / "videos" / "easy-000.mp4")
    (tmp_path / "out" / "measures" / "real" / "hard-000.json").write_text("{")
    assert evaluate(tmp_path / "out", *words) == 0
    after = times(tmp_path / "out" / "measures")
    changed = {path.stem for path in after if after[path] != before[path]}
    assert changed == {"easy-000", "hard-000"}


# ---- a model


@pytest.fixture
def suite(drawn: Path, tmp_path: Path) -> Path:
    """Two cases that the smallest model can make."""
    folder = drawn / "references"
    one = {"references": [str(folder / f"easy-000-{k}.png") for k in (1, 2)], "prompt": "Two people talk."}
    return write_lines(tmp_path / "suite.jsonl", one | {"id": "a"}, one | {"id": "b", "seed": 5})


def interrupt_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is interrupted when it is called once more than `calls` times."""
    seen = []

    def interrupted(*words: Any, **options: Any) -> Any:
        seen.append(1)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return function(*words, **options)

    return interrupted


def test_an_interrupted_run_goes_on_where_it_was(
    suite: Path, tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", str(tiny_directory), "--floor", "--suite", str(suite), "--device=cpu"]
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(IdentityVideo, "save", interrupt_after(3, IdentityVideo.save))
        assert evaluate(output, *words) == 130
    made = {path.name for path in (output / "videos").rglob("*.mp4")}
    assert made == {"a.mp4", "b.mp4"} and not list((output / "videos").rglob(".*"))
    first = times(output / "videos")
    with monkeypatch.context() as patch:
        patch.setattr(measures_module, "measure", interrupt_after(2, measures_module.measure))
        assert evaluate(output, *words) == 130
    second = times(output)
    assert not (output / "results.json").exists()
    assert evaluate(output, *words) == 0
    third = times(output)
    assert first.items() <= third.items()
    kept = {path for path in second if "measures" in path.parts}
    assert len(kept) == 2 and all(third[path] == second[path] for path in kept)
    # The same numbers as those of a run that was not interrupted.
    assert evaluate(tmp_path / "whole", *words) == 0
    assert results(output) == results(tmp_path / "whole")
    metrics = results(output)
    assert metrics["base_coverage"] == 0 and metrics["blank_beats_base_similarity"] == 0.5
    blank = IdentityVideo.load(output / "videos" / "blank" / "a.mp4")
    assert not np.array_equal(blank.frames, IdentityVideo.load(output / "videos/base/a.mp4").frames)


def test_an_adapter_is_evaluated_beside_its_base(
    suite: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = IdentityPipeline.from_pretrained(tiny_directory, device="cpu")
    adapter = make_adapter(pipe, tmp_path / "adapter")
    words = ["--model", str(tiny_directory), "--suite", str(suite), "--device=cpu"]
    aligned = [*words, "--adapter", str(adapter), "--floor"]
    output = tmp_path / "out"
    assert evaluate(output, *aligned) == 0
    metrics = results(output)
    assert metrics["aligned_minus_base_similarity"] == 0  # nobody finds faces in noise
    assert f"--adapter={adapter}" in json.loads((output / "results.json").read_text("utf-8"))["command"]
    assert "adapter adapter (" in (output / "report.html").read_text("utf-8")
    made = {name: IdentityVideo.load(output / "videos" / name / "a.mp4") for name in ("base", "aligned")}
    assert made["base"].settings["adapter"] is None and made["aligned"].settings["adapter"]["scale"] == 1
    assert not np.array_equal(made["base"].frames, made["aligned"].frames)
    # The base and the blank references are those of a run without the adapter, whichever came first.
    assert evaluate(tmp_path / "plain", *words, "--floor") == 0
    for name in ("base", "blank"):
        for case in ("a", "b"):
            file = Path("videos", name, f"{case}.mp4")
            assert (output / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    # Videos of another adapter are not mixed in.
    other = make_adapter(pipe, tmp_path / "other", LoraSettings(2, 2.0))
    assert evaluate(output, *words, "--adapter", str(other)) == 1
    assert "was made with adapter=" in capsys.readouterr().err


def test_videos_can_be_made_first(suite: Path, tiny_directory: Path, tmp_path: Path) -> None:
    words = ["--model", str(tiny_directory), "--suite", str(suite), "--device=cpu", "--pack=nothing"]
    assert evaluate(tmp_path / "out", *words, "--videos-only") == 0
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"a.mp4", "b.mp4", "system.json"}
    assert evaluate(tmp_path / "out", *words) == 1  # now the pack is asked for


def test_models_are_given_refined_prompts(
    suite: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(tiny_directory), "--suite", str(suite), "--device=cpu"]
    assert evaluate(tmp_path / "out", *words, "--cases=1") == 0
    lines = [json.loads(line) | {"refined_prompt": "Two talk. One is red."} for line in suite.open()]
    write_lines(suite, *lines)
    assert evaluate(tmp_path / "refined", *words, "--cases=1", "--refined") == 0
    made = IdentityVideo.load(tmp_path / "refined" / "videos" / "base" / "a.mp4")
    assert made.settings["prompt"] == "Two talk. One is red."
    content = json.loads((tmp_path / "refined" / "results.json").read_text("utf-8"))
    assert "--refined" in content["command"]
    assert "with refined prompts: 1 of 1 cases" in (tmp_path / "refined" / "report.html").read_text("utf-8")
    assert evaluate(tmp_path / "out", *words, "--cases=1", "--refined") == 1
    assert "a.mp4 has another prompt than case a" in capsys.readouterr().err


def test_videos_of_something_else_are_not_mixed_in(
    suite: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(tiny_directory), "--suite", str(suite), "--device=cpu"]
    assert evaluate(tmp_path / "out", *words, "--cases=1") == 0
    assert evaluate(tmp_path / "out", *words, "--cases=1", "--batch=0") == 1
    assert "batch: 0" in capsys.readouterr().err
    suite.write_text(suite.read_text().replace("Two people talk.", "Two people talk in front of a wall."))
    assert evaluate(tmp_path / "out", *words) == 1
    assert "a.mp4 has another prompt than case a: use another folder" in capsys.readouterr().err
    settings = tmp_path / "out" / "videos" / "base" / "system.json"
    settings.write_text(settings.read_text().replace('"steps": 2', '"steps": 3'))
    assert evaluate(tmp_path / "out", *words) == 1
    assert "was made with steps=3, not 2" in capsys.readouterr().err


def test_a_case_that_the_model_cannot_make_is_named_before_any_is_made(
    suite: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (json.loads(line) for line in suite.read_text().splitlines())
    write_lines(suite, first, second | {"prompt": "people talk " * 40})
    words = ["--model", str(tiny_directory), "--suite", str(suite), "--device=cpu"]
    assert evaluate(tmp_path / "out", *words) == 1
    assert "case b: prompt[0]: " in capsys.readouterr().err
    assert not list((tmp_path / "out" / "videos").rglob("*.mp4"))


# ---- the ceiling


def test_the_scenes_themselves_are_the_ceiling(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*two(drawn)[1:], "--ceiling"]
    assert evaluate(tmp_path, *words) == 0
    metrics = results(tmp_path)
    assert metrics["true_similarity"] > 0.6 > metrics["strangers_similarity"]
    assert metrics["true_prompt_following"] > 0.8 and metrics["true_head_count_error"] < 0.1
    shown = (tmp_path / "report.html").read_text("utf-8")
    assert "the scenes, as the world renders them" in shown and "true: the scenes" in shown
    assert "--ceiling" in json.loads((tmp_path / "results.json").read_text("utf-8"))["command"]
    kept = times(tmp_path / "videos")
    assert len(kept) == 4 and evaluate(tmp_path, *words) == 0 and times(tmp_path / "videos") == kept
    # Alone it is the base.
    assert evaluate(tmp_path / "alone", "--cases=3", "--ceiling") == 0
    assert results(tmp_path / "alone")["true_similarity"] == metrics["true_similarity"]
    # Nothing is mixed in.
    (tmp_path / "videos" / "true" / "system.json").write_text('{"model": "another"}')
    assert evaluate(tmp_path, *words) == 1
    assert "was made with model=another, not world" in capsys.readouterr().err


def test_there_is_no_ceiling_without_scenes(
    suite: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(tiny_directory), "--suite", str(suite), "--device=cpu", "--ceiling"]
    assert evaluate(tmp_path, *words) == 1
    assert "ceiling: case a has no scene of the world" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.mp4"))


# ---- what is refused


def test_choices_that_make_no_sense(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = f"--videos=real={drawn / 'real'}"
    for words, says in (
        ([], "model: none given, and no videos"),
        ([real, "--floor"], "model: none given; --floor"),
        ([real, "--against=tiny-vace"], "model: none given"),
        ([real, "--adapter=default"], "model: none given"),
        (["--model=tiny-vace", "--adapter=none"], "adapter: 'none' is the base"),
        (["--videos", str(drawn)], "give NAME=DIR"),
        (["--videos", f"a/b={drawn}"], "give NAME=DIR"),
        ([real, real], "must differ"),
        (["--model=tiny-vace", f"--videos=Base={drawn}"], "must differ"),
        ([real, "--suite=nowhere.jsonl"], "suite rows 'nowhere.jsonl': there is no such file"),
        ([real, "--cases=1", "--pack=nothing"], "pack 'nothing' is no folder"),
        ([real, "--cases=5"], "lacks contact-001, easy-001"),
        ([f"--videos=x={tmp_path / 'none'}", "--cases=1"], "is no folder; give NAME=DIR"),
    ):
        assert evaluate(tmp_path / "out", *words) == 1
        shown = capsys.readouterr().err
        assert says in shown.replace("easy-001, contact-001", "contact-001, easy-001"), shown
        assert shown.count("\n") == 1


def test_missing_videos_are_left_out_when_asked_for(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--videos=real={drawn / 'real'}", "--cases=5", "--partial"]
    assert evaluate(tmp_path, *words) == 0
    assert results(tmp_path)["counts"]["cases"] == 3
    shown = capsys.readouterr().err
    assert "igrpo: warning: real: left out: easy-001: no video" in shown
    assert "left out: easy-001" in (tmp_path / "report.html").read_text("utf-8")
    (tmp_path / "none").mkdir()
    assert evaluate(tmp_path / "b", f"--videos=x={tmp_path / 'none'}", "--cases=1", "--partial") == 1
    assert "no case has a readable video in every system" in capsys.readouterr().err
