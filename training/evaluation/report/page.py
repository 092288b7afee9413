"""`report.html`: an evaluation as one page that needs nothing else, not even a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igrpo_sdk.media.decoding import sample_frames
from igrpo_sdk.media.page import embed_figure, embed_picture, render_page
from igrpo_sdk.references import Reference

from ..comparing import ALL, LEAST_CASES, METRICS, Results, Row, groups, overall
from ..measures import Measures, video_file
from . import plots

_TEMPLATES = Path(__file__).parent / "assets"
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
    indices = groups(next(iter(found.results.values())))
    parts = [_group(found, name, some) for name, some in indices.items() if name != ALL]
    metrics = [metric for metric in METRICS if metric.key in _COLUMNS]
    known = [
        m for m in metrics if any(m.value(one) is not None for some in found.results.values() for one in some)
    ]
    return render_page(
        "report.html",
        _TEMPLATES,
        systems=list(found.results),
        facts=found.facts,
        notes=found.notes,
        warnings=found.warnings,
        most_warnings=_MOST_WARNINGS,
        least_cases=LEAST_CASES,
        whole=_group(found, ALL, indices[ALL], sheets=not parts),
        parts=parts,
        plots=_plots(found),
        columns=[f"{metric.words} ({metric.by})" for metric in known],
        cases=[
            (one.case, name, [metric.value(one) for metric in known])
            for row in zip(*found.results.values(), strict=True)
            for name, one in zip(found.results, row, strict=True)
        ],
    )


def _group(found: Evaluation, name: str, indices: Sequence[int], sheets: bool = True) -> dict[str, Any]:
    """The rows of one group, and the best, median and worst case by the base; fewer are shown once each."""
    base = next(iter(found.results.values()))
    ranked = sorted(indices, key=lambda i: overall(base[i]), reverse=True)
    chosen = {ranked[len(ranked) // 2]: "median", ranked[-1]: "worst", ranked[0]: "best"}
    shown = sorted(chosen, key=ranked.index) if sheets else []
    return {
        "name": "All cases" if name == ALL else name,
        "title": "All cases" if name == ALL else f"Part: {name}",
        "count": len(indices),
        "rows": found.rows[name],
        "sheets": [_sheet(found, index, chosen[index]) for index in shown],
    }


def _plots(found: Evaluation) -> dict[str, str]:
    """The addresses of the plots, by what they show."""
    keys = [key for key in BARS if any(row.key == key for rows in found.rows.values() for row in rows)]
    figures = {
        "Means by part, bars with 95 % intervals; the tables hold the numbers.": plots.bars(found.rows, keys),
        "A dot a video; lines: the middle half, ticks: medians.": plots.distributions(found.results),
        "Mean similarity over a clip; shaded: the middle half of people.": plots.over_time(found.results),
    }
    return {words: embed_figure(figure, 150) for words, figure in figures.items()}


def _sheet(found: Evaluation, index: int, kind: str) -> dict[str, Any]:
    """One case: references, and frames of every system with the similarity of each person."""
    case = next(iter(found.results.values()))[index].case
    strips = []
    for name, measures in found.results.items():
        path = video_file(found.videos[name], case)
        assert path is not None  # it was measured
        frames = sample_frames(path).frames
        some = frames[np.linspace(0, len(frames) - 1, min(SHEET_FRAMES, len(frames))).round().astype(int)]
        similarity = ", ".join(f"{person.mean:.2f}" for person in measures[index].report.people)
        strips.append((name, similarity, [embed_picture(frame, _FRAME_SIDE) for frame in some]))
    references = [embed_picture(Reference.load(path).image, _REFERENCE_SIDE) for path in case.references]
    return {"kind": kind, "case": case, "references": references, "strips": strips}


def all_warnings(results: Mapping[str, Sequence[Measures]]) -> list[str]:
    """The warnings of all measures, with system and case in front."""
    return [
        f"{name}, {one.case.id}: {warning}"
        for name, some in results.items()
        for one in some
        for warning in one.warnings
    ]
