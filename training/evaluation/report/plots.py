"""The plots of an evaluation, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from igrpo_sdk.errors import DependencyError

from ..comparing import ALL, Results, Row, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too; markers and hatches do the same in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS, _LINES, _HATCHES = "osD^vP*", ("-", "--", "-.", ":"), ("", "//", "..", "xx")
_INK, _FAINT = "#333333", "#8A8A8A"
_POINTS = 25  # of a clip's curve, whatever its length


def colour(index: int) -> str:
    """The colour of system `index`."""
    return COLOURS[index % len(COLOURS)]


def distributions(results: Results) -> Figure:
    """Similarity at the place (where nobody has a place: assigned) of every video, by analyzer and judge."""
    panels = [("owned", "similarity", "analyzer"), ("judge_owned", "judge_similarity", "judge")]
    shown = [(by, _first(results, placed, assigned)) for placed, assigned, by in panels]
    shown = [(by, key) for by, key in shown if key is not None]
    figure = _figure(6.4, 0.9 + (0.6 + 0.42 * len(results)) * len(shown))
    for axes, (by, key) in zip(_stack(figure, len(shown)), shown, strict=True):
        for k, videos in enumerate(results.values()):
            values = np.array(spread(videos, key or ""))
            level = len(results) - 1 - k
            jitter = np.random.default_rng(k).uniform(-0.25, 0.25, len(values))
            marker = _MARKERS[k % len(_MARKERS)]
            axes.plot(values, level + jitter, marker, color=colour(k), ms=3.5, alpha=0.45, mew=0)
            if len(values):
                low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
                axes.plot([low, high], [level, level], color=_INK, lw=1.5)
                axes.plot([middle], [level], "|", color=_INK, ms=16, mew=2.5)
        axes.set_yticks(range(len(results)), list(results)[::-1])
        axes.set_ylim(-0.6, len(results) - 0.4)
        axes.set_title(f"{_AXIS[key or '']}, by the {by}", loc="left", fontsize=10)
    return figure


_AXIS = {
    "owned": "similarity at the place",
    "judge_owned": "similarity at the place",
    "similarity": "similarity",
    "judge_similarity": "similarity",
}


def _first(results: Results, *keys: str) -> str | None:
    """The first of some metrics that is defined for a video."""
    return next((key for key in keys if any(spread(videos, key) for videos in results.values())), None)


def over_time(results: Results) -> Figure:
    """Mean similarity over the clip, by the analyzer, with the middle half of all people."""
    figure = _figure(6.4, 3.2)
    (axes,) = _stack(figure, 1)
    time = np.linspace(0, 1, _POINTS)
    for k, (name, videos) in enumerate(results.items()):
        curves = [
            np.interp(time, np.linspace(0, 1, len(person.similarity)), person.similarity)
            for measures in videos
            for person in measures.report.people
        ]
        low, high = np.quantile(curves, [0.25, 0.75], axis=0)
        axes.fill_between(time, low, high, color=colour(k), alpha=0.15, lw=0)
        line = _LINES[k % len(_LINES)]
        axes.plot(time, np.mean(curves, axis=0), line, color=colour(k), lw=2, label=name)
    axes.set_xticks([0, 0.5, 1], ["first frame", "middle", "last frame"])
    axes.set_ylabel("similarity")
    axes.legend(frameon=False, fontsize=9)
    return figure


def bars(rows: Mapping[str, Sequence[Row]], keys: Sequence[str]) -> Figure:
    """Some metrics by part, each a panel, with 95 % intervals."""
    found = {key: [_row(some, key) for some in rows.values()] for key in keys}
    found = {key: some for key, some in found.items() if any(some)}
    figure = _figure(6.4, 0.4 + 2.1 * len(found))
    for axes, some in zip(_stack(figure, len(found)), found.values(), strict=True):
        known = next(row for row in some if row)
        width = 0.8 / len(known.values)
        for k, name in enumerate(known.values):
            shift = (k - (len(known.values) - 1) / 2) * width
            for x, row in enumerate(some):
                if row is not None:
                    _bar(axes, x + shift, width, row, name, k)
        axes.axhline(0, color=_FAINT, lw=0.8)
        axes.set_xticks(range(len(rows)), ["all" if group == ALL else group for group in rows])
        axes.set_title(f"{known.words}, by the {known.by}", loc="left", fontsize=10)
    if found:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.axes[0].legend(unique.values(), unique.keys(), frameon=False, fontsize=9, ncols=4)
        low, high = figure.axes[0].get_ylim()
        figure.axes[0].set_ylim(low, high + 0.25 * (high - low))  # room for the legend
    return figure


def _bar(axes: Axes, x: float, width: float, row: Row, name: str, k: int) -> None:
    value = row.values[name]
    if value.value is None:
        return
    hatch = _HATCHES[k % len(_HATCHES)]
    axes.bar(x, value.value, 0.92 * width, color=colour(k), alpha=0.85, hatch=hatch, ec="white", label=name)
    if value.low is not None and value.high is not None:
        axes.plot([x, x], [value.low, value.high], color=_INK, lw=1.4)


def _row(rows: Sequence[Row], key: str) -> Row | None:
    return next((row for row in rows if row.key == key), None)


def require_matplotlib() -> None:
    """Raise DependencyError without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"matplotlib cannot be imported ({error}): pip install 'igrpo-sdk[faces]'"
        ) from None


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def _stack(figure: Figure, count: int) -> list[Axes]:
    """Panels one above the other."""
    panels = [figure.add_subplot(count, 1, k + 1) for k in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=9)
        axes.grid(axis="both", color="#E6E6E6", lw=0.6)
        axes.set_axisbelow(True)
    return panels
