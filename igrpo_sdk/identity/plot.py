"""A picture of an identity report: one curve a person, their faces over time under it, switches marked."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import DependencyError, InputError
from igrpo_sdk.identity.numbers import Box, ReportNumbers
from igrpo_sdk.identity.packs import name_pack
from igrpo_sdk.identity.people import Person
from igrpo_sdk.media.files import check_output_path, written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLOT_SUFFIXES", "draw_report", "save_plot"]

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
"""The file types that a plot is written as."""

# Okabe and Ito's colours, told apart by colour-blind readers too; line styles do the same in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_LINES = ("-", "--", "-.", ":")
_INK, _FAINT, _EMPTY = "#333333", "#8A8A8A", "#F1F1F1"
_FACES = 10  # faces a person at most
# Inches.
_WIDTH, _LEFT, _RIGHT, _TOP, _CURVES, _HEADER, _BOTTOM = 10.0, 1.25, 0.35, 0.95, 2.6, 0.3, 0.2


def save_plot(
    report: ReportNumbers,
    frames: NDArray[np.uint8],
    path: str | os.PathLike[str],
    people: Sequence[Person] = (),
    overwrite: bool = False,
) -> Path:
    """Draw a report and write the picture (.png, .svg or .pdf); returns its path.

    The file appears whole or not at all. Arguments are those of `draw_report`; raises InputError and
    ResourceError as `files.check_output_path` does.
    """
    target = check_output_path(path, overwrite, PLOT_SUFFIXES)
    figure = draw_report(report, frames, people)
    with written_whole(target, overwrite) as partial:
        figure.savefig(partial, dpi=150)
    return target


def draw_report(report: ReportNumbers, frames: NDArray[np.uint8], people: Sequence[Person] = ()) -> Figure:
    """A matplotlib figure of a report.

    Args:
        report: what was measured.
        frames: the frames it was measured on, uint8 (T, H, W, 3).
        people: of the references, as `people.find_people` gives them, to show their pictures.

    Raises InputError when frames or people are not those of the report, DependencyError without matplotlib.
    """
    if len(frames) != len(report.frame_numbers):
        raise InputError(f"frames: {len(frames)} given for a report of {len(report.frame_numbers)}")
    if people and len(people) != len(report.people):
        raise InputError(f"people: {len(people)} given for a report of {len(report.people)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(
            f"matplotlib cannot be imported ({error}): pip install 'igrpo-sdk[faces]'"
        ) from None
    shown = range(0, len(frames), math.ceil(len(frames) / _FACES))
    # Faces are squares that stand under their frames: their size follows from the width of the curves.
    face = min(0.95 * (_WIDTH - _LEFT - _RIGHT) / len(shown), 0.8)
    height = _TOP + _CURVES + 0.55 + len(report.people) * (_HEADER + face) + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    curves = _axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _CURVES)
    numbers = report.frame_numbers
    room = (numbers[shown[1]] - numbers[0]) / 2 if len(shown) > 1 else 0.5
    limits = (numbers[0] - room, max(numbers[-1], numbers[shown[-1]] + room))
    _draw_curves(curves, report, limits)
    _draw_title(figure, report)
    top = _TOP + _CURVES + 0.55
    for k in range(len(report.people)):
        _draw_header(figure, report, k, top)
        row = _axes(figure, _LEFT, top + _HEADER, _WIDTH - _LEFT - _RIGHT, face)
        _draw_faces(row, report, k, frames, shown, limits)
        if people:
            box = _axes(figure, _LEFT - face - 0.16, top + _HEADER, face, face)
            _draw_reference(box, people[k], _colour(k))
        top += _HEADER + face
    return figure


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the upper left corner."""
    whole_width, whole_height = figure.get_size_inches()
    low = 1 - (top + height) / whole_height
    return figure.add_axes((left / whole_width, low, width / whole_width, height / whole_height))


def _draw_title(figure: Figure, report: ReportNumbers) -> None:
    """What the report comes down to, in one line."""
    height = figure.get_size_inches()[1]
    left = _LEFT / _WIDTH
    worst = report.people[report.worst_person]
    switches = f"{len(report.switches)} switch" + ("" if len(report.switches) == 1 else "es")
    facts = [f"mean similarity {report.mean:.2f}"]
    if len(report.people) > 1:
        facts.append(f"worst {_short(worst.name)} {worst.mean:.2f}")
    facts += [switches, f"faces found by {name_pack(report.analyzer)}"]
    figure.text(
        left, 1 - 0.28 / height, "Who is in the video, and how much like themselves", size=13, color=_INK
    )
    figure.text(left, 1 - 0.53 / height, "   ·   ".join(facts), size=9.5, color=_FAINT)


def _draw_curves(axes: Axes, report: ReportNumbers, limits: tuple[float, float]) -> None:
    """Similarity over time, the threshold, and the switches."""
    numbers = np.array(report.frame_numbers)
    style: dict[str, Any] = {"linewidth": 2, "markersize": 3.5, "clip_on": False, "zorder": 3}
    style["marker"] = "o" if len(numbers) <= 60 else None
    for k, person in enumerate(report.people):
        line = _LINES[k % len(_LINES)]
        axes.plot(numbers, person.similarity, line, color=_colour(k), label=_short(person.name), **style)
    axes.axhline(report.same_person, color=_FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    right = axes.get_yaxis_transform()  # x as a share of the width, y as the data's
    text: dict[str, Any] = {"ha": "right", "va": "bottom", "size": 8, "color": _FAINT, "transform": right}
    axes.text(0.998, report.same_person + 0.012, report.threshold_words, **text)
    frames = sorted({report.frame_numbers[switch.frame] for switch in report.switches})
    for frame in frames:
        axes.axvline(frame, color=_INK, linewidth=1, linestyle=(0, (1, 2)), zorder=2)
    if frames:
        mark: dict[str, Any] = {"color": _INK, "markersize": 7, "clip_on": False, "zorder": 4}
        axes.plot(frames, [1.0] * len(frames), "v", label="switch of identity", **mark)
    axes.set_xlim(*limits)
    axes.set_ylim(0, 1)
    _dress(axes)


def _dress(axes: Axes) -> None:
    """Labels, ticks, grid and legend of the curves."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel("similarity to the reference", size=9, color=_INK)
    axes.set_xlabel("frame", size=9, color=_INK, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8.5, colors=_INK, length=3)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8, zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.005),
        ncols=5,
        frameon=False,
        fontsize=9,
        handlelength=2.6,
        columnspacing=2.0,
        borderaxespad=0.2,
    )


def _draw_header(figure: Figure, report: ReportNumbers, k: int, top: float) -> None:
    """A person's name and numbers over their faces."""
    person, height = report.people[k], figure.get_size_inches()[1]
    low = 1 - (top + _HEADER - 0.09) / height
    facts = [f"mean {person.mean:.2f}", f"seen in {person.coverage:.0%} of frames"]
    facts += [f"recognised in {person.recognition:.0%}", f"copy-paste {person.copy_paste:.2f}"]
    name = figure.text(_LEFT / _WIDTH, low, _short(person.name), size=9.5, color=_colour(k), weight="bold")
    from matplotlib.text import Annotation

    figure.add_artist(
        Annotation("   " + "   ·   ".join(facts), (1, 0), xycoords=name, va="bottom", size=9, color=_FAINT)
    )


def _draw_faces(
    axes: Axes,
    report: ReportNumbers,
    k: int,
    frames: NDArray[np.uint8],
    shown: Sequence[int],
    limits: tuple[float, float],
) -> None:
    """Person k's faces, each under its frame: framed in colour where recognised, empty where not seen."""
    person, width = report.people[k], axes.get_position().width * _WIDTH
    height = axes.get_position().height * axes.figure.get_size_inches()[1]  # type: ignore[union-attr]
    half = height / width * (limits[1] - limits[0]) / 2
    for t in shown:
        x, box = report.frame_numbers[t], person.boxes[t]
        extent = (x - half, x + half, 0.0, 1.0)
        recognised = person.recognised[t]
        if box is not None:
            axes.imshow(_square(frames[t], box), extent=extent, aspect="auto", interpolation="bilinear")
        else:
            axes.text(x, 0.5, "not seen", ha="center", va="center", size=8, color=_FAINT)
        _frame(axes, extent, _colour(k) if recognised else _FAINT, 2.0 if recognised else 0.8, box is None)
    axes.set_xlim(*limits)
    axes.set_ylim(0, 1)
    axes.axis("off")


def _draw_reference(axes: Axes, person: Person, colour: str) -> None:
    """The face that is looked for."""
    x0, y0, x1, y1 = person.face.box.tolist()
    picture = _square(person.picture, (x0, y0, x1, y1))
    axes.imshow(picture, extent=(0, 1, 0, 1), aspect="auto", interpolation="bilinear")
    _frame(axes, (0.0, 1.0, 0.0, 1.0), colour, 2.0, False)
    axes.text(0.5, 1.06, "reference", ha="center", va="bottom", size=8, color=_FAINT)
    axes.axis("off")


def _frame(
    axes: Axes, extent: tuple[float, float, float, float], colour: str, width: float, fill: bool
) -> None:
    """A frame around a face, or a grey field where there is none."""
    from matplotlib.patches import Rectangle

    left, right, low, high = extent
    options: dict[str, Any] = {"edgecolor": colour, "linewidth": width, "clip_on": False}
    options |= {"facecolor": _EMPTY, "zorder": 0} if fill else {"fill": False, "zorder": 5}
    axes.add_patch(Rectangle((left, low), right - left, high - low, **options))


def _square(frame: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The part of a frame around a box: a square with some room, moved into the frame as far as it fits."""
    x0, y0, x1, y1 = box
    height, width = frame.shape[:2]
    side = min(max(4, round(1.4 * max(x1 - x0, y1 - y0))), height, width)
    left = min(max(round((x0 + x1 - side) / 2), 0), width - side)
    top = min(max(round((y0 + y1 - side) / 2), 0), height - side)
    return frame[top : top + side, left : left + side]


def _colour(k: int) -> str:
    return _COLOURS[k % len(_COLOURS)]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"
