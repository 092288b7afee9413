"""Writes the tables of the documentation from `docs/results/*.json`: `make docs`, or python docs/tables.py.

A table stands between two marks of README.md, of a file in docs/ or of a model card:

    <!-- table: NAME -->
    anything here is replaced
    <!-- end -->

Its numbers are those of docs/results/NAME.json; which of them, and the bar that each must reach, is said here
in `TABLES`. Whether a bar is met is computed. Standard library only, so that it runs anywhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOT_MEASURED = "Not measured yet.\n"
KEYS = ("command", "hardware", "versions", "date", "commit", "metrics", "notes")
"""What every results file has."""

_TABLE = re.compile(r"<!-- table: (?P<name>\S+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
_MARK = re.compile(r"^<!-- (table: .*|end) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One number: the metric's name, what it is in words, and the bounds it must keep (None: no bar)."""

    metric: str
    words: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    digits: int = 2

    def show(self, value: float) -> str:
        """The number with its unit."""
        return f"{value:.{self.digits}f}{self.unit}"

    @property
    def bar(self) -> str:
        """The bar in words."""
        if self.low is not None and self.high is not None:
            return f"{self.show(self.low)} to {self.show(self.high)}"
        if self.low is not None:
            return f"at least {self.show(self.low)}"
        return "" if self.high is None else f"at most {self.show(self.high)}"

    def verdict(self, value: float | None) -> str:
        """Whether the bar is met; nothing if there is none. What could not be measured has missed it."""
        if self.low is None and self.high is None:
            return ""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return "met" if value is not None and low <= value <= high else "**missed**"


@dataclass(frozen=True)
class Grid:
    """Numbers of one kind for several groups. A metric's name is a row's prefix and a column's name.

    rows: words and prefix of each. columns: words and name of each. digits: behind the point.
    """

    rows: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]
    digits: int = 2


PARTS = (
    ("", "all"),
    ("easy_", "easy: two people apart"),
    ("contact_", "contact: turning, leaning in"),
    ("hard_", "hard: crossing, look-alikes, three people"),
)
"""Of the built-in suite: what stands in a metric's name, and words."""

_ALIGNMENT = (
    Row("least_relative_gain", "judge: similarity at the place, gain over the base's", 0.189, digits=3),
    Row("least_ci95_low", "lower end of the difference's 95 % interval", 0, digits=3),
    Row("least_auc_gain", "judge: own-versus-other AUC, difference", 0, digits=3),
    Row("most_switches_delta", "identity switches a video, difference", high=0, digits=3),
    Row("least_motion_ratio", "motion, as a share of the base's", 0.95),
    Row("least_prompt_following_delta", "prompt following, difference", -0.02, digits=3),
    Row("most_head_count_delta", "head-count error, difference", high=0, digits=3),
    Row("most_copy_paste_delta", "copy-paste, difference", high=0, digits=3),
)

_ABLATION = (
    ("faces, difference", "gain"),
    ("the same per GPU hour", "gain_per_hour"),
    ("prompt, difference", "prompt"),
    ("motion of 0 to 1, difference", "frame_motion"),
)

# The bars are those of the issues; "about 0.5" is read as 0.45 to 0.55.
TABLES: dict[str, tuple[Row, ...] | Grid] = {
    "tiny_vace": (
        Row("vae_psnr_db", "VAE: PSNR on videos of held-out people", 28, unit=" dB", digits=1),
        Row("render_coverage", "rendered videos: people the judge finds", 0.95),
        Row("render_auc", "rendered videos: own-versus-other AUC", 0.95),
        Row("vae_auc", "the same after a VAE round trip: AUC", 0.92),
        Row("generated_coverage", "generated videos: people the judge finds", 0.85),
        Row("generated_auc", "generated videos: own-versus-other AUC", 0.85),
        Row("generated_auc_blank_refs", "the same with blank references: AUC", 0.45, 0.55),
        Row("prompt_following", "prompt following: background and who does what", 0.85),
        Row("prompt_following_on_renders", "the same measured on rendered videos, the most it can give"),
    ),
    "faces": (
        Row("detector_recall", "detector: faces found in frames of two and three people", 0.98, digits=3),
        Row("false_faces_per_frame", "false faces a frame", high=0.02, digits=3),
        Row(
            "recogniser_auc_redrawn",
            "recogniser: AUC, other hair and clothes in every picture",
            0.97,
            digits=4,
        ),
        Row("recogniser_auc_kept", "the same with hair and clothes kept: AUC", 0.995, digits=4),
        Row(
            "frames_per_second",
            "detecting, embedding and matching two people, a clip at once",
            60,
            unit=" frames/s",
            digits=0,
        ),
        Row(
            "frames_per_second_one_by_one",
            "the same by insightface frame by frame",
            unit=" frames/s",
            digits=0,
        ),
        Row("pack_mib", "size of the pack", high=4, unit=" MiB"),
        Row("agreement", "generated videos: own-versus-other decisions that agree with the judge's", 0.9),
    ),
    "identity_tiny_vace": Grid(
        rows=tuple(
            (f"{where}{shown}", f"{system}_{part}")
            for part, where in PARTS
            for system, shown in (("base", ""), ("blank", "; blank references"))
        ),
        columns=(
            ("similarity, analyzer", "similarity"),
            ("similarity, judge", "judge_similarity"),
            ("at the place, analyzer", "owned"),
            ("at the place, judge", "judge_owned"),
            ("own-versus-other AUC, judge", "judge_auc"),
            ("prompt following", "prompt_following"),
        ),
    ),
    "identity_ceiling": Grid(
        rows=tuple((where, f"true_{part}") for part, where in PARTS),
        columns=(
            ("at the place, analyzer", "owned"),
            ("at the place, judge", "judge_owned"),
            ("own-versus-other AUC, judge", "judge_auc"),
            ("prompt following", "prompt_following"),
            ("head-count error", "head_count_error"),
            ("copy-paste", "copy_paste"),
        ),
    ),
    "alignment_tiny_vace": _ALIGNMENT,
    "alignment_shipped": _ALIGNMENT,
    "alignment_curve": Grid(
        rows=tuple((f"after {step} steps", f"step_{step}_") for step in range(0, 193, 32)),
        columns=(
            ("reward: faces", "reward_faces"),
            ("judge: similarity at the place", "judge_owned"),
            ("judge: AUC", "judge_auc"),
            ("prompt following", "prompt_following"),
            ("motion", "motion"),
            ("copy-paste", "copy_paste"),
        ),
        digits=3,
    ),
    "alignment_ablations": Grid(
        rows=(
            ("the recipe, 16 groups a step", "recipe_"),
            ("the same, 4 groups", "four_groups_"),
            ("the same, adapter in both passes of guidance", "both_passes_"),
            ("the same, motion not held", "not_held_"),
            ("fast: groups of 8, no reader of scenes, weighed as guidance", "fast_"),
            ("credit by whole video: mean and worst person", "whole_video_"),
            ("best of n, supervised", "best_of_n_"),
            ("GRPO by steps with noise: an early window of two", "window_"),
            ("paper: 16 groups, different noise", "paper_"),
            ("paper: 4 groups, different noise", "paper_four_groups_"),
            ("paper: 4 groups, same noise", "paper_four_groups_same_noise_"),
        ),
        columns=_ABLATION,
        digits=4,
    ),
    "alignment_ablations_triple_rate": Grid(
        rows=(
            ("the recipe, 16 groups a step", "recipe_"),
            ("the same, refined prompts", "refined_"),
            ("the same, no guards, no divergence either", "no_guards_"),
            ("credit by whole video: mean person only", "whole_video_mean_"),
            ("the same, worst person only", "whole_video_worst_"),
            ("best of n, supervised", "best_of_n_"),
            ("GRPO by steps with noise: an early window of two", "window_"),
            ("paper: 16 groups, same noise", "paper_same_noise_"),
        ),
        columns=_ABLATION,
        digits=4,
    ),
    "grpo_cost": (
        Row("paper_s_per_video", "paper's recipe: seconds a training video", unit=" s", digits=1),
        Row("paper_of_official", "the same as a share of the released code's 30.9 s", high=0.7),
        Row("paper_peak_gib", "its memory", unit=" GiB", digits=1),
        Row("fast_s_per_video", "fast recipe: seconds a training video", unit=" s", digits=1),
        Row("fast_of_official", "the same as a share of the released code's 30.9 s", high=0.2),
        Row("fast_peak_gib", "its memory", unit=" GiB", digits=1),
        Row("two_gpu_speedup", "fast recipe: videos a second of two GPUs over those of one", 1.8),
        Row(
            "fsdp_14b_peak_gib",
            "VACE-14B spread over two GPUs: memory of each, loading included",
            unit=" GiB",
        ),
        Row("fsdp_14b_step_peak_gib", "the same after loading", unit=" GiB"),
        Row("fsdp_14b_videos_per_s_2", "VACE-14B on two GPUs: videos a second", digits=3),
    ),
    "generate": (
        Row("seconds", "making the video", high=20, unit=" s", digits=1),
        Row("load_seconds", "loading the model before it", unit=" s", digits=1),
        Row("peak_memory_gib", "peak memory of the process", high=3, unit=" GiB"),
    ),
}


def documents(root: Path) -> list[Path]:
    """The files that may hold tables."""
    cards = root.glob("igrpo_sdk/assets/*/README.md")
    return [root / "README.md", *sorted(root.glob("docs/*.md")), *sorted(cards)]


def names(text: str) -> list[str]:
    """Names of the tables of a document. Raises ValueError when marks do not pair up."""
    found = [match["name"] for match in _TABLE.finditer(text)]
    if len(_MARK.findall(text)) != 2 * len(found):
        raise ValueError("every `<!-- table: NAME -->` needs its own `<!-- end -->`, each on its own line")
    return found


def fill(text: str, results: Path) -> str:
    """The document with its tables written anew from the files in `results`.

    Raises ValueError for marks that do not pair up and for a table that `TABLES` does not know.
    """
    names(text)
    return _TABLE.sub(lambda match: _marked(match["name"], results), text)


def _marked(name: str, results: Path) -> str:
    if name not in TABLES:
        raise ValueError(f"no table {name!r}: there are {', '.join(TABLES)}")
    file = results / f"{name}.json"
    body = table(name, json.loads(file.read_text("utf-8"))) if file.is_file() else NOT_MEASURED
    return f"<!-- table: {name} -->\n{body}<!-- end -->"


def table(name: str, content: Mapping[str, Any]) -> str:
    """The Markdown table `name` of the content of a results file, and below it how it was measured.

    What the file does not have was not measured, and has no row.
    """
    kind = TABLES[name]
    lines = _grid(kind, content["metrics"]) if isinstance(kind, Grid) else _list(kind, content["metrics"])
    where = f"Measured on {content['date']}: {content['hardware']}. To repeat it: `{content['command']}`;"
    return "\n".join([*lines, "", where, f"versions and notes are in `docs/results/{name}.json`.", ""])


def _list(rows: tuple[Row, ...], metrics: Mapping[str, Any]) -> list[str]:
    """A line for each number: value, interval, bar, verdict."""
    details = metrics.get("details", {})
    with_bar = any(row.bar for row in rows)
    with_interval = any(details.get(row.metric, {}).get("low") is not None for row in rows)
    head = ["", "measured", *["95 % interval"] * with_interval, *["bar", ""] * with_bar]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in (row for row in rows if row.metric in metrics):
        value, detail = metrics[row.metric], details.get(row.metric, {})
        cells = [row.words, f"none: {detail.get('reason')}" if value is None else row.show(value)]
        if with_interval:
            low, high = detail.get("low"), detail.get("high")
            cells.append("" if low is None else f"{row.show(low)} to {row.show(high)}")
        lines.append(_line([*cells, *[row.bar, row.verdict(value)] * with_bar]))
    return lines


def _grid(grid: Grid, metrics: Mapping[str, Any]) -> list[str]:
    """A line for each group, a column for each kind of number, with 95 % intervals."""
    lines = [_line(["mean (95 % interval)", *(words for words, _ in grid.columns)])]
    lines.append(_line(["---"] * (1 + len(grid.columns))))
    for words, prefix in grid.rows:
        if any(prefix + name in metrics for _, name in grid.columns):
            cells = (_cell(metrics, prefix + name, grid.digits) for _, name in grid.columns)
            lines.append(_line([words, *cells]))
    return lines


def _cell(metrics: Mapping[str, Any], name: str, digits: int) -> str:
    value, detail = metrics.get(name), metrics.get("details", {}).get(name, {})
    if value is None:
        return "none" if name in metrics else ""
    low, high = detail.get("low"), detail.get("high")
    show = f"{{:.{digits}f}}".format
    return show(value) if low is None else f"{show(value)} ({show(low)} to {show(high)})"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def problems(content: Any) -> Iterator[str]:
    """What is wrong with the content of a results file: missing keys, numbers that are none, no reason."""
    if not isinstance(content, dict) or set(content) != set(KEYS):
        yield f"the keys must be {', '.join(KEYS)}"
        return
    for key in ("command", "hardware", "date"):
        if not isinstance(content[key], str) or not content[key]:
            yield f"{key} must say something"
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(content["date"])):
        yield "date must be YYYY-MM-DD"
    if not isinstance(content["metrics"], dict) or not content["metrics"]:
        yield "metrics must hold numbers"
        return
    yield from _bad_numbers(content["metrics"], content["metrics"].get("details", {}), "metrics")


def _bad_numbers(group: Mapping[str, Any], details: Mapping[str, Any], where: str) -> Iterator[str]:
    """Every number must be finite; a null needs a reason: an estimate its own, a metric its details'."""
    for name, value in group.items():
        if name == "reason" or (value is None and name in ("low", "high")):  # an estimate without an interval
            continue
        if isinstance(value, list):
            yield from _bad_numbers({str(k): one for k, one in enumerate(value)}, {}, f"{where}.{name}")
        elif isinstance(value, dict):
            yield from _bad_numbers(value, {}, f"{where}.{name}")
        elif value is None:
            if not (group if name == "value" else details.get(name, {})).get("reason"):
                yield f"{where}.{name} is null without a reason"
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f"{where}.{name} is {value!r}, no finite number"


def main() -> None:
    """Write the tables of all documents."""
    for path in documents(ROOT):
        old = path.read_text("utf-8")
        new = fill(old, ROOT / "docs" / "results")
        if new != old:
            path.write_text(new, "utf-8")
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
