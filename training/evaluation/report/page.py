"""`report.html`: an evaluation as one page that needs nothing else, not even a network."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igrpo_sdk.media.decoding import sample_frames
from igrpo_sdk.references import Reference

from ...common.statistics import Estimate
from ..comparing import ALL, METRICS, Comparison, Results, Row, groups, overall
from ..measures import Measures, video_file
from . import plots

STYLE = (Path(__file__).parent / "assets" / "report.css").read_text("utf-8")
BARS = ("owned", "judge_owned", "similarity", "judge_similarity", "prompt_following")
SHEET_FRAMES = 6
_REFERENCE_SIDE, _FRAME_SIDE = 112, 240  # pixels, the longer side
_COLUMNS = ("similarity", "worst", "owned", "judge_similarity", "judge_owned", "prompt_following", "switches")
_MOST_WARNINGS = 40


@dataclass(frozen=True)
class Evaluation:
    """What a page shows: for each system the measures of the same cases and the folder of its videos; the
    rows of `comparing.table`; facts in words, name to value; notes on the method; warnings.
    """

    results: Results
    videos: Mapping[str, Path]
    rows: Mapping[str, Sequence[Row]]
    facts: Mapping[str, str]
    notes: Sequence[str]
    warnings: Sequence[str]


def page(found: Evaluation) -> str:
    """The page, a whole HTML document."""
    body = "\n".join(_sections(found))
    title = "Identity evaluation"
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
        f"<h1>{title}</h1>\n{body}\n</main></body></html>\n"
    )


def _sections(found: Evaluation) -> Iterator[str]:
    base, measures = next(iter(found.results.items()))
    yield _facts(found.facts)
    yield _warnings(found.warnings)
    yield _tables(found, ALL)
    yield _pictures(found)
    parts = [group for group in found.rows if group != ALL]
    yield "<section><h2>Best, median and worst cases</h2><p>Ranked by the similarity that the analyzer "
    yield f"measures in {_text(base)}. Numbers: the similarity of each person.</p>"
    for group in parts or [ALL]:
        yield from _sheets(found, group, groups(measures)[group])
    yield "</section>"
    yield from (_tables(found, group) for group in parts)
    yield _per_case(found.results)
    notes = "".join(f"<li>{_text(note)}</li>" for note in found.notes)
    yield f"<section><h2>How it was measured</h2><ul>{notes}</ul></section>"


def _tables(found: Evaluation, group: str) -> str:
    """The numbers and the comparisons of one group."""
    title = "All cases" if group == ALL else f"Part: {group}"
    count = len(groups(next(iter(found.results.values())))[group])
    rows = found.rows[group]
    head = f"<h2>{_text(title)} <small>{_cases(count)}</small></h2>"
    return f"<section>{head}{_numbers(rows)}{_pairs(rows)}</section>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    return f"<section><h2>What was run</h2><dl>{rows}</dl></section>"


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    shown = "".join(f"<li>{_text(warning)}</li>" for warning in warnings[:_MOST_WARNINGS])
    more = len(warnings) - _MOST_WARNINGS
    rest = f"<p>and {more} more, in the files of the measures.</p>" if more > 0 else ""
    summary = f"{len(warnings)} warning{'s' * (len(warnings) > 1)}"
    return f"<section><details><summary>{summary}</summary><ul>{shown}</ul>{rest}</details></section>"


def _numbers(rows: Sequence[Row]) -> str:
    """The table of the systems' numbers."""
    names = list(rows[0].values)
    head = ["number", "by", *names]
    body = [
        [f"{_text(row.words)}{_arrow(row.better)}", _text(row.by), *(_estimate(row.values[n]) for n in names)]
        for row in rows
    ]
    return _table("Means over cases with 95 % intervals", head, body)


def _pairs(rows: Sequence[Row]) -> str:
    """The tables of the paired comparisons."""
    base = next(iter(rows[0].values))
    parts = []
    for name in rows[0].against:
        body = [
            [
                f"{_text(row.words)}{_arrow(row.better)}",
                _text(row.by),
                _difference(row.against[name], row.better),
                "" if row.against[name].wins is None else f"{100 * (row.against[name].wins or 0):.0f} %",
            ]
            for row in rows
        ]
        head = ["number", "by", f"{name} minus {base}", f"{name} wins"]
        parts.append(_table(f"{name} against {base}, case by case", head, body))
    return "".join(parts)


def _table(caption: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways on a narrow screen; `body` is HTML, `caption` and `head` are text."""
    titles = "".join(f'<th scope="col">{_text(title)}</th>' for title in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in body
    )
    table = f"<caption>{_text(caption)}</caption><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody>"
    label = html.escape(caption, quote=True)
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>{table}</table></div>'


def _estimate(value: Estimate) -> str:
    if value.value is None:
        return f'<span class="none">{_text(value.reason or "not measured")}</span>'
    return f"<b>{value.value:z.3f}</b> {_interval(value)}"


def _difference(comparison: Comparison, better: int) -> str:
    value = comparison.difference
    if value.value is None:
        return f'<span class="none">{_text(value.reason or "not measured")}</span>'
    sure = value.low is not None and value.high is not None and (value.low > 0 or value.high < 0)
    kind = "" if not (sure and better) else "good" if better * value.value > 0 else "bad"
    words = {"good": " better", "bad": " worse", "": ""}[kind]
    return f'<b class="{kind}">{value.value:+z.3f}{words}</b> {_interval(value)}'


def _interval(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return f'<span class="interval">n={value.count}</span>'
    return f'<span class="interval">{value.low:z.3f} to {value.high:z.3f}, n={value.count}</span>'


def _arrow(better: int) -> str:
    words = {1: "higher is better", -1: "lower is better"}
    return (
        ""
        if not better
        else f' <span class="way" title="{words[better]}">{"↑" if better > 0 else "↓"}</span>'
    )


def _pictures(found: Evaluation) -> str:
    keys = [key for key in BARS if any(row.key == key for rows in found.rows.values() for row in rows)]
    figures = [
        (
            plots.bars(found.rows, keys),
            "Means by part, bars with 95 % intervals; the tables hold the numbers.",
        ),
        (plots.distributions(found.results), "A dot a video; lines: the middle half, ticks: medians."),
        (plots.over_time(found.results), "Mean similarity over a clip; shaded: the middle half of people."),
    ]
    shown = "".join(
        f'<figure><img src="{plots.as_png(figure)}" alt="{html.escape(words)}">'
        f"<figcaption>{_text(words)}</figcaption></figure>"
        for figure, words in figures
    )
    return f'<section><h2>Plots</h2><div class="plots">{shown}</div></section>'


def _sheets(found: Evaluation, group: str, indices: Sequence[int]) -> Iterator[str]:
    """Best, median and worst case of a group, by the base; fewer cases are shown once each."""
    base = next(iter(found.results.values()))
    ranked = sorted(indices, key=lambda i: overall(base[i]), reverse=True)
    chosen = {ranked[len(ranked) // 2]: "median", ranked[-1]: "worst", ranked[0]: "best"}
    yield f"<h3>{_text('All cases' if group == ALL else group)}</h3>"
    for index in sorted(chosen, key=ranked.index):
        yield _sheet(found, index, chosen[index])


def _sheet(found: Evaluation, index: int, kind: str) -> str:
    """One case: prompt, references, frames of every system."""
    case = next(iter(found.results.values()))[index].case
    pictures = "".join(
        _picture(Reference.load(path).image, f"reference {k + 1}", _REFERENCE_SIDE)
        for k, path in enumerate(case.references)
    )
    strips = [f'<div class="strip references"><span>references</span>{pictures}</div>']
    for name, measures in found.results.items():
        path = video_file(found.videos[name], case)
        assert path is not None  # it was measured
        frames = sample_frames(path).frames
        some = frames[np.linspace(0, len(frames) - 1, min(SHEET_FRAMES, len(frames))).round().astype(int)]
        shown = "".join(_picture(frame, f"frame of {name}", _FRAME_SIDE) for frame in some)
        similarity = ", ".join(f"{person.mean:.2f}" for person in measures[index].report.people)
        strips.append(f'<div class="strip"><span><b>{_text(name)}</b> {similarity}</span>{shown}</div>')
    title = f"<h4>{kind}: {_text(case.id)}</h4><p class='prompt'>{_text(case.prompt)}</p>"
    return f'<article class="case">{title}{"".join(strips)}</article>'


def _picture(pixels: NDArray[np.uint8], words: str, side: int) -> str:
    """A picture as JPEG, its longer side at most `side` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    address = plots.data_address(buffer.getvalue(), "image/jpeg")
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="{address}" alt="{html.escape(words)}" {size} loading="lazy">'


def _per_case(results: Results) -> str:
    """The table of every case."""
    metrics = [metric for metric in METRICS if metric.key in _COLUMNS]
    known = [m for m in metrics if any(m.value(one) is not None for some in results.values() for one in some)]
    head = ["case", "part", "system", *(f"{metric.words} ({metric.by})" for metric in known)]
    body = [
        [
            _text(one.case.id),
            _text(one.case.part),
            _text(name),
            *(_cell(metric.value(one)) for metric in known),
        ]
        for row in zip(*results.values(), strict=True)
        for name, one in zip(results, row, strict=True)
    ]
    table = _table("Every case", head, body)
    return (
        f"<section><h2>Every case</h2><details><summary>{len(body)} rows</summary>{table}</details></section>"
    )


def _cell(value: float | None) -> str:
    return '<span class="none">none</span>' if value is None else f"{value:.3f}"


def _cases(count: int) -> str:
    return f"{count} case{'s' * (count != 1)}"


def _text(value: Any) -> str:
    return html.escape(str(value))


def all_warnings(results: Mapping[str, Sequence[Measures]]) -> list[str]:
    """The warnings of all measures, with system and case in front."""
    return [
        f"{name}, {one.case.id}: {warning}"
        for name, some in results.items()
        for one in some
        for warning in one.warnings
    ]
